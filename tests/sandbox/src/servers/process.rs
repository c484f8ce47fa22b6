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

/// A server that listens. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Process {
    /// Starts a server that has been told to listen on `127.0.0.1:0`, and waits until it listens.
    ///
    /// Its output goes to `logs/NAME.log` in the world's folder.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen within [`DEADLINE`]; with the last lines of its log.
    pub(super) async fn start(guardian: &Guardian, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let logs = guardian.dir().join("logs");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        command
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        let start = Instant::now();
        loop {
            if let Some(address) = listening_address(pid) {
                return Ok(Self {
                    name: name.to_owned(),
                    child,
                    log,
                    address,
                });
            }
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status} before it listened: {}", tail(&log));
            }
            if start.elapsed() > DEADLINE {
                bail!(
                    "{name} does not listen after {} s: {}",
                    DEADLINE.as_secs(),
                    tail(&log)
                );
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
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
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.with_context(|| format!("{} has ended", self.name))?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// That the server has ended although nobody stopped it, with what it logged last.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{} ended with {status}: {}", self.name, tail(&self.log)))
    }

    /// An error's text about this server, with what it logged last and whether it still runs.
    pub(super) fn complaint(&mut self, what: &str) -> String {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("it ended with {status}"),
            _ => "it still runs".to_owned(),
        };
        format!("{} {what} ({state}): {}", self.name, tail(&self.log))
    }
}

fn tail(log: &Path) -> String {
    last_lines(&fs::read_to_string(log).unwrap_or_default(), 15)
}

/// The loopback address that a process listens on, as the kernel's socket table says.
fn listening_address(pid: u32) -> Option<SocketAddr> {
    let open: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
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
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let (address, inode) = parse_listener(line)?;
        open.iter().any(|socket| socket == inode).then_some(address)
    })
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
        assert!(listening_address(std::process::id()).is_some());
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
            "broken ended with exit status: 7 before it listened: \n    no such configuration"
        );
        guardian.stop().await.unwrap();
    }
}
