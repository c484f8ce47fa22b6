//! Blobs of a repository, as streams.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};

use super::Repository;
use super::auth::{Access, Scopes};
use super::errors::Tried;
use crate::failure::{Failure, Result};
use crate::http::{Body, Method, Repeat, Request, Response, StatusCode, Url, header};
use crate::oci::{Descriptor, Digest};

/// A blob on its way. Nothing has checked its bytes yet.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// How long giving an upload back may take: it is a courtesy.
const ABANDON_LIMIT: Duration = Duration::from_secs(5);

/// Whether a partial answer holds the bytes from `from` on of `size` (RFC 9110, section 14.4).
fn starts_at(response: &Response, from: u64, size: u64) -> bool {
    response
        .header(&header::CONTENT_RANGE)
        .and_then(content_range)
        .is_some_and(|(first, total)| first == from && total.is_none_or(|total| total == size))
}

/// The first byte of `bytes 5-9/10`, and the length of the whole unless that is `*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, total))
}

/// How many bytes an upload has whose `Range` is this: `0-<offset of the last byte>`. Of an empty one some say `0-0`,
/// and one byte is not worth to be told apart from none.
fn held(range: &str) -> Option<u64> {
    let range = range.trim();
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: i64 = last.parse().ok()?;
    match (first, last) {
        ("0", ..=0) => Some(0),
        ("0", last) => u64::try_from(last).ok()?.checked_add(1),
        _ => None,
    }
}

/// What comes after so many bytes of a stream.
fn without_the_first(
    bytes: u64,
    stream: impl Stream<Item = Result<Bytes>> + Send,
) -> impl Stream<Item = Result<Bytes>> + Send {
    let mut left = bytes;
    stream.filter_map(move |piece| {
        let kept = piece.map(|mut piece| {
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            left -= skipped as u64;
            piece.split_off(skipped)
        });
        std::future::ready(match kept {
            Ok(piece) if piece.is_empty() => None,
            kept => Some(kept),
        })
    })
}

/// What a registry says of a blob without giving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is not there.
    No,
    /// It is there.
    Yes,
    /// It is there, with so many bytes.
    Long(u64),
}

/// How an upload began.
#[derive(Debug)]
pub enum Begun {
    /// There was nothing to upload: the registry had the blob, and now this repository has it too.
    Mounted,
    /// The blob has to be sent.
    Upload(Upload),
}

/// An upload session that waits for its blob. Finish it or give it back.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    location: Url,
}

/// Why bytes did not all get into an upload, and how it may go on.
#[derive(Debug)]
pub struct Setback {
    /// What happened.
    pub failure: Failure,
    /// What may help.
    pub go_on: GoOn,
}

/// How an upload may go on after a setback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// The registry did nothing and asks to wait, maybe saying how long.
    AfterPause(Option<Duration>),
    /// From where the registry says that it is: see [`Upload::offset`].
    FromOffset,
    /// Not at all; another upload may do better.
    Anew,
}

impl Setback {
    fn begin_anew(failure: Failure) -> Self {
        Setback {
            failure,
            go_on: GoOn::Anew,
        }
    }
}

impl Repository {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (exit 7), as the registry says.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_length(digest).await? != Held::No)
    }

    /// Whether the repository has a blob, and how long it says that it is.
    ///
    /// # Errors
    /// As [`Repository::has_blob`].
    pub async fn blob_length(&self, digest: &Digest) -> Result<Held> {
        let scopes = self.scopes(Access::Pull);
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self
            .place
            .session
            .send(&scopes, || {
                self.place
                    .client
                    .request(Method::HEAD, url.clone())
                    .answered_elsewhere()
            })
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(Held::No),
            status if status.is_success() => {
                let length = response.header(&header::CONTENT_LENGTH);
                // Some say 0 of everything here, as nothing is given.
                let length = length
                    .and_then(|length| length.parse().ok())
                    .filter(|length| *length > 0);
                Ok(length.map_or(Held::Yes, Held::Long))
            }
            _ => Err(self.tried_blob("looking for", digest, &scopes, response).await),
        }
    }

    /// Opens a blob for reading. It may come from another host, which gets no credentials.
    ///
    /// # Errors
    /// Not found (exit 5), denied (4) or unavailable (7), as the registry says.
    pub async fn blob(&self, blob: &Descriptor) -> Result<BlobStream> {
        self.open_blob(blob, 0, false).await
    }

    /// Opens a blob to read on from an offset, in bytes. Servers that know of no ranges are read from the start, and what
    /// was not asked for is left out. Where the registry limits our rate this goes before other requests: the upload
    /// that waits for it may be what they wait for.
    ///
    /// # Errors
    /// As [`Repository::blob`].
    pub async fn blob_from(&self, blob: &Descriptor, from: u64) -> Result<BlobStream> {
        self.open_blob(blob, from, true).await
    }

    async fn open_blob(&self, blob: &Descriptor, from: u64, urgent: bool) -> Result<BlobStream> {
        let scopes = self.scopes(Access::Pull);
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        let get = async |range: Option<&str>| {
            let build = || {
                let mut request = self.place.client.get(url.clone()).answered_elsewhere().streams();
                if urgent {
                    request = request.urgent();
                }
                match range {
                    Some(range) => request.header(header::RANGE, range),
                    None => request,
                }
            };
            self.place.session.send(&scopes, build).await
        };
        // Not every registry serves a part whose end is left open.
        let range = (from > 0).then(|| format!("bytes={from}-{}", blob.size.saturating_sub(1)));
        let mut response = get(range.as_deref()).await?;
        if from > 0 {
            match response.status() {
                StatusCode::PARTIAL_CONTENT if starts_at(&response, from, blob.size) => {
                    return Ok(Box::pin(response.stream()));
                }
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST => {
                    response = get(None).await?;
                }
                _ => {}
            }
        }
        if response.status() != StatusCode::OK {
            return Err(self.tried_blob("reading", &blob.digest, &scopes, response).await);
        }
        Ok(Box::pin(without_the_first(from, response.stream())))
    }

    /// Begins an upload. With `mount_from`, a repository at the same registry, the registry is asked to take the blob
    /// from there; naming this repository itself asks whether it has the blob already. Either way one request does
    /// it, and where the registry cannot, its answer is the upload session.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (exit 7), as the registry says.
    pub async fn begin_upload(&self, digest: &Digest, mount_from: Option<&Repository>) -> Result<Begun> {
        let mut url = self.url("blobs/uploads/")?;
        let mut scopes = self.scopes(Access::Push);
        if let Some(from) = mount_from {
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from.reference().repository());
            scopes = scopes.and(&from.scopes(Access::Pull));
        }
        // A session opened twice is one session too many, which expires; nothing is written.
        let response = self
            .place
            .session
            .send(&scopes, || {
                self.place.client.post(url.clone()).repeat(Repeat::Safe)
            })
            .await?;
        match response.status() {
            StatusCode::CREATED if mount_from.is_some() => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => Ok(Begun::Upload(Upload {
                repository: self.clone(),
                location: self.upload_location(&response)?,
            })),
            _ => Err(self.tried_blob("uploading", digest, &scopes, response).await),
        }
    }

    fn upload_location(&self, response: &Response) -> Result<Url> {
        let broken = || {
            Failure::unavailable(format!(
                "{} opened an upload without saying where",
                self.reference().endpoint()
            ))
        };
        self.location(response)?.ok_or_else(broken)
    }

    /// Where the answer says that the upload goes on.
    fn location(&self, response: &Response) -> Result<Option<Url>> {
        let broken = || {
            Failure::unavailable(format!(
                "{} says that an upload is somewhere that is no URL",
                self.reference().endpoint()
            ))
        };
        let Some(location) = response.header(&header::LOCATION) else {
            return Ok(None);
        };
        let mut location = response.url().join(location).map_err(|_| broken())?;
        // A registry behind a TLS proxy often does not know that it is.
        if self.place.base.scheme() == "https"
            && location.scheme() == "http"
            && location.host() == self.place.base.host()
        {
            location = Url::parse(&location.as_str().replacen("http", "https", 1)).map_err(|_| broken())?;
            let _ = location.set_port(self.place.base.port());
        }
        Ok(Some(location))
    }

    async fn tried_blob(
        &self,
        verb: &'static str,
        digest: &Digest,
        scopes: &Scopes,
        response: Response,
    ) -> Failure {
        let tried = Tried {
            repository: self,
            verb,
            object: format!("the blob {}@{digest}", self.reference()),
            scopes,
        };
        tried.refused(response).await
    }
}

impl Upload {
    /// Closes the upload with a body that is the whole blob, or with an empty one once all of it was appended. A
    /// streamed body cannot be sent again; how long it takes is for the caller to watch.
    ///
    /// # Errors
    /// Unavailable (exit 7) when it breaks off; denied (exit 4) as the registry says.
    pub async fn finish(&self, digest: &Digest, body: Body) -> Result<(), Setback> {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self.repository.place.client.put(url);
        self.send(digest, request, body).await.map(drop)
    }

    /// Appends what is missing of a blob of `size` bytes, from `offset` on, of which the registry said that it is as far
    /// as it got. The upload still has to be finished.
    ///
    /// Source: OCI Distribution Specification, "Pushing a blob in chunks".
    ///
    /// # Errors
    /// As [`Upload::finish`].
    pub async fn append(
        &mut self,
        digest: &Digest,
        offset: u64,
        size: u64,
        body: Body,
    ) -> Result<(), Setback> {
        let last = size.saturating_sub(1);
        let request = self
            .repository
            .place
            .client
            .request(Method::PATCH, self.location.clone())
            .header(header::CONTENT_RANGE, &format!("{offset}-{last}"));
        let response = self.send(digest, request, body).await?;
        self.go_on_at(&response).map_err(Setback::begin_anew)
    }

    /// How many bytes the registry has got, after a request broke off.
    ///
    /// Source: OCI Distribution Specification, "Resuming an Interrupted Upload" and endpoint `end-13`.
    ///
    /// # Errors
    /// Unavailable (exit 7) when the registry does not say: then the upload cannot go on.
    pub async fn offset(&mut self, digest: &Digest) -> Result<u64> {
        let repository = &self.repository;
        let scopes = repository.scopes(Access::Push);
        let build = || repository.place.client.get(self.location.clone());
        let response = if self.is_at_home() {
            repository.place.session.send(&scopes, build).await?
        } else {
            build().send().await?
        };
        if !response.status().is_success() {
            return Err(repository.tried_blob("resuming", digest, &scopes, response).await);
        }
        let offset = response.header(&header::RANGE).and_then(held).ok_or_else(|| {
            Failure::unavailable(format!(
                "{} does not say how much it has of the blob {digest}",
                repository.reference().endpoint()
            ))
        })?;
        self.go_on_at(&response)?;
        Ok(offset)
    }

    fn go_on_at(&mut self, response: &Response) -> Result<()> {
        if let Some(location) = self.repository.location(response)? {
            self.location = location;
        }
        Ok(())
    }

    /// Sends bytes to the upload.
    async fn send(&self, digest: &Digest, request: Request<'_>, body: Body) -> Result<Response, Setback> {
        let repository = &self.repository;
        let scopes = repository.scopes(Access::Push);
        let mut request = request
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .timeout(repository.deadline().remaining())
            .body(body);
        let at_home = self.is_at_home();
        let session = &repository.place.session;
        let mut proof = None;
        if at_home {
            let shown = session.proof(&scopes).await.map_err(Setback::begin_anew)?;
            request = shown.on(request);
            proof = Some(shown);
        }
        let response = match request.send().await {
            Ok(response) => response,
            // No word from the registry: it may have got some of it.
            Err(failure) => {
                return Err(Setback {
                    go_on: GoOn::FromOffset,
                    failure,
                });
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if let Some(proof) = proof
            && status == StatusCode::UNAUTHORIZED
            && session
                .reconsider(&proof, &response)
                .await
                .map_err(Setback::begin_anew)?
        {
            // The token may have run out while the upload waited; the next attempt asks for another.
            return Err(Setback {
                go_on: GoOn::FromOffset,
                failure: Failure::unavailable(format!(
                    "{} let our token run out before the blob {digest} was there",
                    repository.reference().endpoint()
                )),
            });
        }
        let go_on = match status {
            _ if response.is_turned_away() => GoOn::AfterPause(response.retry_after()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::RANGE_NOT_SATISFIABLE => GoOn::FromOffset,
            status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => GoOn::FromOffset,
            _ => GoOn::Anew,
        };
        let failure = match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::RANGE_NOT_SATISFIABLE => Failure::unavailable(format!(
                "{} lost track of uploading the blob {digest} (status {status})",
                repository.reference().endpoint()
            )),
            _ => {
                repository
                    .tried_blob("uploading", digest, &scopes, response)
                    .await
            }
        };
        Err(Setback { failure, go_on })
    }

    /// Gives the upload back, so that the registry need not keep its beginnings. Best effort: it would expire too, and
    /// docker-registry refuses once half a blob went in, at an offset whose signature it never got to hand out.
    pub async fn abandon(self) {
        let repository = &self.repository;
        let scopes = repository.scopes(Access::Push);
        let work = async {
            let mut request = repository
                .place
                .client
                .request(Method::DELETE, self.location.clone())
                .urgent()
                .timeout(ABANDON_LIMIT);
            if self.is_at_home() {
                request = repository.place.session.proof(&scopes).await?.on(request);
            }
            request.send().await
        };
        match tokio::time::timeout(ABANDON_LIMIT, work).await {
            Ok(Ok(response)) if response.status().is_success() => {}
            _ => tracing::debug!(
                action = "abandon",
                object = repository.reference().name(),
                "an upload was left to expire"
            ),
        }
    }

    /// Whether the upload goes to the registry itself: no other host gets our credentials.
    fn is_at_home(&self) -> bool {
        self.location.origin() == self.repository.place.base.origin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        for (text, read) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-9/*", Some((0, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("5-9/10", None),
            ("bytes -9/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(text), read, "{text}");
        }
        for (text, read) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("0-0", Some(0)),
            ("0--1", Some(0)),
            ("5-9", None),
            ("0", None),
            ("0-x", None),
            ("0-9223372036854775807", Some(1 << 63)),
            ("", None),
        ] {
            assert_eq!(held(text), read, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_there_already_is_left_out() {
        let pieces = [&b"one"[..], b"two", b"three"];
        let whole = b"onetwothree";
        for from in 0..=12_usize {
            let stream = futures_util::stream::iter(pieces.map(|piece| Ok(Bytes::from_static(piece))));
            let kept: Vec<Bytes> = without_the_first(from as u64, stream)
                .map(|piece| piece.unwrap())
                .collect()
                .await;
            assert_eq!(kept.concat(), whole[from.min(whole.len())..], "{from}");
        }
    }
}
