//! The place that an image is written to.

use std::collections::BTreeSet;

use super::journal::Journal;
use super::listing;
use super::place::ImageReference;
use crate::failure::Result;
use crate::oci::{Descriptor, Digest, LayoutWriter, Manifest, Pointer, Registries, Repository, Tag};

/// A repository or a folder, with the calls that a copy needs of either.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// At a registry.
    Registry(Repository),
    /// In a folder.
    Layout(LayoutWriter),
}

impl Store {
    /// Opens the place that a reference names. A registry is not asked yet.
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

    /// As [`Repository::resolve`].
    pub(super) async fn resolve(&self, pointer: &Pointer) -> Result<Option<Digest>> {
        match self {
            Store::Registry(repository) => repository.resolve(pointer).await,
            Store::Layout(layout) => layout.resolve(pointer).await,
        }
    }

    /// As [`Repository::manifest`].
    pub(super) async fn manifest(&self, pointer: &Pointer) -> Result<Manifest> {
        match self {
            Store::Registry(repository) => repository.manifest(pointer, None).await,
            Store::Layout(layout) => layout.pointed(pointer).await,
        }
    }

    /// Writes a manifest by its digest, which nothing names yet. Tells whether it can be found by its subject already.
    ///
    /// # Errors
    /// As [`Repository::put_manifest`] and [`LayoutWriter::put_manifest`].
    pub(super) async fn put(&self, manifest: &Manifest) -> Result<bool> {
        match self {
            Store::Registry(repository) => {
                let pointer = Pointer::Digest(manifest.digest().clone());
                repository.put_manifest(&pointer, manifest).await
            }
            Store::Layout(layout) => layout.put_manifest(manifest).await.map(|()| false),
        }
    }

    /// Makes a pointer name a manifest, which need not have been written before. `before` is what it names now. Tells
    /// whether the manifest can be found by its subject already.
    ///
    /// # Errors
    /// As [`Repository::put_manifest`] and [`LayoutWriter::tag`].
    pub(super) async fn name(
        &self,
        pointer: &Pointer,
        manifest: &Manifest,
        before: Option<&Digest>,
    ) -> Result<bool> {
        match self {
            Store::Registry(repository) => repository.put_manifest(pointer, manifest).await,
            Store::Layout(layout) => {
                layout.put_manifest(manifest).await?;
                let tag = match pointer {
                    Pointer::Tag(tag) => Some(tag),
                    Pointer::Digest(_) => None,
                };
                layout
                    .tag(tag, manifest, before.filter(|_| tag.is_some()))
                    .await?;
                // Whatever is listed is found.
                Ok(true)
            }
        }
    }

    /// Sees to it that manifests are found by their subject, where that does not come by itself.
    ///
    /// # Errors
    /// As [`listing::add`] and [`LayoutWriter::tag`].
    pub(super) async fn list(
        &self,
        name: &str,
        subject: &Digest,
        referrers: &[&Manifest],
        journal: Option<&Journal>,
    ) -> Result<()> {
        match self {
            Store::Registry(repository) => {
                // Some have the API and do not say so when they are given something.
                if repository.lookout().listed(subject).await?.is_none() {
                    listing::add(self, name, subject, referrers, journal).await?;
                }
            }
            Store::Layout(layout) => {
                for referrer in referrers {
                    layout.tag(None, referrer, None).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes a tag, and not the manifest that it names; `now` is what that is.
    ///
    /// # Errors
    /// As [`Repository::delete_tag`] and [`LayoutWriter::untag`].
    pub(super) async fn delete(&self, tag: &Tag, now: Option<&Digest>) -> Result<()> {
        match (self, now) {
            (Store::Registry(repository), _) => repository.delete_tag(tag).await,
            (Store::Layout(layout), Some(now)) => layout.untag(tag, now).await,
            (Store::Layout(_), None) => Ok(()),
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
            // Whatever is listed is found, whatever its subject.
            Store::Layout(layout) => {
                let entries = layout.entries().await?;
                Ok(entries.into_iter().map(|entry| entry.descriptor.digest).collect())
            }
        }
    }
}
