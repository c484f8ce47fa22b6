//! Blobs that are read, with what goes wrong on the way.

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{Memory, error};

/// What goes wrong with a blob that is read.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Half of it comes, and then the connection breaks.
    BreaksOff,
    /// Half of it comes, and then nothing.
    Stalls,
    /// Half of it comes, and the length says that this is all.
    IsShort,
    /// More comes than it has.
    IsLong,
    /// All of it comes, in small pieces, and nothing says how long it is.
    Drips,
    /// As many bytes, but others.
    WrongBytes,
    /// It is at this other host.
    IsElsewhere(String),
    /// This status instead.
    Status(u16),
}

/// How ranges are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// With all of it.
    #[default]
    Ignored,
    /// As asked.
    Known,
    /// With 416.
    Refused,
    /// With other bytes than asked for, honestly labelled.
    Wrong,
}

impl Memory {
    pub(super) fn blob(
        &mut self,
        method: &Method,
        headers: &HeaderMap,
        repository: &str,
        digest: &str,
    ) -> Response {
        let Some(bytes) = self
            .blobs
            .get(&(repository.to_owned(), digest.to_owned()))
            .cloned()
        else {
            return error(404, "BLOB_UNKNOWN");
        };
        if *method == Method::HEAD {
            return StatusCode::OK.into_response();
        }
        let fault = match &self.script.blobs {
            Some((fault, times)) => {
                let so_far = self.faults.entry(digest.to_owned()).or_default();
                *so_far += 1;
                (*so_far <= *times).then(|| fault.clone())
            }
            None => None,
        };
        let range = headers
            .get("range")
            .map(|range| range.to_str().unwrap().to_owned())
            .and_then(|range| {
                // As the strictest do: a part whose end is not named is none.
                let (from, last) = range.strip_prefix("bytes=")?.split_once('-')?;
                let (from, last): (usize, usize) = (from.parse().ok()?, last.parse().ok()?);
                (from <= last && last + 1 == bytes.len()).then_some(from)
            });
        let total = bytes.len();
        let (from, status) = match (range, self.script.ranges) {
            (None, _) | (_, Ranges::Ignored) => (0, StatusCode::OK),
            (Some(_), Ranges::Refused) => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
            (Some(from), Ranges::Known) => (from, StatusCode::PARTIAL_CONTENT),
            (Some(from), Ranges::Wrong) => (from / 2, StatusCode::PARTIAL_CONTENT),
        };
        let bytes = bytes.slice(from..);
        let half = bytes.slice(..bytes.len().div_ceil(2));
        let mut headers = HeaderMap::new();
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {from}-{}/{total}", total - 1);
            headers.insert("content-range", range.parse().unwrap());
        }
        let mut with_length = headers.clone();
        with_length.insert("content-length", bytes.len().to_string().parse().unwrap());
        match fault {
            None => (status, headers, bytes).into_response(),
            Some(Fault::WrongBytes) => (status, headers, vec![b'?'; bytes.len()]).into_response(),
            Some(Fault::IsElsewhere(host)) => {
                let location = format!("http://{host}/v2/{repository}/blobs/{digest}");
                (StatusCode::TEMPORARY_REDIRECT, [("location", location)]).into_response()
            }
            Some(Fault::Status(status)) => error(status, "UNKNOWN"),
            Some(Fault::IsShort) => (status, headers, half).into_response(),
            Some(Fault::IsLong) => (status, headers, [&bytes[..], b"and more"].concat()).into_response(),
            Some(Fault::Drips) => {
                let pieces: Vec<Bytes> = bytes
                    .chunks(bytes.len().div_ceil(20).max(1))
                    .map(|piece| bytes.slice_ref(piece))
                    .collect();
                let drip = stream::iter(pieces).then(|piece| async {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    Ok::<_, std::io::Error>(piece)
                });
                (status, headers, Body::from_stream(drip)).into_response()
            }
            Some(Fault::BreaksOff) => {
                let first = stream::iter([Ok(half)]);
                // Time for the half to leave, or the answer would break off before it began.
                let broken = stream::once(async {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    Err(std::io::Error::other("as the script says"))
                });
                (status, with_length, Body::from_stream(first.chain(broken))).into_response()
            }
            Some(Fault::Stalls) => {
                let first = stream::iter([Ok::<_, std::io::Error>(half)]);
                (
                    status,
                    with_length,
                    Body::from_stream(first.chain(stream::pending())),
                )
                    .into_response()
            }
        }
    }
}
