//! Runs over the API that are killed at a request.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokio::process::Command;

use super::World;

/// A run that can be killed once it is known by its number.
pub(crate) type Victim = Arc<AtomicU32>;

/// Kills the run that is under way when the request of this number comes in. GitLab goes on with it, or never sees it whole.
pub(crate) fn kill_at(world: &World, number: usize) -> Victim {
    let process = Victim::default();
    let (victim, count) = (process.clone(), AtomicUsize::new(0));
    world.gitlab.trouble(move |_, _| {
        if count.fetch_add(1, Ordering::SeqCst) + 1 == number {
            kill(&victim);
        }
        None
    });
    process
}

pub(crate) fn kill(process: &Victim) {
    let process = process.load(Ordering::SeqCst).to_string();
    let killed = std::process::Command::new("kill").args(["-9", &process]).status();
    assert!(killed.unwrap().success());
}

/// Runs it with its number known; the exit code, -1 for one that was killed.
pub(crate) async fn known_by_number(world: &World, process: &Victim, arguments: &[&str]) -> i32 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kustomize-bump"))
        .args(arguments)
        .env_clear()
        .envs(&world.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    process.store(child.id().unwrap(), Ordering::SeqCst);
    child.wait().await.unwrap().code().unwrap_or(-1)
}
