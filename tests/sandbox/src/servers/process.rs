//! One server's process: started, waited for until it listens, and quoted from when it fails.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::guardian::Guardian;
use crate::tools::outside::last_lines;

/// On a machine at rest a server is up within a second; a busy one gets time.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A process of the world with a log. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A server that listens. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    daemon: Daemon,
    address: SocketAddr,
}

impl Daemon {
    /// Starts it. Its output goes to `logs/NAME.log` in the world's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(guardian: &Guardian, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let logs = guardian.dir().join("logs");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        command
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Waits until `ready` answers something.
    ///
    /// # Errors
    /// When it ends, or nothing is answered within [`DEADLINE`]; with the last lines of its log. `becomes` says what it
    /// was to do, such as `listen`.
    pub(crate) async fn until<T>(
        &mut self,
        becomes: &str,
        mut ready: impl AsyncFnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = ready().await {
                return Ok(answer);
            }
            let name = &self.name;
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{name} ended with {status} before it could {becomes}: {}",
                    tail(&self.log)
                );
            }
            if start.elapsed() > DEADLINE {
                bail!(
                    "{name} does not {becomes} after {} s: {}",
                    DEADLINE.as_secs(),
                    tail(&self.log)
                );
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Its number; none once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// That it has ended although nobody stopped it, with what it logged last.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{} ended with {status}: {}", self.name, tail(&self.log)))
    }
}

impl Process {
    /// Starts a server that has been told to listen on `127.0.0.1:0`, and waits until it listens.
    ///
    /// Its output goes to `logs/NAME.log` in the world's folder.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen within [`DEADLINE`]; with the last lines of its log.
    pub(super) async fn start(guardian: &Guardian, name: &str, command: Command) -> anyhow::Result<Self> {
        let mut daemon = Daemon::start(guardian, name, command)?;
        let pid = daemon.pid().with_context(|| format!("{name} ended at once"))?;
        let address = daemon
            .until("listen", async || listening_addresses(pid).into_iter().next())
            .await?;
        Ok(Self { daemon, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn log(&self) -> &Path {
        &self.daemon.log
    }

    /// Has the server stand still, as one that hangs, until [`Process::resume`]: connections are taken and not answered.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let name = &self.daemon.name;
        let pid = self.daemon.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.with_context(|| format!("{name} has ended"))?;
        kill_process(pid, signal).with_context(|| format!("signalling {name}"))
    }

    /// That the server has ended although nobody stopped it, with what it logged last.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.daemon.ended()
    }

    /// An error's text about this server, with what it logged last and whether it still runs.
    pub(super) fn complaint(&mut self, what: &str) -> String {
        let Daemon { name, child, log } = &mut self.daemon;
        let state = match child.try_wait() {
            Ok(Some(status)) => format!("it ended with {status}"),
            _ => "it still runs".to_owned(),
        };
        format!("{name} {what} ({state}): {}", tail(log))
    }
}

fn tail(log: &Path) -> String {
    last_lines(&fs::read_to_string(log).unwrap_or_default(), 15)
}

/// The addresses (IPv4) that a process listens on, as the kernel's socket table says.
pub(crate) fn listening_addresses(pid: u32) -> Vec<SocketAddr> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let open: Vec<String> = descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            Some(
                target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let listeners = table.lines().skip(1).filter_map(parse_listener);
    listeners
        .filter(|(_, inode)| open.iter().any(|socket| socket == inode))
        .map(|(address, _)| address)
        .collect()
}

/// Address and inode of a line of `/proc/net/tcp`, when it is a listening socket.
fn parse_listener(line: &str) -> Option<(SocketAddr, &str)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    // The kernel prints the address as one number in the machine's own byte order.
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some((
        SocketAddr::from((address, u16::from_str_radix(port, 16).ok()?)),
        inode,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_are_read_from_the_table() {
        let line = "   0: 0100007F:B63D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 30546 2 0";
        if cfg!(target_endian = "little") {
            assert_eq!(
                parse_listener(line),
                Some((([127, 0, 0, 1], 46653).into(), "30546"))
            );
        }
        assert_eq!(parse_listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse_listener(""), None);
    }

    #[test]
    fn the_kernel_knows_what_this_process_listens_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Other tests of this program may listen as well, so the socket is looked for by its port.
        let port = listener.local_addr().unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(
            table
                .lines()
                .filter_map(parse_listener)
                .any(|(address, _)| address == port)
        );
        assert!(listening_addresses(std::process::id()).contains(&port));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_server_that_ends_is_quoted() {
        let guardian = Guardian::start().unwrap();
        let mut command = guardian.bare_command("sh");
        command.args(["-c", "echo no such configuration >&2; exit 7"]);
        let error = Process::start(&guardian, "broken", command)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "broken ended with exit status: 7 before it could listen: \n    no such configuration"
        );
        guardian.stop().await.unwrap();
    }
}
