//! An image in a layout, for reading.

use std::fmt;

use bytes::Bytes;

use super::LayoutReference;
use super::folder::Folder;
use super::index::LayoutEntry;
use crate::failure::{Failure, Result};
use crate::oci::{BlobStream, Descriptor, Digest, Manifest, Tag};

/// Of how many entries an ambiguous layout is looked at, and how many of them are named.
const LOOKED_AT: usize = 200;
const SHOWN: usize = 5;

/// An opened layout and the image chosen in it.
#[derive(Clone, Debug)]
pub struct Layout {
    folder: Folder,
    root: Digest,
    media_type: Option<String>,
    entries: Vec<LayoutEntry>,
}

impl Layout {
    /// Opens a layout and finds the image that the reference names; without tag and digest, the only one there is.
    /// What refers to an image (signatures, attestations) does not count as another one.
    ///
    /// # Errors
    /// Not found (exit 5) when folder or image are not there; input (3) when it is no layout; usage (2) when several
    /// images could be meant.
    pub async fn open(reference: &LayoutReference) -> Result<Self> {
        let folder = Folder::new(&reference.path);
        folder.check().await?;
        let index = folder.index().await?;
        let mut found = candidates(index.entries(), reference);
        if found.len() > 1 {
            found = without_referrers(&folder, found).await;
        }
        let (root, media_type) = match (found.as_slice(), &reference.digest) {
            ([only], _) => (&only.descriptor.digest, Some(only.descriptor.media_type.clone())),
            // A child of an index is in the folder without being listed.
            ([], Some(digest)) if reference.tag.is_none() => (digest, None),
            ([], _) => {
                return Err(
                    Failure::not_found(format!("{reference} is not in the layout's index.json")).hint(
                        format!(
                            "{}; leave the tag out if the layout holds one image, or name a digest",
                            listed("it lists", &index.entries().iter().collect::<Vec<_>>())
                        ),
                    ),
                );
            }
            _ => {
                return Err(Failure::usage(format!(
                    "{reference} holds {} images that could be meant",
                    found.len()
                ))
                .hint(format!(
                    "name one, oci:PATH:TAG or oci:PATH@DIGEST; {}",
                    listed("these are there", &found)
                )));
            }
        };
        Ok(Layout {
            root: root.clone(),
            media_type,
            entries: index.entries().to_vec(),
            folder,
        })
    }

    /// The digest of the chosen image.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.root
    }

    /// Everything that the layout lists, the chosen image among it. What refers to an image is here too: as a
    /// manifest with a subject, or under a name made of the image's digest.
    #[must_use]
    pub fn entries(&self) -> &[LayoutEntry] {
        &self.entries
    }

    /// The folder.
    pub(super) fn path(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Reads the manifest of the chosen image.
    ///
    /// # Errors
    /// As [`Layout::manifest`].
    pub async fn root(&self) -> Result<Manifest> {
        self.folder.manifest(&self.root, self.media_type.as_deref()).await
    }

    /// Reads a manifest and checks it against its digest.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there; input (3) when it is not what its digest names, or no manifest.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        self.folder
            .manifest(&descriptor.digest, Some(&descriptor.media_type))
            .await
    }

    /// As [`Layout::manifest`], without looking into it: whatever its digest names.
    pub(crate) async fn unread(&self, digest: &Digest) -> Result<Bytes> {
        self.folder.unread(digest).await
    }

    /// How long a blob is that is there, in bytes.
    ///
    /// # Errors
    /// Input (exit 3) when something else is in its place; denied (4) when the folder may not be read.
    pub async fn blob_length(&self, digest: &Digest) -> Result<Option<u64>> {
        self.folder.length(digest).await
    }

    /// Opens a blob for reading, from an offset on in bytes. Nothing has checked its bytes yet.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there.
    pub async fn blob_from(&self, blob: &Descriptor, from: u64) -> Result<BlobStream> {
        self.folder.blob_from(blob, from).await
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}@{}", self.folder.path().display(), self.root)
    }
}

/// The entries that a reference could mean, each manifest once.
fn candidates<'index>(
    entries: &'index [LayoutEntry],
    reference: &LayoutReference,
) -> Vec<&'index LayoutEntry> {
    let digest_fits = |entry: &&LayoutEntry| {
        let wanted = reference.digest.as_ref();
        wanted.is_none_or(|digest| *digest == entry.descriptor.digest)
    };
    let named = |fits: &dyn Fn(&str) -> bool| -> Vec<&'index LayoutEntry> {
        entries
            .iter()
            .filter(digest_fits)
            .filter(|entry| entry.name.as_deref().is_some_and(fits))
            .collect()
    };
    let mut found = match &reference.tag {
        Some(tag) => {
            let exact = named(&|name| name == tag.as_str());
            if exact.is_empty() {
                // Some writers put the whole reference there.
                named(&|name| is_reference_with(name, tag))
            } else {
                exact
            }
        }
        None if reference.digest.is_some() => entries.iter().filter(digest_fits).collect(),
        None => entries.iter().filter(|entry| !entry.has_digest_tag()).collect(),
    };
    let mut seen = Vec::new();
    found.retain(|entry| {
        let is_new = !seen.contains(&&entry.descriptor.digest);
        seen.push(&entry.descriptor.digest);
        is_new
    });
    found
}

fn is_reference_with(name: &str, tag: &Tag) -> bool {
    name.strip_suffix(tag.as_str())
        .is_some_and(|rest| rest.ends_with(':'))
}

/// Those of several entries that do not refer to another manifest. One that cannot be read stays.
async fn without_referrers<'index>(
    folder: &Folder,
    found: Vec<&'index LayoutEntry>,
) -> Vec<&'index LayoutEntry> {
    if found.len() > LOOKED_AT {
        return found;
    }
    let mut images = Vec::with_capacity(found.len());
    for entry in found {
        let media_type = Some(entry.descriptor.media_type.as_str());
        let read = folder.manifest(&entry.descriptor.digest, media_type).await;
        if !read.is_ok_and(|manifest| manifest.subject().is_some()) {
            images.push(entry);
        }
    }
    images
}

/// Names entries, such as `it lists 1.4.0 (sha256:...), sha256:...`.
fn listed(said: &str, entries: &[&LayoutEntry]) -> String {
    if entries.is_empty() {
        return format!("{said} nothing");
    }
    let mut names: Vec<String> = entries
        .iter()
        .take(SHOWN)
        .map(|entry| match &entry.name {
            Some(name) => format!("{name} ({})", entry.descriptor.digest),
            None => entry.descriptor.digest.to_string(),
        })
        .collect();
    if entries.len() > SHOWN {
        names.push(format!("and {} more", entries.len() - SHOWN));
    }
    format!("{said}: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::index::REF_NAME;
    use super::*;
    use crate::failure::Kind;

    fn parsed(text: &str) -> LayoutReference {
        text.parse()
            .unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    #[tokio::test]
    async fn an_image_is_found_by_its_name_or_by_being_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let failure = Layout::open(&parsed(&format!("oci:{path}")))
            .await
            .expect_err("empty");
        assert_eq!(failure.kind(), Kind::NotFound);
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let entry = |digest: &Digest, name: &str| {
            format!(
                r#"{{"mediaType":"x","digest":"{digest}","size":3,"annotations":{{"{REF_NAME}":"{name}"}}}}"#
            )
        };
        write("index.json", format!(r#"{{"manifests":[{}]}}"#, entry(&one, "1")));
        let only = Layout::open(&parsed(&format!("oci:{path}"))).await.unwrap();
        assert_eq!(only.digest(), &one);
        let both = format!(
            r#"{{"manifests":[{},{}]}}"#,
            entry(&one, "1"),
            entry(&two, "example.com/app:2")
        );
        write("index.json", both);
        let open = async |suffix: &str| Layout::open(&parsed(&format!("oci:{path}{suffix}"))).await;
        assert_eq!(open("").await.expect_err("two").kind(), Kind::Usage);
        assert_eq!(open(":2").await.unwrap().digest(), &two);
        assert_eq!(open(&format!("@{one}")).await.unwrap().digest(), &one);
        assert_eq!(open(":3").await.expect_err("absent").kind(), Kind::NotFound);
        // Listed, but its bytes are not there; then there, but wrong.
        assert_eq!(
            open(":1").await.unwrap().root().await.expect_err("absent").kind(),
            Kind::NotFound
        );
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        write(&format!("blobs/sha256/{}", one.hex()), "not one".to_owned());
        assert_eq!(
            open(":1")
                .await
                .unwrap()
                .root()
                .await
                .expect_err("damaged")
                .kind(),
            Kind::Input
        );
        write("index.json", "{".to_owned());
        assert_eq!(open("").await.expect_err("malformed").kind(), Kind::Input);
    }
}
