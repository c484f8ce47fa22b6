//! One target on its way: blobs, then manifests, then the tag.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::transfer::{Lanes, Moved, Mover, stopped};
use super::{Copier, Done, Journal, Tally, Target, Way, must_write};
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Graph, Manifest, Pointer, Repository};

/// One target on its way.
pub(super) struct Edge<'a> {
    pub(super) copier: &'a Copier,
    pub(super) graph: &'a Graph,
    pub(super) target: &'a Target,
    pub(super) way: Way,
    pub(super) mount_from: Option<&'a Repository>,
    pub(super) lanes: &'a Lanes,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) stop: CancellationToken,
}

impl Edge<'_> {
    /// Blobs, manifests, tag.
    pub(super) async fn carry(self, journal: &mut Option<&mut Journal>) -> Result<Done> {
        let mut tally = Tally::default();
        if self.way != Way::Held {
            self.bring_blobs(&mut tally).await?;
            let waves = self.graph.waves()?;
            for wave in waves.split_last().map_or(&[][..], |(_root, below)| below) {
                let pushed: FuturesUnordered<_> = wave.iter().map(|manifest| self.push(manifest)).collect();
                tokio::select! {
                    pushed = pushed.try_collect::<()>() => pushed?,
                    () = self.stop.cancelled() => return Err(stopped()),
                }
            }
        }
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.name(tally, journal).await
    }

    async fn bring_blobs(&self, tally: &mut Tally) -> Result<()> {
        let mover = Mover {
            source: &self.copier.source,
            target: &self.target.repository,
            mount_from: self.mount_from,
            mounts_refused: AtomicBool::new(false),
            lanes: self.lanes,
            stop: &self.stop,
            progress: self.progress,
        };
        let blobs = self.graph.blobs()?;
        let mut moving: FuturesUnordered<_> = blobs
            .iter()
            .map(|blob| async { (*blob, mover.bring(blob).await) })
            .collect();
        let mut failed = None;
        // After a failure the others are not dropped but told to stop, so that they can give their uploads back.
        while let Some((blob, moved)) = moving.next().await {
            match moved {
                Ok(Moved::Mounted) => tally.mounted.add(blob),
                Ok(Moved::Copied) => tally.copied.add(blob),
                Ok(Moved::Skipped) => tally.skipped.add(blob),
                Err(failure) => {
                    self.stop.cancel();
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn push(&self, manifest: &Manifest) -> Result<()> {
        let _lane = self.lanes.enter().await?;
        let pointer = Pointer::Digest(manifest.digest().clone());
        let effect = effect(
            "push",
            format!("manifest {pointer} to {}", self.target.repository.reference()),
        );
        self.target.repository.put_manifest(&pointer, manifest).await?;
        effect.done("done");
        Ok(())
    }

    /// The last step: the manifest under its tag (or by its digest), with the guard looked at once more just before,
    /// and the registry's answer to the question what it names read just after.
    async fn name(&self, tally: Tally, journal: &mut Option<&mut Journal>) -> Result<Done> {
        let Target {
            reference,
            repository,
        } = self.target;
        let root = self.graph.root();
        let wanted = root.digest();
        let pointer = self.target.pointer(wanted);
        let mut before = None;
        if reference.tag().is_some() {
            before = repository.resolve(&pointer).await?;
            let allowed = &self.copier.settings.move_tag;
            if !must_write(reference, wanted, before.as_ref(), allowed)? {
                return Ok(Done {
                    changed: false,
                    before,
                    tally,
                });
            }
            if let Some(journal) = journal {
                journal.record(reference, before.as_ref(), wanted)?;
            }
        }
        let effect = effect("tag", format!("{reference} as {wanted}"));
        if let Err(refused) = repository.put_manifest(&pointer, root).await {
            // Another job may have been quicker with the same image, and a registry that keeps its tags refuses even
            // the image that they name already.
            let may_be_right = matches!(refused.kind(), Kind::Conflict | Kind::Denied);
            let named = match may_be_right && reference.tag().is_some() {
                true => repository.resolve(&pointer).await.unwrap_or(None),
                false => None,
            };
            if named.as_ref() != Some(wanted) {
                return Err(refused);
            }
            effect.done("unchanged");
            return Ok(Done {
                changed: false,
                before: named,
                tally,
            });
        }
        match repository.resolve(&pointer).await? {
            Some(named) if named == *wanted => {}
            Some(named) => {
                return Err(Failure::conflict(format!(
                    "{reference} names {named} right after it was made to name {wanted}"
                ))
                .hint("somebody else writes this tag too: find out who, then promote again"));
            }
            None => {
                return Err(Failure::unavailable(format!(
                    "{reference} is not there right after it was written"
                ))
                .hint("promote again; if it stays so, the registry loses what it is given"));
            }
        }
        effect.done(if before.is_some() { "moved" } else { "done" });
        Ok(Done {
            changed: true,
            before,
            tally,
        })
    }
}
