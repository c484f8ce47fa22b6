//! Manifests: what an image or an index is made of, next to its exact bytes.
//!
//! Sources: OCI Image Specification, "Image Manifest" and "Image Index"; Docker's "Image Manifest V 2, Schema 2". A
//! manifest is named by the digest of its bytes, so the bytes are kept and sent on as they came; what is parsed out
//! of them is only what a copy has to know. Media types that are unknown here are carried along, not refused.
//!
//! Deliberately absent: writing manifests, and Docker's schema 1, whose digest is not that of its bytes.

use bytes::Bytes;
use oci_distribution::manifest::{
    IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE, IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
};
use serde::Deserialize;

use super::Digest;
use crate::failure::{Failure, Result};

/// The media types we ask registries for, most wanted first.
pub(super) const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];

/// How many bytes a manifest may have. The distribution specification asks for 4 MiB at least.
pub(super) const SIZE_LIMIT: usize = 8 * 1024 * 1024;

/// What a manifest says about a piece of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its media type, whatever that is.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A manifest: an image, an index or another artifact.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Bytes,
    digest: Digest,
    media_type: String,
    children: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
    external: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

/// The fields of all manifest kinds together: which of them are there tells the kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<OciDescriptor>,
    layers: Option<Vec<OciDescriptor>>,
    /// Of the artifact manifest that OCI 1.1 had before its release.
    blobs: Option<Vec<OciDescriptor>>,
    manifests: Option<Vec<OciDescriptor>>,
    subject: Option<OciDescriptor>,
}

impl Manifest {
    /// Reads a manifest. `digest` is what its bytes were checked against; `served_as` is the media type that came
    /// with it, which counts where the document does not name its own; `origin` names it in messages.
    ///
    /// # Errors
    /// Input (exit 3) when it is malformed or of a kind that cannot be copied by digest.
    pub fn read(bytes: Bytes, digest: Digest, served_as: Option<&str>, origin: &str) -> Result<Self> {
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::input(format!("the manifest {origin} is malformed"))
                .because(error)
                .hint("is it an image? Look at it with the registry's own tools")
        })?;
        if document.schema_version == Some(1) {
            return Err(
                Failure::input(format!("the manifest {origin} is of Docker's schema 1")).hint(
                    "push the image again with a builder of this decade: schema 1 cannot be copied by digest",
                ),
            );
        }
        let is_index = document.manifests.is_some();
        let is_image = document.config.is_some() || document.layers.is_some() || document.blobs.is_some();
        if is_index == is_image {
            return Err(Failure::input(format!(
                "the manifest {origin} is neither an image nor an index"
            )));
        }
        let media_type = document
            .media_type
            .or_else(|| served_as.map(bare_type).filter(|served| is_manifest_type(served)))
            .unwrap_or_else(|| {
                let default = if is_index {
                    OCI_IMAGE_INDEX_MEDIA_TYPE
                } else {
                    OCI_IMAGE_MEDIA_TYPE
                };
                default.to_owned()
            });
        let mut manifest = Manifest {
            bytes,
            digest,
            media_type,
            children: Vec::new(),
            blobs: Vec::new(),
            external: Vec::new(),
            subject: document.subject.map(|raw| descriptor(raw, origin)).transpose()?,
        };
        for raw in document.manifests.into_iter().flatten() {
            // BuildKit's cache index lists layers where manifests belong.
            if is_layer_type(&raw.media_type) {
                manifest.blobs.push(descriptor(raw, origin)?);
            } else {
                manifest.children.push(descriptor(raw, origin)?);
            }
        }
        let blobs = [document.layers, document.blobs].into_iter().flatten().flatten();
        for raw in document.config.into_iter().chain(blobs) {
            let is_external =
                is_foreign_type(&raw.media_type) && raw.urls.as_ref().is_some_and(|u| !u.is_empty());
            let descriptor = descriptor(raw, origin)?;
            if is_external {
                manifest.external.push(descriptor);
            } else {
                manifest.blobs.push(descriptor);
            }
        }
        Ok(manifest)
    }

    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The media type under which it is pushed.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The manifests it lists, in its order.
    #[must_use]
    pub fn children(&self) -> &[Descriptor] {
        &self.children
    }

    /// The blobs it needs at its registry: configuration and layers, in its order.
    #[must_use]
    pub fn blobs(&self) -> &[Descriptor] {
        &self.blobs
    }

    /// Foreign layers: their content is fetched from elsewhere by whoever runs the image, and no registry holds it.
    #[must_use]
    pub fn external(&self) -> &[Descriptor] {
        &self.external
    }

    /// The manifest that this one refers to, as a signature does to an image.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }
}

fn descriptor(raw: OciDescriptor, origin: &str) -> Result<Descriptor> {
    let malformed = |what: &str| Failure::input(format!("the manifest {origin} holds a malformed {what}"));
    Ok(Descriptor {
        digest: raw
            .digest
            .parse()
            .map_err(|failure: Failure| malformed("digest").because(failure))?,
        size: u64::try_from(raw.size).map_err(|_| malformed(&format!("size, {}", raw.size)))?,
        media_type: raw.media_type,
    })
}

/// A media type without its parameters.
fn bare_type(served: &str) -> String {
    served.split(';').next().unwrap_or_default().trim().to_owned()
}

fn is_manifest_type(media_type: &str) -> bool {
    ACCEPTED.contains(&media_type) || media_type == "application/vnd.oci.artifact.manifest.v1+json"
}

fn is_layer_type(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type == IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE
        || media_type == IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE
        || media_type == "application/vnd.buildkit.cacheconfig.v0"
}

fn is_foreign_type(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::failure::Kind;

    pub(in super::super) fn read(document: &Value) -> Result<Manifest> {
        let bytes = Bytes::from(document.to_string());
        let digest = Digest::of(&bytes);
        Manifest::read(bytes, digest, None, "example.com/app:1")
    }

    pub(in super::super) fn entry(media_type: &str, content: &[u8]) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(content).as_str(), "size": content.len()})
    }

    fn config() -> Value {
        entry("application/vnd.oci.image.config.v1+json", b"{}")
    }

    #[test]
    fn an_image_gives_its_blobs_in_order() {
        let manifest = read(&json!({
            "schemaVersion": 2,
            "config": config(),
            "layers": [
                entry("application/vnd.oci.image.layer.v1.tar+gzip", b"one"),
                entry("application/x-unheard-of", b"two"),
            ],
            "subject": entry(OCI_IMAGE_MEDIA_TYPE, b"subject"),
        }))
        .unwrap();
        let sizes: Vec<u64> = manifest.blobs().iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [2, 3, 3]);
        assert!(manifest.children().is_empty());
        assert_eq!(manifest.media_type(), OCI_IMAGE_MEDIA_TYPE);
        assert_eq!(manifest.subject().map(|subject| subject.size), Some(7));
    }

    #[test]
    fn an_index_gives_its_children_and_dockers_list_is_one() {
        let child = entry(IMAGE_MANIFEST_MEDIA_TYPE, b"child");
        let manifest = read(&json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST_LIST_MEDIA_TYPE,
            "manifests": [child, entry("application/vnd.oci.image.layer.v1.tar+zstd", b"cache")],
        }))
        .unwrap();
        assert_eq!(manifest.media_type(), IMAGE_MANIFEST_LIST_MEDIA_TYPE);
        assert_eq!(manifest.children().len(), 1);
        assert_eq!(manifest.blobs().len(), 1);
    }

    #[test]
    fn the_type_it_was_served_as_counts_where_it_names_none() {
        let document = json!({"schemaVersion": 2, "config": config(), "layers": []}).to_string();
        let digest = Digest::of(document.as_bytes());
        let served =
            |as_type| Manifest::read(document.clone().into(), digest.clone(), Some(as_type), "x").unwrap();
        let docker = format!("{IMAGE_MANIFEST_MEDIA_TYPE}; charset=utf-8");
        assert_eq!(served(&docker).media_type(), IMAGE_MANIFEST_MEDIA_TYPE);
        assert_eq!(served("text/plain").media_type(), OCI_IMAGE_MEDIA_TYPE);
    }

    #[test]
    fn foreign_layers_are_left_where_they_are_when_they_say_where() {
        let mut foreign = entry(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            b"windows",
        );
        let held =
            read(&json!({"schemaVersion": 2, "config": config(), "layers": [foreign.clone()]})).unwrap();
        assert_eq!((held.blobs().len(), held.external().len()), (2, 0));
        foreign["urls"] = json!(["https://example.com/layer"]);
        let away = read(&json!({"schemaVersion": 2, "config": config(), "layers": [foreign]})).unwrap();
        assert_eq!((away.blobs().len(), away.external().len()), (1, 1));
    }

    #[test]
    fn what_cannot_be_copied_by_digest_is_refused_by_name() {
        let negative = json!({"mediaType": "x", "digest": Digest::of(b"").as_str(), "size": -1});
        for document in [
            json!({"schemaVersion": 1, "fsLayers": []}),
            json!({"schemaVersion": 2}),
            json!({"schemaVersion": 2, "config": config(), "manifests": []}),
            json!({"schemaVersion": 2, "config": negative, "layers": []}),
            json!({"schemaVersion": 2, "config": {"mediaType": "x", "digest": "sha256:../../x", "size": 1}}),
            json!([]),
            json!({"manifests": 7}),
        ] {
            let failure = read(&document).expect_err("refused");
            assert_eq!(failure.kind(), Kind::Input, "{document}");
            assert!(failure.message().contains("example.com/app:1"), "{document}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_and_none_are_changed(
            text in "\\{\"(config|layers|manifests|schemaVersion)\":(\\{\\}|\\[\\]|2|null|\\[\\{\"size\":1\\}\\])\\}|\\PC{0,60}"
        ) {
            let bytes = Bytes::from(text);
            if let Ok(manifest) = Manifest::read(bytes.clone(), Digest::of(&bytes), None, "x") {
                prop_assert_eq!(manifest.bytes(), &bytes);
            }
        }
    }
}
