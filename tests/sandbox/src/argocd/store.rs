//! The latest state of each application, as the API reads it, and the stream of changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};

use super::application::Application;
use super::controller::Request;

/// How many changes a slow reader of the stream may fall behind before it misses some, as in the real one.
const STREAM_BUFFER: usize = 1000;

/// An application at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) application: Application,
    /// The resource tree.
    pub(super) tree: Value,
    /// The images of the pods that are ready.
    pub(super) running: Vec<String>,
}

/// What the API knows of the applications.
pub(super) struct Store {
    entries: BTreeMap<String, Entry>,
    /// Weak, so that the streams end with the controllers.
    changes: broadcast::WeakSender<Arc<Snapshot>>,
    resource_version: Arc<AtomicU64>,
}

/// How the API reaches one application.
pub(super) struct Entry {
    pub(super) requests: mpsc::UnboundedSender<Request>,
    pub(super) latest: watch::Receiver<Arc<Snapshot>>,
}

/// How a controller makes its application's state known.
pub(super) struct Publisher {
    latest: watch::Sender<Arc<Snapshot>>,
    changes: broadcast::Sender<Arc<Snapshot>>,
    resource_version: Arc<AtomicU64>,
}

/// Builds a store: each application added gets a publisher of its own.
pub(super) struct StoreBuilder {
    entries: BTreeMap<String, Entry>,
    changes: broadcast::Sender<Arc<Snapshot>>,
    resource_version: Arc<AtomicU64>,
}

impl StoreBuilder {
    pub(super) fn new() -> StoreBuilder {
        let (changes, _) = broadcast::channel(STREAM_BUFFER);
        StoreBuilder {
            entries: BTreeMap::new(),
            changes,
            resource_version: Arc::default(),
        }
    }

    /// Adds an application that nobody has looked at yet. Returns `None` if there is one of this name.
    pub(super) fn add(
        &mut self,
        application: Application,
    ) -> Option<(Publisher, mpsc::UnboundedReceiver<Request>)> {
        let name = application.metadata.name.clone();
        if self.entries.contains_key(&name) {
            return None;
        }
        let (requests, received) = mpsc::unbounded_channel();
        let snapshot = Snapshot {
            application,
            tree: serde_json::json!({}),
            running: Vec::new(),
        };
        let (sender, latest) = watch::channel(Arc::new(snapshot));
        self.entries.insert(name, Entry { requests, latest });
        let (changes, resource_version) = (self.changes.clone(), self.resource_version.clone());
        Some((
            Publisher {
                latest: sender,
                changes,
                resource_version,
            },
            received,
        ))
    }

    pub(super) fn build(self) -> Store {
        let changes = self.changes.downgrade();
        Store {
            entries: self.entries,
            changes,
            resource_version: self.resource_version,
        }
    }
}

impl Store {
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The changes from now on; `None` once the controllers have ended.
    pub(super) fn changes(&self) -> Option<broadcast::Receiver<Arc<Snapshot>>> {
        self.changes.upgrade().map(|sender| sender.subscribe())
    }

    /// The version of the latest write.
    pub(super) fn resource_version(&self) -> u64 {
        self.resource_version.load(Ordering::Relaxed)
    }
}

impl Entry {
    /// The application as it is now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.latest.borrow().clone()
    }
}

impl Publisher {
    /// Writes the application: gives it the next versions and tells everyone.
    pub(super) fn publish(&self, application: &mut Application, tree: Value, running: Vec<String>) {
        let version = self.resource_version.fetch_add(1, Ordering::Relaxed) + 1;
        application.metadata.resource_version = version.to_string();
        application.metadata.generation += 1;
        let snapshot = Arc::new(Snapshot {
            application: application.clone(),
            tree,
            running,
        });
        // Nobody may be listening, to either.
        let _ = self.changes.send(snapshot.clone());
        self.latest.send_replace(snapshot);
    }
}
