//! What runs at once, over all copies of one run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::failure::{Failure, Result};
use crate::oci::{Digest, Repository};

/// Bounds what runs at once at each registry, and brings a blob to a repository once, however many images of a run
/// share it. Made once for a run.
///
/// How many requests a registry really takes is found out below this, by the HTTP client; these are the most that
/// there may be.
#[derive(Debug)]
pub struct Traffic {
    concurrency: usize,
    lanes: Mutex<BTreeMap<String, Lanes>>,
    /// Whether a blob is at a repository. Locked while it is on its way.
    blobs: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<bool>>>>,
    /// Locked while what refers to a manifest of a repository is listed.
    lists: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// One registry's.
#[derive(Clone, Debug)]
struct Lanes {
    requests: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// The right to bring a blob to a repository. Others who want it there too wait until this is dropped.
#[derive(Debug)]
pub(super) struct Claim(OwnedMutexGuard<bool>);

impl Claim {
    /// The blob is there now.
    pub(super) fn fulfil(mut self) {
        *self.0 = true;
    }
}

impl Traffic {
    /// `concurrency` jobs run at once at each registry, and a quarter of them are streams of large blobs.
    #[must_use]
    pub fn new(concurrency: usize) -> Arc<Self> {
        Arc::new(Traffic {
            concurrency,
            lanes: Mutex::default(),
            blobs: Mutex::default(),
            lists: Mutex::default(),
        })
    }

    /// How many jobs may run at once.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.max(1)
    }

    /// Waits for a turn to send requests to the repository's registry, which ends when what this gives back is dropped.
    ///
    /// # Errors
    /// Internal, if it were ever closed.
    pub(super) async fn enter(&self, repository: &Repository) -> Result<OwnedSemaphorePermit> {
        permit(self.lanes(repository).requests).await
    }

    /// As [`Traffic::enter`], for a stream of a large blob: one needs both.
    pub(super) async fn enter_large(&self, repository: &Repository) -> Result<OwnedSemaphorePermit> {
        permit(self.lanes(repository).large).await
    }

    /// Waits until nobody else is bringing this blob to this repository; none when somebody has brought it.
    ///
    /// Whoever waits for several claims takes them in the order of the repositories' names, and before any turn.
    pub(super) async fn claim(&self, repository: &Repository, digest: &Digest) -> Option<Claim> {
        let flag = {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            blobs.entry(key(repository, digest)).or_default().clone()
        };
        let there = flag.lock_owned().await;
        (!*there).then_some(Claim(there))
    }

    /// Takes back that a blob is at a repository: whoever finds it missing there can have it brought again.
    pub fn forget(&self, repository: &Repository, digest: &Digest) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.remove(&key(repository, digest));
    }

    /// Waits until nobody else of this run lists what refers to this manifest of this repository. The turn ends when
    /// what this gives back is dropped.
    pub(super) async fn list(&self, repository: &Repository, subject: &Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.entry(key(repository, subject)).or_default().clone()
        };
        turn.lock_owned().await
    }

    fn lanes(&self, repository: &Repository) -> Lanes {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = repository.reference().endpoint().to_owned();
        let open = || Lanes {
            requests: Arc::new(Semaphore::new(self.concurrency.max(1))),
            large: Arc::new(Semaphore::new((self.concurrency / 4).max(1))),
        };
        lanes.entry(endpoint).or_insert_with(open).clone()
    }
}

async fn permit(lane: Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    lane.acquire_owned()
        .await
        .map_err(|error| Failure::internal("the lanes of a copy were closed").because(error))
}

fn key(repository: &Repository, digest: &Digest) -> String {
    format!("{}@{digest}", repository.reference())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;
    use crate::oci::{Credentials, Registries, RegistrySettings};

    async fn repository(name: &str) -> Repository {
        let deadline = Deadline::after(Duration::from_secs(5));
        let registries =
            Registries::new(RegistrySettings::default(), Credentials::default(), deadline).unwrap();
        registries.repository(&name.parse().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn one_brings_a_blob_and_the_others_wait_for_it() {
        let traffic = Traffic::new(1);
        let (one, other) = (
            repository("example.com/a").await,
            repository("example.com/b").await,
        );
        let digest = Digest::of(b"blob");
        let first = traffic.claim(&one, &digest).await.expect("nobody had it");
        assert!(traffic.claim(&other, &digest).await.is_some());
        assert!(traffic.claim(&one, &Digest::of(b"else")).await.is_some());
        let second = {
            let (traffic, one, digest) = (traffic.clone(), one.clone(), digest.clone());
            tokio::spawn(async move { traffic.claim(&one, &digest).await.is_some() })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        // The first fails, the second tries, the third has nothing to do.
        drop(first);
        assert!(second.await.unwrap());
        traffic
            .claim(&one, &digest)
            .await
            .expect("failed so far")
            .fulfil();
        assert!(traffic.claim(&one, &digest).await.is_none());
        traffic.forget(&one, &digest);
        assert!(traffic.claim(&one, &digest).await.is_some());
    }

    #[tokio::test]
    async fn one_at_a_time_lists_what_refers_to_a_manifest() {
        let traffic = Traffic::new(8);
        let (one, other) = (
            repository("example.com/a").await,
            repository("example.com/b").await,
        );
        let subject = Digest::of(b"subject");
        let first = traffic.list(&one, &subject).await;
        let _elsewhere = traffic.list(&other, &subject).await;
        let _another = traffic.list(&one, &Digest::of(b"else")).await;
        let second = {
            let traffic = traffic.clone();
            tokio::spawn(async move { traffic.list(&one, &subject).await })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_busy_registry_does_not_take_the_turns_of_another() {
        let traffic = Traffic::new(1);
        let (one, other) = (
            repository("one.example/a").await,
            repository("two.example/a").await,
        );
        let _held = traffic.enter(&one).await.unwrap();
        let _free = traffic.enter(&other).await.unwrap();
        let third = {
            let traffic = traffic.clone();
            tokio::spawn(async move { traffic.enter(&one).await.is_ok() })
        };
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(_held);
        assert!(third.await.unwrap());
    }
}
