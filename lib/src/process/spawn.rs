//! A child in its own process group.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::privacy;
use super::signals::Blocked;
use crate::failure::{Failure, Result};

/// A child that leads a process group. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    /// Starts `command`.
    ///
    /// # Errors
    /// Usage (exit 2) when there is no such program or it may not be run.
    pub(super) fn spawn(command: tokio::process::Command, name: &str) -> Result<Self> {
        Self::start(command).map_err(|error| {
            let failure = match error.kind() {
                std::io::ErrorKind::NotFound => Failure::usage(format!("the program {name} is not there"))
                    .hint(format!("install {name}, or put it on PATH")),
                std::io::ErrorKind::PermissionDenied => {
                    Failure::usage(format!("the program {name} may not be run"))
                        .hint("check that it is executable for this user")
                }
                _ => Failure::internal(format!("cannot start {name}")),
            };
            failure.because(error)
        })
    }

    /// Starts `command`, with the system's own error when that fails.
    pub(super) fn start(mut command: tokio::process::Command) -> std::io::Result<Self> {
        command.process_group(0);
        die_with_us(&mut command);
        let child = command.spawn()?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Group { child, leader })
    }

    /// The process that leads the group, while it runs.
    pub(super) fn leader(&self) -> Option<Pid> {
        self.leader
    }

    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(super) fn stdout(&mut self) -> Result<ChildStdout> {
        self.child
            .stdout
            .take()
            .ok_or_else(|| Failure::internal("standard output of a child was taken twice"))
    }

    pub(super) fn stderr(&mut self) -> Result<ChildStderr> {
        self.child
            .stderr
            .take()
            .ok_or_else(|| Failure::internal("standard error of a child was taken twice"))
    }

    /// Waits for the leader to end.
    pub(super) async fn wait(&mut self, name: &str) -> Result<ExitStatus> {
        self.child
            .wait()
            .await
            .map_err(|error| Failure::internal(format!("cannot wait for {name}")).because(error))
    }

    /// Ends the whole group: TERM, a grace period, KILL.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        // One that is stopped could not act on it.
        self.signal(Signal::CONT);
        let _ = tokio::time::timeout(grace, self.child.wait()).await;
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
    }

    /// Sends a signal to every process of the group.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // The group may be gone already, which is what we want.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel does not reuse the number of a group while it has members, and a leader that nobody waited for is
        // one even when it ended: what it started may still run. Once it was waited for the number may be another's.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// Asks the kernel to kill the child when this process dies, so that not even `kill -9` leaves one behind.
#[allow(unsafe_code)]
fn die_with_us(command: &mut tokio::process::Command) {
    let parent = rustix::process::getpid();
    let core_limit = privacy::core_limit_of_others();
    let blocked = Blocked::here();
    // SAFETY: the closure runs between fork and exec and makes system calls only, all async-signal-safe; it neither
    // allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            if let Some(limit) = core_limit {
                rustix::process::setrlimit(rustix::process::Resource::Core, limit)?;
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the kernel knew of our wish.
            if rustix::process::getppid() != Some(parent) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            if let Some(blocked) = &blocked {
                blocked.lift();
            }
            Ok(())
        });
    }
}
