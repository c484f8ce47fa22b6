//! Whether an image is really there: every manifest read back by its digest, every blob looked for or read, and what
//! refers to it found.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::edge::Edge;
use super::journal::Journal;
use super::look::Planned;
use super::place::ImageReference;
use super::plan::Amount;
use super::reading::{Reading, opener};
use super::record::{Flaw, Record};
use super::referrers::Search;
use super::source::{Reach, Source};
use super::store::Store;
use super::transfer::stopped;
use super::verified::{BlobCheck, NOT_THERE, Part, Verified, WRONG_BYTES};
use super::{Copier, Done, Look, Target, Way};
use crate::cli::Progress;
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Descriptor, Digest, Graph, Held, LayoutReference, Manifest, Pointer, Referrer, Tag};

/// What a proof goes by.
pub(super) struct Proof<'a> {
    pub(super) digest: &'a Digest,
    /// The image's manifest, where it was read: what a tag names may have changed since.
    pub(super) seen: Option<&'a Manifest>,
    pub(super) check: BlobCheck,
    pub(super) journal: Option<&'a Journal>,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) stop: &'a CancellationToken,
}

impl Proof<'_> {
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(stopped()),
        }
    }
}

impl Copier {
    /// Looks at all of the source: what it lists and holds itself has to be there, and `tag`, where it is given, has to
    /// name it.
    ///
    /// # Errors
    /// Not found (exit 5) when there is no such image; denied (4), unavailable (7), as the registry says. What is
    /// missing of it is in the result.
    pub async fn verify_source(&self, check: BlobCheck, tag: Option<&Tag>) -> Result<Verified> {
        let root = match (self.source.root().await, self.source.known_digest()) {
            (Ok(root), _) => root,
            (Err(failure), Some(digest)) if matches!(failure.kind(), Kind::Conflict | Kind::Input) => {
                let mut verified = Verified::of(digest);
                verified.defect(Part::Manifest, digest, failure.message());
                return Ok(verified);
            }
            (Err(failure), _) => return Err(failure),
        };
        let graph = self.whole(&self.source, root, true).await?;
        let mut verified = Verified::of(graph.root().digest());
        if let (Some(tag), Some(repository)) = (tag, self.source.repository()) {
            let named = repository.resolve(&Pointer::Tag(tag.clone())).await?;
            verified.judge_tag(tag, named.as_ref());
        }
        for absent in graph.absent() {
            verified.defect(Part::Manifest, absent, "is listed and not there");
        }
        let parts = all_parts(&graph, &Planned::default());
        // They were checked against their digests when they were read.
        verified.manifests = parts.len() as u64;
        self.look_at_blobs(Some(&self.source), &graph, &parts, check, &mut verified)
            .await?;
        count(&graph, &BTreeSet::new(), &mut verified);
        Ok(verified)
    }

    /// Looks at all of the source's image at each target, with what refers to it. Gives back what was found, and what
    /// [`Copier::act`] has to do to bring what is missing. A tag that is right is not written again, and another is
    /// moved only where it may be.
    ///
    /// # Errors
    /// As [`Copier::verify_source`]. What kept a target from being looked at is in the look.
    pub async fn look_for_repair(&self, check: BlobCheck) -> Result<(Look, Vec<Option<Verified>>)> {
        let (reduced_from, root) = self.reduced(self.source.root().await?)?;
        let graph = self
            .whole(&self.source, root, self.settings.allow_partial_index)
            .await?;
        let mut targets = Vec::with_capacity(self.targets.len());
        let mut found = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            match self.verify_target(target, &graph, check).await {
                Ok((verified, planned)) => {
                    found.push(Some(verified));
                    targets.push(Ok(planned));
                }
                Err(failure) => {
                    found.push(None);
                    targets.push(Err(failure));
                }
            }
        }
        let look = Look {
            digest: graph.root().digest().clone(),
            reduced_from,
            graph: Some(graph),
            targets,
        };
        Ok((look, found))
    }

    /// Looks at all of the image at every target that has it now, brings what is missing once more, and looks again.
    /// Where the source cannot be read any more, each target's own image is looked at. What is wrong then is in the
    /// outcome, beside what was done.
    pub(super) async fn prove(&self, outcomes: Vec<Result<Done>>, proof: &Proof<'_>) -> Vec<Result<Done>> {
        let again = async {
            let root = match proof.seen {
                Some(root) => root.clone(),
                None => self.source.at(proof.digest).await?,
            };
            self.whole(&self.source, root, self.settings.allow_partial_index)
                .await
        };
        let whole = proof.unless_stopped(again).await;
        let mut proven = Vec::with_capacity(outcomes.len());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            proven.push(match outcome {
                Ok(mut done) => {
                    let proved = match &whole {
                        Ok(graph) => self.prove_one(index, &mut done, graph, proof).await,
                        Err(failure)
                            if matches!(
                                failure.kind(),
                                Kind::NotFound | Kind::Unavailable | Kind::Denied
                            ) =>
                        {
                            self.prove_alone(index, &mut done, proof).await
                        }
                        Err(failure) => Err(same(failure)),
                    };
                    done.unproven = proved.err();
                    Ok(done)
                }
                Err(failure) => Err(failure),
            });
        }
        proven
    }

    async fn prove_one(&self, index: usize, done: &mut Done, graph: &Graph, proof: &Proof<'_>) -> Result<()> {
        let target = &self.targets[index];
        let look = || proof.unless_stopped(self.verify_target(target, graph, proof.check));
        let (mut verified, planned) = look().await?;
        if !verified.is_whole() {
            let repair = Edge {
                copier: self,
                graph: Some(graph),
                target,
                planned,
                way: self.way(index),
                mount_from: self.mount_from(index),
                progress: proof.progress.clone(),
                stop: proof.stop.child_token(),
            };
            self.forget(target, &verified);
            let repaired = repair.carry(None, proof.journal).await;
            done.changed |= repaired.as_ref().is_ok_and(Done::wrote);
            if let Err(failure) = repaired {
                done.verified = Some(verified);
                return Err(failure);
            }
            (verified, _) = look().await?;
        }
        let failure = verified.failure(&target.name());
        done.verified = Some(verified);
        failure.map_or(Ok(()), Err)
    }

    /// Looks at the image as the target itself has it.
    async fn prove_alone(&self, index: usize, done: &mut Done, proof: &Proof<'_>) -> Result<()> {
        let target = &self.targets[index];
        let look = async {
            let Some(reader) = reader(target, proof.digest).await? else {
                return Err(Failure::not_found(format!("{} is not there", target.name())));
            };
            let graph = self.whole(&reader, reader.at(proof.digest).await?, true).await?;
            self.verify_target(target, &graph, proof.check).await
        };
        let (verified, _) = proof.unless_stopped(look).await?;
        let failure = verified.failure(&target.name());
        done.verified = Some(verified);
        failure.map_or(Ok(()), Err)
    }

    /// What is not there after all may have been thought to be.
    fn forget(&self, target: &Target, verified: &Verified) {
        let Some(repository) = target.store.repository() else {
            return;
        };
        for defect in verified.defects.iter().filter(|defect| defect.part == Part::Blob) {
            if let Ok(digest) = defect.name.parse() {
                self.traffic.forget(repository, &digest);
            }
        }
    }

    /// Reads all of an image's manifests, and what refers to it.
    async fn whole(&self, source: &Source, root: Manifest, may_be_sparse: bool) -> Result<Graph> {
        let concurrency = self.traffic.concurrency();
        let mut graph = Graph::new(root);
        source
            .complete(&mut graph, concurrency, &Reach::All, may_be_sparse)
            .await?;
        if self.settings.referrers.wants_any() {
            let search = Search::new(source, &self.settings.referrers, concurrency);
            let subjects: Vec<Digest> = graph.known().into_iter().collect();
            let candidates = search.candidates(&subjects).await?;
            search.look_further(&mut graph, &subjects, candidates).await?;
        }
        Ok(graph)
    }

    async fn verify_target(
        &self,
        target: &Target,
        graph: &Graph,
        check: BlobCheck,
    ) -> Result<(Verified, Planned)> {
        let root = graph.root().digest();
        let mut verified = Verified::of(root);
        target.check(root)?;
        let before = target.store.resolve(&target.pointer(root)).await?;
        if let Some(tag) = target.reference.tag() {
            verified.judge_tag(tag, before.as_ref());
        }
        let mut planned = Planned {
            before,
            ..Planned::default()
        };
        if !self.is_source(target) {
            for (place, failure) in self.compare(target, &mut planned, graph).await? {
                let referrer = &graph.referrers()[place];
                let name = referrer
                    .tag
                    .as_ref()
                    .map_or(referrer.digest.to_string(), ToString::to_string);
                verified.defect(Part::Referrer, name, failure.message());
            }
        }
        for referrer in planned.missing(graph) {
            let name = referrer
                .tag
                .as_ref()
                .map_or(referrer.digest.to_string(), ToString::to_string);
            verified.defect(
                Part::Referrer,
                name,
                format!("({}) is not found there", referrer.kind),
            );
        }
        let parts = all_parts(graph, &planned);
        let reader = reader(target, root).await?;
        let read = stream::iter(parts.iter().filter_map(|digest| graph.manifest(digest)))
            .map(|manifest| {
                let reader = reader.as_ref();
                async move {
                    match reader {
                        Some(reader) => (manifest, reader.manifest_again(manifest).await),
                        None => (manifest, Err(Failure::not_found("nothing is there"))),
                    }
                }
            })
            .buffer_unordered(self.traffic.concurrency());
        let read: Vec<(&Manifest, Result<()>)> = read.collect().await;
        for (manifest, outcome) in read {
            match outcome {
                Ok(()) => verified.manifests += 1,
                Err(failure) => match failure.kind() {
                    Kind::NotFound => verified.defect(Part::Manifest, manifest.digest(), NOT_THERE),
                    Kind::Conflict | Kind::Input => {
                        planned.damaged.insert(manifest.digest().clone());
                        verified.defect(Part::Manifest, manifest.digest(), WRONG_BYTES);
                    }
                    _ => return Err(failure),
                },
            }
        }
        self.look_at_blobs(reader.as_ref(), graph, &parts, check, &mut verified)
            .await?;
        let wrong = verified.defects.iter().filter(|defect| defect.part == Part::Blob);
        planned.damaged.extend(
            wrong
                .filter(|defect| defect.reason == WRONG_BYTES)
                .filter_map(|defect| defect.name.parse().ok()),
        );
        planned.write = has_defects_of_the_image(&verified);
        // A referrer of which a part is gone is brought again as a whole.
        let broken: BTreeSet<&str> = verified
            .defects
            .iter()
            .map(|defect| defect.name.as_str())
            .collect();
        for (place, referrer) in graph.referrers().iter().enumerate() {
            if !planned.kept.contains(&place) && is_broken(graph, referrer, &broken) {
                planned.missing.insert(place);
            }
        }
        count(graph, &planned.missing, &mut verified);
        Ok((verified, planned))
    }

    fn is_source(&self, target: &Target) -> bool {
        match (self.source.repository(), target.store.repository()) {
            (Some(source), Some(target)) => source.is_same_as(target),
            _ => false,
        }
    }

    async fn look_at_blobs(
        &self,
        reader: Option<&Source>,
        graph: &Graph,
        parts: &BTreeSet<&Digest>,
        check: BlobCheck,
        verified: &mut Verified,
    ) -> Result<()> {
        let blobs = graph.blobs(parts)?;
        let mut looking = stream::iter(blobs)
            .map(|blob| async move {
                let wrong = match reader {
                    Some(reader) => reader.judge(blob, check).await?,
                    None => Some(NOT_THERE.to_owned()),
                };
                Ok::<_, Failure>((blob, wrong))
            })
            .buffer_unordered(self.traffic.concurrency());
        let mut there = Amount::default();
        while let Some((blob, wrong)) = looking.try_next().await? {
            match wrong {
                None => there.add(blob),
                Some(reason) => verified.defect(Part::Blob, &blob.digest, reason),
            }
        }
        verified.blobs = there.blobs;
        verified.bytes = there.bytes;
        Ok(())
    }
}

impl Done {
    /// Whether something was written: a repair leaves a tag that is right as it is.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.changed || self.tally.copied.blobs > 0 || self.tally.mounted.blobs > 0
    }
}

impl Source {
    /// Reads a manifest again, which has to be the same.
    async fn manifest_again(&self, manifest: &Manifest) -> Result<()> {
        let listed = Descriptor {
            media_type: manifest.media_type().to_owned(),
            digest: manifest.digest().clone(),
            size: manifest.bytes().len() as u64,
        };
        self.child(&listed).await.map(|_| ())
    }

    /// What is wrong with a blob.
    async fn judge(&self, blob: &Descriptor, check: BlobCheck) -> Result<Option<String>> {
        let held = match self {
            Source::Registry { repository, .. } => repository.blob_length(&blob.digest).await?,
            Source::Layout(layout) => match layout.blob_length(&blob.digest).await? {
                Some(length) => Held::Long(length),
                None => Held::No,
            },
        };
        match held {
            Held::No => return Ok(Some(NOT_THERE.to_owned())),
            Held::Long(length) if length != blob.size => {
                return Ok(Some(format!("has {length} bytes, not {}", blob.size)));
            }
            Held::Long(_) | Held::Yes => {}
        }
        if check == BlobCheck::Present {
            return Ok(None);
        }
        let record = Record::new(Arc::new(Progress::bytes("reading", blob.size)), Arc::default());
        let nobody = CancellationToken::new();
        let read = async {
            let mut reading = Reading::open(opener(self, blob), blob, 0, &record, &nobody).await?;
            while reading.next().await?.is_some() {}
            Ok::<_, Flaw>(())
        };
        match read.await {
            Ok(()) => Ok(None),
            // Reading it all anew may help with wrong bytes alone.
            Err(Flaw { again: true, .. }) => Ok(Some(WRONG_BYTES.to_owned())),
            Err(Flaw { failure, .. }) if failure.kind() == Kind::NotFound => Ok(Some(NOT_THERE.to_owned())),
            Err(Flaw { failure, .. }) => Err(failure),
        }
    }
}

/// A target as something to read from; none while there is nothing at all.
async fn reader(target: &Target, root: &Digest) -> Result<Option<Source>> {
    match (&target.store, &target.reference) {
        (Store::Registry(repository), _) => Ok(Some(Source::Registry {
            repository: repository.clone(),
            pointer: Pointer::Digest(root.clone()),
        })),
        (Store::Layout(_), ImageReference::Layout(reference)) => {
            let reference = LayoutReference {
                tag: None,
                digest: Some(root.clone()),
                ..reference.clone()
            };
            match crate::oci::Layout::open(&reference).await {
                Ok(layout) => Ok(Some(Source::Layout(layout))),
                Err(failure) if failure.kind() == Kind::NotFound => Ok(None),
                Err(failure) => Err(failure),
            }
        }
        (Store::Layout(layout), ImageReference::Registry(_)) => {
            Err(Failure::internal(format!("{layout} is no repository")))
        }
    }
}

/// The same failure for another target.
fn same(failure: &Failure) -> Failure {
    let same = Failure::new(failure.kind(), failure.message());
    match failure.next_action() {
        Some(hint) => same.hint(hint),
        None => same,
    }
}

/// The manifests of the image and of what refers to it, without what is missing or kept.
fn all_parts<'g>(graph: &'g Graph, planned: &Planned) -> BTreeSet<&'g Digest> {
    let is_there = |place: &usize| !planned.missing.contains(place) && !planned.kept.contains(place);
    let every = Planned {
        write: true,
        missing: (0..graph.referrers().len()).filter(is_there).collect(),
        ..Planned::default()
    };
    every.parts(graph, Way::Send)
}

fn has_defects_of_the_image(verified: &Verified) -> bool {
    verified
        .defects
        .iter()
        .any(|defect| defect.part != Part::Referrer)
}

fn is_broken(graph: &Graph, referrer: &Referrer, broken: &BTreeSet<&str>) -> bool {
    graph.part(&referrer.digest).into_iter().any(|digest| {
        let manifest = graph.manifest(digest);
        let mut blobs = manifest.into_iter().flat_map(Manifest::blobs);
        broken.contains(digest.as_str()) || blobs.any(|blob| broken.contains(blob.digest.as_str()))
    })
}

fn count(graph: &Graph, missing: &BTreeSet<usize>, verified: &mut Verified) {
    for (place, referrer) in graph.referrers().iter().enumerate() {
        if !missing.contains(&place) {
            *verified.referrers.entry(referrer.kind.clone()).or_default() += 1;
        }
    }
}
