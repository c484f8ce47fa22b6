//! The frame around every binary: arguments, logs, deadline, signals, report, exit code.
//!
//! A tool's `main` is one call of [`run`] with its argument type and its work; [`run_one_of`] is that of a program that holds
//! several. This module is the only one that
//! reads the process environment and the only one that writes to the standard streams.
//!
//! Deliberately absent: anything about what a tool does.

mod arguments;
mod command_line;
mod logs;
mod progress;
mod report;
mod sections;
mod subcommands;
mod switches;

pub use arguments::{Arguments, Given, LogFormat, LogTarget, Output, RunArgs, parse_duration, parse_line};
pub use command_line::{CommandLine, Tool, run_one_of};
pub(crate) use logs::turns_direction;
pub use logs::{Effect, effect, note, warn};
pub use progress::{Progress, size};
pub use report::{Outcome, Report};
pub use sections::{Section, section};

use std::error::Error;
use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::failure::{self, Failure, Result};
use crate::process::Signals;
use crate::secret::Secret;
use crate::trace::TraceParent;

/// Taken off the job's own timeout, so that there is time left to clean up and to say what happened.
const MARGIN: Duration = Duration::from_secs(60);
/// The run's limit where neither a flag nor the job sets one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What a tool's work is given besides its arguments.
#[derive(Clone, Debug)]
pub struct Run {
    /// When the run has to be over.
    pub deadline: Deadline,
    /// The trace this run belongs to: taken over from `TRACEPARENT`, or new.
    pub trace: TraceParent,
    interrupted: CancellationToken,
    signal: Arc<AtomicI32>,
    signals_taken: Arc<AtomicBool>,
}

impl Run {
    /// Resolves once SIGHUP, SIGINT or SIGTERM came in. For tools that have something to undo.
    pub async fn interrupted(&self) {
        self.interrupted.cancelled().await;
    }

    /// Runs `work` until it is done, the run is interrupted or the deadline passes. In the latter two cases `work` is
    /// dropped, which ends the child processes and requests it holds.
    ///
    /// # Errors
    /// Deadline (exit 9; 128+n after a signal) when cut short, else whatever `work` fails with.
    pub async fn interruptible<T, E: From<Failure>>(
        &self,
        what: &str,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        tokio::select! {
            result = work => result,
            () = self.interrupted() => Err(Failure::deadline(format!("interrupted while {what}")).into()),
            () = tokio::time::sleep(self.deadline.remaining()) => {
                Err(Failure::deadline(format!("the deadline passed while {what}"))
                    .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow")
                    .into())
            }
        }
    }

    /// Hands what signals do over to the tool, for good: none interrupts the run or ends the process from now on. For
    /// a tool that forwards them to a command, or must not leave before it cleaned up.
    ///
    /// # Errors
    /// Deadline (exit 128+n) when the run was interrupted already; internal when signals cannot be listened for.
    pub fn take_signals(&self) -> Result<Signals> {
        let signals = Signals::listen()?;
        self.signals_taken.store(true, Ordering::SeqCst);
        if self.interrupted.is_cancelled() {
            return Err(Failure::deadline("interrupted before anything was done"));
        }
        Ok(signals)
    }

    /// The failure of a tool that took the signals and ends because of one: it makes the exit code 128+n.
    #[must_use]
    pub fn ended_by(&self, signal: i32, what: &str) -> Failure {
        self.signal.store(signal, Ordering::SeqCst);
        Failure::deadline(format!("interrupted while {what}"))
    }

    /// Whether a person watches: standard input and error are a terminal.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks the person at the terminal a question that is answered with `y`; anything else, or no terminal, is no.
    ///
    /// # Errors
    /// Internal when the terminal breaks off.
    pub async fn confirm(&self, question: &str) -> Result<bool> {
        if !self.is_interactive() {
            return Ok(false);
        }
        logs::to_stderr(&format!("{question} [y/N] "));
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = self
            .interruptible("waiting for an answer", async {
                answer
                    .await
                    .map_err(|error| Failure::internal("cannot read the answer").because(error))?
                    .map_err(|error| Failure::internal("cannot read the answer").because(error))
            })
            .await?;
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }
}

/// A secret from an environment variable, for which there is no flag on purpose: arguments are visible to every user
/// of the machine. None when the variable is not set.
///
/// # Errors
/// Usage (exit 2) when the variable is set but empty, or not text.
pub fn secret_variable(name: &str) -> Result<Option<Secret>> {
    let hint = format!("give {name} a value, or unset it");
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => {
            Err(Failure::usage(format!("the variable {name} is set but empty")).hint(hint))
        }
        Ok(value) => Ok(Some(Secret::new(value))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("the variable {name} is not text")).hint(hint))
        }
    }
}

/// Whether a variable is set to something that is not a word for no. For variables that other tools heed and this one
/// does not, so that it can say so.
#[must_use]
pub fn is_switched_on(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| {
        let value = value.trim();
        !value.is_empty() && !switches::is_no(value)
    })
}

/// The names of all environment variables that a child must not have: whose value is one of these secrets, has a long
/// one in it, or is one by its `looks`.
#[must_use]
pub fn variables_holding(secrets: &[Secret], looks: impl Fn(&str) -> bool) -> Vec<OsString> {
    /// A shorter one may be in another value by chance.
    const LONG: usize = 16;
    let holds = |value: &str| {
        secrets.iter().any(|secret| {
            let secret = secret.expose();
            !secret.is_empty() && (value.trim() == secret || secret.len() >= LONG && value.contains(secret))
        })
    };
    std::env::vars_os()
        .filter(|(_, value)| {
            let value = value.to_string_lossy();
            holds(&value) || looks(&value)
        })
        .map(|(name, _)| name)
        .collect()
}

/// Whether a text is the path of a file, in whatever spelling: relative, with `.` and `..`, by links. One that is not there is
/// known by its path alone.
#[must_use]
pub fn is_path_of(text: &str, file: &Path) -> bool {
    let named = Path::new(text.trim());
    if named == file {
        return true;
    }
    let by_name = |path: &Path| -> Option<PathBuf> {
        let mut plain = PathBuf::new();
        for part in std::path::absolute(path).ok()?.components() {
            if part == Component::ParentDir {
                plain.pop();
            } else {
                plain.push(part);
            }
        }
        Some(plain)
    };
    let is_same = |one: Option<PathBuf>, other: Option<PathBuf>| one.is_some() && one == other;
    if is_same(by_name(named), by_name(file)) {
        return true;
    }
    // A second name of a file (a hard link) has another path, and the same place on the disk.
    match (std::fs::metadata(named), std::fs::metadata(file)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The environment variables with these names, for a child that is to have no others.
#[must_use]
pub fn variables_named(is_wanted: impl Fn(&str) -> bool) -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(&is_wanted))
        .collect()
}

/// The folders of `PATH`, for tools that choose between programs by what is there.
#[must_use]
pub fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// Runs a tool from its arguments to its exit code. `main` returns what this returns.
pub fn run<A, W, E>(line: &CommandLine, work: W) -> ExitCode
where
    A: Arguments,
    W: AsyncFnOnce(A, Run) -> std::result::Result<Outcome, E>,
    E: AsRef<dyn Error>,
{
    let parsed = match arguments::parse::<A>(line) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let settings = parsed.run_args().clone();
    let trace = match settings
        .traceparent
        .clone()
        .map_or_else(TraceParent::generate, Ok)
    {
        Ok(trace) => trace,
        Err(failure) => {
            logs::to_stderr(&format!("error: {failure}\n"));
            return ExitCode::from(failure.kind().exit_code());
        }
    };
    logs::install(A::NAME, &settings, trace.trace_id());
    logs::take_panics();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logs::to_stderr(&format!("error: cannot start the runtime: {error}\n"));
            return ExitCode::from(failure::Kind::Internal.exit_code());
        }
    };
    let code = runtime.block_on(async {
        let run = Run {
            deadline: Deadline::after(timeout(&settings)),
            trace,
            interrupted: CancellationToken::new(),
            signal: Arc::new(AtomicI32::new(0)),
            signals_taken: Arc::new(AtomicBool::new(false)),
        };
        if let Err(failure) = listen_for_signals(&run) {
            return conclude(&settings, &run, Err(&failure));
        }
        match failure::survive(work(parsed, run.clone())).await {
            Ok(outcome) => conclude(&settings, &run, outcome.as_ref().map_err(AsRef::as_ref)),
            Err(panicked) => conclude(&settings, &run, Err(&panicked)),
        }
    });
    // A question at the terminal may still hold a blocking thread; it must not hold the process.
    runtime.shutdown_background();
    code
}

fn timeout(settings: &RunArgs) -> Duration {
    settings.timeout.unwrap_or_else(|| {
        settings.job_timeout.map_or(DEFAULT_TIMEOUT, |seconds| {
            Duration::from_secs(seconds).saturating_sub(MARGIN).max(MARGIN)
        })
    })
}

fn listen_for_signals(run: &Run) -> Result<()> {
    let kinds = [
        (SignalKind::hangup(), 1),
        (SignalKind::interrupt(), 2),
        (SignalKind::terminate(), 15),
    ];
    for (kind, number) in kinds {
        // Who switched it off, as `nohup` does, wants the run to go on without its terminal.
        if kind == SignalKind::hangup() && crate::process::is_ignored(number) {
            continue;
        }
        let mut stream =
            signal(kind).map_err(|error| Failure::internal("cannot listen for signals").because(error))?;
        let run = run.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if run.signals_taken.load(Ordering::SeqCst) {
                    // It came in just before they were taken, and is for whoever has them now.
                    crate::process::raise(number);
                    continue;
                }
                let first = run
                    .signal
                    .compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok();
                if first {
                    tracing::warn!(
                        action = "interrupt",
                        signal = number,
                        "cleaning up; a second signal ends at once"
                    );
                    run.interrupted.cancel();
                } else {
                    // The person insists. Whatever is left open is what they chose to leave.
                    #[expect(clippy::exit, reason = "the second signal is an order to end now")]
                    std::process::exit(128 + number);
                }
            }
        });
    }
    Ok(())
}

fn conclude(
    settings: &RunArgs,
    run: &Run,
    outcome: std::result::Result<&Outcome, &(dyn Error + 'static)>,
) -> ExitCode {
    let signal = run.signal.load(Ordering::SeqCst);
    let failed = |error: &(dyn Error + 'static)| {
        let described = failure::describe(error);
        let code = match signal {
            0 => described.kind.exit_code(),
            signal => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        };
        logs::failure(&described, code);
        ExitCode::from(code)
    };
    match outcome {
        Ok(outcome) => match outcome.write(settings.output) {
            Ok(None) => outcome.exit_code(),
            Ok(Some(failure)) => failed(failure),
            Err(failure) => failed(&failure),
        },
        Err(error) => failed(error),
    }
}
