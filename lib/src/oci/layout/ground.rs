//! The folder that a layout is going to be in: whether it may be one, and making it one.

use std::io::{Error, ErrorKind, Write as _};
use std::path::Path;

use super::folder::Folder;
use super::part;
use crate::failure::{Failure, Result};

/// What a new layout says it is.
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Refuses a folder that is no layout and holds something else. Nothing is written.
///
/// # Errors
/// Usage (exit 2) for such a folder, or what is none; input (3) for a layout that is malformed; denied (4) when it may
/// not be read.
pub(super) async fn check(folder: &Folder) -> Result<()> {
    // Another run may be about to make it a layout, so it is looked at for the marker once more when it is not empty.
    if is_layout(folder).await? || is_free(folder).await? || is_layout(folder).await? {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the folder {} is no OCI layout, and not empty",
        folder.path().display()
    ))
    .hint("name a folder that is empty, or not there yet: nothing that is in one is overwritten"))
}

/// Whether the folder has the marker of a layout; then everything in it has to be as a layout has it.
async fn is_layout(folder: &Folder) -> Result<bool> {
    match tokio::fs::try_exists(folder.marker()).await {
        Ok(false) => Ok(false),
        Ok(true) => {
            folder.check().await?;
            folder.index_or_empty().await?;
            Ok(true)
        }
        Err(error) => Err(unlistable(folder.path(), error)),
    }
}

/// Whether the folder is empty or not there.
async fn is_free(folder: &Folder) -> Result<bool> {
    let broke = |error| unlistable(folder.path(), error);
    let mut entries = match tokio::fs::read_dir(folder.path()).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(broke(error)),
    };
    while let Some(entry) = entries.next_entry().await.map_err(broke)? {
        // A run that was killed while it made the layout left a part.
        if !part::is_part(&entry.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a folder that was [checked](check) a layout, and takes away what killed runs left in it.
///
/// # Errors
/// As [`unwritable`].
pub(super) fn make(folder: &Folder) -> Result<()> {
    let path = folder.path();
    let broke = |error| unwritable(path, error);
    std::fs::create_dir_all(path).map_err(broke)?;
    let marker = folder.marker();
    if !marker.try_exists().map_err(broke)? {
        let mut file = part::create_in(path).map_err(broke)?;
        file.write_all(MARKER).map_err(broke)?;
        file.as_file().sync_all().map_err(broke)?;
        // Another run may have made it meanwhile, with the same words.
        match file.persist_noclobber(&marker) {
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists => return Err(broke(error.error)),
            _ => {}
        }
    }
    std::fs::create_dir_all(folder.blobs().join("sha256")).map_err(broke)?;
    part::sweep(path);
    for folder in std::fs::read_dir(folder.blobs()).map_err(broke)?.flatten() {
        part::sweep(&folder.path());
    }
    Ok(())
}

fn unlistable(path: &Path, error: Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotADirectory => Failure::usage(format!("{shown} is not a folder"))
            .hint("write oci:PATH[:TAG] with a folder that is an OCI layout, empty or not there yet"),
        ErrorKind::PermissionDenied => {
            Failure::denied(format!("the folder {shown} may not be read")).because(error)
        }
        _ => Failure::usage(format!("the folder {shown} cannot be read")).because(error),
    }
}

/// Why something in a layout cannot be written: usage (exit 2) where another folder helps, else internal (1).
pub(super) fn unwritable(path: &Path, error: Error) -> Failure {
    let shown = path.display();
    let failure = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::internal(format!("there is no room for {shown}"))
                .hint("make room on that disk, and run it again: what is there already is not written twice")
        }
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::NotFound => Failure::usage(format!("cannot write {shown}"))
            .hint("name a folder that this user may write to: oci:PATH[:TAG]"),
        _ => Failure::internal(format!("cannot write {shown}")),
    };
    failure.because(part::plain(error))
}
