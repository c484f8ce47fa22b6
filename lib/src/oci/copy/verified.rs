//! What a look at all of an image found.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::failure::Failure;
use crate::oci::{Digest, Tag};

pub(super) const NOT_THERE: &str = "is not there";
pub(super) const WRONG_BYTES: &str = "is given with other bytes";

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
    /// The other image that the tag names.
    #[serde(skip)]
    pub names: Option<Digest>,
}

impl Verified {
    pub(super) fn of(digest: &Digest) -> Self {
        Verified {
            digest: digest.clone(),
            manifests: 0,
            blobs: 0,
            bytes: 0,
            referrers: BTreeMap::new(),
            defects: Vec::new(),
            names: None,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.defects.is_empty()
    }

    /// Notes it when a tag does not name the image.
    pub(super) fn judge_tag(&mut self, tag: &Tag, named: Option<&Digest>) {
        match named {
            Some(named) if *named == self.digest => {}
            Some(named) => {
                self.names = Some(named.clone());
                self.defect(Part::Tag, tag, format!("names {named}"));
            }
            None => self.defect(Part::Tag, tag, NOT_THERE),
        }
    }

    pub(super) fn defect(&mut self, part: Part, name: impl ToString, reason: impl Into<String>) {
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
