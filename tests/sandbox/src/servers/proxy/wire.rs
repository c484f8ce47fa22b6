//! HTTP/1.1 as it is on the wire: heads, and bodies whose end has to be found.
//!
//! Source: RFC 9112, sections 2 to 7. What passes is left as it is; obsolete line folding, pipelining and upgrades do
//! not occur between registries and their clients and are not known here.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::tcp::OwnedReadHalf;

/// No head is longer, in bytes.
const LONGEST_HEAD: usize = 256 * 1024;
/// The most that is read of a body at once, in bytes.
const PIECE: u64 = 16 * 1024;

/// The first line and the headers of a message, with the line ends, up to and with the empty line.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
    /// Where the connection does.
    UntilClose,
}

/// What is still to come of a body.
pub(super) struct Body {
    left: Left,
}

enum Left {
    Bytes(u64),
    /// The next line says how long the chunk is.
    ChunkSize,
    /// So much of a chunk, its line end included.
    Chunk(u64),
    Trailers,
    UntilClose,
}

/// A part of a body.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Whether it is content, or what frames it.
    pub(super) is_content: bool,
}

impl Head {
    /// Reads a head; none when the connection ends before it.
    pub(super) async fn read(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            let read = from.read_until(b'\n', &mut bytes).await?;
            if read == 0 {
                return if start == 0 {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            if matches!(&bytes[start..], b"\r\n" | b"\n") {
                return Ok(Some(Self { bytes }));
            }
            if bytes.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// A word of the first line: of a request the method and the target, of an answer the version and the status.
    pub(super) fn word(&self, number: usize) -> String {
        let text = self.text();
        let first = text.lines().next().unwrap_or_default();
        first.split(' ').nth(number).unwrap_or_default().to_owned()
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.text().lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.trim()
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }

    /// The same head with another value for a header that it has.
    pub(super) fn replacing(&self, name: &str, value: &str) -> Self {
        let text = self.text();
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for line in text.split_inclusive('\n') {
            match line.split_once(':') {
                Some((own, _)) if own.trim().eq_ignore_ascii_case(name) => {
                    bytes.extend_from_slice(format!("{own}: {value}\r\n").as_bytes());
                }
                _ => bytes.extend_from_slice(line.as_bytes()),
            }
        }
        Self { bytes }
    }

    /// Where a request's body ends.
    pub(super) fn request_length(&self) -> Length {
        self.stated_length().unwrap_or(Length::Known(0))
    }

    /// Where the body of the answer to a request with this method ends.
    pub(super) fn answer_length(&self, method: &str) -> Length {
        let status = self.word(1);
        if method == "HEAD" || status.starts_with('1') || status == "204" || status == "304" {
            return Length::Known(0);
        }
        self.stated_length().unwrap_or(Length::UntilClose)
    }

    fn stated_length(&self) -> Option<Length> {
        if self
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            return Some(Length::Chunked);
        }
        self.header("content-length")?.parse().ok().map(Length::Known)
    }

    /// Whether the connection ends with this message.
    pub(super) fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Body {
    pub(super) fn new(length: Length) -> Self {
        let left = match length {
            Length::Known(bytes) => Left::Bytes(bytes),
            Length::Chunked => Left::ChunkSize,
            Length::UntilClose => Left::UntilClose,
        };
        Self { left }
    }

    /// The next piece of at most `limit` bytes of content; none at the end.
    pub(super) async fn next(
        &mut self,
        from: &mut BufReader<OwnedReadHalf>,
        limit: u64,
    ) -> io::Result<Option<Piece>> {
        let limit = limit.clamp(1, PIECE);
        match self.left {
            Left::Bytes(0) => Ok(None),
            Left::Bytes(left) => {
                let bytes = some(from, left.min(limit)).await?;
                self.left = Left::Bytes(left - bytes.len() as u64);
                Ok(Some(Piece {
                    bytes,
                    is_content: true,
                }))
            }
            Left::UntilClose => match some(from, limit).await {
                Ok(bytes) => Ok(Some(Piece {
                    bytes,
                    is_content: true,
                })),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.left = Left::Bytes(0);
                    Ok(None)
                }
                Err(error) => Err(error),
            },
            Left::ChunkSize => {
                let bytes = line(from).await?;
                let text = String::from_utf8_lossy(&bytes);
                let size = text.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                self.left = if size == 0 {
                    Left::Trailers
                } else {
                    Left::Chunk(size + 2)
                };
                Ok(Some(Piece {
                    bytes,
                    is_content: false,
                }))
            }
            Left::Chunk(left) => {
                // The line end is told apart, since it is no content.
                let is_content = left > 2;
                let wanted = if is_content { (left - 2).min(limit) } else { left };
                let bytes = some(from, wanted).await?;
                let left = left - bytes.len() as u64;
                self.left = if left == 0 {
                    Left::ChunkSize
                } else {
                    Left::Chunk(left)
                };
                Ok(Some(Piece { bytes, is_content }))
            }
            Left::Trailers => {
                let bytes = line(from).await?;
                if matches!(bytes.as_slice(), b"\r\n" | b"\n") {
                    self.left = Left::Bytes(0);
                }
                Ok(Some(Piece {
                    bytes,
                    is_content: false,
                }))
            }
        }
    }
}

async fn line(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

/// Some bytes, at least one and at most so many.
async fn some(from: &mut BufReader<OwnedReadHalf>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(most.min(PIECE)).unwrap_or_default());
    let read = from.take(most).read_buf(&mut bytes).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
