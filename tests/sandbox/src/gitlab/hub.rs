//! What every part of the stand-in shares: its settings, its state, and a signal of change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::process::Command;
use tokio::sync::{Semaphore, watch};

use super::repository::Repository;
use super::settings::Settings;
use super::state::{Project, State};

/// One stand-in's inside.
pub(super) struct Hub {
    pub(super) settings: Settings,
    /// `http://127.0.0.1:<port>`, without a slash at the end.
    pub(super) url: String,
    pub(super) port: u16,
    /// The git program, by its full path.
    pub(super) git: PathBuf,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// How much it does by itself at this moment; see [`UnderWay`].
    under_way: watch::Sender<usize>,
    /// The runner's free places.
    pub(super) slots: Semaphore,
    /// One lock a project for merges, which look before they move a branch.
    locks: Mutex<BTreeMap<u64, Arc<tokio::sync::Mutex<()>>>>,
}

/// The inside, shared by request handlers and running jobs.
pub(super) type Shared = Arc<Hub>;

/// Something the stand-in does by itself, until this is dropped: what follows a push, a pipeline that is being made, a job
/// with a runner. Files come and go meanwhile.
pub(super) struct UnderWay(Shared);

impl UnderWay {
    pub(super) fn new(hub: &Shared) -> Self {
        hub.under_way.send_modify(|count| *count += 1);
        Self(Arc::clone(hub))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

impl Hub {
    pub(super) fn new(settings: Settings, port: u16, git: PathBuf) -> Shared {
        let slots = Semaphore::new(settings.concurrent_jobs.max(1));
        Arc::new(Hub {
            settings,
            slots,
            url: format!("http://127.0.0.1:{port}"),
            port,
            git,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            under_way: watch::Sender::new(0),
            locks: Mutex::default(),
        })
    }

    /// The state, to look at or change; never held over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held fails its own test; the others can still look.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everyone who waits that something changed.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How much is under way, to wait for.
    pub(super) fn under_way(&self) -> watch::Receiver<usize> {
        self.under_way.subscribe()
    }

    pub(super) fn branch_lock(&self, project: u64) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(project).or_default())
    }

    /// A command with nothing of this process' environment but what the settings and the command hook give.
    pub(super) fn clean_command(&self, program: &Path) -> Command {
        let mut command = (self.settings.command)(program);
        let given = command.as_std().get_envs();
        let given: Vec<_> = given
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        command
            .env_clear()
            .envs(given)
            .env("PATH", &self.settings.path)
            .env("HOME", self.home())
            .env("LANG", "C.UTF-8")
            .envs(self.settings.environment.iter().cloned());
        command
    }

    pub(super) fn home(&self) -> PathBuf {
        self.settings.folder.join("home")
    }

    pub(super) fn hooks_folder(&self) -> PathBuf {
        self.settings.folder.join("hooks")
    }

    pub(super) fn repositories_folder(&self) -> PathBuf {
        self.settings.folder.join("repositories")
    }

    pub(super) fn pipeline_folder(&self, pipeline: u64) -> PathBuf {
        self.settings.folder.join("pipelines").join(pipeline.to_string())
    }

    pub(super) fn repository(&self, project: &Project) -> Repository<'_> {
        Repository {
            hub: self,
            path: self.repositories_folder().join(format!("{}.git", project.path)),
        }
    }

    pub(super) fn api_url(&self) -> String {
        format!("{}/api/v4", self.url)
    }
}
