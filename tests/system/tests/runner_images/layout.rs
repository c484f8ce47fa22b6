//! An image index in a folder, as the OCI image specification's `image-layout` has it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A layout whose one entry is an index.
pub(crate) struct Layout {
    folder: PathBuf,
    index: Value,
}

/// The image of one platform.
pub(crate) struct Image<'a> {
    layout: &'a Layout,
    pub(crate) descriptor: Value,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
}

/// What a layer says of a path that is no folder.
pub(crate) struct Entry {
    pub(crate) is_file: bool,
    /// Where a link leads.
    pub(crate) link: Option<String>,
    pub(crate) mode: u32,
    /// In bytes.
    pub(crate) size: u64,
    /// In seconds since 1970.
    pub(crate) time: u64,
}

impl Layout {
    pub(crate) fn open(folder: &Path) -> Self {
        let read = |file: &Path| -> Value { serde_json::from_slice(&fs::read(file).unwrap()).unwrap() };
        let top = read(&folder.join("index.json"));
        let entries = top["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "the layout holds one thing: {top}");
        let mut layout = Self {
            folder: folder.to_owned(),
            index: Value::Null,
        };
        layout.index = layout.json(&entries[0]);
        layout.index["digest"] = entries[0]["digest"].clone();
        layout
    }

    /// The index's digest.
    pub(crate) fn digest(&self) -> &str {
        self.index["digest"].as_str().unwrap()
    }

    /// The platforms of its images, `linux/amd64`, sorted.
    pub(crate) fn platforms(&self) -> Vec<String> {
        let mut platforms: Vec<String> = self.descriptors().map(platform_of).collect();
        platforms.sort();
        platforms
    }

    pub(crate) fn image(&self, architecture: &str) -> Image<'_> {
        let descriptor = self
            .descriptors()
            .find(|descriptor| descriptor["platform"]["architecture"] == architecture)
            .expect("an image for it")
            .clone();
        let manifest = self.json(&descriptor);
        let config = self.json(&manifest["config"]);
        Image {
            layout: self,
            descriptor,
            manifest,
            config,
        }
    }

    fn descriptors(&self) -> impl Iterator<Item = &Value> {
        self.index["manifests"].as_array().unwrap().iter()
    }

    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.folder.join("blobs").join(digest.replace(':', "/"))
    }

    fn json(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&fs::read(self.blob(descriptor)).unwrap()).unwrap()
    }
}

fn platform_of(descriptor: &Value) -> String {
    let platform = &descriptor["platform"];
    format!(
        "{}/{}",
        platform["os"].as_str().unwrap(),
        platform["architecture"].as_str().unwrap()
    )
}

impl Image<'_> {
    /// The manifest's digest.
    pub(crate) fn digest(&self) -> &str {
        self.descriptor["digest"].as_str().unwrap()
    }

    /// What is in the last layer, folders aside, by its path.
    pub(crate) fn last_layer(&self) -> BTreeMap<String, Entry> {
        let mut entries = BTreeMap::new();
        let layer = self.manifest["layers"].as_array().unwrap().last().unwrap();
        let mut archive = self.open(layer);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            if header.entry_type().is_dir() {
                continue;
            }
            let link = entry.link_name().unwrap();
            let facts = Entry {
                is_file: header.entry_type().is_file(),
                link: link.map(|target| target.to_string_lossy().into_owned()),
                mode: header.mode().unwrap() & 0o7777,
                size: entry.size(),
                time: header.mtime().unwrap(),
            };
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            entries.insert(path, facts);
        }
        entries
    }

    /// Unpacks all layers as a container's root folder. The images here take nothing away in a later layer.
    pub(crate) fn unpack(&self, root: &Path) {
        fs::create_dir(root).unwrap();
        for layer in self.manifest["layers"].as_array().unwrap() {
            let mut archive = self.open(layer);
            archive.set_preserve_permissions(true);
            archive.set_preserve_ownerships(true);
            archive.unpack(root).unwrap();
        }
    }

    /// Makes a layout of this image alone, for programs that take no index.
    pub(crate) fn alone(&self, folder: &Path) {
        fs::create_dir(folder).unwrap();
        symlink(self.layout.folder.join("blobs"), folder.join("blobs")).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [self.descriptor]});
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    }

    fn open(&self, layer: &Value) -> tar::Archive<impl Read + use<>> {
        let file = fs::File::open(self.layout.blob(layer)).unwrap();
        tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)))
    }
}
