//! OCI image layouts: an image in a folder.
//!
//! Source: OCI Image Specification, "Image Layout": `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`.
//!
//! Deliberately absent: writing one. Builders do that.

use std::fmt;
use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::manifest::SIZE_LIMIT;
use super::{BlobStream, Descriptor, Digest, Manifest, Tag};
use crate::failure::{Failure, Result};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How much of a blob is read at once.
const CHUNK: usize = 128 * 1024;

/// What names an image in a layout: `oci:PATH[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutReference {
    /// The folder.
    pub path: PathBuf,
    /// The name that `index.json` gives the image.
    pub tag: Option<Tag>,
    /// The digest of one of its manifests.
    pub digest: Option<Digest>,
}

impl FromStr for LayoutReference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let hint = "write oci:PATH[:TAG][@DIGEST]";
        let path = text
            .strip_prefix("oci:")
            .ok_or_else(|| Failure::usage(format!("{text:?} is not an OCI layout")).hint(hint))?;
        let (path, digest) = match path.rsplit_once('@') {
            Some((path, digest)) if digest.contains(':') => (path, Some(digest.parse()?)),
            _ => (path, None),
        };
        let (path, tag) = match path.rsplit_once(':') {
            // A colon further up belongs to a folder's name.
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.parse()?)),
            _ => (path, None),
        };
        if path.is_empty() {
            return Err(Failure::usage(format!("{text:?} names no folder")).hint(hint));
        }
        Ok(LayoutReference {
            path: PathBuf::from(path),
            tag,
            digest,
        })
    }
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.path.display())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// An opened layout and the image chosen in it.
#[derive(Clone, Debug)]
pub struct Layout {
    path: PathBuf,
    root: Digest,
    size: Option<u64>,
    media_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Layout {
    /// Opens a layout and finds the image that the reference names; without tag and digest, the only one there is.
    ///
    /// # Errors
    /// Not found (exit 5) when folder or image are not there; input (3) when it is no layout; usage (2) when several
    /// images could be meant.
    pub async fn open(reference: &LayoutReference) -> Result<Self> {
        let path = &reference.path;
        let marker: Marker = read_json(&path.join("oci-layout")).await?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(Failure::input(format!(
                "the OCI layout {} has version {:?}, which is unknown",
                path.display(),
                marker.image_layout_version
            )));
        }
        let index: Index = read_json(&path.join("index.json")).await?;
        let fits = |entry: &&Entry| {
            let tag_fits = reference.tag.as_ref().is_none_or(|tag| {
                entry.annotations.get(REF_NAME).is_some_and(|name| {
                    // Some writers put the whole reference there.
                    name == tag.as_str() || name.ends_with(&format!(":{tag}"))
                })
            });
            let digest_fits = reference
                .digest
                .as_ref()
                .is_none_or(|digest| *digest == entry.digest);
            tag_fits && digest_fits
        };
        let mut found: Vec<&Entry> = index.manifests.iter().filter(fits).collect();
        found.dedup_by(|one, other| one.digest == other.digest);
        match (found.as_slice(), &reference.digest) {
            ([only], _) => Ok(Layout {
                path: path.clone(),
                root: only.digest.clone(),
                size: Some(only.size),
                media_type: only.media_type.clone(),
            }),
            // A child of an index is in the folder without being listed.
            ([], Some(digest)) => Ok(Layout {
                path: path.clone(),
                root: digest.clone(),
                size: None,
                media_type: None,
            }),
            ([], None) => Err(
                Failure::not_found(format!("{reference} is not in the layout's index.json"))
                    .hint("leave the tag out if the layout holds one image, or name a digest"),
            ),
            _ => Err(Failure::usage(format!(
                "{reference} holds {} images that could be meant",
                found.len()
            ))
            .hint("name one: oci:PATH:TAG or oci:PATH@DIGEST")),
        }
    }

    /// The digest of the chosen image.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.root
    }

    /// Reads the manifest of the chosen image.
    ///
    /// # Errors
    /// As [`Layout::manifest`].
    pub async fn root(&self) -> Result<Manifest> {
        let root = Descriptor {
            media_type: self.media_type.clone().unwrap_or_default(),
            digest: self.root.clone(),
            size: match self.size {
                Some(size) => size,
                None => self.length(&self.root).await?,
            },
        };
        self.manifest(&root).await
    }

    /// Reads a manifest and checks it against its digest.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there; input (3) when it is not what its digest names, or no manifest.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let path = self.blob_path(&descriptor.digest);
        let bytes = read_bounded(&path).await?;
        if !descriptor.digest.names(&bytes) {
            return Err(Failure::input(format!(
                "{} is not what its name says: the layout is damaged",
                path.display()
            )));
        }
        Manifest::read(
            bytes,
            descriptor.digest.clone(),
            Some(&descriptor.media_type),
            &path.display().to_string(),
        )
    }

    /// Opens a blob for reading. Nothing has checked its bytes yet.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there.
    pub async fn blob(&self, blob: &Descriptor) -> Result<BlobStream> {
        self.blob_from(blob, 0).await
    }

    /// Opens a blob for reading from an offset on, in bytes.
    ///
    /// # Errors
    /// As [`Layout::blob`].
    pub async fn blob_from(&self, blob: &Descriptor, from: u64) -> Result<BlobStream> {
        let path = self.blob_path(&blob.digest);
        let open = async {
            let mut file = tokio::fs::File::open(&path).await?;
            file.seek(SeekFrom::Start(from)).await?;
            Ok(file)
        };
        let file = open.await.map_err(|error| unreadable(&path, error))?;
        let stream = ReaderStream::with_capacity(file, CHUNK);
        Ok(Box::pin(futures_util::StreamExt::map(stream, move |chunk| {
            chunk.map_err(|error| unreadable(&path, error))
        })))
    }

    async fn length(&self, digest: &Digest) -> Result<u64> {
        let path = self.blob_path(digest);
        let metadata = tokio::fs::metadata(&path)
            .await
            .map_err(|error| unreadable(&path, error))?;
        Ok(metadata.len())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}@{}", self.path.display(), self.root)
    }
}

async fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_bounded(path).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::input(format!("{} is not what an OCI layout has there", path.display())).because(error)
    })
}

async fn read_bounded(path: &Path) -> Result<Bytes> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| unreadable(path, error))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(SIZE_LIMIT).unwrap_or(u64::MAX);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| unreadable(path, error))?;
    if bytes.len() > SIZE_LIMIT {
        return Err(Failure::input(format!(
            "{} is longer than {SIZE_LIMIT} bytes",
            path.display()
        )));
    }
    Ok(bytes.into())
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    let shown = path.display();
    let failure = match error.kind() {
        ErrorKind::NotFound => Failure::not_found(format!("{shown} is not there")),
        ErrorKind::PermissionDenied => Failure::denied(format!("{shown} may not be read")),
        _ => Failure::input(format!("{shown} cannot be read")),
    };
    failure.because(error).hint(
        "an OCI layout is a folder with oci-layout, index.json and blobs/; is it an artifact of the job before?",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn parsed(text: &str) -> LayoutReference {
        text.parse()
            .unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    #[test]
    fn folder_tag_and_digest_are_told_apart() {
        let digest = Digest::of(b"");
        for (text, path, tag, with_digest) in [
            ("oci:out".to_owned(), "out", None, false),
            ("oci:/a:b/out".to_owned(), "/a:b/out", None, false),
            ("oci:/a/out:1.2".to_owned(), "/a/out", Some("1.2"), false),
            (format!("oci:a@b/out@{digest}"), "a@b/out", None, true),
            (format!("oci:out:1@{digest}"), "out", Some("1"), true),
        ] {
            let reference = parsed(&text);
            assert_eq!(reference.path, Path::new(path), "{text}");
            assert_eq!(reference.tag.as_ref().map(Tag::as_str), tag, "{text}");
            assert_eq!(reference.digest.is_some(), with_digest, "{text}");
            assert_eq!(reference.to_string(), text);
        }
        for wrong in ["", "out", "oci:", "oci:@sha256:x", "oci:out:-x", "oci::1"] {
            assert!(
                wrong.parse::<LayoutReference>().is_err(),
                "{wrong:?} was accepted"
            );
        }
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
