//! One writer of `index.json` at a time.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Result};

/// How long to wait for another run that writes `index.json`, which takes it no time.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Holds off other runs of ours until it is dropped, or the process ends. The lock is on a file that is never replaced.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Waits for the lock.
///
/// # Errors
/// Unavailable (exit 7) when another run does not let go of it; usage (2) when the file cannot be opened.
pub(super) async fn take(path: &Path) -> Result<Lock> {
    let file = File::open(path).map_err(|error| {
        Failure::usage(format!("cannot open {}", path.display()))
            .because(error)
            .hint("name a folder that this user may read and write")
    })?;
    let work = async {
        loop {
            match file.try_lock() {
                Ok(()) => return,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(
                        action = "lock",
                        object = %path.display(),
                        reason = %error,
                        "this file system has no locks: let no other run write to the layout"
                    );
                    return;
                }
            }
        }
    };
    match tokio::time::timeout(LIMIT, work).await {
        Ok(()) => Ok(Lock { _file: file }),
        Err(_elapsed) => Err(Failure::unavailable(format!(
            "another run holds {} and does not come to an end",
            path.display()
        ))
        .hint("wait for it, or end it")),
    }
}
