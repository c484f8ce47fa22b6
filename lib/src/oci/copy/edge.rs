//! One target on its way: blobs, then manifests, then what refers to them, then the tag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::stream::{FuturesUnordered, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::look::Planned;
use super::shelf::Shelf;
use super::store::Store;
use super::transfer::{Lanes, Moved, Mover, stopped};
use super::{Copier, Done, Journal, Tally, Target, Way, listing, must_write};
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Descriptor, Digest, Graph, Manifest, Pointer, Referrer, Repository};

/// One target on its way.
pub(super) struct Edge<'a> {
    pub(super) copier: &'a Copier,
    pub(super) graph: &'a Graph,
    pub(super) target: &'a Target,
    pub(super) planned: &'a Planned,
    pub(super) way: Way,
    pub(super) mount_from: Option<&'a Repository>,
    pub(super) lanes: &'a Lanes,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) stop: CancellationToken,
}

impl Edge<'_> {
    pub(super) async fn carry(self, journal: Option<&Journal>) -> Result<Done> {
        let mut done = Done {
            before: self.planned.before.clone(),
            referrers: self.planned.count(self.graph),
            ..Done::default()
        };
        let parts = self.planned.parts(self.graph, self.way);
        self.bring_blobs(&self.graph.blobs(&parts)?, &mut done.tally)
            .await?;
        let root = self.graph.root();
        let missing: Vec<&Referrer> = self.planned.missing(self.graph).collect();
        // What refers to the root needs it there; otherwise it comes last, with its tag.
        let root_comes_last = missing.is_empty();
        let mut unlisted = Vec::new();
        for wave in self.graph.waves(&parts)? {
            let pushed: FuturesUnordered<_> = wave
                .into_iter()
                .filter(|manifest| !root_comes_last || manifest.digest() != root.digest())
                .map(|manifest| self.push(manifest))
                .collect();
            let pushed: Vec<Option<&Manifest>> = tokio::select! {
                pushed = pushed.try_collect() => pushed?,
                () = self.stop.cancelled() => return Err(stopped()),
            };
            unlisted.extend(pushed.into_iter().flatten());
        }
        self.list(unlisted, journal).await?;
        for referrer in &missing {
            self.attach(referrer, journal).await?;
        }
        done.changed = !missing.is_empty();
        if self.planned.write {
            self.check_stop()?;
            done.changed |= self.name(&mut done.before, root_comes_last, journal).await?;
        }
        Ok(done)
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        Ok(())
    }

    async fn bring_blobs(&self, blobs: &[&Descriptor], tally: &mut Tally) -> Result<()> {
        let repository = match &self.target.store {
            Store::Registry(repository) => repository,
            Store::Layout(layout) => {
                let shelf = Shelf {
                    source: &self.copier.source,
                    layout,
                    lanes: self.lanes,
                    stop: &self.stop,
                    progress: self.progress,
                };
                return shelf.bring_all(blobs, tally).await;
            }
        };
        let mover = Mover {
            source: &self.copier.source,
            target: repository,
            mount_from: self.mount_from,
            mounts_refused: AtomicBool::new(false),
            lanes: self.lanes,
            stop: &self.stop,
            progress: self.progress,
        };
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

    /// Gives the manifest back when it refers to another and the registry did not note that.
    async fn push<'m>(&self, manifest: &'m Manifest) -> Result<Option<&'m Manifest>> {
        let _lane = self.lanes.enter().await?;
        let pointer = Pointer::Digest(manifest.digest().clone());
        let effect = effect("push", format!("manifest {pointer} to {}", self.target.name()));
        let noted = self.target.store.put(&pointer, manifest).await?;
        effect.done("done");
        Ok(Some(manifest).filter(|manifest| manifest.subject().is_some() && !noted))
    }

    /// Lists what refers to a manifest where the registry does not do that by itself.
    async fn list(&self, unlisted: Vec<&Manifest>, journal: Option<&Journal>) -> Result<()> {
        let Some(repository) = self.target.store.repository() else {
            return Ok(());
        };
        let mut by_subject: BTreeMap<&Digest, Vec<&Manifest>> = BTreeMap::new();
        for manifest in unlisted {
            if let Some(subject) = manifest.subject() {
                by_subject.entry(&subject.digest).or_default().push(manifest);
            }
        }
        let lookout = repository.lookout();
        for (subject, manifests) in by_subject {
            self.check_stop()?;
            // Some have the API and do not say so when they are given something.
            if lookout.listed(subject).await?.is_none() {
                listing::add(
                    &self.target.store,
                    &self.target.name(),
                    subject,
                    &manifests,
                    journal,
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Writes the tag by which a referrer is found, where it has one.
    async fn attach(&self, referrer: &Referrer, journal: Option<&Journal>) -> Result<()> {
        let (Some(tag), Some(manifest)) = (&referrer.tag, self.graph.manifest(&referrer.digest)) else {
            return Ok(());
        };
        self.check_stop()?;
        let pointer = Pointer::Tag(tag.clone());
        let name = self.target.name();
        let before = self.target.store.resolve(&pointer).await?;
        if before.as_ref() == Some(&referrer.digest) {
            return Ok(());
        }
        if before != self.planned.tag_before(tag) {
            return Err(
                Failure::conflict(format!("{name}:{tag} was written by somebody else meanwhile"))
                    .hint("promote again: it is looked at anew then"),
            );
        }
        if let Some(journal) = journal {
            journal.record(&name, tag, before.as_ref(), Some(&referrer.digest))?;
        }
        let effect = effect("tag", format!("{name}:{tag} as {}", referrer.digest));
        self.target.store.put(&pointer, manifest).await?;
        effect.done(if before.is_some() { "moved" } else { "done" });
        Ok(())
    }

    /// The last step: the manifest under its tag (or by its digest), with the guard looked at once more just before,
    /// and the registry's answer to the question what it names read just after. Gives back whether it was written.
    async fn name(
        &self,
        before: &mut Option<Digest>,
        still_to_push: bool,
        journal: Option<&Journal>,
    ) -> Result<bool> {
        let Target { reference, store, .. } = self.target;
        let root = self.graph.root();
        let wanted = root.digest();
        let pointer = self.target.pointer(wanted);
        if let Some(tag) = reference.tag() {
            *before = store.resolve(&pointer).await?;
            if !must_write(reference, wanted, before.as_ref(), &self.target.move_tag)? {
                return Ok(false);
            }
            if let Some(journal) = journal {
                journal.record(&self.target.name(), tag, before.as_ref(), Some(wanted))?;
            }
        }
        let effect = effect("tag", format!("{reference} as {wanted}"));
        if still_to_push || reference.tag().is_some() || store.layout().is_some() {
            match store.name(&pointer, root).await {
                Ok(noted) if root.subject().is_some() && !noted => self.list(vec![root], journal).await?,
                Ok(_) => {}
                // Registries that keep tags from changing refuse even what changes nothing: another job may have
                // written the very same a moment ago.
                Err(refused) if refused.kind() == Kind::Conflict => {
                    return match store.resolve(&pointer).await {
                        Ok(Some(named)) if named == *wanted => {
                            effect.done("unchanged");
                            Ok(false)
                        }
                        _ => Err(refused),
                    };
                }
                Err(failure) => return Err(failure),
            }
        }
        match store.resolve(&pointer).await? {
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
        Ok(true)
    }
}
