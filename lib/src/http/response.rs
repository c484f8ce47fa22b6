//! An answer, whose body is read within a bound.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderName};
use serde::de::DeserializeOwned;

use super::Unanswered;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};

/// An answer of any status. Its body has not been read yet.
#[derive(Debug)]
pub struct Response {
    inner: reqwest::Response,
    shown: String,
    deadline: Deadline,
}

impl Response {
    pub(super) fn new(inner: reqwest::Response, shown: String, deadline: Deadline) -> Self {
        Response {
            inner,
            shown,
            deadline,
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Whether it came by HTTP/1, of which a connection carries one request at a time.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        self.inner.version() <= reqwest::Version::HTTP_11
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// One header as text; none when it is absent or not text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Where the answer came from, after redirects.
    #[must_use]
    pub fn url(&self) -> &reqwest::Url {
        self.inner.url()
    }

    /// Method, host and path of the request, for messages.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The length the server announced.
    #[must_use]
    pub fn announced_length(&self) -> Option<u64> {
        self.inner.content_length()
    }

    /// How long the server asks to wait before asking again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.headers())
    }

    /// Whether the server did nothing because it has too much to do: 429, or 503 with `Retry-After`.
    #[must_use]
    pub fn is_turned_away(&self) -> bool {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => self.retry_after().is_some(),
            _ => false,
        }
    }

    /// Reads the body, at most `limit` bytes of it.
    ///
    /// # Errors
    /// Unavailable (exit 7) when it breaks off; deadline (exit 9) when the run's time is up; input (exit 3) when it is
    /// longer than `limit`.
    pub async fn bytes(self, limit: usize) -> Result<Bytes> {
        let shown = self.shown.clone();
        let mut stream = std::pin::pin!(self.stream());
        let mut body = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if body.len() + chunk.len() > limit {
                return Err(Failure::input(format!(
                    "the answer to {shown} is longer than {limit} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Reads the body as text, at most `limit` bytes; bytes that are not UTF-8 are replaced. For error messages.
    pub async fn text(self, limit: usize) -> String {
        match self.bytes(limit).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(failure) => format!("({failure})"),
        }
    }

    /// Reads the body as a JSON document of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Response::bytes`]; unavailable (exit 7) when the document ends in the middle, which is as good as lost; input (exit 3)
    /// when it is a web page, or not JSON of the expected shape.
    pub async fn json<T: DeserializeOwned>(self, limit: usize) -> Result<T> {
        const HINT: &str = "check that the address is the system's own, and not a proxy's or a login page's";
        self.json_or_hint(limit, HINT).await
    }

    /// The same, with a hint of the system's own for an answer that somebody else gave.
    ///
    /// # Errors
    /// As [`Response::json`].
    pub async fn json_or_hint<T: DeserializeOwned>(self, limit: usize, hint: &str) -> Result<T> {
        let shown = self.shown.clone();
        let bytes = self.bytes(limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            if bytes.trim_ascii_start().starts_with(b"<") {
                return Failure::input(format!("{shown} is answered with a web page")).hint(hint);
            }
            if error.is_eof() {
                return Failure::unavailable(format!("the answer to {shown} ends in the middle"))
                    .because(error)
                    .hint("try again: a proxy or the server cut it off");
            }
            Failure::input(format!("the answer to {shown} is not the JSON that was expected"))
                .because(error)
                .hint(hint)
        })
    }

    /// The body as it comes.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        let (shown, deadline) = (self.shown, self.deadline);
        self.inner.bytes_stream().map(move |chunk| {
            chunk.map_err(|error| {
                if deadline.passed() {
                    return Failure::deadline(format!(
                        "the deadline passed while reading the answer to {shown}"
                    ))
                    .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow");
                }
                Failure::unavailable(format!("the answer to {shown} broke off"))
                    .because(Unanswered::new(Some(&error.without_url())))
                    .hint("try again: a proxy or the server cut the connection")
            })
        })
    }
}

/// Reads `Retry-After` in either form (RFC 9110, section 10.2.3): seconds, or an HTTP date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let wait = date
        .as_second()
        .saturating_sub(jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"),
        );
        assert_eq!(retry_after(&headers), Some(Duration::ZERO));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&headers), None);
    }
}
