//! The copy engine: one image to one or more repositories, by digest.
//!
//! [`Copier::look`] reads what is there, [`must_write`] decides, [`Copier::act`] does it. The order is what keeps
//! readers safe: blobs, then manifests with children before the indexes that list them, and the tag last, so that
//! nobody sees half an image and a run that is killed leaves no moved tag. After the act the tag is read back.
//!
//! What each registry has is not found out in advance: a mount request from the target itself asks for a blob and
//! opens its upload at once, so a blob costs one request when it is there, and two and a download when it is not.
//!
//! Deliberately absent: any memory between runs. Running again finds out anew what is missing.

mod edge;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "several targets are still served in turn")
)]
mod fanout;
mod journal;
mod plan;
mod reading;
mod record;
mod source;
mod traffic;
mod transfer;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

pub use self::journal::{Entry as JournalEntry, Journal};
pub use self::plan::{Amount, MoveTag, Tally, Way, foresee, must_write};
pub use self::source::{Source, SourceReference};
pub use self::traffic::Traffic;

use self::edge::Edge;
use self::transfer::stopped;
use super::{Access, Descriptor, Digest, Graph, Manifest, Pointer, Reference, Registries, Repository};
use crate::cli::Progress;
use crate::failure::{Failure, Result};

/// How many requests run at once unless told otherwise.
pub const DEFAULT_CONCURRENCY: usize = 16;
/// How long giving uploads back may take once the run is interrupted.
const TIDY_LIMIT: Duration = Duration::from_secs(10);

/// How an image is copied.
#[derive(Clone, Debug)]
pub struct CopySettings {
    /// How many requests run at once; a quarter of it are streams of large blobs.
    pub concurrency: usize,
    /// Which tags may be moved.
    pub move_tag: MoveTag,
}

impl Default for CopySettings {
    fn default() -> Self {
        CopySettings {
            concurrency: DEFAULT_CONCURRENCY,
            move_tag: MoveTag::Never,
        }
    }
}

/// Where an image goes: a repository, and the tag it gets there unless it goes by digest alone.
#[derive(Clone, Debug)]
struct Target {
    reference: Reference,
    repository: Repository,
}

impl Target {
    fn pointer(&self, digest: &Digest) -> Pointer {
        match self.reference.tag() {
            Some(tag) => Pointer::Tag(tag.clone()),
            None => Pointer::Digest(digest.clone()),
        }
    }
}

/// One source and its targets.
#[derive(Debug)]
pub struct Copier {
    source: Source,
    targets: Vec<Target>,
    settings: CopySettings,
}

/// What was there before.
#[derive(Debug)]
pub struct Look {
    digest: Digest,
    root: Option<Manifest>,
    before: Vec<Option<Digest>>,
    writes: Vec<bool>,
}

impl Look {
    /// The image's digest; a source's tag is resolved to it once.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What each target names now, in the order of the targets.
    #[must_use]
    pub fn before(&self) -> &[Option<Digest>] {
        &self.before
    }

    /// Whether each target has to be written to, in their order.
    #[must_use]
    pub fn writes(&self) -> &[bool] {
        &self.writes
    }
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
}

/// What happened to one target.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Whether its tag (or digest) was written.
    pub changed: bool,
    /// What the tag named before.
    pub before: Option<Digest>,
    /// What became of the blobs.
    pub tally: Tally,
}

impl Copier {
    /// Prepares a copy. Targets without a tag get the image by digest alone; a digest in a target is not looked at.
    ///
    /// # Errors
    /// As [`Source::open`] and [`Registries::repository`].
    pub async fn new(
        source: &SourceReference,
        targets: &[Reference],
        registries: &Registries,
        settings: CopySettings,
    ) -> Result<Self> {
        let source = Source::open(source, registries).await?;
        if let Some(repository) = source.repository() {
            repository.expect(Access::Pull);
        }
        let mut opened = Vec::with_capacity(targets.len());
        for reference in targets {
            let repository = registries.repository(reference).await?;
            repository.expect(Access::Push);
            if let Some(from) = source
                .repository()
                .filter(|from| from.shares_registry_with(&repository))
            {
                repository.expect_mounts_from(from);
            }
            opened.push(Target {
                reference: reference.clone().with_digest(None),
                repository,
            });
        }
        Ok(Copier {
            source,
            targets: opened,
            settings,
        })
    }

    /// Finds out what the source is and what the targets name, and checks every target's guard.
    ///
    /// # Errors
    /// Conflict (exit 6) when a tag may not be moved; not found (5), denied (4), unavailable (7), as the registries
    /// say. Nothing has been written then.
    pub async fn look(&self) -> Result<Look> {
        let (digest, root, before) = match self.source.known_digest() {
            Some(digest) => {
                let (root, before) = self.root_unless_there(digest).await?;
                (digest.clone(), root, before)
            }
            None => {
                let root = self.source.root().await?;
                let digest = root.digest().clone();
                let before = self.named(&digest).await?;
                (digest, Some(root), before)
            }
        };
        let decide = |(target, before): (&Target, &Option<Digest>)| {
            must_write(
                &target.reference,
                &digest,
                before.as_ref(),
                &self.settings.move_tag,
            )
        };
        let writes = self
            .targets
            .iter()
            .zip(&before)
            .map(decide)
            .collect::<Result<Vec<bool>>>()?;
        Ok(Look {
            digest,
            root,
            before,
            writes,
        })
    }

    /// What the targets name, and the source's manifest unless they all have it: then the source need not be there any
    /// more. Where source and targets are different registries, both are asked at once.
    async fn root_unless_there(&self, digest: &Digest) -> Result<(Option<Manifest>, Vec<Option<Digest>>)> {
        let mut early = None;
        let mut root = Box::pin(self.source.root());
        let named = self.named(digest);
        let before = if self.is_within_one_registry() {
            named.await
        } else {
            match select(Box::pin(named), &mut root).await {
                Either::Left((before, _)) => before,
                Either::Right((read, named)) => {
                    early = Some(read);
                    named.await
                }
            }
        }?;
        if before.iter().all(|named| named.as_ref() == Some(digest)) {
            return Ok((None, before));
        }
        let root = match early {
            Some(read) => read?,
            None => root.await?,
        };
        Ok((Some(root), before))
    }

    fn is_within_one_registry(&self) -> bool {
        self.source.repository().is_some_and(|source| {
            let shares = |target: &Target| source.shares_registry_with(&target.repository);
            self.targets.iter().any(shares)
        })
    }

    async fn named(&self, digest: &Digest) -> Result<Vec<Option<Digest>>> {
        let ask = |target: &'_ Target| {
            let pointer = target.pointer(digest);
            let repository = target.repository.clone();
            async move { repository.resolve(&pointer).await }
        };
        try_join_all(self.targets.iter().map(ask)).await
    }

    /// Foresees what [`Copier::act`] would do to each target that has to be written to, by asking for each blob.
    ///
    /// # Errors
    /// As [`Copier::look`].
    pub async fn foresee(&self, look: Look) -> Result<Vec<Option<Foreseen>>> {
        let Some(root) = look.root else {
            return Ok(vec![None; self.targets.len()]);
        };
        let graph = self.graph(root, &look.writes).await?;
        let blobs = graph.blobs()?;
        let mut all = Vec::with_capacity(self.targets.len());
        for (index, target) in self.targets.iter().enumerate() {
            if !look.writes[index] {
                all.push(None);
                continue;
            }
            let way = self.way(index);
            let (present, manifests) = if way == Way::Held {
                (BTreeSet::new(), 1)
            } else {
                let present = self.present(&target.repository, &blobs).await?;
                (present, graph.manifest_count())
            };
            all.push(Some(Foreseen {
                tally: foresee(&blobs, &present, way),
                way,
                manifests,
            }));
        }
        Ok(all)
    }

    /// Which of the blobs a repository has.
    async fn present(&self, repository: &Repository, blobs: &[&Descriptor]) -> Result<BTreeSet<Digest>> {
        let asked = blobs.iter().map(|blob| async move {
            let there = repository.has_blob(&blob.digest).await?;
            Ok::<_, Failure>(there.then(|| blob.digest.clone()))
        });
        stream::iter(asked)
            .buffer_unordered(self.settings.concurrency.max(1))
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
        mut journal: Option<&mut Journal>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<Result<Done>>> {
        let stop = CancellationToken::new();
        let mut work = Box::pin(self.act_until(look, &mut journal, &stop));
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
        journal: &mut Option<&mut Journal>,
        stop: &CancellationToken,
    ) -> Result<Vec<Result<Done>>> {
        let Look {
            digest,
            root,
            before,
            writes,
        } = look;
        let unchanged = |before: &Option<Digest>| {
            Ok(Done {
                before: before.clone(),
                ..Done::default()
            })
        };
        let Some(root) = root.filter(|_| writes.contains(&true)) else {
            return Ok(before.iter().map(unchanged).collect());
        };
        let graph = tokio::select! {
            graph = self.graph(root, &writes) => graph?,
            () = stop.cancelled() => return Err(stopped()),
        };
        let traffic = Traffic::new(self.settings.concurrency);
        let progress = Arc::new(Progress::bytes(format!("copying {digest}"), 0));
        let mut outcomes = Vec::with_capacity(self.targets.len());
        for (index, target) in self.targets.iter().enumerate() {
            outcomes.push(if !writes[index] {
                unchanged(&before[index])
            } else if stop.is_cancelled() {
                Err(stopped())
            } else {
                let edge = Edge {
                    copier: self,
                    graph: &graph,
                    target,
                    way: self.way(index),
                    mount_from: self.mount_from(index),
                    traffic: &traffic,
                    progress: &progress,
                    stop: stop.child_token(),
                };
                edge.carry(journal).await
            });
        }
        Ok(outcomes)
    }

    /// The image's graph, as far as the targets need it: its own repository needs the root alone, under another tag.
    async fn graph(&self, root: Manifest, writes: &[bool]) -> Result<Graph> {
        let needs_all = (0..self.targets.len()).any(|index| writes[index] && self.way(index) != Way::Held);
        if needs_all {
            self.source.graph(root, self.settings.concurrency).await
        } else {
            Ok(Graph::new(root))
        }
    }

    /// How a target's blobs are come by.
    fn way(&self, index: usize) -> Way {
        let target = &self.targets[index].repository;
        if self
            .source
            .repository()
            .is_some_and(|source| source.is_same_as(target))
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
        let target = &self.targets[index].repository;
        let earlier = self.targets[..index].iter().map(|earlier| &earlier.repository);
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
    target: &Reference,
    settings: CopySettings,
    interrupted: impl Future<Output = ()>,
) -> Result<(Digest, Done)> {
    let source = SourceReference::Layout(layout.clone());
    let copier = Copier::new(&source, std::slice::from_ref(target), registries, settings).await?;
    let look = copier.look().await?;
    let digest = look.digest().clone();
    let mut outcomes = copier.act(look, None, interrupted).await?;
    match outcomes.pop() {
        Some(outcome) => Ok((digest, outcome?)),
        None => Err(Failure::internal("a copy to one target has no outcome")),
    }
}
