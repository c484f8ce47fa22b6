//! The place that an image is written to.

use std::collections::BTreeSet;

use super::listing;
use super::place::ImageReference;
use crate::failure::{Failure, Result};
use crate::oci::{Descriptor, Digest, Manifest, Pointer, Registries, Repository};

/// A repository or a folder, with the calls that a copy needs of either.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// At a registry.
    Registry(Repository),
}

impl Store {
    /// Opens the place that a reference names. A registry is not asked yet.
    ///
    /// # Errors
    /// As [`Registries::repository`].
    pub(super) async fn open(reference: &ImageReference, registries: &Registries) -> Result<Self> {
        match reference {
            ImageReference::Registry(reference) => {
                registries.repository(reference).await.map(Store::Registry)
            }
            ImageReference::Layout(_) => Err(Failure::usage(format!(
                "the folder {reference} cannot be written to"
            ))),
        }
    }

    /// The repository, when it is at a registry.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Store::Registry(repository) => Some(repository),
        }
    }

    /// As [`Repository::resolve`].
    pub(super) async fn resolve(&self, pointer: &Pointer) -> Result<Option<Digest>> {
        match self {
            Store::Registry(repository) => repository.resolve(pointer).await,
        }
    }

    /// As [`Repository::manifest`].
    pub(super) async fn manifest(&self, pointer: &Pointer) -> Result<Manifest> {
        match self {
            Store::Registry(repository) => repository.manifest(pointer, None).await,
        }
    }

    /// As [`Repository::put_manifest`].
    pub(super) async fn put(&self, pointer: &Pointer, manifest: &Manifest) -> Result<bool> {
        match self {
            Store::Registry(repository) => repository.put_manifest(pointer, manifest).await,
        }
    }

    /// Whether a blob is there.
    pub(super) async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        match self {
            Store::Registry(repository) => repository.has_blob(&blob.digest).await,
        }
    }

    /// What is listed there as referring to a manifest.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<BTreeSet<Digest>> {
        match self {
            Store::Registry(repository) => match repository.lookout().listed(subject).await? {
                Some(listed) => Ok(listed.into_iter().map(|one| one.descriptor.digest).collect()),
                None => listing::listed(self, subject).await,
            },
        }
    }
}
