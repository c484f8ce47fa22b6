//! Bringing one blob to one repository.
//!
//! A blob flows from source to target without being kept. What breaks off goes on where it broke off, on either side,
//! where the registry there can; else it is begun again a few times, and what was begun at the target is given back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use super::reading::{Reading, opener, pauses};
use super::record::{Flaw, Marks, Record};
use super::source::Source;
use super::traffic::Traffic;
use crate::cli::{Effect, Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::http::{Body, LONGEST_PAUSE, Refusals};
use crate::oci::{Begun, Descriptor, GoOn, Repository, Setback, Upload};

/// How often a blob is begun again.
const REPETITIONS: usize = 3;
/// From this size on it is worth a request to ask whether a registry that ignores mounts has the blob, or how far an
/// upload got that broke off, and streams of blobs run fewer at a time.
pub(super) const LARGE: u64 = 1024 * 1024;
/// How long a registry may go on turning a blob away.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Mounted,
    Copied,
    Skipped,
}

impl Moved {
    pub(super) fn told_by(self, effect: Effect) -> Self {
        effect.done(match self {
            Moved::Mounted => "mounted",
            Moved::Copied => "copied",
            Moved::Skipped => "unchanged",
        });
        self
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
    pub(super) traffic: &'a Traffic,
    pub(super) stop: &'a CancellationToken,
    pub(super) progress: &'a Arc<Progress>,
}

/// An upload that has begun.
pub(super) struct Underway {
    pub(super) upload: Upload,
    pub(super) record: Arc<Record>,
    /// What befell it so far.
    pub(super) setback: Option<Setback>,
}

/// How a try to bring a blob failed.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) failure: Failure,
    /// Whether beginning anew may help.
    pub(super) again: bool,
}

impl Missed {
    /// By the target, or on the way there.
    fn at_target(failure: Failure) -> Self {
        Missed {
            again: failure.kind() == Kind::Unavailable,
            failure,
        }
    }

    pub(super) fn stopped() -> Self {
        Missed {
            failure: stopped(),
            again: false,
        }
    }
}

impl From<Flaw> for Missed {
    fn from(Flaw { failure, again }: Flaw) -> Self {
        Missed { failure, again }
    }
}

pub(super) fn stopped() -> Failure {
    Failure::deadline("interrupted while copying")
        .hint("run it again: what is at the target already is not sent twice")
}

impl Mover<'_> {
    /// Brings a blob, unless another copy of this run brings it or has brought it there.
    pub(super) async fn bring(&self, blob: &Descriptor) -> Result<Moved> {
        let turn = async {
            let Some(claim) = self.traffic.claim(self.target, &blob.digest).await else {
                return Ok(None);
            };
            Ok(Some((claim, self.traffic.enter(self.target).await?)))
        };
        let turn = self.unless_stopped(turn).await?;
        let Some((claim, _lane)) = turn else {
            return Ok(Moved::Skipped);
        };
        let effect = self.effect(blob);
        let moved = self.persist(blob, None).await?;
        claim.fulfil();
        Ok(moved.told_by(effect))
    }

    pub(super) fn effect(&self, blob: &Descriptor) -> Effect {
        effect(
            "bring",
            format!("blob {} to {}", blob.digest, self.target.reference()),
        )
    }

    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(stopped()),
        }
    }

    /// Tries to bring a blob until it is there or trying again cannot help; an upload may be under way already.
    pub(super) async fn persist(&self, blob: &Descriptor, mut underway: Option<Underway>) -> Result<Moved> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_times(REPETITIONS)
            .with_jitter()
            .build();
        loop {
            let missed = match self.attempt(blob, underway.take()).await {
                Ok(moved) => return Ok(moved),
                Err(missed) => missed,
            };
            let failure = missed.failure;
            if self.target.deadline().passed() {
                return Err(Failure::deadline(format!(
                    "the deadline passed while copying the blob {}",
                    blob.digest
                ))
                .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow")
                .because(failure));
            }
            let Some(pause) = pauses.next().filter(|_| missed.again) else {
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

    async fn attempt(&self, blob: &Descriptor, underway: Option<Underway>) -> Result<Moved, Missed> {
        let mut underway = match underway {
            Some(underway) => underway,
            None => match self.begin(blob).await.map_err(Missed::at_target)? {
                Ok(moved) => return Ok(moved),
                Err(upload) => self.underway(blob, upload, Arc::default()),
            },
        };
        let poured = async {
            let _large = match blob.size {
                LARGE.. => Some(
                    self.traffic
                        .enter_large(self.target)
                        .await
                        .map_err(Missed::at_target)?,
                ),
                _ => None,
            };
            self.pour(blob, &mut underway).await
        };
        let poured = tokio::select! {
            poured = poured => poured,
            () = self.stop.cancelled() => Err(Missed::stopped()),
        };
        match poured {
            Ok(()) => Ok(Moved::Copied),
            Err(missed) => {
                underway.upload.abandon().await;
                Err(missed)
            }
        }
    }

    pub(super) fn underway(&self, blob: &Descriptor, upload: Upload, marks: Arc<Mutex<Marks>>) -> Underway {
        self.progress.grow(blob.size);
        Underway {
            upload,
            record: Record::new(self.progress.clone(), marks),
            setback: None,
        }
    }

    /// Finds out with as few requests as can be whether the blob has to be sent, and opens the upload if so.
    pub(super) async fn begin(&self, blob: &Descriptor) -> Result<Result<Moved, Upload>> {
        self.unless_stopped(self.ask(blob)).await
    }

    async fn ask(&self, blob: &Descriptor) -> Result<Result<Moved, Upload>> {
        if let Some(from) = self.mount_from
            && !self.mounts_refused.load(Ordering::Relaxed)
        {
            match self.target.begin_upload(&blob.digest, Some(from)).await {
                Ok(Begun::Mounted) => return Ok(Ok(Moved::Mounted)),
                Ok(Begun::Upload(upload)) => return self.unless_held(blob, upload).await,
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

    /// Some registries answer every mount with an upload, also for what this repository holds already.
    async fn unless_held(&self, blob: &Descriptor, upload: Upload) -> Result<Result<Moved, Upload>> {
        if blob.size < LARGE {
            return Ok(Err(upload));
        }
        match self.target.has_blob(&blob.digest).await {
            Ok(false) => Ok(Err(upload)),
            held => {
                upload.abandon().await;
                held.map(|_| Ok(Moved::Skipped))
            }
        }
    }

    /// Sends the blob, and goes on after setbacks as long as that gets it further.
    async fn pour(&self, blob: &Descriptor, underway: &mut Underway) -> Result<(), Missed> {
        let Underway {
            upload,
            record,
            setback,
        } = underway;
        let mut setback = setback.take();
        let (mut offset, mut best) = (0, 0);
        let mut tries = pauses();
        let mut refusals = Refusals::new(Some(PATIENCE));
        let mut broken = None;
        loop {
            let Setback { failure, go_on } = match setback.take() {
                Some(setback) => setback,
                None => match self.send(blob, upload, offset, record).await? {
                    Ok(()) => return Ok(()),
                    Err(setback) => setback,
                },
            };
            let pause = match go_on {
                GoOn::AfterPause(asked) => refusals
                    .next(asked)
                    .filter(|pause| *pause <= LONGEST_PAUSE && *pause < self.target.deadline().remaining()),
                GoOn::FromOffset if blob.size >= LARGE => tries.next(),
                // Some say how far they got and then take nothing but a whole blob.
                GoOn::Anew if offset > 0 => {
                    return Err(Missed {
                        failure: broken.unwrap_or(failure),
                        again: true,
                    });
                }
                GoOn::FromOffset | GoOn::Anew => return Err(Missed::at_target(failure)),
            };
            let Some(pause) = pause else {
                // Who was turned away for so long, or got nowhere so often, is not helped by another upload.
                return Err(Missed {
                    failure,
                    again: false,
                });
            };
            tokio::time::sleep(pause).await;
            if go_on != GoOn::FromOffset {
                continue;
            }
            offset = match upload.offset(&blob.digest).await {
                Ok(offset) if offset <= record.farthest() => offset,
                // It may be that it has no such thing as an offset, or that all of it arrived and was put away.
                _ => return Err(Missed::at_target(failure)),
            };
            tracing::debug!(
                action = "resume",
                object = blob.digest.as_str(),
                offset,
                reason = format!("{failure:?}"),
                "sending on"
            );
            if offset > best {
                best = offset;
                tries = pauses();
            }
            broken = Some(failure);
        }
    }

    /// Sends what is missing from `offset` on.
    async fn send(
        &self,
        blob: &Descriptor,
        upload: &mut Upload,
        offset: u64,
        record: &Arc<Record>,
    ) -> Result<Result<(), Setback>, Missed> {
        let digest = &blob.digest;
        if blob.size == 0 && !digest.names(&[]) {
            return Err(Missed::at_target(
                Failure::input(format!(
                    "the image says that the blob {digest} is empty, which it cannot be"
                ))
                .hint("the image is damaged at its source: build it again"),
            ));
        }
        // What the registry has was handed out, and the last of it only once its hash was right.
        if offset == blob.size {
            return Ok(upload.finish(digest, Body::Empty).await);
        }
        record.start_at(offset);
        let open = opener(self.source, blob);
        let reading = Reading::open(open, blob, offset, record, self.stop).await?;
        let body = Body::stream(reading.into_body(), blob.size - offset);
        let sent = async {
            if offset == 0 {
                return upload.finish(digest, body).await;
            }
            upload.append(digest, offset, blob.size, body).await?;
            upload.finish(digest, Body::Empty).await
        };
        let sent = tokio::select! {
            sent = sent => sent,
            () = record.stalls(blob.size) => Err(self.stalled(blob)),
        };
        // When the source breaks, the target only sees an upload that ends early. The source's word is the better one.
        match record.take_flaw() {
            Some(flaw) => Err(flaw.into()),
            None => Ok(sent),
        }
    }

    pub(super) fn stalled(&self, blob: &Descriptor) -> Setback {
        Setback {
            failure: Failure::unavailable(format!(
                "nothing moves any more of the blob {} to {}",
                blob.digest,
                self.target.reference()
            )),
            go_on: GoOn::FromOffset,
        }
    }
}
