//! One target on its way: blobs, then manifests, then what refers to them, then the tag.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::filing::Filer;
use super::look::Planned;
use super::store::Store;
use super::transfer::{Moved, Mover, stopped};
use super::{Copier, Done, Journal, Tally, Target, Way, must_write};
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Graph, Manifest, Pointer, Referrer, Repository};

/// How many files are written at once: disks are not made faster by more.
const FILES_AT_ONCE: usize = 4;

/// A look at a tag that is older is not taken for one just before writing it.
const FRESH: Duration = Duration::from_secs(1);

/// What a tag named a moment ago.
struct Looked {
    named: Option<Digest>,
    at: Instant,
}

/// One target on its way.
pub(super) struct Edge<'a> {
    pub(super) copier: &'a Copier,
    /// None when there is nothing to do.
    pub(super) graph: Option<&'a Graph>,
    pub(super) target: &'a Target,
    pub(super) planned: Planned,
    pub(super) way: Way,
    pub(super) mount_from: Option<&'a Repository>,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: CancellationToken,
}

/// Brings what several targets lack of the blobs, which they are all sent, and reads each blob once. What became of a
/// target's blobs is in the edges' order.
pub(super) async fn bring_together(edges: &[&Edge<'_>]) -> Vec<Result<Tally>> {
    let mut outcomes: Vec<Result<Tally>> = Vec::with_capacity(edges.len());
    let mut wanted: BTreeMap<&Digest, (&Descriptor, Vec<usize>)> = BTreeMap::new();
    for (place, edge) in edges.iter().enumerate() {
        outcomes.push(Ok(Tally::default()));
        match edge.blobs() {
            Ok(blobs) => {
                for blob in blobs {
                    wanted
                        .entry(&blob.digest)
                        .or_insert((blob, Vec::new()))
                        .1
                        .push(place);
                }
            }
            Err(failure) => outcomes[place] = Err(failure),
        }
    }
    if let Some(edge) = edges.first() {
        edge.copier.open_source_ahead(wanted.len());
    }
    let mut moving: FuturesUnordered<_> = wanted
        .into_values()
        .map(|(blob, places)| async move {
            let movers: Vec<Mover<'_>> = places.iter().filter_map(|place| edges[*place].mover()).collect();
            (blob, places, Mover::bring_to_all(&movers, blob).await)
        })
        .collect();
    while let Some((blob, places, moved)) = moving.next().await {
        for (place, moved) in places.into_iter().zip(moved) {
            match (moved, &mut outcomes[place]) {
                (Ok(moved), Ok(tally)) => tally.count(moved, blob),
                // The first failure is the one to tell; the others follow from it.
                (Err(failure), Ok(_)) => {
                    edges[place].stop.cancel();
                    outcomes[place] = Err(failure);
                }
                (_, Err(_)) => {}
            }
        }
    }
    outcomes
}

impl Tally {
    fn count(&mut self, moved: Moved, blob: &Descriptor) {
        match moved {
            Moved::Mounted => self.mounted.add(blob),
            Moved::Copied => self.copied.add(blob),
            Moved::Skipped => self.skipped.add(blob),
        }
    }
}

impl<'a> Edge<'a> {
    /// Whether blobs are sent to a registry.
    pub(super) fn is_sent(&self) -> bool {
        self.way == Way::Send && self.target.store.repository().is_some() && self.planned.is_work()
    }

    fn blobs(&self) -> Result<Vec<&'a Descriptor>> {
        match self.graph {
            Some(graph) => graph.blobs(&self.planned.parts(graph, self.way)),
            None => Ok(Vec::new()),
        }
    }

    fn mover(&self) -> Option<Mover<'_>> {
        Some(Mover {
            source: &self.copier.source,
            target: self.target.store.repository()?,
            mount_from: self.mount_from,
            mounts_refused: AtomicBool::new(false),
            traffic: &self.copier.traffic,
            stop: &self.stop,
            progress: &self.progress,
        })
    }

    /// Blobs, unless they were `brought` already; manifests, what refers to them, and the tag.
    pub(super) async fn carry(
        self,
        brought: Option<Result<Tally>>,
        journal: Option<&Journal>,
    ) -> Result<Done> {
        let mut done = Done {
            before: self.planned.before.clone(),
            ..Done::default()
        };
        let Some(graph) = self.graph else {
            return Ok(done);
        };
        done.referrers = self.planned.count(graph);
        if !self.planned.is_work() {
            return Ok(done);
        }
        if brought.is_none() {
            self.check_stop()?;
        }
        done.tally = match brought {
            Some(brought) => brought?,
            None => self.bring_blobs(&self.blobs()?).await?,
        };
        let root = graph.root();
        let missing: Vec<&Referrer> = self.planned.missing(graph).collect();
        // What refers to the root needs it there. Not every registry can name it by another algorithm than SHA-256, which
        // is to be known before the tag is touched. And a tag that is right is not written again, so that a root that
        // went bad under it is. Otherwise it comes last, with its tag.
        let root_comes_last =
            missing.is_empty() && !self.may_be_renamed(root) && !self.planned.damaged.contains(root.digest());
        let mut unlisted = Vec::new();
        let waves = graph.waves(&self.planned.parts(graph, self.way))?;
        // The root is the last wave, and alone in it.
        let last_below = waves.len().checked_sub(2).filter(|_| root_comes_last);
        let mut looked = None;
        for (place, wave) in waves.into_iter().enumerate() {
            let pushed: FuturesUnordered<_> = wave
                .into_iter()
                .filter(|manifest| !root_comes_last || manifest.digest() != root.digest())
                .map(|manifest| self.push(manifest))
                .collect();
            let pushing = async {
                let look = async {
                    if self.planned.write && last_below == Some(place) {
                        self.look_at_tag(root.digest()).await
                    } else {
                        Ok(None)
                    }
                };
                tokio::try_join!(pushed.try_collect(), look)
            };
            let pushed: Vec<Option<&Manifest>> = tokio::select! {
                pushed = pushing => {
                    let (pushed, look) = pushed?;
                    looked = looked.or(look);
                    pushed
                }
                () = self.stop.cancelled() => return Err(stopped()),
            };
            unlisted.extend(pushed.into_iter().flatten());
        }
        self.list(unlisted, journal).await?;
        for referrer in &missing {
            self.attach(referrer, graph, journal).await?;
        }
        done.changed = !missing.is_empty();
        if self.planned.write {
            self.check_stop()?;
            done.changed |= self
                .name(root, looked, &mut done.before, root_comes_last, journal)
                .await?;
        }
        Ok(done)
    }

    /// Whether the registry may have a tag name the same bytes by SHA-256, since a request for a tag cannot say by which
    /// algorithm they are to be named.
    fn may_be_renamed(&self, manifest: &Manifest) -> bool {
        self.target.store.repository().is_some() && manifest.digest().algorithm() != Algorithm::Sha256
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        Ok(())
    }

    async fn bring_blobs(&self, blobs: &[&Descriptor]) -> Result<Tally> {
        match &self.target.store {
            Store::Registry(_) => {
                let Some(mover) = self.mover() else {
                    return Ok(Tally::default());
                };
                if self.way == Way::Send {
                    self.copier.open_source_ahead(blobs.len());
                }
                let moving = blobs
                    .iter()
                    .map(|blob| async { (*blob, mover.bring(blob).await) });
                self.tally(moving.collect::<FuturesUnordered<_>>()).await
            }
            Store::Layout(layout) => {
                let filer = Filer {
                    source: &self.copier.source,
                    target: layout,
                    stop: &self.stop,
                    progress: &self.progress,
                    damaged: &self.planned.damaged,
                };
                let filing = stream::iter(blobs)
                    .map(|blob| async { (*blob, filer.bring(blob).await) })
                    .buffer_unordered(FILES_AT_ONCE);
                self.tally(filing).await
            }
        }
    }

    async fn tally<'b>(&self, moving: impl Stream<Item = (&'b Descriptor, Result<Moved>)>) -> Result<Tally> {
        let mut moving = pin!(moving);
        let mut tally = Tally::default();
        let mut failed = None;
        // After a failure the others are not dropped but told to stop, so that they can give their uploads back.
        while let Some((blob, moved)) = moving.next().await {
            match moved {
                Ok(moved) => tally.count(moved, blob),
                Err(failure) => {
                    self.stop.cancel();
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(tally), Err)
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
        let is_found = match self.target.store.put(manifest).await {
            Ok(is_found) => is_found,
            Err(failure) => return Err(self.blame_gaps(manifest, failure)),
        };
        effect.done("done");
        Ok(Some(manifest).filter(|manifest| manifest.subject().is_some() && !is_found))
    }

    /// Most registries take no index before everything that it lists.
    fn blame_gaps(&self, manifest: &Manifest, failure: Failure) -> Failure {
        let absent = self.graph.map(Graph::absent);
        let lacks = |child: &Descriptor| absent.is_some_and(|absent| absent.contains(&child.digest));
        if failure.kind() != Kind::Unavailable || !manifest.children().iter().any(lacks) {
            return failure;
        }
        Failure::denied(format!(
            "{} takes no index of which a part is missing, such as {}",
            self.target.name(),
            manifest.digest()
        ))
        .because(failure)
        .hint("promote what is there by digests of its own, or build the index again")
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
        let Copier { traffic, .. } = self.copier;
        let listing = by_subject.into_iter().map(|(subject, manifests)| async move {
            self.check_stop()?;
            let _turn = match store.repository() {
                Some(repository) => Some(traffic.list(repository, subject).await),
                None => None,
            };
            let name = self.target.name();
            store.list(&name, subject, &manifests, journal).await
        });
        // A folder is written to by one at a time anyway.
        stream::iter(listing)
            .buffer_unordered(traffic.concurrency())
            .try_collect()
            .await
    }

    /// Writes the tag by which a referrer is found, where it has one.
    async fn attach(&self, referrer: &Referrer, graph: &Graph, journal: Option<&Journal>) -> Result<()> {
        let (Some(tag), Some(manifest)) = (&referrer.tag, graph.manifest(&referrer.digest)) else {
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

    /// What the tag names, while the manifests before the tagged one are on their way.
    async fn look_at_tag(&self, wanted: &Digest) -> Result<Option<Looked>> {
        if self.target.reference.tag().is_none() {
            return Ok(None);
        }
        let named = self.target.store.resolve(&self.target.pointer(wanted)).await?;
        Ok(Some(Looked {
            named,
            at: Instant::now(),
        }))
    }

    /// The last step: the manifest under its tag (or by its digest), with the guard looked at once more just before,
    /// and the registry's answer to the question what it names read just after. Gives back whether it was written.
    async fn name(
        &self,
        root: &Manifest,
        looked: Option<Looked>,
        before: &mut Option<Digest>,
        still_to_push: bool,
        journal: Option<&Journal>,
    ) -> Result<bool> {
        let Target { reference, store, .. } = self.target;
        let wanted = root.digest();
        let pointer = self.target.pointer(wanted);
        if let Some(tag) = reference.tag() {
            *before = match looked.filter(|looked| looked.at.elapsed() < FRESH) {
                Some(looked) => looked.named,
                None => store.resolve(&pointer).await?,
            };
            if !must_write(reference, wanted, before.as_ref(), &self.target.move_tag)? {
                return Ok(false);
            }
            if let Some(journal) = journal {
                let name = self.target.name();
                journal.record(&name, tag, before.as_ref(), Some(wanted))?;
                if self.may_be_renamed(root) {
                    // Whichever of both it is then, the way back is known.
                    journal.record(&name, tag, Some(wanted), Some(&Digest::of(root.bytes())))?;
                }
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
                Err(refused) if matches!(refused.kind(), Kind::Conflict | Kind::Denied) => {
                    let named = match reference.tag() {
                        Some(_) => store.resolve(&pointer).await.unwrap_or(None),
                        None => None,
                    };
                    if named.as_ref() != Some(wanted) {
                        return Err(refused);
                    }
                    effect.done("unchanged");
                    *before = named;
                    return Ok(false);
                }
                Err(failure) => return Err(self.blame_gaps(root, failure)),
            }
        }
        match store.resolve(&pointer).await? {
            Some(named) if named == *wanted || named.names(root.bytes()) => {}
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
