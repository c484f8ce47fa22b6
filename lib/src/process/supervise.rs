//! Running a command in our place: the user's own, which must not notice us.
//!
//! It has our standard streams (through a [passage](super::passage) where secrets are taken out, if that is asked
//! for), a process group of its own, the terminal if there is one, and every signal that we
//! get. We stay beside it, rather than become it, because there is something to clean up once it ended.
//!
//! Deliberately absent: ending what the command left running in its group. A job may start a daemon on purpose, and
//! no shell ends it either.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::passage::Passage;
use super::signals::{Signals, ends, stop_ourselves, stops};
use super::spawn::Group;
use super::terminal::Terminal;
use super::{Command, GRACE, code_of, out_of_time};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};

/// How a supervised command came out.
#[derive(Debug)]
pub enum Supervised {
    /// It ran and ended with this code: its own, or 128+n for signal n.
    Ended(u8),
    /// It could not be started. The code is the one that shells give: 127 when there is no such program, 126 when it
    /// may not be run or is no program.
    NotStarted(u8, Failure),
    /// It was not started: this signal had asked us to end before.
    Forestalled(i32),
}

impl Command {
    /// Runs it with our standard streams until it ends, passing every signal on. When the deadline passes, its group
    /// gets TERM and, after a grace period, KILL.
    ///
    /// # Errors
    /// Deadline (exit 9) when it had to be stopped; internal when the system does not let us wait.
    pub async fn supervise(&self, deadline: Deadline, signals: &mut Signals) -> Result<Supervised> {
        let name = self.name();
        let mut command = self.prepare();
        command
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        let passage = match self.mask.clone().map(|mask| Passage::lay(&mut command, mask)) {
            None => None,
            Some(Ok(passage)) => Some(passage),
            Some(Err(error)) => {
                return Err(Failure::internal("cannot get pipes to mask secrets in").because(error));
            }
        };
        let mut terminal = Terminal::ours();
        if let Some(terminal) = &mut terminal {
            terminal.lend_at_start(&mut command);
        }
        let mut changes = signal(SignalKind::child())
            .map_err(|error| Failure::internal("cannot listen for signals").because(error))?;
        // What comes in after this is the command's.
        if let Some(signal) = signals.ended_by_now() {
            return Ok(Supervised::Forestalled(signal));
        }
        let mut group = match Group::start(command) {
            Ok(group) => group,
            Err(error) => return Ok(not_started(&name, error)),
        };
        let ended = CancellationToken::new();
        let mut carrying = pin!(async {
            if let Some(passage) = passage {
                passage.carry(&ended).await;
            }
        });
        let mut carried = false;
        let mut told_to_end = false;
        let mut told_to_stop = false;
        let status = loop {
            tokio::select! {
                status = group.wait(&name) => break status?,
                () = &mut carrying, if !carried => carried = true,
                signal = signals.next() => {
                    if signal == Signal::CONT {
                        told_to_stop = false;
                        if let (Some(terminal), Some(leader)) = (&mut terminal, group.leader()) {
                            terminal.resume(leader);
                        }
                    }
                    told_to_stop |= stops(signal);
                    told_to_end |= ends(signal);
                    group.signal(signal);
                }
                Some(()) = changes.recv() => {
                    if let Some(leader) = group.leader() {
                        match stopped(leader).map(|why| after(why, told_to_stop, leader, terminal.as_mut())) {
                            None | Some(Pause::Leave) => {}
                            Some(Pause::GoOn) => group.signal(Signal::CONT),
                            Some(Pause::Stop) => {
                                if let Some(terminal) = &mut terminal {
                                    terminal.take_back();
                                }
                                stop_ourselves();
                            }
                        }
                    }
                }
                () = tokio::time::sleep(deadline.remaining()) => {
                    // What it says while it ends is worth reading too.
                    let ending = async {
                        group.end(GRACE).await;
                        ended.cancel();
                    };
                    let carrying = async {
                        if !carried {
                            carrying.await;
                        }
                    };
                    let _ = tokio::time::timeout(GRACE * 2, async { tokio::join!(ending, carrying) }).await;
                    return Err(out_of_time(&name));
                }
            }
        };
        ended.cancel();
        if !carried {
            // Whoever reads our output may take their time, but not for longer than the run, nor when we are to end, be it
            // by the signal that ended the command: KILL comes next.
            let patience = if told_to_end {
                GRACE.min(deadline.remaining())
            } else {
                deadline.remaining()
            };
            tokio::select! {
                () = carrying => {}
                _signal = signals.ending() => {}
                () = tokio::time::sleep(patience) => {}
            }
        }
        Ok(Supervised::Ended(exit_code(status)))
    }
}

/// What to do about a command that was stopped.
enum Pause {
    /// Stop as well, so that the shell gets its terminal back and knows that the job waits. The command goes on together
    /// with us: CONT is a signal that is passed on.
    Stop,
    /// Let it go on: it has what it wanted.
    GoOn,
    /// Stay beside it: somebody has stopped the command alone, and will let it go on.
    Leave,
}

/// The signal that has stopped the command, if it is stopped.
fn stopped(leader: Pid) -> Option<i32> {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    waitid(WaitId::Pid(leader), options)
        .ok()
        .flatten()?
        .stopping_signal()
}

fn after(why: i32, told_to_stop: bool, leader: Pid, terminal: Option<&mut Terminal>) -> Pause {
    let wants_terminal = [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&why);
    match terminal {
        _ if told_to_stop => Pause::Stop,
        None => Pause::Leave,
        Some(terminal) if wants_terminal => {
            if terminal.lend(leader) {
                Pause::GoOn
            } else {
                Pause::Stop
            }
        }
        Some(terminal) if terminal.is_with(leader) => Pause::Stop,
        Some(_) => Pause::Leave,
    }
}

fn not_started(name: &str, error: io::Error) -> Supervised {
    let (code, failure) = if error.kind() == io::ErrorKind::NotFound {
        let failure = Failure::usage(format!("the command {name} is not there"))
            .hint("check its spelling and PATH; a script also needs the interpreter of its first line");
        (127, failure)
    } else {
        let failure = Failure::usage(format!("the command {name} cannot be run"))
            .hint("check that it is a program, built for this machine and executable for this user");
        (126, failure)
    };
    Supervised::NotStarted(code, failure.because(error))
}

fn exit_code(status: ExitStatus) -> u8 {
    // Both parts fit: an exit code has eight bits, and no signal is above 64.
    u8::try_from(code_of(status)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::failure::Kind;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(120))
    }

    async fn code(command: Command) -> u8 {
        let mut signals = Signals::listen().expect("signals");
        match command
            .supervise(soon(), &mut signals)
            .await
            .expect("it is supervised")
        {
            Supervised::Ended(code) | Supervised::NotStarted(code, _) => code,
            Supervised::Forestalled(signal) => panic!("signal {signal} came in"),
        }
    }

    #[tokio::test]
    async fn the_code_is_the_commands_own() {
        let shell = |script: &str| Command::new("sh").arg("-c").arg(script);
        assert_eq!(code(shell("exit 0")).await, 0);
        assert_eq!(code(shell("exit 42")).await, 42);
        assert_eq!(code(shell("kill -KILL $$")).await, 137);
    }

    #[tokio::test]
    async fn what_cannot_be_started_has_the_codes_of_a_shell() {
        assert_eq!(code(Command::new("/no/such/program")).await, 127);
        assert_eq!(code(Command::new("no-such-program-anywhere")).await, 127);
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(code(Command::new(file.path())).await, 126);
        assert_eq!(code(Command::new("/")).await, 126);
    }

    #[tokio::test]
    async fn the_deadline_ends_the_whole_group() {
        let mut signals = Signals::listen().expect("signals");
        let outcome = Command::new("sleep")
            .arg("1000")
            .supervise(Deadline::after(Duration::from_millis(50)), &mut signals)
            .await;
        assert_eq!(outcome.expect_err("it had to be stopped").kind(), Kind::Deadline);
    }
}
