//! Manifests: what an image or an index is made of, next to its exact bytes.
//!
//! Sources: OCI Image Specification, "Image Manifest" and "Image Index"; Docker's "Image Manifest V 2, Schema 2". A
//! manifest is named by the digest of its bytes, so the bytes are kept and sent on as they came; what is parsed out
//! of them is only what a copy has to know. Media types that are unknown here are carried along, not refused.
//!
//! Deliberately absent: writing manifests (an index is: `layout/join`), and Docker's schema 1, whose digest is not that of its bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use oci_distribution::manifest::{
    IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE, IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Digest, Platform};
use crate::failure::{Failure, Result};

/// Names the manifest that an attestation belongs to, in the index that lists both: what BuildKit writes.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

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

/// What an index says of a child besides its descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Purpose {
    platform: Option<Platform>,
    /// The sibling that it attests to.
    attests: Option<Digest>,
    /// Its place in the list, where layers may stand between the children.
    place: usize,
}

/// A manifest: an image, an index or another artifact.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Bytes,
    digest: Digest,
    media_type: String,
    is_index: bool,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
    has_config: bool,
    children: Vec<Descriptor>,
    /// One for each child.
    purposes: Vec<Purpose>,
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
    artifact_type: Option<String>,
    // Whatever is in these is copied along; what is not as specified is only not understood.
    annotations: Option<Value>,
    config: Option<OciDescriptor>,
    layers: Option<Vec<OciDescriptor>>,
    /// Of the artifact manifest that OCI 1.1 had before its release.
    blobs: Option<Vec<OciDescriptor>>,
    manifests: Option<Vec<Listed>>,
    subject: Option<OciDescriptor>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    descriptor: OciDescriptor,
    platform: Option<Value>,
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
        // The specification's fallback for a manifest without a type of its own.
        let artifact_type = document
            .artifact_type
            .filter(|own| !own.is_empty())
            .or_else(|| document.config.as_ref().map(|config| config.media_type.clone()));
        let mut manifest = Manifest {
            bytes,
            digest,
            media_type,
            is_index,
            artifact_type,
            annotations: texts(document.annotations.as_ref()),
            has_config: document.config.is_some(),
            children: Vec::new(),
            purposes: Vec::new(),
            blobs: Vec::new(),
            external: Vec::new(),
            subject: document.subject.map(|raw| descriptor(raw, origin)).transpose()?,
        };
        let listed = document.manifests.into_iter().flatten().enumerate();
        for (place, entry) in listed {
            let Listed {
                descriptor: raw,
                platform,
            } = entry;
            // BuildKit's cache index lists layers where manifests belong.
            if is_layer_type(&raw.media_type) {
                manifest.blobs.push(descriptor(raw, origin)?);
            } else {
                let annotations = raw.annotations.as_ref();
                let attests = annotations.and_then(|all| all.get(REFERENCE_DIGEST)?.parse().ok());
                let platform = platform.as_ref().and_then(platform_of);
                manifest.purposes.push(Purpose {
                    platform,
                    attests,
                    place,
                });
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

    /// An index that is written without looking at what it lists: a list of referrers that others write, too, and may
    /// have put anything into. `document` is an object.
    pub(super) fn list(document: &Value) -> Self {
        let bytes = Bytes::from(document.to_string());
        let media_type = document["mediaType"].as_str();
        Manifest {
            digest: Digest::of(&bytes),
            bytes,
            media_type: media_type.unwrap_or(OCI_IMAGE_INDEX_MEDIA_TYPE).to_owned(),
            is_index: true,
            artifact_type: None,
            annotations: BTreeMap::new(),
            has_config: false,
            children: Vec::new(),
            purposes: Vec::new(),
            blobs: Vec::new(),
            external: Vec::new(),
            subject: None,
        }
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

    /// Whether it lists manifests.
    #[must_use]
    pub fn is_index(&self) -> bool {
        self.is_index
    }

    /// What kind of artifact it is: its `artifactType`, else the media type of its configuration.
    #[must_use]
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// Its annotations.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The platforms it lists, in its order, without those of attestations.
    #[must_use]
    pub fn platforms(&self) -> Vec<&Platform> {
        self.purposes
            .iter()
            .filter(|purpose| purpose.attests.is_none())
            .filter_map(|purpose| purpose.platform.as_ref())
            .collect()
    }

    /// The same index with only the children for these platforms: images for them, attestations of those, and what is
    /// listed for no platform. None when that is all of it, so that nothing has to change. Every other field and
    /// child stays as it is, in its order; the digest is another.
    ///
    /// # Errors
    /// Not found (exit 5) when a platform is not listed; usage (2) when this is no index, or nothing of it is wanted.
    pub fn reduced_to(&self, wanted: &[Platform]) -> Result<Option<Manifest>> {
        if !self.is_index {
            return Err(
                Failure::usage(format!("{} is one image, not an index of platforms", self.digest))
                    .hint("leave --platform (TOWPATH_PLATFORM) out"),
            );
        }
        let listed = self.platforms();
        for platform in wanted {
            if !listed.iter().any(|held| platform.fits(held)) {
                let held: Vec<String> = listed.iter().map(ToString::to_string).collect();
                return Err(Failure::not_found(format!(
                    "the index {} has nothing for {platform}",
                    self.digest
                ))
                .hint(format!("it has: {}", held.join(", "))));
            }
        }
        let is_wanted = |purpose: &Purpose| {
            let platform = purpose.platform.as_ref();
            platform.is_none_or(|held| wanted.iter().any(|platform| platform.fits(held)))
        };
        // Each entry is decided on by itself: one image may be listed for several platforms.
        let mut kept = BTreeSet::new();
        let mut dropped = BTreeSet::new();
        let (attestations, images): (Vec<_>, Vec<_>) = self
            .children
            .iter()
            .zip(&self.purposes)
            .partition(|(_, purpose)| purpose.attests.is_some());
        for (child, purpose) in images.into_iter().chain(attestations) {
            let stays = match &purpose.attests {
                Some(attested) => kept.contains(attested),
                None => is_wanted(purpose),
            };
            if stays {
                kept.insert(&child.digest);
            } else {
                dropped.insert(purpose.place);
            }
        }
        if dropped.is_empty() {
            return Ok(None);
        }
        if kept.is_empty() {
            return Err(
                Failure::usage(format!("nothing of the index {} would be left", self.digest))
                    .hint("name at least one of its platforms with --platform (TOWPATH_PLATFORM)"),
            );
        }
        let broken =
            |error| Failure::internal(format!("cannot rewrite the index {}", self.digest)).because(error);
        let mut document: Value = serde_json::from_slice(&self.bytes).map_err(broken)?;
        if let Some(entries) = document["manifests"].as_array_mut() {
            let mut place = 0..;
            entries.retain(|_| place.next().is_none_or(|place| !dropped.contains(&place)));
        }
        let bytes = Bytes::from(serde_json::to_vec(&document).map_err(broken)?);
        let digest = Digest::of(&bytes);
        let origin = digest.to_string();
        Manifest::read(bytes, digest, Some(&self.media_type), &origin).map(Some)
    }

    /// The blobs it needs at its registry: configuration and layers, in its order.
    #[must_use]
    pub fn blobs(&self) -> &[Descriptor] {
        &self.blobs
    }

    /// The blobs without the configuration.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        // It is the first, and never foreign.
        &self.blobs[usize::from(self.has_config).min(self.blobs.len())..]
    }

    /// The configuration of an image.
    #[must_use]
    pub fn config(&self) -> Option<&Descriptor> {
        self.blobs.first().filter(|_| self.has_config)
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

/// The members of an object that are texts.
fn texts(object: Option<&Value>) -> BTreeMap<String, String> {
    let members = object.and_then(Value::as_object).into_iter().flatten();
    members
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn platform_of(named: &Value) -> Option<Platform> {
    let word = |name: &str| named[name].as_str().map(str::to_owned);
    Some(Platform::new(word("os")?, word("architecture")?, word("variant")))
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
    use serde_json::json;

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

    #[test]
    fn an_index_is_reduced_to_platforms_with_their_attestations() {
        let child = |content: &[u8], os: &str, architecture: &str| {
            let mut child = entry(OCI_IMAGE_MEDIA_TYPE, content);
            child["platform"] = json!({"os": os, "architecture": architecture});
            child
        };
        let attestation = |content: &[u8], of: &Value| {
            let mut entry = child(content, "unknown", "unknown");
            entry["annotations"] = json!({REFERENCE_DIGEST: of["digest"]});
            entry
        };
        let (amd, arm) = (child(b"amd", "linux", "amd64"), child(b"arm", "linux", "arm64"));
        let (of_amd, of_arm) = (attestation(b"of amd", &amd), attestation(b"of arm", &arm));
        let document = json!({
            "schemaVersion": 2, "manifests": [amd, arm, of_amd, of_arm], "annotations": {"kept": "yes", "odd": 1},
        });
        let index = read(&document).unwrap();
        assert_eq!(index.platforms().len(), 2);
        let reduced = |names: &[&str]| {
            let wanted: Vec<Platform> = names.iter().map(|name| name.parse().unwrap()).collect();
            index.reduced_to(&wanted)
        };
        let arm_alone = reduced(&["linux/arm64"]).unwrap().expect("less than all");
        let left: Value = serde_json::from_slice(arm_alone.bytes()).unwrap();
        assert_eq!(left["manifests"], json!([arm, of_arm]));
        assert_eq!(left["annotations"], document["annotations"]);
        assert_eq!(arm_alone.media_type(), index.media_type());
        assert!(reduced(&["linux/arm64", "linux/amd64"]).unwrap().is_none());
        let missing = reduced(&["linux/amd64", "linux/s390x"]).expect_err("not there");
        assert_eq!(missing.kind(), Kind::NotFound);
        let image = read(&json!({"schemaVersion": 2, "config": config(), "layers": []})).unwrap();
        assert_eq!(image.reduced_to(&[]).expect_err("no index").kind(), Kind::Usage);
    }

    #[test]
    fn an_image_listed_for_several_platforms_stays_for_those_that_are_wanted() {
        let child = |content: &[u8], variant: &str| {
            let mut child = entry(OCI_IMAGE_MEDIA_TYPE, content);
            child["platform"] = json!({"os": "linux", "architecture": "arm", "variant": variant});
            child
        };
        let (v6, v7, other) = (child(b"both", "v6"), child(b"both", "v7"), child(b"other", "v8"));
        let mut attestation = entry(OCI_IMAGE_MEDIA_TYPE, b"of both");
        attestation["annotations"] = json!({REFERENCE_DIGEST: v6["digest"]});
        // A layer that BuildKit lists is no child, and takes a place in the list all the same.
        let layer = entry("application/vnd.oci.image.layer.v1.tar+gzip", b"cache");
        let index = read(&json!({
            "schemaVersion": 2, "manifests": [attestation, layer, v6, other, v7],
        }))
        .unwrap();
        for (wanted, left) in [("linux/arm/v6", &v6), ("linux/arm/v7", &v7)] {
            let reduced = index.reduced_to(&[wanted.parse().unwrap()]).unwrap();
            let reduced = reduced.expect("less than all");
            let document: Value = serde_json::from_slice(reduced.bytes()).unwrap();
            assert_eq!(
                document["manifests"],
                json!([attestation, layer, left]),
                "{wanted}"
            );
        }
        let nothing = index.reduced_to(&[]).expect_err("an empty index is of no use");
        assert_eq!(nothing.kind(), Kind::Usage);
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
