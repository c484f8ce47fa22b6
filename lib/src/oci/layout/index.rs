//! `index.json` of a layout: which manifests are listed, and under which names. Pure.
//!
//! Source: OCI Image Specification, "Image Layout", "index.json file", and "Pre-Defined Annotation Keys". What is
//! not understood here stays as it is: other tools keep their own annotations and fields in this file.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};
use crate::oci::{Descriptor, Digest, Manifest, Tag};

/// The annotation of an entry that holds its name.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A manifest that `index.json` lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutEntry {
    /// What is said of the manifest. The media type is empty where the entry has none.
    pub descriptor: Descriptor,
    /// Its name: mostly a tag, and with some writers a whole reference.
    pub name: Option<String>,
}

impl LayoutEntry {
    /// Whether the name is one that stands for what refers to an image.
    #[must_use]
    pub fn has_digest_tag(&self) -> bool {
        self.name.as_deref().is_some_and(is_digest_tag)
    }
}

/// Whether a tag is made of a digest, as those are that list what refers to it: `sha256-<hex>`, with `.sig` or the like.
pub(crate) fn is_digest_tag(name: &str) -> bool {
    let Some((algorithm, rest)) = name.split_once('-') else {
        return false;
    };
    let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    format!("{algorithm}:{hex}").parse::<Digest>().is_ok()
}

/// The whole file.
#[derive(Clone, Debug)]
pub(super) struct Index {
    document: Map<String, Value>,
    /// The document's `manifests`, entry by entry.
    listed: Vec<Value>,
    /// What they say, in the same order.
    entries: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    annotations: Option<Map<String, Value>>,
}

impl Index {
    /// An index that lists nothing.
    pub(super) fn empty() -> Self {
        let fields = [
            ("schemaVersion", json!(2)),
            ("mediaType", json!("application/vnd.oci.image.index.v1+json")),
            ("manifests", json!([])),
        ];
        Index {
            document: fields
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
            listed: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Reads the file; `origin` names it in messages.
    pub(super) fn parse(bytes: &[u8], origin: &str) -> Result<Self> {
        let malformed = || Failure::input(format!("{origin} is not what an OCI layout has there"));
        let mut document: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| malformed().because(error))?;
        let listed = match document.get_mut("manifests") {
            Some(Value::Array(listed)) => std::mem::take(listed),
            _ => return Err(malformed().because("it has no list of manifests")),
        };
        let entries = listed
            .iter()
            .map(|entry| {
                let raw = RawEntry::deserialize(entry).map_err(|error| malformed().because(error))?;
                let name = raw
                    .annotations
                    .as_ref()
                    .and_then(|all| all.get(REF_NAME)?.as_str());
                Ok(LayoutEntry {
                    name: name.map(str::to_owned),
                    descriptor: Descriptor {
                        media_type: raw.media_type.unwrap_or_default(),
                        digest: raw.digest,
                        size: raw.size,
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok(Index {
            document,
            listed,
            entries,
        })
    }

    /// What is listed, in its order.
    pub(super) fn entries(&self) -> &[LayoutEntry] {
        &self.entries
    }

    /// What a tag names.
    pub(super) fn named(&self, tag: &Tag) -> Option<&Digest> {
        self.position(tag).map(|at| &self.entries[at].descriptor.digest)
    }

    /// Whether a manifest is listed, under whatever name.
    pub(super) fn lists(&self, digest: &Digest) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.descriptor.digest == *digest)
    }

    /// What a manifest is listed as.
    pub(super) fn media_type(&self, digest: &Digest) -> Option<&str> {
        let listed = self
            .entries
            .iter()
            .find(|entry| entry.descriptor.digest == *digest);
        listed.map(|entry| entry.descriptor.media_type.as_str())
    }

    /// Gives a manifest a name, which is taken from the one that had it. That one stays listed, as a registry keeps
    /// what its tags move on from.
    pub(super) fn name(&mut self, tag: &Tag, manifest: &Manifest) {
        self.unname(tag);
        let nameless = self
            .entries
            .iter()
            .position(|entry| entry.name.is_none() && entry.descriptor.digest == *manifest.digest());
        let at = match nameless {
            Some(at) => at,
            None => self.push(manifest),
        };
        self.entries[at].name = Some(tag.to_string());
        if let Some(Value::Object(entry)) = self.listed.get_mut(at) {
            let annotations = entry.entry("annotations").or_insert_with(|| json!({}));
            if annotations.is_null() {
                *annotations = json!({});
            }
            annotations[REF_NAME] = json!(tag.as_str());
        }
    }

    /// Takes a name away. The manifest that had it stays listed.
    pub(super) fn unname(&mut self, tag: &Tag) {
        let Some(at) = self.position(tag) else {
            return;
        };
        let digest = &self.entries[at].descriptor.digest;
        let is_elsewhere = self
            .entries
            .iter()
            .enumerate()
            .any(|(other, entry)| other != at && entry.descriptor.digest == *digest);
        if is_elsewhere {
            self.entries.remove(at);
            self.listed.remove(at);
            return;
        }
        self.entries[at].name = None;
        if let Some(Value::Object(entry)) = self.listed.get_mut(at)
            && let Some(Value::Object(annotations)) = entry.get_mut("annotations")
        {
            annotations.shift_remove(REF_NAME);
            if annotations.is_empty() {
                entry.shift_remove("annotations");
            }
        }
    }

    /// Lists a manifest without a name.
    pub(super) fn list(&mut self, manifest: &Manifest) {
        if !self.lists(manifest.digest()) {
            self.push(manifest);
        }
    }

    /// The file's content.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let mut document = self.document.clone();
        document.insert("manifests".to_owned(), Value::Array(self.listed.clone()));
        serde_json::to_vec(&document)
            .map_err(|error| Failure::internal("cannot write an index.json").because(error))
    }

    fn position(&self, tag: &Tag) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.name.as_deref() == Some(tag.as_str()))
    }

    fn push(&mut self, manifest: &Manifest) -> usize {
        let size = manifest.bytes().len();
        self.listed.push(json!({
            "mediaType": manifest.media_type(),
            "digest": manifest.digest().as_str(),
            "size": size,
        }));
        self.entries.push(LayoutEntry {
            descriptor: Descriptor {
                media_type: manifest.media_type().to_owned(),
                digest: manifest.digest().clone(),
                size: size as u64,
            },
            name: None,
        });
        self.entries.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::Kind;

    fn manifest(config: &[u8]) -> Manifest {
        let config = json!({"mediaType": "x", "digest": Digest::of(config).as_str(), "size": config.len()});
        let bytes = json!({"schemaVersion": 2, "config": config, "layers": []}).to_string();
        let digest = Digest::of(bytes.as_bytes());
        Manifest::read(bytes.into(), digest, None, "test").unwrap()
    }

    fn written(index: &Index) -> Value {
        serde_json::from_slice(&index.bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_name_moves_and_everything_else_stays() {
        let (old, new) = (manifest(b"old"), manifest(b"new"));
        let before = json!({
            "schemaVersion": 2,
            "x-field": {"kept": [1, 2.5, null]},
            "manifests": [
                {"mediaType": "a", "digest": old.digest().as_str(), "size": 3, "platform": {"os": "linux"},
                    "annotations": {REF_NAME: "1", "vendor": "kept"}},
                {"digest": Digest::of(b"other").as_str(), "size": 5, "annotations": {REF_NAME: "other"}},
            ],
            "annotations": {"also": "kept"},
        });
        let mut index = Index::parse(before.to_string().as_bytes(), "index.json").unwrap();
        let tag: Tag = "1".parse().unwrap();
        assert_eq!(index.named(&tag), Some(old.digest()));
        index.name(&tag, &new);
        assert_eq!(index.named(&tag), Some(new.digest()));
        assert!(index.lists(old.digest()));
        let mut expected = before.clone();
        expected["manifests"][0]["annotations"] = json!({"vendor": "kept"});
        expected["manifests"].as_array_mut().unwrap().push(json!({
            "mediaType": new.media_type(), "digest": new.digest().as_str(), "size": new.bytes().len(),
            "annotations": {REF_NAME: "1"},
        }));
        assert_eq!(written(&index), expected);
        // And back: the entry that lost its name gets it again, and no second one.
        index.name(&tag, &old);
        assert_eq!(written(&index)["manifests"].as_array().unwrap().len(), 3);
        assert_eq!(written(&index)["manifests"][0], before["manifests"][0]);
        index.unname(&tag);
        assert_eq!(index.named(&tag), None);
        assert_eq!(index.entries().len(), 3);
    }

    #[test]
    fn one_manifest_under_two_names_is_listed_twice_and_never_nameless_beside() {
        let image = manifest(b"image");
        let mut index = Index::empty();
        let (one, two): (Tag, Tag) = ("1".parse().unwrap(), "2".parse().unwrap());
        index.list(&image);
        index.list(&image);
        index.name(&one, &image);
        index.name(&two, &image);
        let names: Vec<_> = index
            .entries()
            .iter()
            .map(|entry| entry.name.as_deref())
            .collect();
        assert_eq!(names, [Some("1"), Some("2")]);
        index.name(&two, &manifest(b"other"));
        assert_eq!(index.entries().len(), 2);
        let again = Index::parse(&index.bytes().unwrap(), "x").unwrap();
        assert_eq!(again.entries(), index.entries());
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"manifests":{}}"#,
            r#"{"manifests":[{}]}"#,
            r#"{"manifests":[{"digest":"sha256:../x","size":1}]}"#,
            r#"{"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-1}]}"#,
        ] {
            let failure = Index::parse(text.as_bytes(), "out/index.json").expect_err(text);
            assert_eq!(failure.kind(), Kind::Input, "{text}");
            assert!(failure.message().contains("out/index.json"), "{text}");
        }
    }

    #[test]
    fn names_that_stand_for_signatures_are_told_apart() {
        let named = |name: &str| LayoutEntry {
            descriptor: Descriptor {
                media_type: String::new(),
                digest: Digest::of(b""),
                size: 0,
            },
            name: Some(name.to_owned()),
        };
        let hex = Digest::of(b"").hex().to_owned();
        for name in [format!("sha256-{hex}"), format!("sha256-{hex}.sig")] {
            assert!(named(&name).has_digest_tag(), "{name}");
        }
        for name in ["1.4.0", "sha256-abc", "sha256-", "md5-0"] {
            assert!(!named(name).has_digest_tag(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_it_the_file_says_what_the_entries_say(
            steps in proptest::collection::vec((0..4_u8, "[12]", "[abc]"), 0..12)
        ) {
            let mut index = Index::empty();
            for (step, tag, content) in &steps {
                let (tag, manifest): (Tag, _) = (tag.parse().unwrap(), manifest(content.as_bytes()));
                match step {
                    0 => index.list(&manifest),
                    1 => index.unname(&tag),
                    _ => {
                        index.name(&tag, &manifest);
                        prop_assert_eq!(index.named(&tag), Some(manifest.digest()));
                    }
                }
            }
            let again = Index::parse(&index.bytes().unwrap(), "x").unwrap();
            prop_assert_eq!(again.entries(), index.entries());
            // No name is there twice.
            let mut names: Vec<&str> = index.entries().iter().filter_map(|entry| entry.name.as_deref()).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            prop_assert_eq!(names.len(), count);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(text in "\\{\"manifests\":\\[(\\{\"digest\":\\PC{0,20}\\})?\\]\\}|\\PC{0,60}") {
            let _ = Index::parse(text.as_bytes(), "index.json");
        }
    }
}
