//! Bringing blobs to a folder.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::plan::Tally;
use super::source::Source;
use super::transfer::{Lanes, stopped};
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Descriptor, LayoutWriter};

/// How often a blob is begun again.
const REPETITIONS: usize = 3;
/// A source that gives nothing for so long is given up.
const STALL: Duration = Duration::from_secs(60);

/// Brings blobs from one source to one layout.
pub(super) struct Shelf<'a> {
    pub(super) source: &'a Source,
    pub(super) layout: &'a LayoutWriter,
    pub(super) lanes: &'a Lanes,
    pub(super) stop: &'a CancellationToken,
    pub(super) progress: &'a Arc<Progress>,
}

impl Shelf<'_> {
    /// Brings blobs, and counts in `tally` what became of them. The first failure stops the others, which leave nothing
    /// behind.
    ///
    /// # Errors
    /// As [`Source::blob`] and [`LayoutWriter::write_blob`].
    pub(super) async fn bring_all(&self, blobs: &[&Descriptor], tally: &mut Tally) -> Result<()> {
        let mut moving: FuturesUnordered<_> = blobs
            .iter()
            .map(|blob| async {
                tokio::select! {
                    copied = self.bring(blob) => copied.map(|copied| (*blob, copied)),
                    () = self.stop.cancelled() => Err(stopped()),
                }
            })
            .collect();
        while let Some(moved) = moving.next().await {
            let (blob, copied) = moved?;
            if copied {
                tally.copied.add(blob);
            } else {
                tally.skipped.add(blob);
            }
        }
        Ok(())
    }

    /// Whether the blob had to be copied.
    async fn bring(&self, blob: &Descriptor) -> Result<bool> {
        let _lane = self.lanes.enter().await?;
        let effect = effect("bring", format!("blob {} to {}", blob.digest, self.layout));
        if self.layout.has_blob(blob).await? {
            effect.done("unchanged");
            return Ok(false);
        }
        self.progress.grow(blob.size);
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_times(REPETITIONS)
            .with_jitter()
            .build();
        loop {
            let failure = match self.attempt(blob).await {
                Ok(()) => {
                    effect.done("copied");
                    return Ok(true);
                }
                Err(failure) => failure,
            };
            match pauses.next().filter(|_| failure.kind() == Kind::Unavailable) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failure),
            }
        }
    }

    async fn attempt(&self, blob: &Descriptor) -> Result<()> {
        let content = self.source.blob(blob).await?;
        let watched = stream::unfold(content, |mut content| async {
            let piece = match tokio::time::timeout(STALL, content.next()).await {
                Ok(piece) => piece?,
                Err(_elapsed) => Err(Failure::unavailable(format!(
                    "nothing moves any more of the blob {} from {}",
                    blob.digest, self.source
                ))),
            };
            if let Ok(bytes) = &piece {
                self.progress.advance(bytes.len() as u64);
            }
            Some((piece, content))
        });
        self.layout.write_blob(blob, watched).await
    }
}
