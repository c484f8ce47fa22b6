//! The graph of an image: every manifest and blob that its digest stands for.
//!
//! Pure: whoever reads it from a registry or a layout asks what is still [wanted](Graph::wanted) and adds it. Content
//! that several platforms share is in it once. Limits keep a hostile index from filling the memory.

use std::collections::{BTreeMap, BTreeSet};

use super::Digest;
use super::manifest::{Descriptor, Manifest};
use crate::failure::{Failure, Result};

/// The largest indexes in use list a few hundred manifests.
const MANIFEST_LIMIT: usize = 2_000;
/// All manifests of one image are held in memory at once.
const BYTE_LIMIT: usize = 64 * 1024 * 1024;
/// An index of indexes is two deep.
const DEPTH_LIMIT: usize = 8;

/// Everything below one digest.
#[derive(Clone, Debug)]
pub struct Graph {
    root: Digest,
    manifests: BTreeMap<Digest, Manifest>,
    bytes: usize,
}

impl Graph {
    /// A graph that has only its root yet.
    #[must_use]
    pub fn new(root: Manifest) -> Self {
        Graph {
            root: root.digest().clone(),
            bytes: root.bytes().len(),
            manifests: BTreeMap::from([(root.digest().clone(), root)]),
        }
    }

    /// The manifest that the whole image is named by.
    #[must_use]
    pub fn root(&self) -> &Manifest {
        &self.manifests[&self.root]
    }

    /// The manifests that are listed and not read yet, each once.
    #[must_use]
    pub fn wanted(&self) -> Vec<Descriptor> {
        let mut seen = BTreeSet::new();
        self.manifests
            .values()
            .flat_map(Manifest::children)
            .filter(|child| !self.manifests.contains_key(&child.digest) && seen.insert(child.digest.clone()))
            .cloned()
            .collect()
    }

    /// Adds a manifest that was wanted.
    ///
    /// # Errors
    /// Input (exit 3) when the graph grows beyond what an image can be.
    pub fn add(&mut self, manifest: Manifest) -> Result<()> {
        self.bytes += manifest.bytes().len();
        self.manifests.insert(manifest.digest().clone(), manifest);
        if self.manifests.len() > MANIFEST_LIMIT || self.bytes > BYTE_LIMIT {
            return Err(Failure::input(format!(
                "the index {} lists too much: more than {MANIFEST_LIMIT} manifests or {BYTE_LIMIT} bytes of them",
                self.root
            )));
        }
        Ok(())
    }

    /// The manifests in the order of pushing: each wave needs only the ones before it. The last one is the root alone.
    ///
    /// # Errors
    /// Input (exit 3) when indexes are nested too deeply; internal while manifests are still wanted.
    pub fn waves(&self) -> Result<Vec<Vec<&Manifest>>> {
        let mut heights = BTreeMap::new();
        self.height(&self.root, 0, &mut heights)?;
        let mut waves: Vec<Vec<&Manifest>> = Vec::new();
        for (digest, height) in heights {
            if waves.len() <= height {
                waves.resize(height + 1, Vec::new());
            }
            waves[height].push(&self.manifests[digest]);
        }
        Ok(waves)
    }

    fn height<'graph>(
        &'graph self,
        digest: &Digest,
        depth: usize,
        heights: &mut BTreeMap<&'graph Digest, usize>,
    ) -> Result<usize> {
        if let Some(&height) = heights.get(digest) {
            return Ok(height);
        }
        if depth > DEPTH_LIMIT {
            return Err(Failure::input(format!(
                "the index {} nests indexes more than {DEPTH_LIMIT} deep",
                self.root
            )));
        }
        let (key, manifest) = self
            .manifests
            .get_key_value(digest)
            .ok_or_else(|| Failure::internal(format!("the manifest {digest} was never read")))?;
        let mut height = 0;
        for child in manifest.children() {
            height = height.max(1 + self.height(&child.digest, depth + 1, heights)?);
        }
        heights.insert(key, height);
        Ok(height)
    }

    /// Every blob the image needs, each once, in the order of the manifests.
    ///
    /// # Errors
    /// Input (exit 3) when two manifests give one blob two lengths.
    pub fn blobs(&self) -> Result<Vec<&Descriptor>> {
        let mut sizes = BTreeMap::new();
        let mut blobs = Vec::new();
        for blob in self.manifests.values().flat_map(Manifest::blobs) {
            match sizes.insert(&blob.digest, blob.size) {
                None => blobs.push(blob),
                Some(size) if size == blob.size => {}
                Some(size) => {
                    return Err(Failure::input(format!(
                        "the image {} gives its blob {} two lengths, {size} and {} bytes",
                        self.root, blob.digest, blob.size
                    )));
                }
            }
        }
        Ok(blobs)
    }

    /// How many manifests there are.
    #[must_use]
    pub fn manifest_count(&self) -> usize {
        self.manifests.len()
    }
}

#[cfg(test)]
mod tests {
    use oci_distribution::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
    use serde_json::json;

    use super::super::manifest::tests::{entry, read};
    use super::*;
    use crate::failure::Kind;

    fn image(layers: &[&str]) -> Manifest {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| entry("layer", layer.as_bytes()))
            .collect();
        read(&json!({"schemaVersion": 2, "config": entry("config", b"{}"), "layers": layers})).unwrap()
    }

    fn index(children: &[&Manifest]) -> Manifest {
        let children: Vec<_> = children
            .iter()
            .map(|child| entry(child.media_type(), child.bytes()))
            .collect();
        read(&json!({"schemaVersion": 2, "manifests": children})).unwrap()
    }

    #[test]
    fn shared_content_is_in_the_graph_once_and_children_come_first() {
        let (one, two) = (image(&["base", "a"]), image(&["base", "b"]));
        let inner = index(&[&one, &two]);
        let root = index(&[&inner, &one]);
        let mut graph = Graph::new(root.clone());
        for known in [&inner, &one, &two] {
            assert!(
                graph
                    .wanted()
                    .iter()
                    .any(|wanted| &wanted.digest == known.digest())
            );
            graph.add(known.clone()).unwrap();
        }
        assert!(graph.wanted().is_empty());
        assert_eq!(graph.blobs().unwrap().len(), 4);
        let waves = graph.waves().unwrap();
        assert_eq!(waves.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(waves[1][0].digest(), inner.digest());
        assert_eq!(waves[2][0].digest(), root.digest());
        assert_eq!(root.media_type(), OCI_IMAGE_INDEX_MEDIA_TYPE);
        assert_eq!(one.media_type(), OCI_IMAGE_MEDIA_TYPE);
    }

    #[test]
    fn an_unread_child_is_not_passed_over() {
        let child = image(&[]);
        let graph = Graph::new(index(&[&child]));
        assert_eq!(graph.waves().expect_err("unread").kind(), Kind::Internal);
    }

    #[test]
    fn one_blob_with_two_lengths_is_refused() {
        let honest = image(&["layer"]);
        let mut lie = entry("layer", b"layer");
        lie["size"] = json!(77);
        let lying =
            read(&json!({"schemaVersion": 2, "config": entry("config", b"{}"), "layers": [lie]})).unwrap();
        let mut graph = Graph::new(index(&[&honest, &lying]));
        graph.add(honest).unwrap();
        graph.add(lying).unwrap();
        assert_eq!(graph.blobs().expect_err("two lengths").kind(), Kind::Input);
    }

    #[test]
    fn nesting_has_an_end() {
        let mut chain = vec![image(&[])];
        for _ in 0..10 {
            let next = index(&[chain.last().unwrap()]);
            chain.push(next);
        }
        let mut graph = Graph::new(chain.pop().unwrap());
        for manifest in chain {
            graph.add(manifest).unwrap();
        }
        assert_eq!(graph.waves().expect_err("too deep").kind(), Kind::Input);
    }
}
