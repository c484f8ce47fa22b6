//! The files that a build reads: kustomizations, and the images that manifests and patches name.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_norway::Value;

use super::document::{FILE_NAMES, Kustomization};
use crate::failure::{Failure, Result};

/// A manifest with more bytes than this is not looked into.
const MANIFEST_LIMIT: usize = 8 * 1024 * 1024;

/// What was read so far, by path from the root of the repository.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: BTreeMap<String, Known>,
}

/// What is known of a path.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// There is no such file: nothing, or a folder.
    Absent,
    /// A kustomization.
    Kustomization(Box<Kustomization>),
    /// Any other file.
    Manifest(Manifest),
}

/// The images that a manifest or a patch names.
#[derive(Clone, Debug, Default)]
pub(super) struct Manifest {
    pub(super) images: Vec<String>,
    /// Why not all of them are known.
    pub(super) problem: Option<String>,
}

impl Sources {
    /// Takes in what was found at a path; none when no file is there.
    ///
    /// # Errors
    /// Input (exit 3) for a kustomization that cannot be read.
    pub fn learn(&mut self, path: &str, content: Option<&[u8]>) -> Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let known = match content {
            None => Known::Absent,
            Some(bytes) if FILE_NAMES.contains(&name) => {
                Known::Kustomization(Box::new(Kustomization::parse(path, bytes)?))
            }
            Some(bytes) => Known::Manifest(Manifest::parse(bytes)),
        };
        self.files.insert(path.to_owned(), known);
        Ok(())
    }

    /// A kustomization that was read.
    #[must_use]
    pub fn kustomization(&self, file: &str) -> Option<&Kustomization> {
        match self.files.get(file) {
            Some(Known::Kustomization(kustomization)) => Some(kustomization),
            _ => None,
        }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Known> {
        self.files.get(path)
    }

    /// The one kustomization of a folder, among those that were read.
    ///
    /// # Errors
    /// Input (exit 3) for several.
    pub(super) fn in_folder(&self, folder: &str) -> Result<Option<(String, &Kustomization)>> {
        let mut found = super::document::file_candidates(folder)
            .into_iter()
            .filter_map(|file| Some((file.clone(), self.kustomization(&file)?)));
        let first = found.next();
        if let (Some((file, _)), Some((other, _))) = (&first, found.next()) {
            return Err(Failure::input(format!("both {file} and {other} are there"))
                .hint("kustomize refuses that too; remove one"));
        }
        Ok(first)
    }
}

impl Manifest {
    /// The images of all documents in a file.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut manifest = Manifest::default();
        if bytes.len() > MANIFEST_LIMIT {
            manifest.problem = Some(format!("has more than {MANIFEST_LIMIT} bytes"));
            return manifest;
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            manifest.problem = Some("is not UTF-8".to_owned());
            return manifest;
        };
        for document in serde_norway::Deserializer::from_str(text) {
            match Value::deserialize(document) {
                Ok(value) => manifest.add_document(&value),
                Err(error) => {
                    manifest.problem = Some(format!("cannot be read: {error}"));
                    break;
                }
            }
        }
        manifest
    }

    fn add_document(&mut self, value: &Value) {
        if let Value::Sequence(operations) = value {
            self.add_operations(operations);
        } else if value.get("kind").and_then(Value::as_str) != Some("CustomResourceDefinition") {
            self.add(value);
        }
    }

    /// As kustomize looks for images: in every `containers` and `initContainers`, however deep.
    fn add(&mut self, value: &Value) {
        match value {
            Value::Mapping(mapping) => {
                for (key, value) in mapping {
                    let containers = matches!(key.as_str(), Some("containers" | "initContainers"));
                    if let (true, Value::Sequence(containers)) = (containers, value) {
                        let images = containers
                            .iter()
                            .filter_map(|container| container.get("image")?.as_str());
                        self.images.extend(images.map(str::to_owned));
                    }
                    self.add(value);
                }
            }
            Value::Sequence(values) => values.iter().for_each(|value| self.add(value)),
            _ => {}
        }
    }

    /// The images that the operations of a JSON patch (RFC 6902) bring in.
    fn add_operations(&mut self, operations: &[Value]) {
        for operation in operations {
            let (path, value) = (
                operation.get("path").and_then(Value::as_str),
                operation.get("value"),
            );
            match (path, value) {
                (Some(path), Some(Value::String(image))) if path.ends_with("/image") => {
                    self.images.push(image.clone());
                }
                (_, Some(value)) => {
                    // A whole container has its image at the top.
                    if let Some(image) = value.get("image").and_then(Value::as_str) {
                        self.images.push(image.to_owned());
                    }
                    self.add(value);
                }
                _ => {}
            }
        }
    }
}
