//! The signals that a supervised command is to get instead of us.

use std::future::poll_fn;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::failure::{Failure, Result};

/// Those that are passed on: all that somebody may send on purpose. CONT is among them because the command has to go on
/// when we are told to. What tells a process of its own doings is not (CHLD, PIPE, SEGV, XCPU and the like), nor what stops
/// it: a command that is stopped stops us.
const FORWARDED: [Signal; 13] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::CONT,
    Signal::WINCH,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::IO,
    Signal::POWER,
];

/// The signals that come in. From the first use on, none of them ends this process any more.
#[derive(Debug)]
pub struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Starts listening. A signal that whoever started us has switched off (`nohup` does that with HUP) stays off,
    /// for the command too.
    ///
    /// # Errors
    /// Internal (exit 1) when the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let ignored = ignored();
        let mut streams = Vec::with_capacity(FORWARDED.len());
        for signal in FORWARDED {
            let number = signal.as_raw();
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let stream = unix::signal(SignalKind::from_raw(number))
                .map_err(|error| Failure::internal("cannot listen for signals").because(error))?;
            streams.push((signal, stream));
        }
        Ok(Signals { streams })
    }

    /// The next signal of any kind.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The number of the next signal that asks us to end; the others have no meaning before there is a command.
    pub async fn ending(&mut self) -> i32 {
        loop {
            let signal = self.next().await;
            if ends(signal) {
                return signal.as_raw();
            }
        }
    }
}

/// Whether a signal asks to end.
pub(super) fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::HUP | Signal::INT | Signal::QUIT | Signal::TERM)
}

/// The set of signals that this process ignores, one bit each, lowest first (proc_pid_status(5), `SigIgn`). Empty when
/// it cannot be read: then every signal is passed on.
fn ignored() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}
