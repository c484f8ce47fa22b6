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
mod traffic;
mod trail;
mod transfer;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join, join_all, select};
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
pub use self::verify::{BlobCheck, Defect, Part, Verified};

use self::edge::Edge;
use self::look::Planned;
use self::referrers::Search;
use self::source::Reach;
use self::store::Store;
use self::transfer::stopped;
use super::{Access, Descriptor, Digest, Graph, Manifest, Platform, Pointer, Registries, Repository};
use crate::cli::Progress;
use crate::failure::{Failure, Kind, Result};

/// How many requests run at once unless told otherwise.
pub const DEFAULT_CONCURRENCY: usize = 16;
/// Blobs of an image that is not read yet, as a guess: its configuration and some layers.
const BLOBS_OF_A_PLATFORM: usize = 4;
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
#[derive(Clone, Debug, Default)]
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

    /// Finds out what the source is, what refers to it and what the targets have, and checks every target's guard.
    /// What keeps one target from being written to is in the result.
    ///
    /// # Errors
    /// What kept the source from being read: not found (exit 5), denied (4), unavailable (7), as the registry says;
    /// denied (4) when only some platforms would go. Nothing has been written then.
    pub async fn look(&self) -> Result<Look> {
        let (digest, root, before) = match self.source.known_digest() {
            Some(digest) if self.settings.platforms.is_empty() => {
                let (root, before) = self.root_unless_there(digest).await?;
                (digest.clone(), root, before)
            }
            _ => {
                // What tags name can be asked before it is known what they are to name.
                let tags = self.targets.iter().map(|target| target.reference.tag());
                let (root, before) = match tags.collect::<Option<Vec<_>>>() {
                    Some(_) => {
                        let (root, before) = join(self.source.root(), self.named(None)).await;
                        (self.reduced(root?)?, before)
                    }
                    None => {
                        let root = self.reduced(self.source.root().await?)?;
                        let before = self.named(Some(root.1.digest())).await;
                        (root, before)
                    }
                };
                (root.1.digest().clone(), Some(root), before)
            }
        };
        let (reduced_from, root) = root.unzip();
        let mut targets: Vec<Result<Planned>> = before
            .into_iter()
            .zip(&self.targets)
            .map(|(before, target)| {
                target.check(&digest)?;
                let before = before?;
                let write = must_write(&target.reference, &digest, before.as_ref(), &target.move_tag)?;
                Ok(Planned {
                    before,
                    write,
                    ..Planned::default()
                })
            })
            .collect();
        let graph = match root {
            Some(root) => Some(self.survey(root, &mut targets).await?),
            None => None,
        };
        Ok(Look {
            digest,
            reduced_from: reduced_from.flatten(),
            graph,
            targets,
        })
    }

    /// The index with only the platforms that are to go, and the digest of the whole one if that is more.
    fn reduced(&self, root: Manifest) -> Result<(Option<Digest>, Manifest)> {
        if self.settings.platforms.is_empty() {
            return Ok((None, root));
        }
        let Some(reduced) = root.reduced_to(&self.settings.platforms)? else {
            return Ok((None, root));
        };
        if !self.settings.allow_partial_index {
            return Err(Failure::denied(format!(
                "{} has more platforms than --platform names, and without them it would have another digest",
                root.digest()
            ))
            .hint(
                "promote all of it, or one platform by the digest of its own; --allow-partial-index writes an index with another digest",
            ));
        }
        Ok((Some(root.digest().clone()), reduced))
    }

    /// What the targets name, and the source's manifest unless nobody needs it: then the source need not be there any
    /// more. Where source and targets are different registries, both are asked at once.
    async fn root_unless_there(
        &self,
        digest: &Digest,
    ) -> Result<(Option<Root>, Vec<Result<Option<Digest>>>)> {
        let mut early = None;
        let mut root = Box::pin(self.source.root());
        let named = self.named(Some(digest));
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
        };
        let has =
            |named: &Result<Option<Digest>>| named.as_ref().is_ok_and(|named| named.as_ref() == Some(digest));
        let all_have_it = before.iter().all(has);
        let is_enough = all_have_it && !(self.settings.referrers.wants_any() && self.has_other_places());
        if is_enough {
            return Ok((None, before));
        }
        let root = match early {
            Some(read) => read,
            None => root.await,
        };
        match root {
            Ok(root) => Ok((Some((None, root)), before)),
            // What was promoted is promoted, even when its source was cleared away since or does not answer.
            Err(failure)
                if all_have_it
                    && matches!(failure.kind(), Kind::NotFound | Kind::Unavailable | Kind::Denied) =>
            {
                tracing::warn!(
                    action = "look",
                    object = self.source.to_string(),
                    reason = failure.message(),
                    "the targets have the image; what refers to it at its source cannot be looked for"
                );
                Ok((None, before))
            }
            Err(failure) => Err(failure),
        }
    }

    fn is_within_one_registry(&self) -> bool {
        self.source.repository().is_some_and(|source| {
            let mut targets = self.targets.iter().filter_map(|target| target.store.repository());
            targets.any(|target| source.shares_registry_with(target))
        })
    }

    /// Whether a target is another place than the source.
    fn has_other_places(&self) -> bool {
        (0..self.targets.len()).any(|index| self.way(index) != Way::Held)
    }

    /// What the targets name by their tags, or for those without one whether they have the digest.
    async fn named(&self, digest: Option<&Digest>) -> Vec<Result<Option<Digest>>> {
        let ask = |target: &'_ Target| {
            let pointer = match (target.reference.tag(), digest) {
                (Some(tag), _) => Some(Pointer::Tag(tag.clone())),
                (None, digest) => digest.cloned().map(Pointer::Digest),
            };
            let store = target.store.clone();
            async move {
                match pointer {
                    Some(pointer) => store.resolve(&pointer).await,
                    None => Ok(None),
                }
            }
        };
        join_all(self.targets.iter().map(ask)).await
    }

    /// Reads the image as far as the targets need it, and what refers to it; notes in `targets` what they lack of that.
    async fn survey(&self, root: Manifest, targets: &mut [Result<Planned>]) -> Result<Graph> {
        let concurrency = self.traffic.concurrency();
        let is_wanted = |index: usize| targets[index].as_ref().is_ok_and(|planned| planned.write);
        let needs_all = (0..self.targets.len()).any(|index| is_wanted(index) && self.way(index) != Way::Held);
        let looks_for_referrers = self.settings.referrers.wants_any()
            && self.has_other_places()
            && targets.iter().any(Result::is_ok);
        let search = Search::new(&self.source, &self.settings.referrers, concurrency);
        let children = root.children().iter().map(|child| child.digest.clone());
        let first: Vec<Digest> = std::iter::once(root.digest().clone()).chain(children).collect();
        let mut graph = Graph::new(root);
        let allow = self.settings.allow_partial_index;
        let reach = if needs_all { Reach::All } else { Reach::Indexes };
        if needs_all {
            self.open_ahead(graph.root(), targets);
        }
        // What is listed in the root is known before it is read, so that both can go on at once.
        let (candidates, ()) = tokio::try_join!(
            async {
                if looks_for_referrers {
                    search.candidates(&first).await
                } else {
                    Ok(Vec::new())
                }
            },
            async {
                if needs_all || looks_for_referrers {
                    self.source.complete(&mut graph, concurrency, &reach, allow).await
                } else {
                    Ok(())
                }
            }
        )?;
        if looks_for_referrers {
            search.look_further(&mut graph, &first, candidates).await?;
            for (index, planned) in targets.iter_mut().enumerate() {
                let Ok(known) = planned else { continue };
                if self.way(index) != Way::Held
                    && let Err(failure) = self.compare(&self.targets[index], known, &graph).await
                {
                    *planned = Err(failure);
                }
            }
        }
        Ok(graph)
    }

    /// Opens connections for reading blobs, while their uploads are being opened.
    fn open_source_ahead(&self, blobs: usize) {
        if let Some(source) = self.source.repository() {
            source.open_ahead(blobs.min(self.traffic.concurrency()));
        }
    }

    /// Opens connections for the reading of what the root lists, and for the blobs that come next.
    fn open_ahead(&self, root: &Manifest, targets: &[Result<Planned>]) {
        let most = self.traffic.concurrency();
        let children = root.children().len();
        if let Some(repository) = self.source.repository() {
            repository.open_ahead(children.min(most));
        }
        let blobs = root.blobs().len() + children * BLOBS_OF_A_PLATFORM;
        for (index, planned) in targets.iter().enumerate() {
            let is_written = planned.as_ref().is_ok_and(|planned| planned.write);
            if let Some(repository) = self.targets[index].store.repository()
                && is_written
                && self.way(index) != Way::Held
            {
                repository.open_ahead(blobs.min(most));
            }
        }
    }

    /// Notes what a target lacks of what refers to the image.
    async fn compare(&self, target: &Target, planned: &mut Planned, graph: &Graph) -> Result<()> {
        let mut listed: BTreeMap<&Digest, BTreeSet<Digest>> = BTreeMap::new();
        for (place, referrer) in graph.referrers().iter().enumerate() {
            let lacks = match &referrer.tag {
                Some(tag) => {
                    let held = target.store.resolve(&Pointer::Tag(tag.clone())).await?;
                    let lacks =
                        self.lacks_tagged(target, tag, held.as_ref(), graph.manifest(&referrer.digest));
                    let lacks = lacks.await?;
                    if let Some(held) = held.filter(|_| lacks) {
                        planned.tags_before.insert(tag.clone(), held);
                    }
                    lacks
                }
                // What is not there has nothing that refers to it.
                None if planned.write => true,
                None => {
                    if !listed.contains_key(&referrer.subject) {
                        let there = target.store.referrers(&referrer.subject).await?;
                        listed.insert(&referrer.subject, there);
                    }
                    !listed[&referrer.subject].contains(&referrer.digest)
                }
            };
            if lacks {
                planned.missing.insert(place);
            }
        }
        Ok(())
    }

    /// Whether a tag made of a digest has to be written.
    async fn lacks_tagged(
        &self,
        target: &Target,
        tag: &super::Tag,
        held: Option<&Digest>,
        wanted: Option<&Manifest>,
    ) -> Result<bool> {
        let (Some(held), Some(wanted)) = (held, wanted) else {
            return Ok(held.is_none());
        };
        if held == wanted.digest() {
            return Ok(false);
        }
        let there = target.store.manifest(&Pointer::Digest(held.clone())).await?;
        match compare(wanted, &there) {
            Beside::Whole => Ok(false),
            Beside::Part => Ok(true),
            Beside::Apart if target.move_tag == MoveTag::Any => Ok(true),
            Beside::Apart => Err(Failure::conflict(format!(
                "{}:{tag} has something of its own, which {} would replace",
                target.name(),
                wanted.digest()
            ))
            .hint("sign what is at the target again, or leave such tags out: --referrers none, or name the types")),
        }
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
            Some(check) => self.prove(outcomes, check, journal, &progress, stop).await,
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

/// The source's manifest, and the digest of the whole index if that is more.
type Root = (Option<Digest>, Manifest);

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
