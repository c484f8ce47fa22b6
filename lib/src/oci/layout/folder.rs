//! Where the things of a layout are, and reading them.

use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::index::Index;
use crate::failure::{Failure, Result};
use crate::oci::manifest::SIZE_LIMIT;
use crate::oci::{BlobStream, Descriptor, Digest, Manifest};

/// How much of a blob is read at once.
const CHUNK: usize = 128 * 1024;

/// The folder of a layout.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Folder {
            path: path.to_owned(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file by which a folder is known to be a layout.
    pub(super) fn marker(&self) -> PathBuf {
        self.path.join("oci-layout")
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().name()).join(digest.hex())
    }

    /// Checks that it is a layout of a version that is known here.
    pub(super) async fn check(&self) -> Result<()> {
        let path = self.marker();
        let bytes = read_bounded(&path).await?;
        let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::input(format!("{} is not what an OCI layout has there", path.display())).because(error)
        })?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(Failure::input(format!(
                "the OCI layout {} has version {:?}, which is unknown",
                self.path.display(),
                marker.image_layout_version
            )));
        }
        Ok(())
    }

    pub(super) async fn index(&self) -> Result<Index> {
        let path = self.index_path();
        Index::parse(&read_bounded(&path).await?, &path.display().to_string())
    }

    /// The index of a layout that is written to: one that is not there yet lists nothing.
    pub(super) async fn index_or_empty(&self) -> Result<Index> {
        match tokio::fs::symlink_metadata(self.index_path()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Index::empty()),
            _ => self.index().await,
        }
    }

    /// How long the file of a digest is; none when there is none.
    pub(super) async fn length(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Err(Failure::input(format!("{} is not a file", path.display()))),
            // A folder on the way there is a file, or is not there.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Reads a manifest and checks it against its digest.
    pub(super) async fn manifest(&self, digest: &Digest, media_type: Option<&str>) -> Result<Manifest> {
        let bytes = self.unread(digest).await?;
        let path = self.blob_path(digest);
        Manifest::read(bytes, digest.clone(), media_type, &path.display().to_string())
    }

    /// As [`Folder::manifest`], without looking into it.
    pub(super) async fn unread(&self, digest: &Digest) -> Result<Bytes> {
        let path = self.blob_path(digest);
        let bytes = read_bounded(&path).await?;
        if !digest.names(&bytes) {
            return Err(Failure::input(format!(
                "{} is not what its name says: the layout is damaged",
                path.display()
            )));
        }
        Ok(bytes)
    }

    /// Opens a blob for reading from an offset on, in bytes. Nothing has checked its bytes yet.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there.
    pub(super) async fn blob_from(&self, blob: &Descriptor, from: u64) -> Result<BlobStream> {
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
