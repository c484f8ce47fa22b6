//! What a request carries.

use std::error::Error;

use bytes::Bytes;
use futures_util::Stream;

/// What a request carries.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stream that can be read once, so that the request is never repeated, and its length where it is known.
    Stream(reqwest::Body, Option<u64>),
}

impl Body {
    /// A stream of a known length, which is announced: many registries refuse chunked uploads.
    pub fn stream<S, E>(stream: S, length: u64) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        Body::Stream(reqwest::Body::wrap_stream(stream), Some(length))
    }
}
