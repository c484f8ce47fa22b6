//! Where an image is or goes: a registry or a folder.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Result};
use crate::oci::{Digest, LayoutReference, Reference, Tag};

/// What sources and targets are written as: `registry/repository[:tag][@digest]` or `oci:PATH[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageReference {
    /// At a registry.
    Registry(Reference),
    /// In a folder.
    Layout(LayoutReference),
}

impl ImageReference {
    /// Reads what names an image that is there: at a registry it needs a tag or a digest.
    ///
    /// # Errors
    /// Usage (exit 2) when it is malformed, or names no image.
    pub fn source(text: &str) -> Result<Self> {
        let reference: ImageReference = text.parse()?;
        reference.check_source()?;
        Ok(reference)
    }

    /// Refuses a repository without tag and digest.
    pub(super) fn check_source(&self) -> Result<()> {
        match self {
            ImageReference::Registry(reference) if reference.pointer().is_none() => Err(Failure::usage(
                format!("the source {reference} has neither tag nor digest"),
            )
            .hint("name the image by digest, REPOSITORY@sha256:..., or by a tag")),
            _ => Ok(()),
        }
    }

    /// The tag it is written with.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            ImageReference::Registry(reference) => reference.tag(),
            ImageReference::Layout(reference) => reference.tag.as_ref(),
        }
    }

    /// The digest it is written with.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            ImageReference::Registry(reference) => reference.digest(),
            ImageReference::Layout(reference) => reference.digest.as_ref(),
        }
    }

    /// Registry and repository, or the folder, without tag and digest: `oci:PATH`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            ImageReference::Registry(reference) => reference.name(),
            ImageReference::Layout(reference) => format!("oci:{}", reference.path.display()),
        }
    }

    /// The same with another tag, or none.
    #[must_use]
    pub fn with_tag(self, tag: Option<Tag>) -> Self {
        match self {
            ImageReference::Registry(reference) => ImageReference::Registry(reference.with_tag(tag)),
            ImageReference::Layout(reference) => ImageReference::Layout(LayoutReference { tag, ..reference }),
        }
    }

    /// The same with another digest, or none.
    #[must_use]
    pub fn with_digest(self, digest: Option<Digest>) -> Self {
        match self {
            ImageReference::Registry(reference) => ImageReference::Registry(reference.with_digest(digest)),
            ImageReference::Layout(reference) => {
                ImageReference::Layout(LayoutReference { digest, ..reference })
            }
        }
    }
}

impl FromStr for ImageReference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("oci:") {
            text.parse().map(ImageReference::Layout)
        } else {
            text.parse().map(ImageReference::Registry)
        }
    }
}

impl From<Reference> for ImageReference {
    fn from(reference: Reference) -> Self {
        ImageReference::Registry(reference)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageReference::Registry(reference) => reference.fmt(f),
            ImageReference::Layout(reference) => reference.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn a_source_names_an_image_and_a_target_need_not() {
        let target: ImageReference = "example.com/app".parse().unwrap();
        assert_eq!(target.check_source().expect_err("no image").kind(), Kind::Usage);
        for source in ["example.com/app:1", "oci:out", "oci:out:1"] {
            assert_eq!(ImageReference::source(source).unwrap().to_string(), source);
        }
        let digest = Digest::of(b"x");
        let whole = format!("oci:out:1@{digest}");
        let reference: ImageReference = whole.parse().unwrap();
        assert_eq!(reference.digest(), Some(&digest));
        let bare = reference.with_tag(None).with_digest(None);
        assert_eq!(bare.to_string(), "oci:out");
        assert_eq!(bare.name(), "oci:out");
    }
}
