//! The programs that are measured, how each is told to copy an image with all its platforms, and one run of it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::world::World;

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the peak of a program's memory is looked at. The last look counts: the kernel keeps the peak itself.
const LOOK: Duration = Duration::from_millis(5);
/// The peers' work: they leave behind what refers to an image unless they are told otherwise.
const OWN_FLAGS: [&str; 2] = ["--referrers", "none"];

/// One program.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// What it says of itself.
    pub(crate) version: String,
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// The most memory it held, in MiB (`VmHWM`).
    pub(crate) peak: f64,
}

const OWN: &str = "image-promote-by-digest";
const PEERS: [(&str, &[&str]); 3] = [
    ("crane", &["version"]),
    ("skopeo", &["--version"]),
    ("regctl", &["version", "--format", "{{.VCSTag}}"]),
];

impl Tool {
    /// Ours and the peers that are here, and the names of those that are not.
    pub(crate) async fn all(world: &World) -> (Vec<Self>, Vec<&'static str>) {
        let mut here = vec![Tool {
            name: OWN,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }];
        let mut absent = Vec::new();
        for (name, arguments) in PEERS {
            match world.guardian.bare_command(name).args(arguments).output().await {
                Ok(output) if output.status.success() => {
                    let said = String::from_utf8(output.stdout).unwrap();
                    let version = said.split_whitespace().last().unwrap_or_default();
                    here.push(Tool {
                        name,
                        version: version.trim_start_matches('v').to_owned(),
                    });
                }
                _ => absent.push(name),
            }
        }
        (here, absent)
    }

    /// Copies an image once, over plain http.
    pub(crate) async fn copy(&self, world: &World, from: &str, to: &str) -> Took {
        let mut command = self.command(world, from, to);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().unwrap();
        let status = format!("/proc/{}/status", child.id().unwrap());
        let mut peak = 0.0;
        // What it complains of fits a pipe.
        let ended = async {
            loop {
                if let Ok(ended) = tokio::time::timeout(LOOK, child.wait()).await {
                    return ended.unwrap();
                }
                peak = peak_of(&status).unwrap_or(peak);
            }
        };
        let ended = tokio::time::timeout(LIMIT, ended).await;
        let seconds = start.elapsed().as_secs_f64();
        let well = matches!(&ended, Ok(status) if status.success());
        if !well {
            let _ = child.start_kill();
            let said = child.wait_with_output().await.unwrap().stderr;
            panic!(
                "{} from {from} to {to}: {ended:?}: {}",
                self.name,
                String::from_utf8_lossy(&said)
            );
        }
        Took { seconds, peak }
    }

    fn command(&self, world: &World, from: &str, to: &str) -> Command {
        let hosts = [from, to].map(|reference| reference.split('/').next().unwrap().to_owned());
        let mut command = match self.name {
            OWN => {
                let mut command = world.command(&OWN_FLAGS);
                command.args([from, to]);
                return command;
            }
            "regctl" => {
                let mut command = world.guardian.bare_command(self.name);
                for host in hosts {
                    command.args(["--host", &format!("reg={host},tls=disabled")]);
                }
                command.args(["image", "copy", from, to]);
                command
            }
            "skopeo" => {
                let mut command = world.guardian.bare_command(self.name);
                // It remembers which blobs are where: as root in a folder of the system, unless it takes itself for
                // another user. A job of a pipeline starts with an empty one.
                static TAKEN: AtomicU32 = AtomicU32::new(0);
                command.env("_CONTAINERS_ROOTLESS_UID", "1");
                command.env("XDG_DATA_HOME", new_folder(world, &TAKEN));
                command
                    .args(["--insecure-policy", "copy", "--all", "--preserve-digests"])
                    .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
                    .args([format!("docker://{from}"), format!("docker://{to}")]);
                command
            }
            _ => {
                let mut command = world.guardian.bare_command(self.name);
                command.args(["copy", "--insecure", from, to]);
                command
            }
        };
        command.env("DOCKER_CONFIG", world.path("docker"));
        command
    }
}

/// A folder that nothing has used before.
fn new_folder(world: &World, taken: &AtomicU32) -> PathBuf {
    world.path(&format!("memory-{}", taken.fetch_add(1, Ordering::Relaxed)))
}

/// In MiB; none once the process has ended.
fn peak_of(status: &str) -> Option<f64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes / 1024.0)
}
