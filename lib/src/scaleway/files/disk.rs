//! Reading and writing one file, whole or not at all.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use secrecy::SecretString;

use super::receipt::beside;
use crate::bounded;
use crate::failure::{Failure, Result};

/// For the owner alone.
pub(super) const FILE_MODE: u32 = 0o600;
pub(super) const FOLDER_MODE: u32 = 0o700;
/// No file that is written here is anywhere near this many bytes.
pub(super) const SIZE_LIMIT: u64 = 1024 * 1024;
/// What a file is called until it is whole. Always the same, so that what a run left that was killed is found.
const NEW: &str = ".vault-scw-creds.new";

/// Writes a file whole or not at all: under another name first. With the permissions and owner of `like`, if given; else
/// for ourselves alone.
pub(super) fn put(path: &Path, text: &str, mode: u32, like: Option<&Metadata>, shown: &str) -> Result<()> {
    let folder = folder_of(path);
    let new = beside(path, NEW);
    let work = || -> io::Result<()> {
        gone(&new)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        if let Some(like) = like {
            keep_owner(&file, like)?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync(&folder);
        Ok(())
    };
    work().map_err(|error| {
        // A disk that is full has to get it back.
        let _ = gone(&new);
        broke(shown, error)
    })
}

/// Lets a file belong to whom another belongs to. That its group stays is tried.
fn keep_owner(file: &File, like: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if own.uid() != like.uid() {
        std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
    } else if own.gid() != like.gid() {
        let _ = std::os::unix::fs::fchown(file, None, Some(like.gid()));
    }
    Ok(())
}

/// Removes a file if it is there, for good.
pub(super) fn remove(path: &Path) -> Result<()> {
    gone(path)
        .map_err(|error| Failure::internal(format!("cannot remove {}", path.display())).because(error))?;
    sync(&folder_of(path));
    Ok(())
}

/// Removes what a run left of a file that was killed while it wrote it.
pub(super) fn remove_leftover(path: &Path) -> Result<()> {
    let new = beside(path, NEW);
    if fs::symlink_metadata(&new).is_ok() {
        remove(&new)?;
    }
    Ok(())
}

/// Whether a run that was killed left a part of a file.
pub(super) fn has_leftover(path: &Path) -> bool {
    fs::symlink_metadata(beside(path, NEW)).is_ok()
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes what was renamed or removed in a folder last. Some file systems cannot.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Makes a folder with all above it, and tells which were not there, the innermost first.
pub(super) fn make_folders(folder: &Path, shown: &str) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && fs::symlink_metadata(ancestor).is_err())
        .map(Path::to_owned)
        .collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|error| broke(shown, error))?;
    Ok(missing)
}

/// Removes folders, the innermost first, as far as they are empty.
pub(super) fn remove_folders<'a>(folders: impl IntoIterator<Item = &'a Path>) {
    for folder in folders {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

pub(super) fn broke(shown: &str, error: io::Error) -> Failure {
    let message = format!("cannot write {shown}");
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::denied(message).hint("let this user write to its folder, or choose another path")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::unavailable(message).hint("the disk or the quota is full: what was there is as it was")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Failure::usage(message).hint("a part of the path is a file: choose another path")
        }
        _ => Failure::internal(message),
    }
    .because(error)
}

/// The text of a file; none when it is not there.
pub(super) fn read(path: &Path, shown: &str) -> Result<Option<SecretString>> {
    match bounded::read_text(path, SIZE_LIMIT) {
        Ok(text) => Ok(Some(SecretString::from(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge
            ) =>
        {
            Err(
                Failure::input(format!("{shown} is no text that could be added to"))
                    .because(error)
                    .hint("it was left as it is: choose another path"),
            )
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Failure::denied(format!("cannot read {shown}"))
                .because(error)
                .hint("let this user read it, or choose another path"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Failure::usage(format!("cannot read {shown}"))
                .because(error)
                .hint("a part of the path is a file: choose another path"))
        }
        Err(error) => Err(Failure::internal(format!("cannot read {shown}")).because(error)),
    }
}

/// Whether a path, which need not be there yet, lies inside a folder, which must; both seen through links.
pub(super) fn is_inside(path: &Path, folder: &Path) -> Result<bool> {
    let unreadable = |what: &Path, error: io::Error| {
        Failure::usage(format!("cannot find {}", what.display()))
            .because(error)
            .hint("check the path, and --project-dir (CI_PROJECT_DIR)")
    };
    let folder = folder.canonicalize().map_err(|error| unreadable(folder, error))?;
    let real = resolve(path).map_err(|error| unreadable(path, error))?;
    Ok(real.starts_with(folder))
}

/// Where a path leads to once the folders that it lacks are made: without links and `..`.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            // What is not there will be a folder, and what is there is no link any more.
            Component::ParentDir => {
                real.pop();
            }
            part => {
                real.push(part);
                if fs::symlink_metadata(&real).is_ok_and(|found| found.is_symlink()) {
                    real = real.canonicalize()?;
                }
            }
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn what_keeps_from_writing_is_told_apart() {
        let kinds = [
            (io::ErrorKind::PermissionDenied, Kind::Denied),
            (io::ErrorKind::ReadOnlyFilesystem, Kind::Denied),
            (io::ErrorKind::StorageFull, Kind::Unavailable),
            (io::ErrorKind::NotADirectory, Kind::Usage),
            (io::ErrorKind::Other, Kind::Internal),
        ];
        for (error, kind) in kinds {
            assert_eq!(broke("f", error.into()).kind(), kind);
        }
    }
}
