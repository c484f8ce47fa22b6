//! Images of one platform each, from layouts of their own, as one index.
//!
//! Source: OCI Image Specification, "Image Index" and "Image Configuration" (`os`, `architecture`, `variant`), and
//! "Pre-Defined Annotation Keys". The images' manifests stay the bytes that they are; what is new is the index alone, and
//! the same images make the same index: it is ordered by platform and carries no time of its own.
//!
//! Deliberately absent: an index of indexes, and whether the images belong together. That is the tool's decision.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::folder::Folder;
use super::ground::unwritable;
use super::{Layout, LayoutReference, LayoutWriter};
use crate::failure::{Failure, Result};
use crate::oci::{Digest, Manifest, Platform};

/// The annotations of an image that its index gets, too, where all images agree.
const SHARED: &str = "org.opencontainers.image.";

/// What is read of an image's configuration.
#[derive(Deserialize)]
struct Configuration {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<Settings>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// An image for one platform, in a layout.
#[derive(Clone, Debug)]
pub struct PlatformImage {
    layout: Layout,
    manifest: Manifest,
    platform: Platform,
    labels: BTreeMap<String, String>,
}

impl PlatformImage {
    /// Opens the image that a reference names, and reads for which platform it is.
    ///
    /// # Errors
    /// As [`Layout::open`]; input (exit 3) when it is an index, or its configuration names no platform.
    pub async fn open(reference: &LayoutReference) -> Result<Self> {
        let layout = Layout::open(reference).await?;
        let manifest = layout.root().await?;
        if manifest.is_index() {
            return Err(
                Failure::input(format!("{reference} holds an index, not one image"))
                    .hint("name layouts that were built for one platform each"),
            );
        }
        let config = manifest
            .config()
            .ok_or_else(|| Failure::input(format!("{reference} holds no image: it has no configuration")))?;
        let bytes = layout.unread(&config.digest).await?;
        let read: Configuration = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::input(format!("the configuration of {reference} is malformed")).because(error)
        })?;
        let (Some(os), Some(architecture)) = (read.os, read.architecture) else {
            return Err(Failure::input(format!(
                "the configuration of {reference} does not name its platform"
            )));
        };
        let mut labels = read.config.and_then(|config| config.labels).unwrap_or_default();
        labels.extend(manifest.annotations().clone());
        Ok(PlatformImage {
            platform: Platform::new(os, architecture, read.variant),
            layout,
            manifest,
            labels,
        })
    }

    /// The digest of its manifest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// What it runs on.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// What its annotations, or else its labels, say under a key.
    #[must_use]
    pub fn says(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// A layout with an index of several images. It is removed when this is dropped.
#[derive(Debug)]
pub struct Joined {
    folder: tempfile::TempDir,
    digest: Digest,
}

impl Joined {
    /// The index in it.
    #[must_use]
    pub fn reference(&self) -> LayoutReference {
        LayoutReference {
            path: self.folder.path().to_owned(),
            tag: None,
            digest: Some(self.digest.clone()),
        }
    }

    /// The digest of the index.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Lists images in an index, in a layout of its own in the temporary folder. Blobs stay where they are and are linked to;
/// what refers to one of the images comes along.
///
/// # Errors
/// Not found (exit 5) or input (3) when something of an image is not there or damaged; internal (1) when the temporary
/// folder cannot be written to.
pub async fn join(images: &[PlatformImage]) -> Result<Joined> {
    let document = index(images);
    let bytes = Bytes::from(document.to_string());
    let digest = Digest::of(&bytes);
    let index = Manifest::read(bytes, digest.clone(), None, "of several platforms")?;
    let folder = tempfile::Builder::new()
        .prefix("towpath-index-")
        .tempdir()
        .map_err(|error| {
            Failure::internal("cannot make a folder for the index in the temporary folder")
                .because(error)
                .hint("TMPDIR names another one")
        })?;
    let writer = LayoutWriter::open(folder.path()).await?;
    writer.put_manifest(&index).await?;
    writer.tag(None, &index, None).await?;
    let target = Folder::new(folder.path());
    for image in images {
        link_blobs(image.layout.path(), &target)?;
        for entry in image.layout.entries() {
            if entry.descriptor.digest == *image.digest() {
                continue;
            }
            let manifest = image.layout.manifest(&entry.descriptor).await?;
            let is_about_it = manifest
                .subject()
                .is_some_and(|subject| subject.digest == *image.digest());
            if is_about_it || entry.has_digest_tag() {
                let name = entry.name.as_deref().map(str::parse).transpose()?;
                writer.tag(name.as_ref(), &manifest, None).await?;
            }
        }
    }
    Ok(Joined { folder, digest })
}

/// The index, the same for the same images in whatever order they come.
fn index(images: &[PlatformImage]) -> Value {
    let mut sorted: Vec<&PlatformImage> = images.iter().collect();
    sorted.sort_by_key(|image| image.platform.clone());
    let manifests: Vec<Value> = sorted
        .iter()
        .map(|image| {
            json!({
                "mediaType": image.manifest.media_type(),
                "digest": image.digest().as_str(),
                "size": image.manifest.bytes().len(),
                "platform": image.platform.document(),
            })
        })
        .collect();
    let shared: Map<String, Value> = sorted.first().map_or_else(Map::new, |first| {
        first
            .manifest
            .annotations()
            .iter()
            .filter(|(key, _)| key.starts_with(SHARED))
            .filter(|(key, value)| {
                sorted
                    .iter()
                    .all(|image| image.manifest.annotations().get(*key) == Some(*value))
            })
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect()
    });
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
        "manifests": manifests,
    });
    if !shared.is_empty() {
        document["annotations"] = Value::Object(shared);
    }
    document
}

/// Links to every blob of a layout that is not there yet: the name of a blob says what it is.
fn link_blobs(from: &Path, to: &Folder) -> Result<()> {
    let unreadable = |error| {
        Failure::input(format!("cannot read the blobs of the layout {}", from.display())).because(error)
    };
    let from = std::path::absolute(from).map_err(unreadable)?.join("blobs");
    for algorithm in std::fs::read_dir(&from).map_err(unreadable)? {
        let algorithm = algorithm.map_err(unreadable)?;
        let folder = to.blobs().join(algorithm.file_name());
        std::fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, error))?;
        for blob in std::fs::read_dir(algorithm.path()).map_err(unreadable)? {
            let blob = blob.map_err(unreadable)?;
            let link = folder.join(blob.file_name());
            if !link.exists() {
                symlink(blob.path(), &link).map_err(|error| unwritable(&link, error))?;
            }
        }
    }
    Ok(())
}
