//! What is there before a copy, and what follows from that. The looking itself is [`Copier`](super::Copier)'s.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Way;
use crate::failure::{Failure, Result};
use crate::oci::{Digest, Graph, Referrer, Tag};

/// What was there before.
#[derive(Debug)]
pub struct Look {
    pub(super) digest: Digest,
    pub(super) reduced_from: Option<Digest>,
    /// None when every target has all of it.
    pub(super) graph: Option<Graph>,
    pub(super) targets: Vec<Result<Planned>>,
}

/// What has to be done at one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Planned {
    pub(super) before: Option<Digest>,
    /// Whether the tag, or the image by its digest, has to be written.
    pub(super) write: bool,
    /// Which of the graph's referrers have to be brought, by their place there.
    pub(super) missing: BTreeSet<usize>,
    /// Which of the graph's referrers the target has in a manifest of its own, which holds them and more.
    pub(super) kept: BTreeSet<usize>,
    /// What is there with other bytes, and is written again where that can be done.
    pub(super) damaged: BTreeSet<Digest>,
    /// What tags made of digests name that are going to be moved.
    pub(super) tags_before: BTreeMap<Tag, Digest>,
}

/// How many referrers of a kind go along, and how many were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Referred {
    /// Brought, or to be brought.
    pub copied: u64,
    /// There already.
    pub skipped: u64,
}

impl Look {
    /// The image's digest; a source's tag is resolved to it once.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The digest of the whole index, when only some of its platforms go and the image therefore has another.
    #[must_use]
    pub fn reduced_from(&self) -> Option<&Digest> {
        self.reduced_from.as_ref()
    }

    /// What a sparse index lists and its source does not have.
    #[must_use]
    pub fn absent(&self) -> Vec<Digest> {
        let graph = self.graph.as_ref();
        graph.map_or_else(Vec::new, |graph| graph.absent().iter().cloned().collect())
    }

    /// What each target names now, in the order of the targets.
    #[must_use]
    pub fn before(&self) -> Vec<Option<Digest>> {
        let before = |target: &Result<Planned>| target.as_ref().ok()?.before.clone();
        self.targets.iter().map(before).collect()
    }

    /// Whether each target has to be written to, in their order.
    #[must_use]
    pub fn writes(&self) -> Vec<bool> {
        let writes = |target: &Result<Planned>| target.as_ref().is_ok_and(Planned::is_work);
        self.targets.iter().map(writes).collect()
    }

    /// What keeps a target from being written to.
    #[must_use]
    pub fn failure(&self, target: usize) -> Option<&Failure> {
        self.targets.get(target)?.as_ref().err()
    }

    /// All targets or none.
    ///
    /// # Errors
    /// The first failure of a target.
    pub fn all_or_none(mut self) -> Result<Self> {
        match self.targets.iter().position(Result::is_err) {
            None => Ok(self),
            Some(first) => match self.targets.swap_remove(first) {
                Err(failure) => Err(failure),
                Ok(_) => Ok(self),
            },
        }
    }
}

impl Planned {
    pub(super) fn is_work(&self) -> bool {
        self.write || !self.missing.is_empty()
    }

    /// The referrers that have to be brought.
    pub(super) fn missing<'g>(&'g self, graph: &'g Graph) -> impl Iterator<Item = &'g Referrer> {
        let all = graph.referrers();
        self.missing.iter().filter_map(|place| all.get(*place))
    }

    /// The manifests that have to be brought.
    pub(super) fn parts<'g>(&self, graph: &'g Graph, way: Way) -> BTreeSet<&'g Digest> {
        let mut parts = BTreeSet::new();
        if self.write && way != Way::Held {
            parts.extend(graph.part(graph.root().digest()));
        }
        for place in &self.missing {
            if let Some(referrer) = graph.referrers().get(*place) {
                parts.extend(graph.part(&referrer.digest));
            }
        }
        parts
    }

    /// What a tag made of a digest named when it was looked at.
    pub(super) fn tag_before(&self, tag: &Tag) -> Option<Digest> {
        self.tags_before.get(tag).cloned()
    }

    /// The referrers by their kinds.
    pub(super) fn count(&self, graph: &Graph) -> BTreeMap<String, Referred> {
        let mut counts: BTreeMap<String, Referred> = BTreeMap::new();
        for (place, referrer) in graph.referrers().iter().enumerate() {
            let count = counts.entry(referrer.kind.clone()).or_default();
            if self.missing.contains(&place) {
                count.copied += 1;
            } else {
                count.skipped += 1;
            }
        }
        counts
    }
}
