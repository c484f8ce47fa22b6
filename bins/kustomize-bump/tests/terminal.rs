//! A rollback by a person at a terminal: it shows the way back and asks.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use world::{A, B, Way, World, both_ways};

both_ways!(it_shows_the_way_back_and_does_nothing_before_it_is_agreed_to);

const PROD: &str = "overlays/prod/kustomization.yaml";

fn prod(digest: &str) -> String {
    format!("images:\n- name: app\n  digest: {digest}\n")
}

/// Rolls `app` back at a terminal (`script`, of util-linux, gives one), where this is typed. What was shown, and the exit
/// code.
async fn at_a_terminal(world: &World, typed: &str) -> (i32, String) {
    let mut terminal = Command::new("script")
        .args(["-qec", "exec \"$TOOL\" rollback --image app", "/dev/null"])
        .env_clear()
        .envs(&world.environment())
        .env("SHELL", "/bin/sh")
        .env("TOOL", env!("CARGO_BIN_EXE_kustomize-bump"))
        .current_dir(world.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut keyboard = terminal.stdin.take().unwrap();
    keyboard.write_all(typed.as_bytes()).await.unwrap();
    let ended = terminal.wait_with_output().await.unwrap();
    drop(keyboard);
    let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
    (ended.status.code().unwrap_or(-1), shown)
}

async fn it_shows_the_way_back_and_does_nothing_before_it_is_agreed_to(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    world.push(&[(PROD, &prod(B))]).await;
    for typed in ["n\n", "\n", "yonder\n"] {
        let (code, shown) = at_a_terminal(&world, typed).await;
        assert_eq!(code, 9, "{shown}");
        let from = shown.find(&format!("from app@{B}")).unwrap();
        let to = shown.find(&format!("to   app@{A}")).unwrap();
        let asked = shown.find("Roll back, and hold it there? [y/N]").unwrap();
        assert!(from < to && to < asked, "{shown}");
        assert!(shown.contains("nothing was changed"), "{shown}");
        assert_eq!((world.commits().await, world.file(PROD).await), (2, prod(B)));
    }
    let (code, shown) = at_a_terminal(&world, "y\n").await;
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("held until: kustomize-bump release"), "{shown}");
    assert_eq!((world.commits().await, world.file(PROD).await), (3, prod(A)));
}
