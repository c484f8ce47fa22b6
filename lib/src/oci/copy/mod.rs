//! The copy engine: one image to one or more places, by digest, with what refers to it.
//!
//! [`Copier::look`] reads what is there, [`must_write`] decides, [`Copier::act`] does it. The order is what keeps
//! readers safe: blobs, then manifests with children before the indexes that list them and subjects before what refers
//! to them, and the tag last, so that nobody sees half an image and a run that is killed leaves no moved tag. After the
//! act the tag is read back.
//!
//! What each registry has is not found out in advance: a mount request from the target itself asks for a blob and
//! opens its upload at once, so a blob costs one request when it is there, and two and a download when it is not.
//!
//! Deliberately absent: any memory between runs. Running again finds out anew what is missing.

mod batch;
mod edge;
mod fanout;
mod filing;
mod journal;
mod listing;
mod look;
mod place;
mod plan;
mod reading;
mod record;
mod referrers;
mod rollback;
mod selection;
mod source;
mod store;
mod survey;
mod traffic;
mod trail;
mod transfer;
mod verified;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

pub use self::batch::{BatchLine, read_batch};
pub use self::journal::{Entry as JournalEntry, Journal, Recorded};
pub use self::look::{Look, Referred};
pub use self::place::ImageReference;
pub use self::plan::{Amount, Beside, MoveTag, Tally, Way, compare, foresee, must_write};
pub use self::rollback::{Return, Rollback};
pub use self::selection::Referrers;
pub use self::source::Source;
pub use self::traffic::Traffic;
pub use self::trail::{Deliveries, Step, Trail, trails};
pub use self::verified::{BlobCheck, Defect, Part, Verified};
use self::verify::Proof;

use self::edge::Edge;
use self::look::Planned;
use self::store::Store;
use self::transfer::stopped;
use super::{Access, Descriptor, Digest, Graph, Platform, Pointer, Registries, Repository};
use crate::cli::Progress;
use crate::failure::{Failure, Result};

/// How many requests run at once unless told otherwise.
pub const DEFAULT_CONCURRENCY: usize = 16;
/// How long giving uploads back may take once the run is interrupted.
const TIDY_LIMIT: Duration = Duration::from_secs(10);

/// How an image is copied.
#[derive(Clone, Debug, Default)]
pub struct CopySettings {
    /// Which tags may be moved.
    pub move_tag: MoveTag,
    /// What of that which refers to the image goes along.
    pub referrers: Referrers,
    /// The platforms of an index that go; all when there are none.
    pub platforms: Vec<Platform>,
    /// Whether less than the whole index may go: only those platforms, under another digest, or what a sparse index
    /// still has.
    pub allow_partial_index: bool,
    /// Whether all of the image is looked at once more when it is there, and how closely; else the tag alone is.
    pub verify: Option<BlobCheck>,
}

/// Where an image goes: a place, and the tag it gets there unless it goes by digest alone.
#[derive(Clone, Debug)]
struct Target {
    reference: ImageReference,
    store: Store,
    /// What it was written with, which the image has to be.
    expected: Option<Digest>,
    move_tag: MoveTag,
}

impl Target {
    fn pointer(&self, digest: &Digest) -> Pointer {
        match self.reference.tag() {
            Some(tag) => Pointer::Tag(tag.clone()),
            None => Pointer::Digest(digest.clone()),
        }
    }

    /// Without tag and digest.
    fn name(&self) -> String {
        self.reference.name()
    }

    /// Refuses another image than the one that the target was written with.
    fn check(&self, digest: &Digest) -> Result<()> {
        match &self.expected {
            Some(expected) if expected != digest => Err(Failure::conflict(format!(
                "the source is {digest}, where {} expects {expected}",
                self.name()
            ))
            .hint("leave the digest out of TARGET, or name the source that has it")),
            _ => Ok(()),
        }
    }
}

/// One source and its targets.
#[derive(Debug)]
pub struct Copier {
    source: Source,
    targets: Vec<Target>,
    traffic: Arc<Traffic>,
    settings: CopySettings,
}

/// What is going to happen to one target.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// What becomes of its blobs.
    pub tally: Tally,
    /// How they are come by.
    pub way: Way,
    /// How many manifests are written, the tagged one among them.
    pub manifests: usize,
    /// What refers to the image, by its kinds.
    pub referrers: BTreeMap<String, Referred>,
}

/// What happened to one target.
#[derive(Debug, Default)]
pub struct Done {
    /// Whether something was written.
    pub changed: bool,
    /// What the tag named before.
    pub before: Option<Digest>,
    /// What became of the blobs.
    pub tally: Tally,
    /// What refers to the image, by its kinds: artifact types, and the endings of cosign's tags.
    pub referrers: BTreeMap<String, Referred>,
    /// What the look at all of it found, where one was asked for.
    pub verified: Option<Verified>,
    /// Why that look came to no good end. What was written stands all the same.
    pub unproven: Option<Failure>,
}

impl Copier {
    /// Prepares a copy. Targets without a tag get the image by digest alone; a digest in a target is what the image has
    /// to be. All copies of a run share its traffic.
    ///
    /// # Errors
    /// As [`Source::open`] and [`Registries::repository`].
    pub async fn new(
        source: &ImageReference,
        targets: &[ImageReference],
        registries: &Registries,
        traffic: &Arc<Traffic>,
        settings: CopySettings,
    ) -> Result<Self> {
        let source = Source::open(source, registries).await?;
        if let Some(repository) = source.repository() {
            repository.expect(Access::Pull);
        }
        let mut opened = Vec::with_capacity(targets.len());
        for target in targets {
            let store = Store::open(target, registries).await?;
            if let Some(repository) = store.repository() {
                repository.expect(Access::Push);
                if let Some(from) = source
                    .repository()
                    .filter(|from| from.shares_registry_with(repository))
                {
                    repository.expect_mounts_from(from);
                }
            }
            opened.push(Target {
                reference: target.clone().with_digest(None),
                store,
                expected: target.digest().cloned(),
                move_tag: settings.move_tag.clone(),
            });
        }
        Ok(Copier {
            source,
            targets: opened,
            traffic: traffic.clone(),
            settings,
        })
    }

    /// Says for each target which tags may be moved there, in their order, instead of one word for all of them.
    #[must_use]
    pub fn with_move_tags(mut self, allowed: impl IntoIterator<Item = MoveTag>) -> Self {
        for (target, allowed) in self.targets.iter_mut().zip(allowed) {
            target.move_tag = allowed;
        }
        self
    }

    /// Foresees what [`Copier::act`] would do to each target that has to be written to, by asking for each blob.
    ///
    /// # Errors
    /// What kept the target from being looked at, for each.
    pub async fn foresee(&self, look: Look) -> Vec<Result<Option<Foreseen>>> {
        let mut all = Vec::with_capacity(self.targets.len());
        for (index, planned) in look.targets.into_iter().enumerate() {
            all.push(match (planned, &look.graph) {
                (Err(failure), _) => Err(failure),
                (Ok(planned), Some(graph)) if planned.is_work() => {
                    self.foresee_one(index, &planned, graph).await.map(Some)
                }
                (Ok(_), _) => Ok(None),
            });
        }
        all
    }

    async fn foresee_one(&self, index: usize, planned: &Planned, graph: &Graph) -> Result<Foreseen> {
        let way = self.way(index);
        let parts = planned.parts(graph, way);
        let blobs = graph.blobs(&parts)?;
        let present = self.present(&self.targets[index].store, &blobs).await?;
        Ok(Foreseen {
            tally: foresee(&blobs, &present, way),
            way,
            manifests: parts.len().max(usize::from(planned.write)),
            referrers: planned.count(graph),
        })
    }

    /// Which of the blobs are there.
    async fn present(&self, store: &Store, blobs: &[&Descriptor]) -> Result<BTreeSet<Digest>> {
        let asked = blobs.iter().map(|blob| async move {
            let there = store.has_blob(blob).await?;
            Ok::<_, Failure>(there.then(|| blob.digest.clone()))
        });
        stream::iter(asked)
            .buffer_unordered(self.traffic.concurrency())
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await
    }

    /// Does what has to be done: each target in turn, so that the later ones at a registry can take over what the
    /// earlier ones got. A target that fails does not keep the others from being tried. When `interrupted` resolves,
    /// what is under way is given back and no tag is moved any more.
    ///
    /// # Errors
    /// What kept the whole image from being read. What befell a target is in its own result, in the targets' order.
    pub async fn act(
        &self,
        look: Look,
        journal: Option<&Journal>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<Result<Done>>> {
        let stop = CancellationToken::new();
        let mut work = Box::pin(self.act_until(look, journal, &stop));
        tokio::select! {
            outcomes = &mut work => return outcomes,
            () = interrupted => stop.cancel(),
        }
        tokio::time::timeout(TIDY_LIMIT, work)
            .await
            .unwrap_or_else(|_elapsed| Err(stopped()))
    }

    async fn act_until(
        &self,
        look: Look,
        journal: Option<&Journal>,
        stop: &CancellationToken,
    ) -> Result<Vec<Result<Done>>> {
        let Look {
            digest,
            graph,
            targets,
            ..
        } = look;
        let progress = Arc::new(Progress::bytes(format!("copying {digest}"), 0));
        let edge = |index: usize, planned: Planned| Edge {
            copier: self,
            graph: graph.as_ref(),
            target: &self.targets[index],
            planned,
            way: self.way(index),
            mount_from: self.mount_from(index),
            progress: progress.clone(),
            stop: stop.child_token(),
        };
        let edges: Vec<Result<Edge>> = targets
            .into_iter()
            .enumerate()
            .map(|(index, planned)| planned.map(|planned| edge(index, planned)))
            .collect();
        // What has to be sent to several registries is read once for all of them; the rest takes over from those.
        let together: Vec<&Edge> = edges.iter().flatten().filter(|edge| edge.is_sent()).collect();
        let mut brought = if together.len() > 1 {
            edge::bring_together(&together).await
        } else {
            Vec::new()
        }
        .into_iter();
        let mut outcomes = Vec::with_capacity(edges.len());
        for edge in edges {
            outcomes.push(match edge {
                Err(failure) => Err(failure),
                Ok(edge) => {
                    let brought = if edge.is_sent() { brought.next() } else { None };
                    edge.carry(brought, journal).await
                }
            });
        }
        match self.settings.verify {
            Some(check) => {
                let proof = Proof {
                    digest: &digest,
                    seen: graph.as_ref().map(Graph::root),
                    check,
                    journal,
                    progress: &progress,
                    stop,
                };
                Ok(self.prove(outcomes, &proof).await)
            }
            None => Ok(outcomes),
        }
    }

    /// How a target's blobs are come by.
    fn way(&self, index: usize) -> Way {
        let target = self.targets[index].store.repository();
        let source = self.source.repository();
        if target
            .zip(source)
            .is_some_and(|(target, source)| source.is_same_as(target))
        {
            Way::Held
        } else if self.mount_from(index).is_some() {
            Way::Mount
        } else {
            Way::Send
        }
    }

    /// Another repository at the target's registry that has the image by the time it is the target's turn.
    fn mount_from(&self, index: usize) -> Option<&Repository> {
        let target = self.targets[index].store.repository()?;
        let earlier = self.targets[..index]
            .iter()
            .filter_map(|earlier| earlier.store.repository());
        self.source
            .repository()
            .into_iter()
            .chain(earlier)
            .find(|from| from.shares_registry_with(target) && !from.is_same_as(target))
    }
}

/// Pushes the image of a layout, which is how a build gets its result to a registry.
///
/// # Errors
/// As [`Copier::look`] and [`Copier::act`].
pub async fn push_layout(
    layout: &super::LayoutReference,
    registries: &Registries,
    target: &super::Reference,
    traffic: &Arc<Traffic>,
    settings: CopySettings,
    interrupted: impl Future<Output = ()>,
) -> Result<(Digest, Done)> {
    let source = ImageReference::Layout(layout.clone());
    let copier = Copier::new(&source, &[target.clone().into()], registries, traffic, settings).await?;
    let look = copier.look().await?.all_or_none()?;
    let digest = look.digest().clone();
    let mut outcomes = copier.act(look, None, interrupted).await?;
    match outcomes.pop() {
        Some(outcome) => Ok((digest, outcome?)),
        None => Err(Failure::internal("a copy to one target has no outcome")),
    }
}
