//! The graph of an image: every manifest and blob that its digest stands for, and what refers to them.
//!
//! Pure: whoever reads it from a registry or a layout asks what is still [wanted](Graph::wanted) and adds it. Content
//! that several platforms share is in it once. Limits keep a hostile index from filling the memory.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{Descriptor, Manifest};
use super::{Digest, Tag};
use crate::failure::{Failure, Result};

/// The largest indexes in use list a few hundred manifests.
const MANIFEST_LIMIT: usize = 2_000;
/// All manifests of one image are held in memory at once.
const BYTE_LIMIT: usize = 64 * 1024 * 1024;
/// An index of indexes is two deep, and a signature of an attestation of it four.
const DEPTH_LIMIT: usize = 16;

/// Something that refers to a manifest: a signature, an attestation, a list of what is inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Referrer {
    /// What it refers to.
    pub subject: Digest,
    /// Itself.
    pub digest: Digest,
    /// Its artifact type, or the ending of the tag it is found by: `.sig`.
    pub kind: String,
    /// The tag by which it is found, where it does not name its subject itself.
    pub tag: Option<Tag>,
}

/// Everything below one digest, and what refers to it.
#[derive(Clone, Debug)]
pub struct Graph {
    root: Digest,
    manifests: BTreeMap<Digest, Manifest>,
    /// Listed, and not there to be read.
    absent: BTreeSet<Digest>,
    referrers: Vec<Referrer>,
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
            absent: BTreeSet::new(),
            referrers: Vec::new(),
        }
    }

    /// The manifest that the whole image is named by.
    #[must_use]
    pub fn root(&self) -> &Manifest {
        &self.manifests[&self.root]
    }

    /// A manifest that was read.
    #[must_use]
    pub fn manifest(&self, digest: &Digest) -> Option<&Manifest> {
        self.manifests.get(digest)
    }

    /// The manifests that are listed and not read yet, each once.
    #[must_use]
    pub fn wanted(&self) -> Vec<Descriptor> {
        let mut seen = BTreeSet::new();
        self.manifests
            .values()
            .flat_map(Manifest::children)
            .filter(|child| {
                !self.manifests.contains_key(&child.digest)
                    && !self.absent.contains(&child.digest)
                    && seen.insert(child.digest.clone())
            })
            .cloned()
            .collect()
    }

    /// All manifests that are listed or read, without those that are not there.
    #[must_use]
    pub fn known(&self) -> BTreeSet<Digest> {
        let children = self.manifests.values().flat_map(Manifest::children);
        let listed = children
            .map(|child| &child.digest)
            .filter(|child| !self.absent.contains(child));
        self.manifests.keys().chain(listed).cloned().collect()
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

    /// Notes that a manifest is listed and not there: the index is sparse.
    pub fn leave_out(&mut self, digest: Digest) {
        self.absent.insert(digest);
    }

    /// What is listed and not there.
    #[must_use]
    pub fn absent(&self) -> &BTreeSet<Digest> {
        &self.absent
    }

    /// Adds what refers to a manifest. Gives back whether that is news.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn refer(&mut self, referrer: Referrer, manifest: &Manifest) -> Result<bool> {
        if self.referrers.contains(&referrer) {
            return Ok(false);
        }
        self.referrers.push(referrer);
        if self.manifests.contains_key(manifest.digest()) {
            return Ok(false);
        }
        self.add(manifest.clone())?;
        Ok(true)
    }

    /// What refers to the image, in the order in which it was found: subjects before what refers to them.
    #[must_use]
    pub fn referrers(&self) -> &[Referrer] {
        &self.referrers
    }

    /// A manifest and all that it lists, as far as it is there and read.
    #[must_use]
    pub fn part(&self, top: &Digest) -> BTreeSet<&Digest> {
        let mut part = BTreeSet::new();
        let mut open: Vec<&Manifest> = self.manifests.get(top).into_iter().collect();
        while let Some(manifest) = open.pop() {
            if part.insert(manifest.digest()) {
                let children = manifest.children().iter();
                open.extend(children.filter_map(|child| self.manifests.get(&child.digest)));
            }
        }
        part
    }

    /// Manifests in the order of pushing: each wave needs only the ones before it. What an index lists and what a
    /// signature refers to come before it.
    ///
    /// # Errors
    /// Input (exit 3) when indexes are nested too deeply; internal while manifests are still wanted.
    pub fn waves(&self, of: &BTreeSet<&Digest>) -> Result<Vec<Vec<&Manifest>>> {
        let mut heights = BTreeMap::new();
        for digest in of {
            self.height(digest, of, &mut Vec::new(), &mut heights)?;
        }
        let mut by_height: BTreeMap<usize, Vec<&Manifest>> = BTreeMap::new();
        for digest in of {
            by_height
                .entry(heights[*digest])
                .or_default()
                .push(&self.manifests[*digest]);
        }
        Ok(by_height.into_values().collect())
    }

    fn height<'graph>(
        &'graph self,
        digest: &'graph Digest,
        of: &BTreeSet<&Digest>,
        path: &mut Vec<&'graph Digest>,
        heights: &mut BTreeMap<&'graph Digest, usize>,
    ) -> Result<usize> {
        if let Some(&height) = heights.get(digest) {
            return Ok(height);
        }
        // A tag can say that a manifest refers to one that lists it. Digests alone make no circles.
        if path.contains(&digest) {
            return Ok(0);
        }
        let too_deep = || {
            Failure::input(format!(
                "the image {} nests indexes and what refers to them more than {DEPTH_LIMIT} deep",
                self.root
            ))
        };
        if path.len() > DEPTH_LIMIT {
            return Err(too_deep());
        }
        let (key, manifest) = self
            .manifests
            .get_key_value(digest)
            .ok_or_else(|| Failure::internal(format!("the manifest {digest} was never read")))?;
        path.push(key);
        let mut height = 0;
        let children = manifest.children().iter().map(|child| &child.digest);
        let subjects = self
            .referrers
            .iter()
            .filter(|referrer| referrer.digest == *digest)
            .map(|referrer| &referrer.subject)
            // What stays out is there already.
            .filter(|subject| of.contains(subject));
        for below in children
            .filter(|child| !self.absent.contains(*child))
            .chain(subjects)
        {
            height = height.max(1 + self.height(below, of, path, heights)?);
        }
        path.pop();
        if height > DEPTH_LIMIT {
            return Err(too_deep());
        }
        heights.insert(key, height);
        Ok(height)
    }

    /// Every blob that these manifests need, each once, in the order of the manifests.
    ///
    /// # Errors
    /// Input (exit 3) when two manifests give one blob two lengths.
    pub fn blobs(&self, of: &BTreeSet<&Digest>) -> Result<Vec<&Descriptor>> {
        let mut sizes = BTreeMap::new();
        let mut blobs = Vec::new();
        let manifests = of.iter().filter_map(|digest| self.manifests.get(*digest));
        for blob in manifests.flat_map(Manifest::blobs) {
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
        let all = graph.part(root.digest());
        assert_eq!(graph.blobs(&all).unwrap().len(), 4);
        let waves = graph.waves(&all).unwrap();
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
        let all = graph.part(graph.root().digest());
        assert_eq!(graph.waves(&all).expect_err("unread").kind(), Kind::Internal);
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
        let all = graph.part(graph.root().digest());
        assert_eq!(graph.blobs(&all).expect_err("two lengths").kind(), Kind::Input);
    }

    #[test]
    fn nesting_has_an_end() {
        let mut chain = vec![image(&[])];
        for _ in 0..20 {
            let next = index(&[chain.last().unwrap()]);
            chain.push(next);
        }
        let mut graph = Graph::new(chain.pop().unwrap());
        for manifest in chain {
            graph.add(manifest).unwrap();
        }
        let all = graph.part(graph.root().digest());
        assert_eq!(graph.waves(&all).expect_err("too deep").kind(), Kind::Input);
    }

    fn signature_of(subject: &Manifest) -> Manifest {
        read(&json!({
            "schemaVersion": 2, "config": entry("application/vnd.example.signature", b"{}"), "layers": [],
            "subject": entry(subject.media_type(), subject.bytes()),
        }))
        .unwrap()
    }

    fn refers(digest: &Manifest, subject: &Manifest, tag: Option<&str>) -> Referrer {
        Referrer {
            subject: subject.digest().clone(),
            digest: digest.digest().clone(),
            kind: digest.artifact_type().unwrap_or_default().to_owned(),
            tag: tag.map(|tag| tag.parse().unwrap()),
        }
    }

    #[test]
    fn what_refers_to_a_manifest_comes_after_it_and_is_a_part_of_its_own() {
        let one = image(&["a"]);
        let root = index(&[&one]);
        let of_root = signature_of(&root);
        let of_signature = signature_of(&of_root);
        let mut graph = Graph::new(root.clone());
        graph.add(one.clone()).unwrap();
        assert!(graph.refer(refers(&of_root, &root, None), &of_root).unwrap());
        assert!(
            graph
                .refer(refers(&of_signature, &of_root, None), &of_signature)
                .unwrap()
        );
        assert!(
            !graph.refer(refers(&of_root, &root, None), &of_root).unwrap(),
            "known"
        );
        assert_eq!(graph.part(root.digest()).len(), 2);
        let all: BTreeSet<&Digest> = [&one, &root, &of_root, &of_signature]
            .map(Manifest::digest)
            .into();
        let order: Vec<&Digest> = graph
            .waves(&all)
            .unwrap()
            .concat()
            .iter()
            .map(|m| m.digest())
            .collect();
        assert_eq!(
            order,
            [&one, &root, &of_root, &of_signature].map(Manifest::digest)
        );
        let late: BTreeSet<&Digest> = [&of_root, &of_signature].map(Manifest::digest).into();
        assert_eq!(graph.waves(&late).unwrap().len(), 2);
    }

    #[test]
    fn a_tag_that_makes_a_circle_is_no_way_without_end() {
        let one = image(&["a"]);
        let root = index(&[&one]);
        let mut graph = Graph::new(root.clone());
        graph
            .refer(refers(&one, &root, Some("sha256-0.sig")), &one)
            .unwrap();
        let all = graph.part(root.digest());
        assert_eq!(graph.waves(&all).unwrap().concat().len(), 2);
    }

    #[test]
    fn what_a_sparse_index_lacks_is_neither_wanted_nor_waited_for() {
        let (one, two) = (image(&["a"]), image(&["b"]));
        let root = index(&[&one, &two]);
        let mut graph = Graph::new(root.clone());
        graph.add(one).unwrap();
        graph.leave_out(two.digest().clone());
        assert!(graph.wanted().is_empty());
        assert_eq!(graph.waves(&graph.part(root.digest())).unwrap().concat().len(), 2);
    }
}
