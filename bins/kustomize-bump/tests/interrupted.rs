//! Runs that a signal ends: they take their clone away, and say so by their exit code.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use world::{B, World};

const LIMIT: Duration = Duration::from_secs(60);

/// A server that takes connections and never says a word.
async fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    port
}

/// Starts a `set` that waits for a server, once its clone is there. The words before are a shell's.
async fn waiting(world: &World, before: &str, scratch: &Path) -> Child {
    std::fs::create_dir(scratch).unwrap();
    let mut environment = world.environment();
    environment.insert(
        "TOWPATH_REPO".into(),
        format!("http://127.0.0.1:{}/env/shop.git", silent().await),
    );
    environment.insert("TMPDIR".into(), scratch.display().to_string());
    let child = Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
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
    // It listens for signals before it makes the clone.
    while std::fs::read_dir(scratch).unwrap().next().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn a_signal_leaves_no_clone_behind() {
    let world = World::with(&[]).await;
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
#[tokio::test]
async fn whoever_is_to_outlive_the_terminal_does() {
    let world = World::with(&[]).await;
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
