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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::process::Command;
use towpath_sandbox::gitlab::Trouble;
use world::victim::{Victim, kill, kill_at, known_by_number};
use world::{A, B, Way, World};

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
async fn killed_at_any_request_the_remote_is_whole_and_a_rerun_lands_once() {
    let world = World::over(Way::Api, &[(PROD, &prod(A))]).await;
    let mut expected = 1;
    let mut landed = 0;
    for step in 1.. {
        let image = format!("app@{}", world::digest(step));
        let process = kill_at(&world, step);
        let code = known_by_number(&world, &process, &["set", &image]).await;
        world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();
        expected += 1;
        landed += usize::from(world.commits().await == expected);
        if code == 0 {
            assert!(step > 5, "a set takes more than {step} requests");
            break;
        }
        assert_eq!(code, -1, "step {step}");
        world.gitlab.trouble(|_, _| None);
        world.bump(&["set", &image]).await.report();
        assert_eq!(world.commits().await, expected, "step {step}");
        assert_eq!(world.file(PROD).await, prod(&world::digest(step)));
    }
    assert!(landed > 1, "some were killed after the commit");
}

/// A hold comes while GitLab is at work on the commit, and the run is killed at a request after that. GitLab itself keeps
/// the commit out.
#[tokio::test]
async fn killed_beside_a_hold_the_hold_stands() {
    let (stood, overridden) = killed_beside_a_hold(false).await;
    assert!(stood > 1, "{stood}");
    assert_eq!(overridden, 0);
}

/// Where GitLab refuses the guard, what a commit overtook is only found once the commit is there. A kill in between is the
/// one thing that leaves a hold overridden, and the rerun says so.
#[tokio::test]
async fn killed_beside_a_hold_without_its_guard_the_rerun_says_that_it_does_not_stand() {
    let (stood, overridden) = killed_beside_a_hold(true).await;
    assert!(stood > 0 && overridden > 0, "{stood} {overridden}");
}

/// How many times the hold stood after a kill, and how many times it was overridden.
async fn killed_beside_a_hold(guard_is_refused: bool) -> (usize, usize) {
    let image = format!("app@{B}");
    let (mut stood, mut overridden) = (0, 0);
    for after in 1.. {
        let world = World::over(Way::Api, &[(PROD, &prod(A))]).await;
        let process = Victim::default();
        // Requests since the hold is there; none before.
        let seen = Arc::new(AtomicUsize::new(0));
        let (repository, held) = (world.repository(), seen.clone());
        world.gitlab.before_commit(move || {
            if held.load(Ordering::SeqCst) == 0 {
                world::hold_unseen(&repository, A);
                held.store(1, Ordering::SeqCst);
            }
        });
        let (victim, refuse) = (process.clone(), AtomicBool::new(guard_is_refused));
        world.gitlab.trouble(move |method, path| {
            let commits = method == "POST" && path.ends_with("/repository/commits");
            if commits && refuse.swap(false, Ordering::SeqCst) {
                return Some(Trouble::Status(400));
            }
            if seen.load(Ordering::SeqCst) > 0 && seen.fetch_add(1, Ordering::SeqCst) == after {
                kill(&victim);
            }
            None
        });
        let code = known_by_number(&world, &process, &["set", &image]).await;
        world.gitlab.trouble(|_, _| None);
        if code != -1 {
            assert_eq!((code, world.file(PROD).await), (4, prod(A)));
            break;
        }
        let is_overridden = world.file(PROD).await == prod(B);
        let ended = world.bump(&["set", &image]).await;
        ended.refused(4, "is held at");
        if is_overridden {
            overridden += 1;
            ended.refused(4, "all the same");
            let back = ["rollback", "--image", "app", "--to", A, "--yes"];
            world.bump(&back).await.report();
        } else {
            stood += 1;
        }
        assert_eq!(world.file(PROD).await, prod(A));
    }
    (stood, overridden)
}

/// By the API nothing is put on the disk.
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
