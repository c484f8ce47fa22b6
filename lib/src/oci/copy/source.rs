//! An image where it is read from.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::stream::{self, StreamExt as _};
use oci_distribution::manifest::{IMAGE_MANIFEST_LIST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE};

use super::place::ImageReference;
use crate::failure::{Failure, Kind, Result};
use crate::oci::layout::Layout;
use crate::oci::{BlobStream, Descriptor, Digest, Graph, Manifest, Pointer, Registries, Repository};

/// How far a graph is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the last manifest.
    All,
    /// Lists of manifests, and not the images in them.
    Indexes,
    /// What is below these.
    Below(Vec<Digest>),
}

/// An image somewhere.
#[derive(Clone, Debug)]
pub enum Source {
    /// At a registry.
    Registry {
        /// Its repository.
        repository: Repository,
        /// Its tag or digest.
        pointer: Pointer,
    },
    /// In a folder.
    Layout(Layout),
}

impl Source {
    /// Opens what a reference names. A layout is looked into; a registry is not asked yet.
    ///
    /// # Errors
    /// As [`Layout::open`] and [`Registries::repository`].
    pub async fn open(reference: &ImageReference, registries: &Registries) -> Result<Self> {
        reference.check_source()?;
        match reference {
            ImageReference::Layout(reference) => Layout::open(reference).await.map(Source::Layout),
            ImageReference::Registry(reference) => {
                let pointer = reference
                    .pointer()
                    .ok_or_else(|| Failure::usage(format!("{reference} has neither tag nor digest")))?;
                Ok(Source::Registry {
                    repository: registries.repository(reference).await?,
                    pointer,
                })
            }
        }
    }

    /// Its digest, where that is known without asking.
    #[must_use]
    pub fn known_digest(&self) -> Option<&Digest> {
        match self {
            Source::Layout(layout) => Some(layout.digest()),
            Source::Registry {
                pointer: Pointer::Digest(digest),
                ..
            } => Some(digest),
            Source::Registry { .. } => None,
        }
    }

    /// The repository, when it is at a registry.
    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Source::Registry { repository, .. } => Some(repository),
            Source::Layout(_) => None,
        }
    }

    /// Reads the manifest that the image is named by. This is where a tag is resolved, once.
    ///
    /// # Errors
    /// As [`Repository::manifest`] and [`Layout::root`].
    pub async fn root(&self) -> Result<Manifest> {
        match self {
            Source::Layout(layout) => layout.root().await,
            Source::Registry { repository, pointer } => repository.manifest(pointer, None).await,
        }
    }

    /// Reads the image of a digest in the same place.
    ///
    /// # Errors
    /// As [`Source::root`].
    pub(super) async fn at(&self, digest: &Digest) -> Result<Manifest> {
        match self {
            Source::Layout(layout) if layout.digest() == digest => layout.root().await,
            Source::Layout(_) => Err(Failure::not_found(format!("{digest} is not in {self}"))),
            Source::Registry { repository, .. } => {
                repository.manifest(&Pointer::Digest(digest.clone()), None).await
            }
        }
    }

    /// Reads what the graph's manifests list, as far as `reach` goes, `concurrency` manifests at a time. With
    /// `may_be_sparse`, what is not there is left out.
    ///
    /// # Errors
    /// As [`Source::root`]; input (exit 3) when a child has another length than its index says.
    pub(super) async fn complete(
        &self,
        graph: &mut Graph,
        concurrency: usize,
        reach: &Reach,
        may_be_sparse: bool,
    ) -> Result<()> {
        loop {
            let mut wanted = graph.wanted();
            match reach {
                Reach::All => {}
                Reach::Indexes => wanted.retain(|child| is_index_type(&child.media_type)),
                Reach::Below(tops) => {
                    let parts: BTreeSet<&Digest> = tops.iter().flat_map(|top| graph.part(top)).collect();
                    let manifests = parts.into_iter().filter_map(|digest| graph.manifest(digest));
                    let below: BTreeSet<&Digest> = manifests
                        .flat_map(Manifest::children)
                        .map(|child| &child.digest)
                        .collect();
                    wanted.retain(|child| below.contains(&child.digest));
                }
            }
            if wanted.is_empty() {
                return Ok(());
            }
            let mut reading = stream::iter(wanted)
                .map(|child| async move {
                    let read = self.child(&child).await;
                    (child, read)
                })
                .buffer_unordered(concurrency.max(1));
            while let Some((child, read)) = reading.next().await {
                match read {
                    Ok(manifest) => graph.add(manifest)?,
                    Err(failure) if failure.kind() == Kind::NotFound && may_be_sparse => {
                        tracing::warn!(
                            action = "read",
                            object = child.digest.as_str(),
                            "the index is sparse: what it lists is not at the source"
                        );
                        graph.leave_out(child.digest);
                    }
                    Err(failure) if failure.kind() == Kind::NotFound => {
                        return Err(failure.hint(
                            "the index lists what is not there: if it is meant to be sparse, say --allow-partial-index",
                        ));
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
    }

    /// Reads a manifest beside the image itself.
    ///
    /// # Errors
    /// As [`Source::root`].
    pub(super) async fn manifest(&self, pointer: &Pointer, listed: Option<&Descriptor>) -> Result<Manifest> {
        match (self, listed) {
            (_, Some(listed)) => self.child(listed).await,
            (Source::Registry { repository, .. }, None) => repository.manifest(pointer, None).await,
            (Source::Layout(_), None) => Err(Failure::internal(format!("{pointer} is no file of a layout"))),
        }
    }

    pub(super) async fn child(&self, child: &Descriptor) -> Result<Manifest> {
        let manifest = match self {
            Source::Layout(layout) => layout.manifest(child).await?,
            Source::Registry { repository, .. } => {
                let pointer = Pointer::Digest(child.digest.clone());
                repository.manifest(&pointer, Some(&child.media_type)).await?
            }
        };
        if manifest.bytes().len() as u64 != child.size {
            return Err(Failure::input(format!(
                "the manifest {} has {} bytes where its index says {}",
                child.digest,
                manifest.bytes().len(),
                child.size
            )));
        }
        Ok(manifest)
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// As [`Repository::blob`] and [`Layout::blob_from`].
    pub async fn blob(&self, blob: &Descriptor) -> Result<BlobStream> {
        match self {
            Source::Layout(layout) => layout.blob_from(blob, 0).await,
            Source::Registry { repository, .. } => repository.blob(blob).await,
        }
    }

    /// Opens a blob to read on from an offset, in bytes.
    ///
    /// # Errors
    /// As [`Repository::blob_from`] and [`Layout::blob_from`].
    pub async fn blob_from(&self, blob: &Descriptor, from: u64) -> Result<BlobStream> {
        match self {
            Source::Layout(layout) => layout.blob_from(blob, from).await,
            Source::Registry { repository, .. } => repository.blob_from(blob, from).await,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Layout(layout) => layout.fmt(f),
            Source::Registry {
                repository,
                pointer: Pointer::Tag(tag),
            } => write!(f, "{}:{tag}", repository.reference()),
            Source::Registry {
                repository,
                pointer: Pointer::Digest(digest),
            } => write!(f, "{}@{digest}", repository.reference()),
        }
    }
}

fn is_index_type(media_type: &str) -> bool {
    media_type == OCI_IMAGE_INDEX_MEDIA_TYPE || media_type == IMAGE_MANIFEST_LIST_MEDIA_TYPE
}
