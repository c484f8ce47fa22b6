//! One target on its way: blobs, then manifests, then what refers to them, then the tag.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::filing::Filer;
use super::look::Planned;
use super::store::Store;
use super::transfer::{Moved, Mover, stopped};
use super::{Copier, Done, Journal, Tally, Target, Way, must_write};
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Descriptor, Digest, Graph, Manifest, Pointer, Referrer, Repository};

/// How many files are written at once: disks are not made faster by more.
const FILES_AT_ONCE: usize = 4;

/// One target on its way.
pub(super) struct Edge<'a> {
    pub(super) copier: &'a Copier,
    pub(super) graph: &'a Graph,
    pub(super) target: &'a Target,
    pub(super) planned: &'a Planned,
    pub(super) way: Way,
    pub(super) mount_from: Option<&'a Repository>,
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
        match &self.target.store {
            Store::Registry(repository) => {
                let mover = Mover {
                    source: &self.copier.source,
                    target: repository,
                    mount_from: self.mount_from,
                    mounts_refused: AtomicBool::new(false),
                    traffic: &self.copier.traffic,
                    stop: &self.stop,
                    progress: self.progress,
                };
                let moving = blobs
                    .iter()
                    .map(|blob| async { (*blob, mover.bring(blob).await) });
                self.tally(moving.collect::<FuturesUnordered<_>>(), tally).await
            }
            Store::Layout(layout) => {
                let filer = Filer {
                    source: &self.copier.source,
                    target: layout,
                    stop: &self.stop,
                    progress: self.progress,
                };
                let filing = stream::iter(blobs)
                    .map(|blob| async { (*blob, filer.bring(blob).await) })
                    .buffer_unordered(FILES_AT_ONCE);
                self.tally(filing, tally).await
            }
        }
    }

    async fn tally<'b>(
        &self,
        moving: impl Stream<Item = (&'b Descriptor, Result<Moved>)>,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut moving = pin!(moving);
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

    /// Gives the manifest back when it refers to another and cannot be found by that yet.
    async fn push<'m>(&self, manifest: &'m Manifest) -> Result<Option<&'m Manifest>> {
        let _lane = match self.target.store.repository() {
            Some(repository) => Some(self.copier.traffic.enter(repository).await?),
            None => None,
        };
        let effect = effect(
            "push",
            format!("manifest {} to {}", manifest.digest(), self.target.name()),
        );
        let is_found = self.target.store.put(manifest).await?;
        effect.done("done");
        Ok(Some(manifest).filter(|manifest| manifest.subject().is_some() && !is_found))
    }

    /// Sees to it that what refers to a manifest is found by that.
    async fn list(&self, unlisted: Vec<&Manifest>, journal: Option<&Journal>) -> Result<()> {
        let mut by_subject: BTreeMap<&Digest, Vec<&Manifest>> = BTreeMap::new();
        for manifest in unlisted {
            if let Some(subject) = manifest.subject() {
                by_subject.entry(&subject.digest).or_default().push(manifest);
            }
        }
        let Target { store, .. } = self.target;
        for (subject, manifests) in by_subject {
            self.check_stop()?;
            store
                .list(&self.target.name(), subject, &manifests, journal)
                .await?;
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
        self.target
            .store
            .name(&pointer, manifest, before.as_ref())
            .await?;
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
        // In a folder, what has no tag has to be listed all the same.
        let is_named_by_being_there = reference.tag().is_none() && store.repository().is_some();
        if still_to_push || !is_named_by_being_there {
            match store.name(&pointer, root, before.as_ref()).await {
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
