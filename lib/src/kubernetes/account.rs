//! The service account of a pod.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Result;
use crate::secret::Secret;

/// The kubelet renews a projected token before it has used up four fifths of its life, which is at least ten minutes.
const KEPT: Duration = Duration::from_secs(60);

/// A token that is read anew now and then, since the kubelet renews it while we run. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Account {
    path: PathBuf,
    latest: Arc<Mutex<Option<(Instant, Secret)>>>,
}

impl Account {
    /// The account whose token is in a file. Nothing is read yet.
    #[must_use]
    pub fn in_file(path: PathBuf) -> Self {
        Account {
            path,
            latest: Arc::default(),
        }
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path.is_file()
    }

    /// The token.
    ///
    /// # Errors
    /// Usage (exit 2) when the file cannot be read or is empty.
    pub(super) fn token(&self) -> Result<Secret> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, token)) = latest.as_ref()
            && read.elapsed() < KEPT
        {
            return Ok(token.clone());
        }
        let token = Secret::from_file(&self.path, "service account's token")?;
        *latest = Some((Instant::now(), token.clone()));
        Ok(token)
    }
}

/// The certificates of the API server as a pod finds them; none outside of one.
#[must_use]
pub fn own_certificates() -> Option<PathBuf> {
    let path = PathBuf::from(super::CA_FILE);
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_is_taken_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "the-first-token\n").unwrap();
        let account = Account::in_file(file.path().to_owned());
        assert_eq!(account.token().unwrap().expose(), "the-first-token");
        std::fs::write(file.path(), "the-second-token").unwrap();
        assert_eq!(account.token().unwrap().expose(), "the-first-token");
        tokio::time::advance(KEPT).await;
        assert_eq!(account.token().unwrap().expose(), "the-second-token");
        assert!(Account::in_file("/nowhere/token".into()).token().is_err());
    }
}
