//! The folder that installed tools are kept in, shared by every run and every process of one user.
//!
//! An entry is made in a folder with a passing name and gets its own by one rename once it is complete, so an entry
//! that exists is whole, whenever a run was killed. A lock on the cache keeps two processes from installing at once.
//! Reading takes no lock.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::progress::Progress;

const PARTIAL: &str = "partial-";
/// Longer than the longest install: whoever holds the lock is then stuck.
const LOCK_DEADLINE: Duration = Duration::from_secs(70 * 60);

/// The cache folder: see the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// Proof that this process alone installs, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Cache {
    /// `TOWPATH_CACHE`, else `$XDG_CACHE_HOME/towpath`, else `~/.cache/towpath`; made when it is not there.
    pub(super) fn open() -> anyhow::Result<Self> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let dir = match (
            variable("TOWPATH_CACHE"),
            variable("XDG_CACHE_HOME"),
            variable("HOME"),
        ) {
            (Some(dir), _, _) if dir.as_os_str().is_empty() => bail!("TOWPATH_CACHE is set but empty"),
            (Some(dir), _, _) => std::path::absolute(dir)?,
            // The XDG specification has relative paths ignored.
            (None, Some(dir), _) if dir.is_absolute() => dir.join("towpath"),
            (None, _, Some(home)) if home.is_absolute() => home.join(".cache/towpath"),
            _ => bail!("no folder to keep tools in: set TOWPATH_CACHE, XDG_CACHE_HOME or HOME"),
        };
        fs::create_dir_all(&dir).with_context(|| format!("making the cache folder {}", dir.display()))?;
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a complete entry, if there is one.
    pub(super) fn entry(&self, name: &str) -> Option<PathBuf> {
        let entry = self.dir.join(name);
        entry.is_dir().then_some(entry)
    }

    /// Waits until no other process installs, then removes what a killed one left half-made.
    pub(super) async fn lock(&self, progress: &Progress) -> anyhow::Result<Lock> {
        let path = self.dir.join("lock");
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        let take = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Err(TryLockError::Error(error)) => {
                        return Err(error).with_context(|| format!("locking {}", path.display()));
                    }
                }
            }
        };
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let waiting = async {
                tokio::time::timeout(LOCK_DEADLINE, take)
                    .await
                    .with_context(|| format!("another process has held {} for too long", path.display()))?
            };
            progress
                .step("wait for another process that installs tools", waiting)
                .await?;
        } else {
            take.await?;
        }
        for entry in fs::read_dir(&self.dir)?.flatten() {
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(PARTIAL))
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Lock { _file: file })
    }

    /// Makes an entry: `fill` puts its files into the folder it is given.
    pub(super) async fn make(
        &self,
        _alone: &Lock,
        name: &str,
        fill: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(&self.dir)?;
        fill(partial.path()).await?;
        let entry = self.dir.join(name);
        fs::rename(partial.path(), &entry).with_context(|| format!("naming {}", entry.display()))?;
        let _ = partial.keep();
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path) -> Cache {
        Cache { dir: dir.to_owned() }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_entry_is_there_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let lock = cache.lock(&Progress::silent()).await.unwrap();
        let failed = cache.make(&lock, "tool-1", async |partial| {
            fs::write(partial.join("half"), "")?;
            bail!("interrupted")
        });
        failed.await.unwrap_err();
        assert_eq!(cache.entry("tool-1"), None);
        let names = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["lock"], "nothing half-made stays");

        let fill = async |partial: &Path| Ok(fs::write(partial.join("tool"), "")?);
        let entry = cache.make(&lock, "tool-1", fill).await.unwrap();
        assert_eq!(cache.entry("tool-1"), Some(entry.clone()));
        assert!(entry.join("tool").is_file());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_next_installer_waits_and_clears_what_a_killed_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let silent = Progress::silent();
        let first = cache.lock(&silent).await.unwrap();
        // What an installer leaves when it is killed.
        fs::create_dir(dir.path().join("partial-x")).unwrap();
        let second = cache.lock(&silent);
        let mut second = std::pin::pin!(second);
        assert!(
            tokio::time::timeout(Duration::from_millis(60), &mut second)
                .await
                .is_err()
        );
        assert!(
            dir.path().join("partial-x").exists(),
            "not touched while another process holds the lock"
        );
        drop(first);
        let _held = second.await.unwrap();
        assert!(!dir.path().join("partial-x").exists());
    }
}
