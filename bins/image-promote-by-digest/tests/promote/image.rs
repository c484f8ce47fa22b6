//! Images made on the spot, as OCI layouts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use towpath::oci::Digest;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Everything an image is made of, by digest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Media type and bytes.
    pub(crate) manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub(crate) root: String,
}

impl Image {
    /// Three platforms that share a layer: 13 blobs and 4 manifests. Other seeds make other images; the layer they
    /// share is the same for all of them.
    pub(crate) fn of_three_platforms(seed: &str) -> Self {
        let mut image = Image::default();
        let shared = image.blob(LAYER, b"the layer that all images share");
        let children: Vec<Value> = ["amd64", "arm64", "riscv64"]
            .iter()
            .map(|architecture| {
                let config = format!(r#"{{"architecture":"{architecture}","os":"linux","seed":"{seed}"}}"#);
                let config = image.blob(CONFIG, config.as_bytes());
                let own = (0..3).map(|n| format!("layer {n} of {seed} for {architecture}").into_bytes());
                let own: Vec<Vec<u8>> = own.collect();
                let mut layers = vec![shared.clone()];
                layers.extend(own.iter().map(|layer| image.blob(LAYER, layer)));
                let mut child = image.manifest(MANIFEST, &json!({"config": config, "layers": layers}));
                child["platform"] = json!({"architecture": architecture, "os": "linux"});
                child
            })
            .collect();
        image.manifest(INDEX, &json!({"manifests": children}));
        image
    }

    /// One platform with one layer.
    pub(crate) fn of_one_layer(layer: &[u8]) -> Self {
        let mut image = Image::default();
        let config = image.blob(CONFIG, br#"{"architecture":"amd64","os":"linux"}"#);
        let layer = image.blob(LAYER, layer);
        image.manifest(MANIFEST, &json!({"config": config, "layers": [layer]}));
        image
    }

    /// Adds a blob; gives back its descriptor.
    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds a manifest, which becomes the root; gives back its descriptor.
    pub(crate) fn manifest(&mut self, media_type: &str, fields: &Value) -> Value {
        let mut document = json!({"schemaVersion": 2, "mediaType": media_type});
        for (name, value) in fields.as_object().unwrap() {
            document[name] = value.clone();
        }
        // Not how serde would write it: copies have to keep the bytes, not the meaning.
        let bytes = serde_json::to_string_pretty(&document)
            .unwrap()
            .replace("  ", "\t")
            .into_bytes();
        let digest = Digest::of(&bytes).to_string();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.manifests
            .insert(digest.clone(), (media_type.to_owned(), bytes));
        self.root = digest;
        descriptor
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.len() as u64).sum()
    }

    /// Writes it as an OCI layout.
    pub(crate) fn write(&self, folder: &Path) {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let (media_type, root) = &self.manifests[&self.root];
        let index = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": media_type, "digest": self.root, "size": root.len()}
        ]});
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        let manifests = self.manifests.iter().map(|(digest, (_, bytes))| (digest, bytes));
        for (digest, bytes) in self.blobs.iter().chain(manifests) {
            fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        }
    }
}
