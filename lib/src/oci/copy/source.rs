//! Where an image is read from: a registry or a layout.

use std::fmt;
use std::str::FromStr;

use futures_util::stream::{FuturesUnordered, TryStreamExt as _};

use crate::failure::{Failure, Result};
use crate::oci::layout::{Layout, LayoutReference};
use crate::oci::{
    BlobStream, Descriptor, Digest, Graph, Manifest, Pointer, Reference, Registries, Repository, Tag,
};

/// What a source is written as: `registry/repository[:tag][@digest]` or `oci:PATH[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceReference {
    /// At a registry.
    Registry(Reference),
    /// In a folder.
    Layout(LayoutReference),
}

impl SourceReference {
    /// The tag it is written with.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            SourceReference::Registry(reference) => reference.tag(),
            SourceReference::Layout(reference) => reference.tag.as_ref(),
        }
    }
}

impl FromStr for SourceReference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("oci:") {
            return text.parse().map(SourceReference::Layout);
        }
        let reference: Reference = text.parse()?;
        if reference.pointer().is_none() {
            return Err(
                Failure::usage(format!("the source {text:?} has neither tag nor digest"))
                    .hint("name the image by digest, REPOSITORY@sha256:..., or by a tag"),
            );
        }
        Ok(SourceReference::Registry(reference))
    }
}

impl fmt::Display for SourceReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceReference::Registry(reference) => reference.fmt(f),
            SourceReference::Layout(reference) => reference.fmt(f),
        }
    }
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
    pub async fn open(reference: &SourceReference, registries: &Registries) -> Result<Self> {
        match reference {
            SourceReference::Layout(reference) => Layout::open(reference).await.map(Source::Layout),
            SourceReference::Registry(reference) => {
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

    /// Reads everything below the root, `concurrency` manifests at a time.
    ///
    /// # Errors
    /// As [`Source::root`]; input (exit 3) when a child has another length than its index says.
    pub async fn graph(&self, root: Manifest, concurrency: usize) -> Result<Graph> {
        let mut graph = Graph::new(root);
        loop {
            let wanted = graph.wanted();
            if wanted.is_empty() {
                return Ok(graph);
            }
            for some in wanted.chunks(concurrency.max(1)) {
                let read: FuturesUnordered<_> = some.iter().map(|child| self.child(child)).collect();
                for manifest in read.try_collect::<Vec<Manifest>>().await? {
                    graph.add(manifest)?;
                }
            }
        }
    }

    async fn child(&self, child: &Descriptor) -> Result<Manifest> {
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
    /// As [`Repository::blob`] and [`Layout::blob`].
    pub async fn blob(&self, blob: &Descriptor) -> Result<BlobStream> {
        match self {
            Source::Layout(layout) => layout.blob(blob).await,
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
