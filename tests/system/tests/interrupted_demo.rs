//! `cargo demo` is ended at moments that matter, by each signal, and nothing of it is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use towpath_sandbox::towpath_binaries;

/// A first run installs tools; no test is about how long anything takes.
const PATIENCE: Duration = Duration::from_secs(900);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// When the signal is sent.
enum Moment {
    /// The world's folder is there: cargo builds the tools next.
    Begun,
    /// The demo has printed this.
    Said(&'static str),
    /// A process of this name, or of one of these, runs in the world.
    Runs(&'static [&'static str]),
}

struct Demo {
    child: Child,
    said: Arc<Mutex<String>>,
    /// The temporary folder that this demo alone has: whatever it leaves is there.
    folder: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        static PROGRAM: LazyLock<std::path::PathBuf> =
            LazyLock::new(|| towpath_binaries::build_demo().expect("the demo builds"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(&*PROGRAM)
            .args(arguments)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the demo starts");
        let said = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        listen(BufReader::new(stdout), Arc::clone(&said));
        listen(BufReader::new(stderr), Arc::clone(&said));
        Demo { child, said, folder }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no reader panics").clone()
    }

    fn wait_until(&mut self, moment: &Moment) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let come = match moment {
                Moment::Begun => !entries(self.folder.path()).is_empty(),
                Moment::Said(text) => self.said().contains(text),
                Moment::Runs(names) => processes_of(self.folder.path())
                    .iter()
                    .any(|process| names.contains(&process.name.as_str())),
            };
            if come {
                return;
            }
            let ended = self.child.try_wait().expect("the demo is a child");
            assert!(ended.is_none(), "the demo ended too early: {}", self.said());
            assert!(Instant::now() < deadline, "the demo hangs: {}", self.said());
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the demo is a child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the demo does not end: {}",
                self.said()
            );
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What is left of it: processes, mounts, files.
    fn remains(&self) -> Vec<String> {
        let folder = self.folder.path();
        let processes = processes_of(folder).into_iter();
        let mut remains: Vec<String> = processes
            .map(|process| format!("process {} {}", process.pid, process.name))
            .collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the kernel tells its mounts");
        let mounts = mounts
            .lines()
            .filter(|line| line.contains(&*folder.to_string_lossy()));
        remains.extend(mounts.map(|line| format!("mount {line}")));
        remains.extend(entries(folder));
        remains
    }
}

impl Drop for Demo {
    /// A failed test leaves nothing either: the demo's own watcher ends what is left of it.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn listen(output: impl BufRead + Send + 'static, said: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let mut said = said.lock().expect("no reader panics");
            said.push_str(&line);
            said.push('\n');
        }
    });
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the demo's temporary folder is there");
    entries
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .collect()
}

struct Process {
    pid: u32,
    name: String,
}

/// Processes whose environment or arguments name the folder, or that work or have their root in it.
fn processes_of(folder: &Path) -> Vec<Process> {
    let name = folder.as_os_str().as_encoded_bytes();
    let named = |file: &str, pid: u32| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|text| text.windows(name.len()).any(|part| part == name))
    };
    let inside = |link: &str, pid: u32| {
        fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|path| path.starts_with(folder))
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("the kernel tells its processes") {
        let entry = entry.expect("an entry");
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|text| text.parse::<u32>().ok())
        else {
            continue;
        };
        if ["environ", "cmdline"].iter().any(|file| named(file, pid))
            || ["cwd", "root"].iter().any(|link| inside(link, pid))
        {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(Process {
                pid,
                name: name.trim().to_owned(),
            });
        }
    }
    found
}

/// The demo ends by itself, with the signal's exit code, and nothing of it is there any more.
fn ends_in_order(arguments: &[&str], moment: &Moment, signal: Signal) {
    let mut demo = Demo::start(arguments);
    demo.wait_until(moment);
    kill_process(demo.pid(), signal).expect("the demo runs");
    assert_ended_by(&mut demo, signal);
}

fn assert_ended_by(demo: &mut Demo, signal: Signal) {
    let status = demo.wait_for_end();
    assert_eq!(
        status.code(),
        Some(128 + signal.as_raw()),
        "{status}: {}",
        demo.said()
    );
    assert_eq!(demo.remains(), Vec::<String>::new());
}

/// Nobody cleans up in the demo's own process any more, so that takes a moment.
fn is_cleaned_up_after(arguments: &[&str], moment: &Moment) {
    let mut demo = Demo::start(arguments);
    demo.wait_until(moment);
    kill_process(demo.pid(), Signal::KILL).expect("the demo runs");
    let status = demo.wait_for_end();
    assert_eq!(
        status.signal(),
        Some(Signal::KILL.as_raw()),
        "{status}: {}",
        demo.said()
    );
    let deadline = Instant::now() + PATIENCE;
    while !demo.remains().is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", demo.remains());
        thread::sleep(BETWEEN_LOOKS);
    }
}

#[test]
fn ctrl_c_while_the_world_is_kept() {
    let mut demo = Demo::start(&["--keep"]);
    demo.wait_until(&Moment::Said("stays up until Ctrl-C"));
    // A terminal sends it to the whole foreground group.
    kill_process_group(demo.pid(), Signal::INT).expect("the demo runs");
    assert_ended_by(&mut demo, Signal::INT);
}

#[test]
fn int_at_the_rollback() {
    let moment = Moment::Said("kustomize-bump rollback, by hand");
    ends_in_order(&[], &moment, Signal::INT);
}

#[test]
fn term_while_the_tools_are_built() {
    ends_in_order(&[], &Moment::Begun, Signal::TERM);
}

#[test]
fn kill_while_the_tools_are_built() {
    is_cleaned_up_after(&[], &Moment::Begun);
}

#[test]
fn hangup_once_the_world_is_up() {
    ends_in_order(&[], &Moment::Said("world started"), Signal::HUP);
}

#[test]
fn int_while_an_image_is_built() {
    ends_in_order(&[], &Moment::Runs(&["buildah", "executor"]), Signal::INT);
}

#[test]
fn kill_while_an_image_is_built() {
    is_cleaned_up_after(&[], &Moment::Runs(&["buildah", "executor"]));
}

#[test]
fn term_while_an_image_is_promoted() {
    ends_in_order(&[], &Moment::Said("image-build"), Signal::TERM);
}

#[test]
fn kill_while_the_environment_changes() {
    is_cleaned_up_after(&[], &Moment::Runs(&["kustomize-bump"]));
}

#[test]
fn term_while_infrastructure_is_applied() {
    ends_in_order(&[], &Moment::Runs(&["tofu", "terraform"]), Signal::TERM);
}
