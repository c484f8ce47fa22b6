//! A binary of Towpath's, run as a job runs it: from outside, with an environment of its own.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::guardian;

/// No test is about how long a run takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run in the making. Its process ends with whoever started it.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    canaries: Vec<&'static str>,
}

/// A run that goes on. It is killed when this is dropped, or when the thread ends that started it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    canaries: Vec<&'static str>,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; 128 and the signal's number when one ended it.
    pub code: i32,
    /// The log.
    pub stderr: String,
    /// The result.
    pub stdout: String,
}

impl Tool {
    /// A run of this program with an empty environment. Where it prints one of the canaries, it has failed.
    #[must_use]
    pub fn new(program: impl AsRef<Path>, canaries: &[&'static str]) -> Self {
        let mut command = std::process::Command::new(program.as_ref());
        guardian::end_with_us(&mut command);
        let mut command = Command::from(command);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Tool {
            command,
            canaries: canaries.to_vec(),
        }
    }

    /// With these arguments, behind those that are there.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a variable of this value.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn spawn(mut self) -> Result<Running> {
        Ok(Running {
            child: self.command.spawn().context("starting the tool")?,
            canaries: self.canaries,
        })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`Tool::spawn`] and [`Running::ended`].
    pub async fn run(self) -> Result<Ran> {
        self.spawn()?.ended().await
    }
}

impl Running {
    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().context("the tool has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("the tool has no process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it ends, and looks for the canaries in what it printed.
    ///
    /// # Errors
    /// When it does not end in two minutes, or prints a canary or what is no text.
    pub async fn ended(self) -> Result<Ran> {
        let Ok(output) = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await else {
            bail!("the tool does not end");
        };
        let output = output.context("waiting for the tool")?;
        let signal = || output.status.signal().unwrap_or_default();
        let ran = Ran {
            code: output.status.code().unwrap_or_else(|| 128 + signal()),
            stderr: String::from_utf8(output.stderr).context("the log is no text")?,
            stdout: String::from_utf8(output.stdout).context("the result is no text")?,
        };
        for canary in self.canaries {
            ensure!(!ran.stderr.contains(canary), "a secret is in the log: {ran}");
            ensure!(!ran.stdout.contains(canary), "a secret is in the result: {ran}");
        }
        Ok(ran)
    }
}

impl Ran {
    /// The report.
    ///
    /// # Errors
    /// When the result is no JSON, with everything that was said.
    pub fn report(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no report: {self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}
