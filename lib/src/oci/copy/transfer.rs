//! Bringing one blob to one repository.
//!
//! A blob flows from source to target without being kept: its bytes are hashed on the way, and the last piece is held
//! back until the hash is right, so that a wrong blob never becomes a complete upload. What breaks off is begun again
//! a few times; what was begun at the target is given back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::source::Source;
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::http::Body;
use crate::oci::{Begun, BlobStream, Descriptor, Repository, Upload, Verifier};

/// How often a blob is begun again.
const REPETITIONS: usize = 3;
/// From this size on it is worth a request to ask whether a registry that ignores mounts has the blob, and streams of
/// blobs run fewer at a time.
const LARGE: u64 = 1024 * 1024;
/// A transfer in which nothing moves for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// Once all bytes are sent, a registry may take long to put them where they belong.
const SETTLE: Duration = Duration::from_secs(600);

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Mounted,
    Copied,
    Skipped,
}

/// Bounds what runs at once: requests, and among them streams of large blobs.
#[derive(Debug)]
pub(super) struct Lanes {
    requests: Semaphore,
    large: Semaphore,
}

impl Lanes {
    pub(super) fn new(concurrency: usize) -> Self {
        Lanes {
            requests: Semaphore::new(concurrency.max(1)),
            large: Semaphore::new((concurrency / 4).max(1)),
        }
    }

    /// Waits for its turn to send requests, which ends when what this gives back is dropped.
    pub(super) async fn enter(&self) -> Result<SemaphorePermit<'_>> {
        self.requests
            .acquire()
            .await
            .map_err(|error| Failure::internal("the lanes of a copy were closed").because(error))
    }
}

/// Brings blobs from one source to one repository.
pub(super) struct Mover<'a> {
    pub(super) source: &'a Source,
    pub(super) target: &'a Repository,
    /// Another repository at the target's registry that has the blobs.
    pub(super) mount_from: Option<&'a Repository>,
    /// Set once the registry refused to mount from there.
    pub(super) mounts_refused: AtomicBool,
    pub(super) lanes: &'a Lanes,
    pub(super) stop: &'a CancellationToken,
    pub(super) progress: &'a Arc<Progress>,
}

pub(super) fn stopped() -> Failure {
    Failure::deadline("interrupted while copying")
        .hint("run it again: what is at the target already is not sent twice")
}

impl Mover<'_> {
    pub(super) async fn bring(&self, blob: &Descriptor) -> Result<Moved> {
        let _lane = tokio::select! {
            lane = self.lanes.enter() => lane?,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        let effect = effect(
            "bring",
            format!("blob {} to {}", blob.digest, self.target.reference()),
        );
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_times(REPETITIONS)
            .with_jitter()
            .build();
        loop {
            let failure = match self.attempt(blob).await {
                Ok(moved) => {
                    effect.done(match moved {
                        Moved::Mounted => "mounted",
                        Moved::Copied => "copied",
                        Moved::Skipped => "unchanged",
                    });
                    return Ok(moved);
                }
                Err(failure) => failure,
            };
            if self.target.deadline().passed() {
                return Err(Failure::deadline(format!(
                    "the deadline passed while copying the blob {}",
                    blob.digest
                ))
                .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow")
                .because(failure));
            }
            let Some(pause) = pauses.next().filter(|_| failure.kind() == Kind::Unavailable) else {
                return Err(failure);
            };
            tracing::debug!(
                action = "retry",
                object = blob.digest.as_str(),
                reason = format!("{failure:?}"),
                "copying again"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Err(stopped()),
            }
        }
    }

    async fn attempt(&self, blob: &Descriptor) -> Result<Moved> {
        let begun = tokio::select! {
            begun = self.begin(blob) => begun?,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        let upload = match begun {
            Ok(moved) => return Ok(moved),
            Err(upload) => upload,
        };
        let poured = {
            let _large = if blob.size >= LARGE {
                Some(self.lanes.large.acquire().await)
            } else {
                None
            };
            tokio::select! {
                poured = self.pour(blob, &upload) => poured,
                () = self.stop.cancelled() => Err(stopped()),
            }
        };
        match poured {
            Ok(()) => Ok(Moved::Copied),
            Err(failure) => {
                upload.abandon().await;
                Err(failure)
            }
        }
    }

    /// Finds out with as few requests as can be whether the blob has to be sent, and opens the upload if so.
    async fn begin(&self, blob: &Descriptor) -> Result<std::result::Result<Moved, Upload>> {
        if let Some(from) = self.mount_from
            && !self.mounts_refused.load(Ordering::Relaxed)
        {
            match self.target.begin_upload(&blob.digest, Some(from)).await {
                Ok(Begun::Mounted) => return Ok(Ok(Moved::Mounted)),
                Ok(Begun::Upload(upload)) => return Ok(Err(upload)),
                // The login may write here without being allowed to read there, or even to know of it.
                Err(failure) if matches!(failure.kind(), Kind::Denied | Kind::NotFound) => {
                    self.mounts_refused.store(true, Ordering::Relaxed);
                }
                Err(failure) => return Err(failure),
            }
        }
        if blob.size >= LARGE && self.target.has_blob(&blob.digest).await? {
            return Ok(Ok(Moved::Skipped));
        }
        match self.target.begin_upload(&blob.digest, Some(self.target)).await? {
            Begun::Mounted => Ok(Ok(Moved::Skipped)),
            Begun::Upload(upload) => Ok(Err(upload)),
        }
    }

    async fn pour(&self, blob: &Descriptor, upload: &Upload) -> Result<()> {
        let content = self.source.blob(blob).await?;
        self.progress.grow(blob.size);
        let flow = Arc::new(Flow::default());
        let body = if blob.size == 0 {
            Body::Empty
        } else {
            let checked = checked(content, blob, flow.clone(), self.progress.clone());
            Body::stream(checked, blob.size)
        };
        let sent = tokio::select! {
            sent = upload.finish(&blob.digest, body) => sent,
            () = flow.stalls(blob.size) => Err(Failure::unavailable(format!(
                "nothing moves any more of the blob {} to {}",
                blob.digest,
                self.target.reference()
            ))),
        };
        // When the source breaks, the target only sees an upload that ends early. The source's word is the better one.
        match flow.take_failure() {
            Some(failure) => Err(failure),
            None => sent,
        }
    }
}

/// What is known of a blob on its way, on both sides of the HTTP client.
#[derive(Debug, Default)]
struct Flow {
    moved: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Flow {
    fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, failure: Failure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// Resolves when nothing moved for too long.
    async fn stalls(&self, size: u64) {
        let mut seen = self.moved.load(Ordering::Relaxed);
        loop {
            let patience = if seen >= size { SETTLE } else { STALL };
            tokio::time::sleep(patience).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}

/// The bytes of a blob as long as they are right: the stream ends in an error, before its last piece, when length or
/// digest are not those of the descriptor.
fn checked(
    content: BlobStream,
    blob: &Descriptor,
    flow: Arc<Flow>,
    progress: Arc<Progress>,
) -> impl Stream<Item = std::result::Result<Bytes, std::io::Error>> + Send + 'static {
    struct Check {
        content: BlobStream,
        blob: Descriptor,
        verifier: Option<Verifier>,
        flow: Arc<Flow>,
        progress: Arc<Progress>,
    }
    let check = Check {
        content,
        verifier: Some(blob.digest.verifier()),
        blob: blob.clone(),
        flow,
        progress,
    };
    stream::unfold(Some(check), |check| async move {
        let mut check = check?;
        let moved = check.flow.moved.load(Ordering::Relaxed);
        let next = match check.content.next().await {
            Some(next) => next,
            None if moved == check.blob.size => return None,
            None => Err(Failure::unavailable(format!(
                "the blob {} ended after {moved} of {} bytes",
                check.blob.digest, check.blob.size
            ))),
        };
        let piece = next.and_then(|bytes| {
            let total = moved + bytes.len() as u64;
            // Wrong bytes come from a broken cache or proxy more often than from a wrong registry, and may be right
            // at the next attempt.
            let wrong = |what: &str| {
                Failure::unavailable(format!(
                    "the source gives other bytes for the blob {} than its {what} says",
                    check.blob.digest
                ))
                .hint("if it stays so, the image is damaged at its source: build it again")
            };
            if total > check.blob.size {
                return Err(wrong("size"));
            }
            if let Some(verifier) = &mut check.verifier {
                verifier.update(&bytes);
            }
            if total == check.blob.size
                && let Some(verifier) = check.verifier.take()
                && verifier.digest() != check.blob.digest
            {
                return Err(wrong("digest"));
            }
            check.flow.moved.store(total, Ordering::Relaxed);
            check.progress.advance(bytes.len() as u64);
            Ok(bytes)
        });
        match piece {
            Ok(bytes) => Some((Ok(bytes), Some(check))),
            Err(failure) => {
                let told = std::io::Error::other(failure.message().to_owned());
                check.flow.fail(failure);
                Some((Err(told), None))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::oci::Digest;

    async fn passed(pieces: &[&'static [u8]], size: u64, digest: Digest) -> (Vec<u8>, Option<Failure>) {
        let pieces: Vec<Result<Bytes>> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        let blob = Descriptor {
            media_type: "layer".to_owned(),
            digest,
            size,
        };
        let flow = Arc::new(Flow::default());
        let progress = Arc::new(Progress::bytes("test", size));
        let mut stream = pin!(checked(
            Box::pin(stream::iter(pieces)),
            &blob,
            flow.clone(),
            progress
        ));
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(_) => break,
            }
        }
        (bytes, flow.take_failure())
    }

    #[tokio::test]
    async fn right_bytes_pass_and_wrong_ones_never_get_complete() {
        let right = passed(&[b"one", b"", b"two"], 6, Digest::of(b"onetwo")).await;
        assert_eq!(right.0, b"onetwo");
        assert!(right.1.is_none());
        for (pieces, size, digest) in [
            (&[&b"one"[..], b"TWO"][..], 6, Digest::of(b"onetwo")),
            (&[&b"one"[..]][..], 6, Digest::of(b"onetwo")),
            (&[&b"one"[..], b"two", b"!"][..], 6, Digest::of(b"onetw")),
            (&[&b"onetwothree"[..]][..], 6, Digest::of(b"onetwo")),
        ] {
            let (bytes, failure) = passed(pieces, size, digest).await;
            assert!((bytes.len() as u64) < size, "{pieces:?} became complete");
            assert_eq!(failure.expect("a failure").kind(), Kind::Unavailable);
        }
    }
}
