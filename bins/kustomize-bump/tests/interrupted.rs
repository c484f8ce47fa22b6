//! Runs that a signal ends: they take their clone away, where they have one, and say so by their exit code.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use world::{B, Way, World, both_ways};

both_ways!(
    a_signal_leaves_nothing_behind,
    whoever_is_to_outlive_the_terminal_does
);

const LIMIT: Duration = Duration::from_secs(60);

/// A server that takes connections and never says a word; and whether it took one.
async fn silent() -> (u16, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Notify::new());
    let connected = asked.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
            connected.notify_one();
        }
    });
    (port, asked)
}

/// Starts a `set` that waits for a server, once it is there. The words before are a shell's.
async fn waiting(world: &World, before: &str, scratch: &Path) -> Child {
    std::fs::create_dir(scratch).unwrap();
    let mut environment = world.environment();
    let (port, asked) = silent().await;
    let (variable, address) = match world.way {
        Way::Git => ("TOWPATH_REPO", format!("http://127.0.0.1:{port}/env/shop.git")),
        Way::Api => ("CI_API_V4_URL", format!("http://127.0.0.1:{port}/api/v4")),
    };
    environment.insert(variable.into(), address);
    environment.insert("TMPDIR".into(), scratch.display().to_string());
    // These tests may themselves have been started by nohup.
    let child = Command::new("env")
        .arg("--default-signal=HUP,INT,TERM")
        .args(["sh", "-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_kustomize-bump"))
        .args(["set", &format!("app@{B}")])
        .env_clear()
        .envs(&environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // It listens for signals before it asks anybody.
    tokio::time::timeout(LIMIT, asked.notified()).await.unwrap();
    if world.way == Way::Git {
        assert!(std::fs::read_dir(scratch).unwrap().next().is_some(), "no clone");
    }
    child
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
    assert!(sent.unwrap().success());
}

async fn a_signal_leaves_nothing_behind(way: Way) {
    let world = World::over(way, &[]).await;
    for (name, number) in [("HUP", 1), ("INT", 2), ("TERM", 15)] {
        let scratch = world.folder.path().join(name);
        let child = waiting(&world, "", &scratch).await;
        signal(&child, name).await;
        let ended = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(128 + number), "{name}: {said}");
        assert!(said.contains("interrupted while setting images"), "{said}");
        let left: Vec<_> = std::fs::read_dir(&scratch).unwrap().collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

/// `nohup` switches HUP off for what it starts.
async fn whoever_is_to_outlive_the_terminal_does(way: Way) {
    let world = World::over(way, &[]).await;
    let scratch = world.folder.path().join("nohup");
    let child = waiting(&world, "trap '' HUP;", &scratch).await;
    signal(&child, "HUP").await;
    signal(&child, "TERM").await;
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.status.code(), Some(128 + 15), "the first one meant nothing");
}
