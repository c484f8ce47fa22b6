//! An answer that never ends, read line by line within a bound.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::Response;
use crate::failure::{Failure, Result};

/// A buffer that a long line has grown beyond this is given back, so that one of them does not set the memory of a run
/// that waits for hours.
const KEPT: usize = 64 * 1024;

/// The lines of an answer as they come.
pub struct Lines {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    shown: String,
    limit: usize,
    buffer: Vec<u8>,
    /// How much of the buffer was given out already.
    given: usize,
    /// How much of the buffer is known to hold no line break.
    searched: usize,
    ended: bool,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// The body line by line, none longer than `limit` bytes. Send the request with [`super::Request::streams`], or its
    /// timeout ends it.
    #[must_use]
    pub fn lines(self, limit: usize) -> Lines {
        Lines {
            shown: self.shown().to_owned(),
            chunks: Box::pin(self.stream()),
            limit,
            buffer: Vec::new(),
            given: 0,
            searched: 0,
            ended: false,
        }
    }
}

impl Lines {
    /// The next line without its break; none at the end. What stands behind the last break is a line, too. Nothing is lost
    /// when it is dropped before it is done and called again.
    ///
    /// # Errors
    /// Unavailable (exit 7) when the answer breaks off; deadline (exit 9) when the run's time is up; input (exit 3) for a
    /// line that is too long.
    pub async fn next(&mut self) -> Result<Option<&[u8]>> {
        self.buffer.drain(..self.given);
        self.given = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        loop {
            let found = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(found) = found {
                let end = self.searched + found;
                self.given = end + 1;
                self.searched = 0;
                return Ok(Some(trimmed(&self.buffer[..end])));
            }
            self.searched = self.buffer.len();
            if self.ended {
                self.given = self.buffer.len();
                self.searched = 0;
                return Ok((!self.buffer.is_empty()).then(|| trimmed(&self.buffer)));
            }
            match self.chunks.next().await {
                None => self.ended = true,
                Some(chunk) => {
                    let chunk = chunk?;
                    let unbroken = chunk
                        .iter()
                        .position(|byte| *byte == b'\n')
                        .unwrap_or(chunk.len());
                    if self.buffer.len() + unbroken > self.limit {
                        return Err(Failure::input(format!(
                            "the answer to {} has a line of more than {} bytes",
                            self.shown, self.limit
                        )));
                    }
                    self.buffer.extend_from_slice(&chunk);
                }
            }
        }
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&'static str], limit: usize) -> Lines {
        let chunks: Vec<Result<Bytes>> = chunks.iter().map(|chunk| Ok(Bytes::from(*chunk))).collect();
        Lines {
            chunks: Box::pin(futures_util::stream::iter(chunks)),
            shown: "GET example".to_owned(),
            limit,
            buffer: Vec::new(),
            given: 0,
            searched: 0,
            ended: false,
        }
    }

    async fn all(mut lines: Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(String::from_utf8(line.to_vec()).unwrap());
        }
        found
    }

    #[tokio::test]
    async fn lines_are_put_together_from_whatever_comes() {
        let found = all(lines(&["on", "e\ntwo\r\n\nfo", "", "ur\nlast"], 8)).await;
        assert_eq!(found, ["one", "two", "", "four", "last"]);
        assert!(all(lines(&[], 8)).await.is_empty());
        assert_eq!(all(lines(&["a\n"], 8)).await, ["a"]);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_given_up() {
        let mut endless = lines(&["1234", "5678", "9"], 8);
        assert_eq!(
            endless.next().await.unwrap_err().kind(),
            crate::failure::Kind::Input
        );
        // Many short lines in one chunk are not one long line.
        assert_eq!(all(lines(&["1234\n5678\n9012\n"], 8)).await.len(), 3);
    }

    #[tokio::test]
    async fn a_long_line_does_not_keep_its_memory() {
        let long: &'static str = Box::leak(format!("{}\n", "x".repeat(4 * KEPT)).into_boxed_str());
        let mut lines = lines(&[long, "short\n"], 8 * KEPT);
        assert_eq!(lines.next().await.unwrap().map(<[u8]>::len), Some(4 * KEPT));
        assert_eq!(lines.next().await.unwrap(), Some(b"short".as_slice()));
        assert!(lines.buffer.capacity() <= KEPT);
    }
}
