//! Runs that end without having been asked: killed at any step, or for want of room on the disk.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests make the world they look at"
)]

mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::process::Command;
use world::{A, B, World};

const PROD: &str = "overlays/prod/kustomization.yaml";

fn prod(digest: &str) -> String {
    format!("images:\n- name: app\n  digest: {digest}\n")
}

/// A program in the place of git that counts its runs, and kills whoever started it (and goes on itself, as a process
/// does that nobody told) before or after one of them.
const KILLER: &str = "#!/bin/sh\n\
    count=$(($(cat \"$COUNT\") + 1)); echo $count >\"$COUNT\"\n\
    if [ \"$count\" = \"$KILL_BEFORE\" ]; then kill -9 $PPID; fi\n\
    \"$REAL_GIT\" \"$@\"; code=$?\n\
    if [ \"$count\" = \"$KILL_AFTER\" ]; then kill -9 $PPID; fi\n\
    exit $code\n";

fn real_git() -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap()
}

#[tokio::test]
async fn killed_at_any_step_the_remote_is_whole_and_a_rerun_lands_once() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let bin = world.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("git"), KILLER).unwrap();
    std::fs::set_permissions(bin.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let count = world.folder.path().join("count");
    let real = real_git();
    let scratch = world.folder.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let run = async |before: &str, after: &str, image: &str| {
        std::fs::write(&count, "0\n").unwrap();
        let variables = [
            ("PATH", path.as_str()),
            ("REAL_GIT", real.to_str().unwrap()),
            ("COUNT", count.to_str().unwrap()),
            ("KILL_BEFORE", before),
            ("KILL_AFTER", after),
            ("TMPDIR", scratch.to_str().unwrap()),
        ];
        let ended = world.bump_with(&variables, &["set", image]).await;
        let steps: usize = std::fs::read_to_string(&count).unwrap().trim().parse().unwrap();
        (ended, steps)
    };
    let (ended, steps) = run("none", "none", &format!("app@{}", world::digest(1))).await;
    ended.report();
    assert!(steps >= 5, "only {steps} steps");
    let mut expected = world.commits().await;
    let mut number = 1;
    for step in 1..=steps {
        for (before, after) in [
            (step.to_string(), "none".to_owned()),
            ("none".to_owned(), step.to_string()),
        ] {
            number += 1;
            let image = format!("app@{}", world::digest(number));
            let (killed, _) = run(&before, &after, &image).await;
            assert_eq!(killed.code, -1, "step {step}: {killed:?}");
            world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();
            let (ended, _) = run("none", "none", &image).await;
            ended.report();
            expected += 1;
            assert_eq!(world.commits().await, expected, "step {step}");
            assert_eq!(world.file(PROD).await, prod(&world::digest(number)));
        }
    }
    // What the kernel would not let it take away holds no token.
    let mut folders = vec![scratch];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let content = std::fs::read(entry.path()).unwrap();
                let found = content
                    .windows(world.token.len())
                    .any(|part| part == world.token.as_bytes());
                assert!(!found, "the token is in {}", entry.path().display());
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_no_trouble_of_the_server() {
    // Digests do not compress, so that what is fetched is as large as it looks.
    let comments = (0..2000_u64).map(|n| {
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        let noise = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!("# {mixed:016x}{noise:016x}\n")
    });
    let large = format!("{}{}", prod(A), comments.collect::<String>());
    let world = World::with(&[(PROD, &large)]).await;
    let full = world.folder.path().join("full");
    std::fs::create_dir(&full).unwrap();
    // A file system of its own, seen by this run alone.
    let script = "mount -t tmpfs -o size=48k none \"$TMPDIR\" || exit 99; exec \"$0\" \"$@\"";
    let image = format!("app@{B}");
    let mut environment = world.environment();
    environment.insert("TMPDIR".into(), full.display().to_string());
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_kustomize-bump"))
        .args(["set", &image])
        .env_clear()
        .envs(&environment)
        .output()
        .await;
    match output {
        Ok(output) if output.status.code() == Some(99) => eprintln!("skipped: nothing may be mounted here"),
        Err(error) => eprintln!("skipped: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("no room is left"), "{said}");
            assert_eq!(world.commits().await, 1);
        }
    }
}
