//! Files on their way: complete under their names, or not there at all.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{Error, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

/// What is not complete yet is named so.
const PREFIX: &str = ".towpath-";
/// A part that nobody wrote to for so long was left by a run that was killed.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn is_part(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// A file that goes when it is dropped, unless it is given its name. Others than this user may read it, as they may
/// the rest of a layout.
pub(super) fn create_in(folder: &Path) -> Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
}

/// Makes the names in a folder last.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)?.sync_all()
}

/// Removes the parts that killed runs left. Best effort: they are in nobody's way.
pub(super) fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_part(&entry.file_name()) && age().is_some_and(|age| age > STALE) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The reason without the part's name around it, which tells nobody anything.
pub(super) fn plain(error: Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.source());
    let inner = inner.and_then(|inner| inner.downcast_ref::<Error>());
    match inner.and_then(Error::raw_os_error) {
        Some(code) => Error::from_raw_os_error(code),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_the_next_day() {
        let folder = tempfile::tempdir().unwrap();
        let (fresh, _) = create_in(folder.path()).unwrap().keep().unwrap();
        let (stale, path) = create_in(folder.path()).unwrap().keep().unwrap();
        let others = folder.path().join("others");
        for file in [&stale, &File::create(&others).unwrap()] {
            file.set_modified(SystemTime::now() - 2 * STALE).unwrap();
        }
        sweep(folder.path());
        assert!(!path.exists());
        assert!(others.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(fresh);
    }
}
