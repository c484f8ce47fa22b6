//! A layout that is written to.
//!
//! The order keeps readers safe: blobs and manifests first, each complete under its name or not there at all, and
//! `index.json` last and in one step. A run that is killed leaves at most a part under a name of its own, which the
//! next day's run sweeps up.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OnceCell;

use super::folder::Folder;
use super::ground::{self, unwritable};
use super::index::{Index, LayoutEntry};
use super::{lock, part};
use crate::failure::{Failure, Result};
use crate::oci::{Descriptor, Digest, Manifest, Pointer, Tag};

/// A folder that is an OCI image layout, or becomes one with the first thing that is written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LayoutWriter {
    folder: Folder,
    prepared: Arc<OnceCell<()>>,
}

impl LayoutWriter {
    /// Opens a layout. A folder that is empty or not there becomes one later; nothing is written yet.
    ///
    /// # Errors
    /// Usage (exit 2) for a folder that holds something else, or is none; input (3) for a layout that is malformed;
    /// denied (4) when it may not be read.
    pub async fn open(path: &Path) -> Result<Self> {
        let folder = Folder::new(path);
        let writer = LayoutWriter {
            folder,
            prepared: Arc::new(OnceCell::new()),
        };
        ground::check(&writer.folder).await?;
        Ok(writer)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The digest that a pointer stands for now: a tag by its entry in `index.json`, a digest when it is listed there. A
    /// manifest that is listed and gone is named by nothing.
    ///
    /// # Errors
    /// Input (exit 3) when `index.json` is malformed.
    pub async fn resolve(&self, pointer: &Pointer) -> Result<Option<Digest>> {
        let index = self.folder.index_or_empty().await?;
        let named = match pointer {
            Pointer::Tag(tag) => index.named(tag).cloned(),
            Pointer::Digest(digest) => index.lists(digest).then(|| digest.clone()),
        };
        match named {
            Some(digest) if self.folder.length(&digest).await?.is_some() => Ok(Some(digest)),
            _ => Ok(None),
        }
    }

    /// Everything that is listed.
    ///
    /// # Errors
    /// Input (exit 3) when `index.json` is malformed.
    pub async fn entries(&self) -> Result<Vec<LayoutEntry>> {
        Ok(self.folder.index_or_empty().await?.entries().to_vec())
    }

    /// Whether a blob is there, with the length that it has to have. Its bytes are not read.
    ///
    /// # Errors
    /// Denied (exit 4) when the folder may not be read.
    pub async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.folder.length(&blob.digest).await? == Some(blob.size))
    }

    /// Whether a manifest is there, listed or not. Its bytes are not read.
    ///
    /// # Errors
    /// As [`LayoutWriter::has_blob`].
    pub async fn has_manifest(&self, manifest: &Manifest) -> Result<bool> {
        let size = manifest.bytes().len() as u64;
        Ok(self.folder.length(manifest.digest()).await? == Some(size))
    }

    /// Reads a manifest that is there, listed or not, and checks it against its digest.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there; input (3) when it is not what its digest names, or no manifest.
    pub async fn manifest(&self, digest: &Digest, media_type: Option<&str>) -> Result<Manifest> {
        self.folder.manifest(digest, media_type).await
    }

    /// Reads the manifest that a pointer stands for; by digest, it need not be listed.
    ///
    /// # Errors
    /// As [`LayoutWriter::manifest`].
    pub async fn pointed(&self, pointer: &Pointer) -> Result<Manifest> {
        let index = self.folder.index_or_empty().await?;
        let digest = match pointer {
            Pointer::Digest(digest) => digest,
            Pointer::Tag(tag) => index.named(tag).ok_or_else(|| {
                Failure::not_found(format!("{self}:{tag} is not in the layout's index.json"))
            })?,
        };
        self.folder.manifest(digest, index.media_type(digest)).await
    }

    /// Opens a blob that is there for reading. Nothing has checked its bytes yet.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there.
    pub async fn blob(&self, blob: &Descriptor) -> Result<crate::oci::BlobStream> {
        self.folder.blob_from(blob, 0).await
    }

    /// Writes a blob as its bytes come. It gets its name once length and digest are right.
    ///
    /// # Errors
    /// Unavailable (exit 7) when the bytes are not those of the descriptor; usage (2) when the folder cannot be
    /// written to, internal (1) when the disk is full; whatever the content fails with.
    pub async fn write_blob(
        &self,
        blob: &Descriptor,
        content: impl Stream<Item = Result<Bytes>>,
    ) -> Result<()> {
        let wrong = |what: String| {
            Failure::unavailable(format!(
                "the source gives other bytes for the blob {} than its {what}",
                blob.digest
            ))
            .hint("if it stays so, the image is damaged at its source: build it again")
        };
        let (file, part) = self.part(&blob.digest).await?.into_parts();
        let broke = |error| unwritable(&self.folder.blob_path(&blob.digest), error);
        let mut file = tokio::fs::File::from_std(file);
        let mut verifier = blob.digest.verifier();
        let mut written = 0_u64;
        let mut content = pin!(content);
        while let Some(piece) = content.next().await {
            let piece = piece?;
            written = written.saturating_add(piece.len() as u64);
            if written > blob.size {
                return Err(wrong(format!("size, {} bytes, says", blob.size)));
            }
            verifier.update(&piece);
            file.write_all(&piece).await.map_err(broke)?;
        }
        if written != blob.size {
            return Err(Failure::unavailable(format!(
                "the blob {} ended after {written} of {} bytes",
                blob.digest, blob.size
            )));
        }
        if verifier.digest() != blob.digest {
            return Err(wrong("digest says".to_owned()));
        }
        file.flush().await.map_err(broke)?;
        file.sync_all().await.map_err(broke)?;
        self.complete(part, &blob.digest)
    }

    /// Writes a manifest, byte for byte. It is not listed yet.
    ///
    /// # Errors
    /// As [`LayoutWriter::write_blob`].
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let (file, part) = self.part(manifest.digest()).await?.into_parts();
        let broke = |error| unwritable(&self.folder.blob_path(manifest.digest()), error);
        let mut file = tokio::fs::File::from_std(file);
        file.write_all(manifest.bytes()).await.map_err(broke)?;
        file.flush().await.map_err(broke)?;
        file.sync_all().await.map_err(broke)?;
        self.complete(part, manifest.digest())
    }

    /// Lists a manifest that was written, under a tag or without one. `before` is what the tag is expected to name,
    /// which is looked at again while no other run of ours can change it. What it named stays listed.
    ///
    /// # Errors
    /// Conflict (exit 6) when the tag names something else by now; unavailable (7) when another run does not let go of
    /// the layout; else as [`LayoutWriter::write_blob`].
    pub async fn tag(&self, tag: Option<&Tag>, manifest: &Manifest, before: Option<&Digest>) -> Result<()> {
        self.change(|index| {
            let Some(tag) = tag else {
                index.list(manifest);
                return Ok(());
            };
            // What is named already may be named again: its file may have been gone.
            if index.named(tag) != Some(manifest.digest()) {
                self.expect(index, tag, before)?;
            }
            index.name(tag, manifest);
            Ok(())
        })
        .await
    }

    /// Takes a tag away. The manifest that it named stays.
    ///
    /// # Errors
    /// As [`LayoutWriter::tag`].
    pub async fn untag(&self, tag: &Tag, before: &Digest) -> Result<()> {
        self.change(|index| {
            self.expect(index, tag, Some(before))?;
            index.unname(tag);
            Ok(())
        })
        .await
    }

    fn expect(&self, index: &Index, tag: &Tag, before: Option<&Digest>) -> Result<()> {
        let now = index.named(tag);
        if now == before {
            return Ok(());
        }
        let shown = |digest: Option<&Digest>| digest.map_or_else(|| "nothing".to_owned(), Digest::to_string);
        Err(Failure::conflict(format!(
            "{self}:{tag} names {} by now, where {} was expected",
            shown(now),
            shown(before)
        ))
        .hint("somebody else writes this layout too: look at what it names now"))
    }

    /// Changes `index.json` in one step, with no other run of ours between reading and writing it.
    async fn change(&self, how: impl FnOnce(&mut Index) -> Result<()>) -> Result<()> {
        self.prepare().await?;
        let _lock = lock::take(&self.folder.marker()).await?;
        let mut index = self.folder.index_or_empty().await?;
        how(&mut index)?;
        let path = self.folder.index_path();
        let broke = |error| unwritable(&path, error);
        // What it is going to list has to be on the disk before.
        self.sync_blobs().map_err(broke)?;
        let mut file = part::create_in(self.folder.path()).map_err(broke)?;
        file.write_all(&index.bytes()?).map_err(broke)?;
        file.as_file().sync_all().map_err(broke)?;
        file.persist(&path).map_err(|error| broke(error.error))?;
        part::sync_folder(self.folder.path()).map_err(broke)
    }

    fn sync_blobs(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.folder.blobs())? {
            let path = entry?.path();
            if path.is_dir() {
                part::sync_folder(&path)?;
            }
        }
        Ok(())
    }

    /// Makes the folder a layout, once.
    async fn prepare(&self) -> Result<()> {
        self.prepared
            .get_or_try_init(|| async { ground::make(&self.folder) })
            .await
            .copied()
    }

    /// A file beside where a blob is going to be, which goes when it is dropped.
    async fn part(&self, digest: &Digest) -> Result<NamedTempFile> {
        self.prepare().await?;
        let path = self.folder.blob_path(digest);
        let broke = |error| unwritable(&path, error);
        let folder = path.parent().unwrap_or(self.folder.path());
        std::fs::create_dir_all(folder).map_err(broke)?;
        part::create_in(folder).map_err(broke)
    }

    fn complete(&self, part: TempPath, digest: &Digest) -> Result<()> {
        let path = self.folder.blob_path(digest);
        part.persist(&path)
            .map_err(|error| unwritable(&path, error.error))
    }
}

impl fmt::Display for LayoutWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.folder.path().display())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use futures_util::stream;
    use serde_json::json;

    use super::*;
    use crate::failure::Kind;
    use crate::oci::{Layout, LayoutReference};

    fn image(content: &[u8]) -> (Manifest, Descriptor) {
        let blob = Descriptor {
            media_type: "layer".to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
        };
        let entry = json!({"mediaType": "layer", "digest": blob.digest.as_str(), "size": blob.size});
        let text = json!({"schemaVersion": 2, "config": entry, "layers": []}).to_string();
        let digest = Digest::of(text.as_bytes());
        (Manifest::read(text.into(), digest, None, "test").unwrap(), blob)
    }

    fn pieces(pieces: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes>> + use<> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        stream::iter(pieces)
    }

    fn reference(path: &Path, suffix: &str) -> LayoutReference {
        format!("oci:{}{suffix}", path.display()).parse().unwrap()
    }

    fn files(path: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path);
            }
        }
        found
    }

    #[tokio::test]
    async fn what_is_written_is_read_back_and_moves_only_from_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/out");
        let writer = LayoutWriter::open(&path).await.unwrap();
        assert!(!path.exists(), "opening writes nothing");
        let tag: Tag = "1".parse().unwrap();
        let named = async |writer: &LayoutWriter| writer.resolve(&Pointer::Tag(tag.clone())).await.unwrap();
        assert_eq!(named(&writer).await, None);
        let ((old, old_blob), (new, new_blob)) = (image(b"one"), image(b"onetwo"));
        assert!(!writer.has_blob(&old_blob).await.unwrap());
        writer
            .write_blob(&old_blob, pieces(&[b"o", b"", b"ne"]))
            .await
            .unwrap();
        assert!(writer.has_blob(&old_blob).await.unwrap());
        assert!(!writer.has_manifest(&old).await.unwrap());
        writer.put_manifest(&old).await.unwrap();
        assert!(writer.has_manifest(&old).await.unwrap());
        writer.tag(Some(&tag), &old, None).await.unwrap();
        writer
            .write_blob(&new_blob, pieces(&[b"one", b"two"]))
            .await
            .unwrap();
        writer.put_manifest(&new).await.unwrap();

        // Another process, which expects what is no longer so.
        let other = LayoutWriter::open(&path).await.unwrap();
        assert_eq!(named(&other).await.as_ref(), Some(old.digest()));
        let conflict = other.tag(Some(&tag), &new, None).await.expect_err("moved");
        assert_eq!(conflict.kind(), Kind::Conflict);
        other.tag(Some(&tag), &new, Some(old.digest())).await.unwrap();
        assert_eq!(named(&writer).await.as_ref(), Some(new.digest()));
        let opened = Layout::open(&reference(&path, ":1")).await.unwrap();
        assert_eq!(opened.root().await.unwrap().bytes(), new.bytes());
        // What the tag moved on from is there still.
        assert_eq!(
            writer.manifest(old.digest(), None).await.unwrap().bytes(),
            old.bytes()
        );
        assert_eq!(writer.entries().await.unwrap().len(), 2);
        let conflict = writer.untag(&tag, old.digest()).await.expect_err("another");
        assert_eq!(conflict.kind(), Kind::Conflict);
        writer.untag(&tag, new.digest()).await.unwrap();
        assert_eq!(named(&writer).await, None);
        let listed = Pointer::Digest(new.digest().clone());
        assert_eq!(
            writer.resolve(&listed).await.unwrap().as_ref(),
            Some(new.digest())
        );
        assert_eq!(files(&path).len(), 6, "{:?}", files(&path));
    }

    #[tokio::test]
    async fn wrong_bytes_never_get_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LayoutWriter::open(folder.path()).await.unwrap();
        let (_, blob) = image(b"onetwo");
        for wrong in [
            &[&b"one"[..]][..],
            &[&b"one"[..], b"TWO"][..],
            &[&b"onetwo"[..], b"!"][..],
            &[][..],
        ] {
            let failure = writer.write_blob(&blob, pieces(wrong)).await.expect_err("wrong");
            assert_eq!(failure.kind(), Kind::Unavailable, "{wrong:?}");
        }
        let broken = stream::iter([Ok(Bytes::from_static(b"one")), Err(Failure::denied("broke"))]);
        let failure = writer.write_blob(&blob, broken).await.expect_err("broke");
        assert_eq!(failure.kind(), Kind::Denied);
        assert!(!writer.has_blob(&blob).await.unwrap());
        assert_eq!(files(folder.path()), [folder.path().join("oci-layout")]);
    }

    #[tokio::test]
    async fn what_is_no_layout_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, kept) = (folder.path().join("file"), folder.path().join("kept"));
        std::fs::write(&file, "precious").unwrap();
        for path in [folder.path(), &file, &file.join("below")] {
            let failure = LayoutWriter::open(path).await.expect_err("refused");
            assert_eq!(failure.kind(), Kind::Usage, "{}: {failure:?}", path.display());
        }
        std::fs::create_dir(&kept).unwrap();
        for (name, text) in [
            ("oci-layout", "{}"),
            ("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#),
            ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", "[]"),
        ] {
            std::fs::write(kept.join(name), text).unwrap();
            let opened = LayoutWriter::open(&kept).await;
            if text.contains("1.0.0") {
                // Killed before its index was there.
                assert!(opened.unwrap().entries().await.unwrap().is_empty());
            } else {
                assert_eq!(opened.expect_err(text).kind(), Kind::Input, "{text}");
            }
        }
        assert_eq!(files(folder.path()).len(), 3);
    }

    #[tokio::test]
    async fn writers_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let writers = (0..20).map(|n| {
            let path = folder.path().to_owned();
            async move {
                let writer = LayoutWriter::open(&path).await.unwrap();
                let (image, _) = image(format!("image {n}").as_bytes());
                writer.put_manifest(&image).await.unwrap();
                let tag: Tag = format!("{n}").parse().unwrap();
                writer.tag(Some(&tag), &image, None).await.unwrap();
            }
        });
        futures_util::future::join_all(writers).await;
        let writer = LayoutWriter::open(folder.path()).await.unwrap();
        assert_eq!(writer.entries().await.unwrap().len(), 20);
    }

    #[tokio::test]
    async fn an_image_with_what_refers_to_it_is_still_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let writer = LayoutWriter::open(folder.path()).await.unwrap();
        let (image, _) = image(b"image");
        let subject = json!({"mediaType": image.media_type(), "digest": image.digest().as_str(), "size": 1});
        let text =
            json!({"schemaVersion": 2, "config": subject, "layers": [], "subject": subject}).to_string();
        let digest = Digest::of(text.as_bytes());
        let signature = Manifest::read(text.into(), digest, None, "test").unwrap();
        for manifest in [&image, &signature] {
            writer.put_manifest(manifest).await.unwrap();
            writer.tag(None, manifest, None).await.unwrap();
            writer.tag(None, manifest, None).await.unwrap();
        }
        let fallback: Tag = format!("sha256-{}", image.digest().hex()).parse().unwrap();
        writer.tag(Some(&fallback), &signature, None).await.unwrap();
        let opened = Layout::open(&reference(folder.path(), "")).await.unwrap();
        assert_eq!(opened.digest(), image.digest());
        assert_eq!(opened.entries().len(), 2);
    }
}
