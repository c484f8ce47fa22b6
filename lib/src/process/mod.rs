//! Child processes, and the promise that none outlives us.
//!
//! A child runs in its own process group. It is ended (TERM, then KILL) when its deadline passes, killed when the
//! future that runs it is dropped, and killed by the kernel when we are. What it prints is kept within a bound, and
//! redacted before it reaches a log or an error. Values that are secret go to a child by environment, file or
//! standard input, never by argument. The command of a user, which shares our streams and terminal, is
//! [supervised](Command::supervise) instead.
//!
//! Deliberately absent: a shell. Arguments are passed as they are.

mod mask;
mod passage;
mod privacy;
mod signals;
mod spawn;
mod supervise;
mod terminal;

pub use mask::Mask;
pub use privacy::keep_memory_private;
pub use signals::Signals;
pub(crate) use signals::{is_ignored, raise};
pub use supervise::Supervised;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use self::spawn::Group;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::secret::redact;

/// How much of standard output [`Command::capture`] keeps at most.
const CAPTURE_LIMIT: usize = 64 * 1024 * 1024;
/// How many of the last lines a child printed are kept for messages.
const TAIL_LINES: usize = 20;
/// A longer line is cut: some programs draw progress bars without ever ending the line.
const LINE_LIMIT: usize = 4096;
/// How long a child has between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);

/// A program to run. The environment is inherited unless changed. Its `Debug` shows the names of the variables it
/// changes, never their values, and not what it is fed.
#[derive(Clone)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    clear_environment: bool,
    directory: Option<PathBuf>,
    input: Vec<u8>,
    mask: Option<Mask>,
}

/// How a child ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output, when it was captured.
    pub stdout: Vec<u8>,
    /// The last lines of standard error (for [`Command::follow`], of both streams), redacted.
    pub tail: String,
}

impl Ended {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code as a shell shows it: 128+n for signal n.
    #[must_use]
    pub fn code(&self) -> i32 {
        code_of(self.status)
    }

    /// Standard output as text, trimmed.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

impl Command {
    /// Runs `program`: a path, or a name that is looked up on `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Command {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            clear_environment: false,
            directory: None,
            input: Vec::new(),
            mask: None,
        }
    }

    /// Adds an argument. Never a secret: arguments are visible to every user of the machine.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(mut self, variables: &[(OsString, OsString)]) -> Self {
        let set = variables
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.clone())));
        self.environment.extend(set);
        self
    }

    /// Takes an environment variable away.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), None));
        self
    }

    /// Gives it nothing of our environment but what [`Command::env`] sets, for programs whose environment ends up
    /// where others can read it (the steps of a build).
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.clear_environment = true;
        self
    }

    /// Takes secrets out of what it prints, when it is [supervised](Command::supervise) and its output does not go to a
    /// terminal.
    #[must_use]
    pub fn mask(mut self, mask: Mask) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Sets the folder it runs in.
    #[must_use]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Gives it these bytes on standard input; otherwise that is empty.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// The program's name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        Path::new(&self.program)
            .file_name()
            .map_or_else(|| self.program.to_string_lossy(), OsStr::to_string_lossy)
            .into_owned()
    }

    /// Runs it and keeps what it prints. Any exit status is an answer, not an error.
    ///
    /// # Errors
    /// Usage (exit 2) when there is no such program; deadline (exit 9) when it did not end in time; internal when it
    /// prints more than 64 MiB.
    pub async fn capture(&self, deadline: Deadline) -> Result<Ended> {
        let mut child = self.spawn(Stdio::piped())?;
        let name = self.name();
        let stdout = child.stdout()?;
        let stderr = child.stderr()?;
        let stdin = child.stdin();
        let work = async {
            let (stdout, tail, ()) = tokio::try_join!(
                read_bounded(stdout, &name),
                async { Ok(read_tail(stderr, &mut |_| {}).await) },
                feed(stdin, &self.input),
            )?;
            let status = child.wait(&name).await?;
            Ok(Ended { status, stdout, tail })
        };
        match tokio::time::timeout(deadline.remaining(), work).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                child.end(GRACE).await;
                Err(out_of_time(&name))
            }
        }
    }

    /// Runs it and hands each line of both its streams, redacted, to `line` as it comes.
    ///
    /// # Errors
    /// As [`Command::capture`].
    pub async fn follow(&self, deadline: Deadline, mut line: impl FnMut(&str)) -> Result<Ended> {
        let mut child = self.spawn(Stdio::piped())?;
        let name = self.name();
        let both = merge(child.stdout()?, child.stderr()?);
        let stdin = child.stdin();
        let work = async {
            let (tail, ()) = tokio::try_join!(
                async { Ok(read_tail(both, &mut line).await) },
                feed(stdin, &self.input)
            )?;
            let status = child.wait(&name).await?;
            Ok(Ended {
                status,
                stdout: Vec::new(),
                tail,
            })
        };
        match tokio::time::timeout(deadline.remaining(), work).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                child.end(GRACE).await;
                Err(out_of_time(&name))
            }
        }
    }

    fn spawn(&self, output: Stdio) -> Result<Group> {
        let mut command = self.prepare();
        command
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::piped());
        Group::spawn(command, &self.name())
    }

    fn prepare(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments);
        if self.clear_environment {
            command.env_clear();
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed: Vec<&OsString> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("environment", &changed)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}

fn out_of_time(name: &str) -> Failure {
    Failure::deadline(format!("{name} did not end in time and was stopped"))
        .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what it waits for")
}

async fn feed(stdin: Option<tokio::process::ChildStdin>, input: &[u8]) -> Result<()> {
    if let Some(mut stdin) = stdin {
        // A child that does not read its input to the end has its reasons; its exit status tells.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
    Ok(())
}

async fn read_bounded(stream: impl AsyncRead + Unpin, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let broke = |error| Failure::internal(format!("cannot read what {name} prints")).because(error);
    let limit = u64::try_from(CAPTURE_LIMIT).unwrap_or(u64::MAX);
    stream
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(broke)?;
    if bytes.len() > CAPTURE_LIMIT {
        return Err(Failure::internal(format!(
            "{name} prints more than {CAPTURE_LIMIT} bytes"
        )));
    }
    Ok(bytes)
}

/// Reads to the end, hands on each line, and gives back the last ones.
async fn read_tail(stream: impl AsyncRead + Unpin, line: &mut impl FnMut(&str)) -> String {
    let mut tail: VecDeque<String> = VecDeque::with_capacity(TAIL_LINES);
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match read_line(&mut reader, &mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = redact(String::from_utf8_lossy(&bytes).trim_end());
        line(&text);
        if !text.trim().is_empty() {
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    }
    Vec::from(tail).join("\n")
}

async fn read_line(
    reader: &mut (impl tokio::io::AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<usize> {
    let mut total = 0;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(total);
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(available.len(), |at| at + 1);
        let room = LINE_LIMIT.saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        total += taken;
        reader.consume(taken);
        if end.is_some() {
            return Ok(total);
        }
    }
}

/// One stream of whole lines out of two.
fn merge(
    one: impl AsyncRead + Unpin + Send + 'static,
    other: impl AsyncRead + Unpin + Send + 'static,
) -> impl AsyncRead + Unpin {
    let (writer, reader) = tokio::io::duplex(64 * 1024);
    let writer = std::sync::Arc::new(tokio::sync::Mutex::new(writer));
    let copy = |stream: Box<dyn AsyncRead + Unpin + Send>| {
        let writer = writer.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(read_line(&mut reader, &mut line).await, Ok(1..)) {
                if !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
                if writer.lock().await.write_all(&line).await.is_err() {
                    break;
                }
                line.clear();
            }
        });
    };
    copy(Box::new(one));
    copy(Box::new(other));
    reader
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(120))
    }

    /// Whether a process ends within a minute.
    fn is_gone(pid: &str) -> bool {
        (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            // A killed process may stay a zombie until its parent, init, notices.
            std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
        })
    }

    fn shell(script: &str) -> Command {
        Command::new("sh").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let failure = Command::new("no-such-program-anywhere")
            .capture(soon())
            .await
            .expect_err("missing");
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(failure.message().contains("no-such-program-anywhere"));
    }

    #[tokio::test]
    async fn output_code_and_input_come_through() {
        let ended = shell("cat; echo oops >&2; exit 7")
            .input("hello")
            .capture(soon())
            .await
            .expect("it runs");
        assert_eq!(
            (ended.text().as_str(), ended.code(), ended.tail.as_str()),
            ("hello", 7, "oops")
        );
        let killed = shell("kill -TERM $$").capture(soon()).await.expect("it runs");
        assert_eq!(killed.code(), 143);
    }

    #[tokio::test]
    async fn both_streams_are_followed_line_by_line() {
        let mut lines = Vec::new();
        let ended = shell("echo a; echo b >&2; printf c")
            .follow(soon(), |line| lines.push(line.to_owned()))
            .await
            .expect("it runs");
        lines.sort();
        assert_eq!(lines, ["a", "b", "c"]);
        assert!(ended.success());
    }

    #[tokio::test]
    async fn a_child_and_its_own_children_end_at_the_deadline() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid_file = folder.path().join("pid");
        let script = format!(
            "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
            pid_file.display()
        );
        let failure = shell(&script)
            .capture(Deadline::after(Duration::from_millis(500)))
            .await
            .expect_err("it does not end by itself");
        assert_eq!(failure.kind(), Kind::Deadline);
        if let Ok(pid) = std::fs::read_to_string(&pid_file) {
            assert!(
                is_gone(pid.trim()),
                "the grandchild {} is still there",
                pid.trim()
            );
        }
    }

    #[tokio::test]
    async fn what_an_ended_child_left_behind_ends_when_nobody_waits_any_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        // The shell ends at once; what it started holds on to its output.
        let command = shell(&format!(
            "echo $$ > {0}; sleep 1000 & echo $! > {1}",
            at("shell").display(),
            at("pid").display()
        ));
        {
            let mut work = std::pin::pin!(command.capture(soon()));
            let ended = async {
                loop {
                    let shell = std::fs::read_to_string(at("shell")).unwrap_or_default();
                    let stat = std::fs::read_to_string(format!("/proc/{}/stat", shell.trim()));
                    if stat.is_ok_and(|stat| stat.contains(") Z")) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                _ = &mut work => panic!("its output is open"),
                () = ended => {}
            }
        }
        let pid = std::fs::read_to_string(at("pid")).expect("a number");
        assert!(
            is_gone(pid.trim()),
            "the grandchild {} is still there",
            pid.trim()
        );
    }

    #[tokio::test]
    async fn secrets_in_output_are_masked() {
        let _secret = crate::secret::Secret::new("canary-of-the-process-test");
        let ended = shell("echo canary-of-the-process-test >&2")
            .capture(soon())
            .await
            .expect("it runs");
        assert_eq!(ended.tail, "****");
    }
}
