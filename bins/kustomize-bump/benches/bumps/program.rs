//! What is measured: our binary, and a shell script of the peer's commands, each to its end.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use towpath_sandbox::measured::Took;

use crate::world::World;

pub(crate) const RUNS: usize = 9;
/// Fewer, since a run takes so long.
pub(crate) const PEER_RUNS: usize = 3;
/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(600);
/// Programs that end within a fraction of a second have to be looked at often.
const LOOK: Duration = Duration::from_millis(1);

/// Runs our binary against a world and gives its report.
pub(crate) async fn ours(world: &World, arguments: &[&str]) -> (serde_json::Value, Took) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kustomize-bump"));
    command
        .args(arguments)
        .env_clear()
        .envs(world.environment())
        .current_dir(world.folder.path());
    let (said, took) = watch(command).await;
    (serde_json::from_str(&said).unwrap(), took)
}

/// Runs a shell script in an empty folder, with the repository's address in `REPOSITORY`.
pub(crate) async fn script(world: &World, script: &str) -> Took {
    let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
    watch(shell(world, script, folder.path())).await.1
}

/// The peer: what a job does that has git and kustomize.
pub(crate) struct Peer {
    pub(crate) version: String,
}

impl Peer {
    /// Looks for it on `PATH`.
    pub(crate) async fn find() -> Option<Self> {
        let output = Command::new("kustomize").arg("version").output().await.ok()?;
        let version = String::from_utf8(output.stdout).ok()?;
        Some(Peer {
            version: version.trim().trim_start_matches('v').to_owned(),
        })
    }

    /// Clones the newest commit of a repository, runs `edit` in the clone, commits and pushes.
    pub(crate) async fn change(&self, world: &World, edit: &str) -> Took {
        let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
        let script = format!(
            "set -e\n\
             git clone --quiet --depth=1 \"$REPOSITORY\" clone\n\
             cd clone\n\
             {edit}\n\
             git commit --quiet --all --message 'Set an image'\n\
             git push --quiet origin main\n"
        );
        watch(shell(world, &script, folder.path())).await.1
    }
}

/// Git finds its credentials in the address here: what is measured is its work, not its manners.
fn shell(world: &World, script: &str, folder: &Path) -> Command {
    let address = world.url().replace("://", &format!("://oauth2:{}@", world.token));
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .env_clear()
        .envs(crate::world::scrubbed(folder))
        .env("REPOSITORY", address)
        .envs([
            ("GIT_AUTHOR_NAME", "Ada"),
            ("GIT_AUTHOR_EMAIL", "ada@example.com"),
        ])
        .envs([
            ("GIT_COMMITTER_NAME", "Ada"),
            ("GIT_COMMITTER_EMAIL", "ada@example.com"),
        ])
        .current_dir(folder);
    command
}

async fn watch(mut command: Command) -> (String, Took) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut said, mut complaints) = (String::new(), String::new());
    let (ended, read, complained) = tokio::join!(
        Took::watch(&mut child, start, LOOK, LIMIT),
        stdout.read_to_string(&mut said),
        stderr.read_to_string(&mut complaints),
    );
    read.unwrap();
    complained.unwrap();
    let (status, took) = ended.unwrap();
    assert!(status.success(), "{command:?}: {complaints}");
    (said, took)
}
