//! What a supervised command prints, on its way through us to where it would have gone.
//!
//! A stream that is a terminal is left to the command as it is: programs look for one, and a person who watches has
//! asked for what is there. A stream that is a pipe or a file comes through a pipe of ours. When both streams lead to
//! the same place, as in a job's log, they share one, so that their lines keep their order.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::fstat;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::mask::{Mask, Masker};

/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// How long the end of a prompt may wait.
const PROMPT: Duration = Duration::from_millis(50);
/// How long to wait for room in a full pipe that does not wait itself.
const FULL: Duration = Duration::from_millis(5);
/// How long what the command left running may go on printing through us.
const LINGER: Duration = Duration::from_secs(2);
/// How much may still be in a pipe when nobody may add to it any more (pipe(7)), with room to spare.
const LEFT: usize = 1024 * 1024;

/// The pipes of a command, while it runs.
#[derive(Debug)]
pub(super) struct Passage {
    /// Standard output, or both streams.
    output: Option<Receiver>,
    errors: Option<Receiver>,
    mask: Mask,
}

impl Passage {
    /// Lays the streams of `command`.
    ///
    /// # Errors
    /// When the system has no pipe for us.
    pub(super) fn lay(command: &mut tokio::process::Command, mask: Mask) -> io::Result<Self> {
        let mut passage = Passage {
            output: None,
            errors: None,
            mask,
        };
        let (output, errors) = (!io::stdout().is_terminal(), !io::stderr().is_terminal());
        if output && errors && same(io::stdout(), io::stderr()) {
            let (reader, writer) = io::pipe()?;
            command.stdout(Stdio::from(writer.try_clone()?));
            command.stderr(Stdio::from(writer));
            passage.output = Some(receiver(reader)?);
            return Ok(passage);
        }
        if output {
            let (reader, writer) = io::pipe()?;
            command.stdout(Stdio::from(writer));
            passage.output = Some(receiver(reader)?);
        }
        if errors {
            let (reader, writer) = io::pipe()?;
            command.stderr(Stdio::from(writer));
            passage.errors = Some(receiver(reader)?);
        }
        Ok(passage)
    }

    /// Carries everything until both streams end; at most for a moment longer than the command, which `ended` tells of.
    pub(super) async fn carry(self, ended: &CancellationToken) {
        let carried = async |from: Option<Receiver>, to: BorrowedFd<'_>| {
            // Not by way of the standard library's own buffer, which would wait for the end of a line.
            if let (Some(from), Ok(to)) = (from, to.try_clone_to_owned()) {
                carry(from, Arc::new(File::from(to)), self.mask.masker(), ended).await;
            }
        };
        let (output, errors) = (io::stdout(), io::stderr());
        tokio::join!(
            carried(self.output, output.as_fd()),
            carried(self.errors, errors.as_fd())
        );
    }
}

fn receiver(reader: io::PipeReader) -> io::Result<Receiver> {
    Receiver::from_file(File::from(OwnedFd::from(reader)))
}

/// Whether both lead to the same file or pipe.
fn same(one: impl AsFd, other: impl AsFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// When nobody takes the output any more this ends, and with it the pipe: the command is told as it would have been.
async fn carry(mut from: Receiver, to: Arc<File>, mut masker: Masker, ended: &CancellationToken) {
    let mut lingering = pin!(async {
        ended.cancelled().await;
        tokio::time::sleep(LINGER).await;
    });
    let mut chunk = vec![0; CHUNK];
    let mut out = Vec::new();
    loop {
        let prompt = masker.is_prompt();
        tokio::select! {
            biased;
            () = &mut lingering => break,
            read = from.read(&mut chunk) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => masker.push(&chunk[..count], &mut out),
            },
            () = tokio::time::sleep(PROMPT), if prompt => masker.relent(&mut out),
        }
        if pass(&to, &mut out).await.is_err() {
            return;
        }
    }
    // Whoever takes our output may have been slow: what the command itself printed is still to come.
    let mut left = LEFT;
    while left > 0
        && let Ok(count @ 1..) = from.try_read(&mut chunk)
    {
        masker.push(&chunk[..count], &mut out);
        if pass(&to, &mut out).await.is_err() {
            return;
        }
        left = left.saturating_sub(count);
    }
    masker.finish(&mut out);
    let _ = pass(&to, &mut out).await;
}

/// Writes all of `bytes`, which is empty afterwards. A pipe that nobody empties must not keep us from passing signals
/// on, so another thread waits for it.
async fn pass(to: &Arc<File>, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let (to, going) = (to.clone(), std::mem::take(bytes));
    let written = tokio::task::spawn_blocking(move || write_all(&to, &going).map(|()| going));
    *bytes = written.await.map_err(io::Error::other)??;
    bytes.clear();
    Ok(())
}

/// As the standard library's, but for a pipe that whoever made it does not want to wait for (`O_NONBLOCK`): the command,
/// which would have had to get along with it, is not asked.
fn write_all(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
