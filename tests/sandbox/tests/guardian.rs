//! A world leaves no process and no folder behind, however its owner ends.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use towpath_sandbox::guardian::{Guardian, WORLD_VARIABLE, remove_abandoned};

/// A shell that starts what a world's process may start: a child that ignores TERM, one in a session of its own, and
/// one that outlives its parent.
const FAMILY: &str =
    "trap '' TERM; setsid sleep 1000 & (sleep 1000 &) ; sleep 1000 & echo up; wait; sleep 1000";

/// Runs in a process of its own, which the tests below start and kill: see [`Owner::start`].
#[tokio::test(flavor = "current_thread")]
#[ignore = "the owner process of the other tests"]
async fn owner() {
    let guardian = Guardian::start().unwrap();
    let mut command = guardian.command("sh");
    let mut child = command
        .args(["-c", FAMILY])
        .current_dir(guardian.dir())
        .spawn()
        .unwrap();
    println!("world {}", guardian.dir().display());
    child.wait().await.unwrap();
}

struct Owner {
    process: std::process::Child,
    folder: PathBuf,
    /// Each owner has a temporary folder of its own, lest the tests remove each other's abandoned worlds.
    parent: tempfile::TempDir,
}

impl Owner {
    fn start() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "owner", "--nocapture", "--test-threads=1"])
            .env("TMPDIR", parent.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut folder = None;
        let mut up = false;
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        while folder.is_none() || !up {
            let line = lines.next().expect("the owner process ended early").unwrap();
            if let Some((_, path)) = line.split_once("world ") {
                folder = Some(PathBuf::from(path));
            }
            up |= line == "up";
        }
        let owner = Self {
            process,
            folder: folder.unwrap(),
            parent,
        };
        assert!(owner.folder.is_dir());
        // A child that is just being started carries no environment for a moment.
        for _ in 0..12000 {
            if processes_of(&owner.folder).len() == 4 {
                return owner;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the shell and its three children do not all run")
    }

    fn end_with(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A test that failed half-way must not leave its owner process, whose end takes the rest along.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn killing_the_owner_leaves_no_process_and_no_folder() {
    let mut owner = Owner::start();
    owner.end_with(Signal::KILL);
    assert_gone(&owner.folder);
}

/// The moment at which the folder has just been made is found by looking for it without a pause.
#[test]
fn an_owner_killed_while_it_starts_leaves_no_folder() {
    for _ in 0..20 {
        let parent = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "owner", "--test-threads=1"])
            .env("TMPDIR", parent.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let folder = loop {
            if let Some(entry) = fs::read_dir(parent.path()).unwrap().next() {
                break entry.unwrap().path();
            }
            assert!(process.try_wait().unwrap().is_none(), "the owner ended early");
        };
        process.kill().unwrap();
        process.wait().unwrap();
        assert_gone(&folder);
    }
}

#[test]
fn a_terminated_owner_leaves_no_process_and_no_folder() {
    let mut owner = Owner::start();
    owner.end_with(Signal::TERM);
    assert_gone(&owner.folder);
}

#[test]
fn what_even_the_watcher_left_is_removed_at_the_next_start() {
    let mut owner = Owner::start();
    let watcher = watcher_of(&owner.folder);
    kill_process(watcher, Signal::KILL).unwrap();
    owner.end_with(Signal::KILL);
    assert!(owner.folder.is_dir(), "nobody is left to remove the folder");

    let mut next = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "removes_abandoned_worlds", "--nocapture"])
        .env("TMPDIR", owner.parent.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(next.wait().unwrap().success());
    assert_gone(&owner.folder);
}

#[test]
#[ignore = "the next start of the test above, which needs a temporary folder of its own"]
fn removes_abandoned_worlds() {
    let live = Guardian::start().unwrap();
    assert_eq!(
        remove_abandoned(),
        Vec::<PathBuf>::new(),
        "the start removed them, and a live world stays"
    );
    assert!(live.dir().is_dir());
}

#[tokio::test(flavor = "current_thread")]
async fn stop_ends_the_family_and_nothing_else() {
    let guardian = Guardian::start().unwrap();
    let other = Guardian::start().unwrap();
    let mut bystander = other.command("sleep").arg("1000").spawn().unwrap();
    let mut shell = guardian.command("sh");
    let mut shell = shell.args(["-c", FAMILY]).stdout(Stdio::null()).spawn().unwrap();
    // A process that wiped its environment is still found, by its ancestry.
    let mut wiped = guardian.command("sh");
    wiped.args(["-c", "env -i sleep 1000 & wait"]);
    let mut wiped = wiped.spawn().unwrap();
    let folder = guardian.dir().to_owned();
    wait_until("the family runs", || processes_of(&folder).len() >= 5);

    guardian.stop().await.unwrap();
    assert_gone(&folder);
    shell.wait().await.unwrap();
    wiped.wait().await.unwrap();
    assert!(
        bystander.try_wait().unwrap().is_none(),
        "another world's process goes on"
    );
    assert!(other.dir().is_dir());
    drop(other);
    bystander.wait().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn term_comes_before_kill() {
    let guardian = Guardian::start().unwrap();
    let parting = tempfile::NamedTempFile::new().unwrap();
    let mut command = guardian.command("sh");
    command.args([
        "-c",
        "trap 'echo bye >\"$0\"; exit' TERM; echo up >ready; while :; do sleep 0.01; done",
    ]);
    let mut child = command
        .arg(parting.path())
        .current_dir(guardian.dir())
        .spawn()
        .unwrap();
    let ready = guardian.dir().join("ready");
    wait_until("the shell has set its trap", || {
        fs::read(&ready).is_ok_and(|text| !text.is_empty())
    });

    guardian.stop().await.unwrap();
    assert_eq!(fs::read_to_string(parting.path()).unwrap(), "bye\n");
    child.wait().await.unwrap();
}

#[test]
fn the_folder_is_private_and_goes_with_what_it_holds() {
    let guardian = Guardian::start().unwrap();
    let folder = guardian.dir().to_owned();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    let sealed = folder.join("sealed");
    fs::create_dir(&sealed).unwrap();
    fs::write(sealed.join("file"), "x").unwrap();
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o500)).unwrap();
    drop(guardian);
    assert!(!folder.exists());
}

fn processes_of(folder: &Path) -> Vec<i32> {
    let marker = format!(
        "{WORLD_VARIABLE}={}",
        folder.file_name().unwrap().to_str().unwrap()
    );
    all_processes()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|b| *b == 0).any(|entry| entry == marker.as_bytes()))
        })
        .collect()
}

fn watcher_of(folder: &Path) -> Pid {
    let path = folder.to_str().unwrap().as_bytes();
    let mut watchers = all_processes().filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|arg| arg == path))
    });
    Pid::from_raw(watchers.next().expect("a watcher runs")).unwrap()
}

fn all_processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn assert_gone(folder: &Path) {
    wait_until("the folder and the processes are gone", || {
        !folder.exists() && processes_of(folder).is_empty()
    });
}

/// Waits for what another process does, with a bound so generous that only a fault reaches it.
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
