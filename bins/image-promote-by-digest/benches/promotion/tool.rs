//! The programs that are measured, how each is told to copy an image with all its platforms, and one run of it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;
use towpath_sandbox::measured::Took;

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
        // What it complains of fits a pipe.
        let ended = Took::watch(&mut child, start, LOOK, LIMIT).await;
        let well = matches!(&ended, Ok((status, _)) if status.success());
        if !well {
            let _ = child.start_kill();
            let said = child.wait_with_output().await.unwrap().stderr;
            panic!(
                "{} from {from} to {to}: {ended:?}: {}",
                self.name,
                String::from_utf8_lossy(&said)
            );
        }
        ended.unwrap().1
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
