//! Finding the processes of one world, and ending them.
//!
//! A process belongs to a world when its environment carries the world's id, when its root folder lies below the
//! world's folder (a builder's RUN step starts with an empty environment), or when it descends from such a process.
//! Nothing here goes by a program's name: what was not started by the world is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The environment variable whose value is the id of the world a process belongs to.
pub const WORLD_VARIABLE: &str = "TOWPATH_WORLD";

/// How long processes may take to end by themselves after TERM.
const GRACE: Duration = Duration::from_secs(3);
/// How long to go on with KILL before giving up: only a process stuck in the kernel lasts that long.
const LAST: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What makes a process one of a world's.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) id: String,
    pub(super) folder: PathBuf,
}

struct Seen {
    /// Opened before the facts were read: should the number have gone to another process since, the signal fails
    /// instead of reaching a stranger.
    handle: OwnedFd,
    parent: u32,
    marked: bool,
}

/// Ends every process of a world step by step, so that both async and plain callers can wait in their own way.
pub(super) struct Ending {
    mark: Mark,
    since: Instant,
    asked: BTreeSet<u32>,
    empty_looks: u32,
}

impl Ending {
    pub(super) fn of(mark: &Mark) -> Self {
        Self {
            mark: mark.clone(),
            since: Instant::now(),
            asked: BTreeSet::new(),
            empty_looks: 0,
        }
    }

    /// Looks once and signals what it finds. Answers how long to wait before the next look, or `None` when no
    /// process is left.
    ///
    /// # Errors
    /// When a process outlasts KILL.
    pub(super) fn look(&mut self) -> anyhow::Result<Option<Duration>> {
        let found = of_world(&self.mark)?;
        if found.is_empty() {
            // One look may miss a process that is between fork and exec: only two empty ones in a row count.
            self.empty_looks += 1;
            return Ok((self.empty_looks < 2).then_some(Duration::from_millis(2)));
        }
        self.empty_looks = 0;
        let waited = self.since.elapsed();
        if waited > GRACE + LAST {
            let pids: Vec<String> = found.keys().map(u32::to_string).collect();
            anyhow::bail!("processes of {} outlast KILL: {}", self.mark.id, pids.join(", "));
        }
        for (pid, handle) in &found {
            let signal = if waited > GRACE {
                Signal::KILL
            } else if self.asked.insert(*pid) {
                Signal::TERM
            } else {
                continue;
            };
            // The only failures are a process that has just ended and one that became another user's, and the next
            // look tells which.
            let _ = pidfd_send_signal(handle, signal);
        }
        Ok(Some(BETWEEN_LOOKS))
    }
}

fn of_world(mark: &Mark) -> anyhow::Result<BTreeMap<u32, OwnedFd>> {
    let marker = format!("{WORLD_VARIABLE}={}", mark.id);
    let own = std::process::id();
    let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid != own
            && let Some(process) = see(pid, &marker, &mark.folder)
        {
            seen.insert(pid, process);
        }
    }
    let mut members: BTreeSet<u32> = seen
        .iter()
        .filter(|(_, s)| s.marked)
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let heirs: Vec<u32> = seen
            .iter()
            .filter(|(pid, process)| !members.contains(pid) && members.contains(&process.parent))
            .map(|(pid, _)| *pid)
            .collect();
        if heirs.is_empty() {
            break;
        }
        members.extend(heirs);
    }
    Ok(seen
        .into_iter()
        .filter(|(pid, _)| members.contains(pid))
        .map(|(pid, s)| (pid, s.handle))
        .collect())
}

/// The facts about one process, or `None` when it has ended (a zombie has), or is not ours to look at.
fn see(pid: u32, marker: &str, folder: &Path) -> Option<Seen> {
    let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold any character, so fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let marked = fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == marker.as_bytes())
    }) || fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|root| root.starts_with(folder));
    Some(Seen {
        handle,
        parent,
        marked,
    })
}
