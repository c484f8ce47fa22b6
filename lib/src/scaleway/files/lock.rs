//! One run of ours at a time on a file.
//!
//! The lock is on a file beside it, which goes with the lock: whoever waits sees that what they hold is no longer there,
//! and begins anew. What a run leaves that was killed says how many folders were made for it, and goes with the next one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::PrivateFile;
use super::disk::{FILE_MODE, broke, folder_of, make_folders, remove_folders, remove_leftover};
use super::receipt::{Receipt, beside};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};

const SUFFIX: &str = ".vault-scw-creds.lock";
/// How long to wait for other runs, each of which takes a moment.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
/// How long the note in a lock is, in bytes.
const NOTE: u64 = 20;

/// A file that no other run of ours works on.
#[derive(Debug)]
pub struct Locked {
    pub(super) place: PathBuf,
    pub(super) shown: String,
    /// Folders that go if nothing is in them, the innermost first.
    pub(super) folders: Vec<PathBuf>,
    path: PathBuf,
    _lock: File,
}

impl PrivateFile {
    /// Waits until no other run of ours works on the file. Makes the folder that it is to be in.
    ///
    /// # Errors
    /// Unavailable (exit 7) when another run does not let go of it; denied (exit 4) when its folder may not be written
    /// to; usage (exit 2) when there is something else than a file.
    pub async fn lock(&self, deadline: Deadline) -> Result<Locked> {
        let place = self.place()?;
        let shown = self.to_string();
        let path = beside(&place, SUFFIX);
        let deadline = deadline.within(LIMIT);
        let mut folders = Vec::new();
        loop {
            for folder in make_folders(&folder_of(&place), &shown)? {
                if !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
            let lock = match open(&path) {
                // Whoever made the folder may have removed it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !deadline.passed() => continue,
                opened => opened.map_err(|error| broke(&shown, error))?,
            };
            wait(&lock, &path, deadline, &shown).await?;
            if is_still(&lock, &path) {
                inherit(&lock, &place, &mut folders);
                // Whoever wrote it was killed. What cannot be removed stands in the way of whoever writes next.
                for file in [&place, &Receipt::path(&place)] {
                    let _ = remove_leftover(file);
                }
                return Ok(Locked {
                    place,
                    shown,
                    folders,
                    path,
                    _lock: lock,
                });
            }
        }
    }
}

/// Notes how many folders were made, for whoever finds this lock when we are killed, and takes over what such a run noted.
fn inherit(mut lock: &File, place: &Path, folders: &mut Vec<PathBuf>) {
    let is_ours = |found: fs::Metadata| found.uid() == rustix::process::geteuid().as_raw();
    let mut noted = String::new();
    if lock.metadata().is_ok_and(is_ours) && lock.take(NOTE).read_to_string(&mut noted).is_ok() {
        let made = noted.trim().parse().unwrap_or(0);
        if made > folders.len() {
            let above = folder_of(place);
            *folders = above.ancestors().take(made).map(Path::to_owned).collect();
        }
    }
    // A disk that is full has no room for a note either.
    let _ = lock
        .rewind()
        .and_then(|()| lock.write_all(format!("{:<19}\n", folders.len()).as_bytes()));
}

/// Whether a lock is there, of a run that is under way or was killed.
pub(super) fn is_locked(place: &Path) -> bool {
    fs::symlink_metadata(beside(place, SUFFIX)).is_ok()
}

fn open(path: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        // Neither a link nor a pipe that somebody else put there is followed or waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if lock.metadata()?.is_file() {
        Ok(lock)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

async fn wait(lock: &File, path: &Path, deadline: Deadline, shown: &str) -> Result<()> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if deadline.passed() => {
                return Err(Failure::unavailable(format!(
                    "another run holds {shown} and does not come to an end"
                ))
                .hint(format!(
                    "wait for it, or end it; its lock is on {}",
                    path.display()
                )));
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    action = "lock",
                    object = %path.display(),
                    reason = %error,
                    "this file system has no locks: let no other run write to the file"
                );
                return Ok(());
            }
        }
    }
}

/// Whether the file that is locked is the one that others will find.
fn is_still(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Still under the lock, so that nobody else's goes.
        let _ = fs::remove_file(&self.path);
        remove_folders(self.folders.iter().map(PathBuf::as_path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = PrivateFile::Dotenv(folder.path().join("a/b/scw.env"));
        let soon = || Deadline::after(Duration::from_millis(30));
        let held = file.lock(Deadline::after(LIMIT)).await.unwrap();
        let failure = file.lock(soon()).await.expect_err("it is held");
        assert_eq!(failure.kind(), Kind::Unavailable);
        let waiting = async {
            let later = file.lock(Deadline::after(LIMIT)).await.unwrap();
            assert!(later.path.exists(), "the lock is on a file that is gone");
        };
        let letting_go = async {
            tokio::time::sleep(3 * PAUSE).await;
            drop(held);
        };
        tokio::join!(waiting, letting_go);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_run_made_goes_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let file = PrivateFile::Dotenv(folder.path().join("a/b/scw.env"));
        let soon = || Deadline::after(Duration::from_secs(20));
        let killed = file.lock(soon()).await.unwrap();
        // As the kernel does: the lock goes, and nothing else.
        killed._lock.unlock().unwrap();
        std::mem::forget(killed);
        assert!(file.is_there());
        drop(file.lock(soon()).await.unwrap());
        assert!(!file.is_there());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
