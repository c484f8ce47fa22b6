//! Reading and writing one file, whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use secrecy::SecretString;

use crate::bounded;
use crate::failure::{Failure, Result};

/// For the owner alone.
pub(super) const FILE_MODE: u32 = 0o600;
pub(super) const FOLDER_MODE: u32 = 0o700;
/// No file that is written here is anywhere near this many bytes.
pub(super) const SIZE_LIMIT: u64 = 1024 * 1024;

/// Writes a file whole or not at all: under another name first.
pub(super) fn put(path: &Path, text: &str, shown: &str) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let work = || -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)?;
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    work().map_err(|error| broke(shown, error))
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
    let path = std::path::absolute(path).map_err(|error| unreadable(path, error))?;
    // What is not there yet will be made below the last part that is.
    let real = path
        .ancestors()
        .find_map(|ancestor| ancestor.canonicalize().ok())
        .unwrap_or(path);
    Ok(real.starts_with(folder))
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
