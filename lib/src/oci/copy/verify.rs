//! Whether an image is really there: every manifest read back by its digest, every blob looked for or read, and what
//! refers to it found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::edge::Edge;
use super::journal::Journal;
use super::look::Planned;
use super::place::ImageReference;
use super::plan::Amount;
use super::referrers::Search;
use super::source::{Reach, Source};
use super::store::Store;
use super::{Copier, Done, Look, Target, Way};
use crate::cli::Progress;
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Descriptor, Digest, Graph, Held, LayoutReference, Manifest, Referrer};

/// How closely blobs are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlobCheck {
    /// They have to be there, as long as they should be where the registry tells their length.
    #[default]
    Present,
    /// They are read, and have to be what their digests name.
    Read,
}

/// What kind of thing is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The tag.
    Tag,
    /// A manifest of the image, or of what refers to it.
    Manifest,
    /// A blob.
    Blob,
    /// Something that refers to the image and cannot be found by that.
    Referrer,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// What kind of thing.
    pub part: Part,
    /// Its digest or tag.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a look at all of an image found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The image's digest.
    pub digest: Digest,
    /// How many manifests were read and are right.
    pub manifests: u64,
    /// How many blobs are there.
    pub blobs: u64,
    /// How long those are together, in bytes, as their manifests say.
    pub bytes: u64,
    /// How many of what refers to the image are there, by their kinds.
    pub referrers: BTreeMap<String, u64>,
    /// What is not as it should be.
    pub defects: Vec<Defect>,
}

impl Verified {
    fn of(digest: &Digest) -> Self {
        Verified {
            digest: digest.clone(),
            manifests: 0,
            blobs: 0,
            bytes: 0,
            referrers: BTreeMap::new(),
            defects: Vec::new(),
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.defects.is_empty()
    }

    fn defect(&mut self, part: Part, name: impl ToString, reason: impl Into<String>) {
        let defect = Defect {
            part,
            name: name.to_string(),
            reason: reason.into(),
        };
        tracing::warn!(
            action = "verify",
            object = defect.name,
            reason = defect.reason,
            "not as it should be"
        );
        self.defects.push(defect);
    }

    /// The defects as a failure, if there are any; `place` is where they are.
    #[must_use]
    pub fn failure(&self, place: &str) -> Option<Failure> {
        let first = self.defects.first()?;
        let more = match self.defects.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(
            Failure::conflict(format!(
                "{place} has not all of {}: {} {} {}{more}",
                self.digest,
                match first.part {
                    Part::Tag => "the tag",
                    Part::Manifest => "the manifest",
                    Part::Blob => "the blob",
                    Part::Referrer => "the referrer",
                },
                first.name,
                first.reason
            ))
            .hint("repair it from a place that has it: image-promote-by-digest verify REF --source SOURCE"),
        )
    }
}

impl Copier {
    /// Looks at all of the source: what it lists and holds itself has to be there.
    ///
    /// # Errors
    /// Not found (exit 5) when there is no such image; denied (4), unavailable (7), as the registry says. What is
    /// missing of it is in the result.
    pub async fn verify_source(&self, check: BlobCheck) -> Result<Verified> {
        let graph = self.whole(true).await?;
        let mut verified = Verified::of(graph.root().digest());
        for absent in graph.absent() {
            verified.defect(Part::Manifest, absent, "is listed and not there");
        }
        let parts = all_parts(&graph, &BTreeSet::new());
        // They were checked against their digests when they were read.
        verified.manifests = parts.len() as u64;
        self.look_at_blobs(&self.source, &graph, &parts, check, &mut verified)
            .await?;
        count(&graph, &BTreeSet::new(), &mut verified);
        Ok(verified)
    }

    /// Looks at all of the source's image at each target, with what refers to it.
    ///
    /// # Errors
    /// As [`Copier::verify_source`]. What befell a target is in its own result.
    pub async fn verify(&self, check: BlobCheck) -> Result<Vec<Result<Verified>>> {
        let graph = self.whole(self.settings.allow_partial_index).await?;
        let mut all = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            all.push(
                self.verify_target(target, &graph, check)
                    .await
                    .map(|(verified, _)| verified),
            );
        }
        Ok(all)
    }

    /// Foresees bringing to each target what it was found to lack: what [`Copier::act`] then does. A tag that is right
    /// is not written again, and another is moved only where it may be.
    ///
    /// # Errors
    /// As [`Copier::verify`].
    pub async fn look_for_repair(&self, check: BlobCheck) -> Result<(Look, Vec<Option<Verified>>)> {
        let graph = self.whole(self.settings.allow_partial_index).await?;
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
            reduced_from: None,
            graph: Some(graph),
            targets,
        };
        Ok((look, found))
    }

    /// Looks at all of the image at every target that has it now, brings what is missing once more, and looks again.
    pub(super) async fn prove(
        &self,
        outcomes: Vec<Result<Done>>,
        check: BlobCheck,
        journal: Option<&Journal>,
        progress: &Arc<Progress>,
        stop: &CancellationToken,
    ) -> Result<Vec<Result<Done>>> {
        let graph = self.whole(self.settings.allow_partial_index).await?;
        let mut proven = Vec::with_capacity(outcomes.len());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            proven.push(match outcome {
                Ok(done) => {
                    self.prove_one(index, done, &graph, check, journal, progress, stop)
                        .await
                }
                Err(failure) => Err(failure),
            });
        }
        Ok(proven)
    }

    #[expect(clippy::too_many_arguments, reason = "all of what a repair goes by")]
    async fn prove_one(
        &self,
        index: usize,
        mut done: Done,
        graph: &Graph,
        check: BlobCheck,
        journal: Option<&Journal>,
        progress: &Arc<Progress>,
        stop: &CancellationToken,
    ) -> Result<Done> {
        let target = &self.targets[index];
        let (mut verified, planned) = self.verify_target(target, graph, check).await?;
        if !verified.is_whole() {
            let repair = Edge {
                copier: self,
                graph: Some(graph),
                target,
                planned,
                way: self.way(index),
                mount_from: self.mount_from(index),
                progress: progress.clone(),
                stop: stop.child_token(),
            };
            self.forget(target, &verified);
            let repaired = repair.carry(None, journal).await?;
            done.changed |= repaired.wrote();
            (verified, _) = self.verify_target(target, graph, check).await?;
            if let Some(failure) = verified.failure(&target.name()) {
                return Err(failure);
            }
        }
        done.verified = Some(verified);
        Ok(done)
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

    /// Reads all of the image's manifests, and what refers to it.
    async fn whole(&self, may_be_sparse: bool) -> Result<Graph> {
        let (_, root) = self.reduced(self.source.root().await?)?;
        let concurrency = self.traffic.concurrency();
        let mut graph = Graph::new(root);
        self.source
            .complete(&mut graph, concurrency, &Reach::All, may_be_sparse)
            .await?;
        if self.settings.referrers.wants_any() {
            let search = Search::new(&self.source, &self.settings.referrers, concurrency);
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
        let mut planned = Planned {
            before: before.clone(),
            ..Planned::default()
        };
        if let Some(tag) = target.reference.tag() {
            match &before {
                Some(named) if named == root => {}
                Some(named) => verified.defect(Part::Tag, tag, format!("names {named}")),
                None => verified.defect(Part::Tag, tag, "is not there"),
            }
        }
        if !self.is_source(target) {
            self.compare(target, &mut planned, graph).await?;
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
        let parts = all_parts(graph, &planned.missing);
        let reader = reader(target, root).await?;
        let read = stream::iter(parts.iter().filter_map(|digest| graph.manifest(digest)))
            .map(|manifest| {
                let reader = &reader;
                async move { (manifest, reader.manifest_again(manifest).await) }
            })
            .buffer_unordered(self.traffic.concurrency());
        let read: Vec<(&Manifest, Result<()>)> = read.collect().await;
        for (manifest, outcome) in read {
            match outcome {
                Ok(()) => verified.manifests += 1,
                Err(failure) => match failure.kind() {
                    Kind::NotFound => verified.defect(Part::Manifest, manifest.digest(), "is not there"),
                    Kind::Conflict | Kind::Input => {
                        verified.defect(Part::Manifest, manifest.digest(), "is given with other bytes");
                    }
                    _ => return Err(failure),
                },
            }
        }
        self.look_at_blobs(&reader, graph, &parts, check, &mut verified)
            .await?;
        planned.write = has_defects_of_the_image(&verified);
        // A referrer of which a part is gone is brought again as a whole.
        let broken: BTreeSet<&str> = verified
            .defects
            .iter()
            .map(|defect| defect.name.as_str())
            .collect();
        for (place, referrer) in graph.referrers().iter().enumerate() {
            if is_broken(graph, referrer, &broken) {
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
        reader: &Source,
        graph: &Graph,
        parts: &BTreeSet<&Digest>,
        check: BlobCheck,
        verified: &mut Verified,
    ) -> Result<()> {
        let blobs = graph.blobs(parts)?;
        let mut looking = stream::iter(blobs)
            .map(|blob| async move { Ok::<_, Failure>((blob, reader.judge(blob, check).await?)) })
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
            Held::No => return Ok(Some("is not there".to_owned())),
            Held::Long(length) if length != blob.size => {
                return Ok(Some(format!("has {length} bytes, not {}", blob.size)));
            }
            Held::Long(_) | Held::Yes => {}
        }
        if check == BlobCheck::Present {
            return Ok(None);
        }
        let mut content = match self.blob(blob).await {
            Ok(content) => content,
            Err(failure) if failure.kind() == Kind::NotFound => return Ok(Some("is not there".to_owned())),
            Err(failure) => return Err(failure),
        };
        let (mut verifier, mut length) = (blob.digest.verifier(), 0);
        while let Some(bytes) = content.try_next().await? {
            verifier.update(&bytes);
            length += bytes.len() as u64;
            if length > blob.size {
                break;
            }
        }
        let is_right = length == blob.size && verifier.digest() == blob.digest;
        Ok((!is_right).then(|| "is given with other bytes".to_owned()))
    }
}

/// A target as something to read from.
async fn reader(target: &Target, root: &Digest) -> Result<Source> {
    match (&target.store, &target.reference) {
        (Store::Registry(repository), _) => Ok(Source::Registry {
            repository: repository.clone(),
            pointer: target.pointer(root),
        }),
        (Store::Layout(_), ImageReference::Layout(reference)) => {
            let reference = LayoutReference {
                tag: None,
                digest: Some(root.clone()),
                ..reference.clone()
            };
            crate::oci::Layout::open(&reference).await.map(Source::Layout)
        }
        (Store::Layout(layout), ImageReference::Registry(_)) => {
            Err(Failure::internal(format!("{layout} is no repository")))
        }
    }
}

/// The manifests of the image and of what refers to it, without those referrers.
fn all_parts<'g>(graph: &'g Graph, without: &BTreeSet<usize>) -> BTreeSet<&'g Digest> {
    let every = Planned {
        write: true,
        missing: (0..graph.referrers().len())
            .filter(|place| !without.contains(place))
            .collect(),
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
