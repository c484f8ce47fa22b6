//! The place that an image is written to.

use std::collections::BTreeSet;

use super::listing;
use super::place::ImageReference;
use crate::failure::Result;
use crate::oci::{Descriptor, Digest, LayoutWriter, Manifest, Pointer, Registries, Repository, Tag};

/// A repository or a folder, with the calls that a copy needs of either.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// At a registry.
    Registry(Repository),
    /// A folder.
    Layout(LayoutWriter),
}

impl Store {
    /// Opens the place that a reference names. A registry is not asked yet, and nothing is written to a folder.
    ///
    /// # Errors
    /// As [`Registries::repository`] and [`LayoutWriter::open`].
    pub(super) async fn open(reference: &ImageReference, registries: &Registries) -> Result<Self> {
        match reference {
            ImageReference::Registry(reference) => {
                registries.repository(reference).await.map(Store::Registry)
            }
            ImageReference::Layout(reference) => LayoutWriter::open(&reference.path).await.map(Store::Layout),
        }
    }

    /// The repository, when it is at a registry.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Store::Registry(repository) => Some(repository),
            Store::Layout(_) => None,
        }
    }

    /// The layout, when it is a folder.
    pub(super) fn layout(&self) -> Option<&LayoutWriter> {
        match self {
            Store::Registry(_) => None,
            Store::Layout(layout) => Some(layout),
        }
    }

    /// As [`Repository::resolve`] and [`LayoutWriter::resolve`].
    pub(super) async fn resolve(&self, pointer: &Pointer) -> Result<Option<Digest>> {
        match self {
            Store::Registry(repository) => repository.resolve(pointer).await,
            Store::Layout(layout) => layout.resolve(pointer).await,
        }
    }

    /// As [`Repository::manifest`]; by digest, a layout need not list it.
    pub(super) async fn manifest(&self, pointer: &Pointer) -> Result<Manifest> {
        match self {
            Store::Registry(repository) => repository.manifest(pointer, None).await,
            Store::Layout(layout) => layout.pointed(pointer).await,
        }
    }

    /// As [`Repository::put_manifest`]. A layout lists what has a tag, and what refers to something.
    pub(super) async fn put(&self, pointer: &Pointer, manifest: &Manifest) -> Result<bool> {
        match self {
            Store::Registry(repository) => repository.put_manifest(pointer, manifest).await,
            Store::Layout(layout) => {
                layout.put_manifest(manifest).await?;
                match pointer {
                    Pointer::Tag(tag) => {
                        let before = layout.resolve(pointer).await?;
                        layout.tag(Some(tag), manifest, before.as_ref()).await?;
                    }
                    Pointer::Digest(_) if manifest.subject().is_some() => {
                        layout.tag(None, manifest, None).await?;
                    }
                    Pointer::Digest(_) => {}
                }
                Ok(true)
            }
        }
    }

    /// As [`Store::put`], for the image as a whole: a layout lists it, without a tag too.
    pub(super) async fn name(&self, pointer: &Pointer, manifest: &Manifest) -> Result<bool> {
        let noted = self.put(pointer, manifest).await?;
        if let (Store::Layout(layout), Pointer::Digest(_)) = (self, pointer) {
            layout.tag(None, manifest, None).await?;
        }
        Ok(noted)
    }

    /// Deletes a tag, and not the manifest that it names; `now` is what that is.
    pub(super) async fn delete(&self, tag: &Tag, now: Option<&Digest>) -> Result<()> {
        match self {
            Store::Registry(repository) => repository.delete_tag(tag).await,
            Store::Layout(layout) => match now {
                Some(now) => layout.untag(tag, now).await,
                None => Ok(()),
            },
        }
    }

    /// Whether a blob is there.
    pub(super) async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        match self {
            Store::Registry(repository) => repository.has_blob(&blob.digest).await,
            Store::Layout(layout) => layout.has_blob(blob).await,
        }
    }

    /// What is listed there as referring to a manifest.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<BTreeSet<Digest>> {
        match self {
            Store::Registry(repository) => match repository.lookout().listed(subject).await? {
                Some(listed) => Ok(listed.into_iter().map(|one| one.descriptor.digest).collect()),
                None => listing::listed(self, subject).await,
            },
            Store::Layout(layout) => layout.referrers(subject).await,
        }
    }
}
