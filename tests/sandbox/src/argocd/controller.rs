//! Drives one application through the states that a real Argo CD shows: its application controller.
//!
//! Two things run at once, as in the real one: the comparison with the repository, which may begin an operation that
//! applies manifests, and the cluster, which rolls out what was applied. The application's status is what the latest
//! comparison saw of the cluster, so it lags behind on purpose: after an operation has succeeded it says OutOfSync and
//! lists the old image until it is compared again, and it is Progressing for a moment after the last pod is ready.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::application::{
    AppHealth, Application, ComparedTo, Condition, HealthCode, Summary, Sync, SyncCode, now,
};
use super::cluster::Cluster;
use super::manifest::{Manifest, each_once};
use super::registry::Registries;
use super::repository::Repository;
use super::settings::Pace;
use super::store::Publisher;
use super::tree;

/// What the API asks a controller to do. Whoever asked may have gone when the answer is sent, which is no failure.
pub(super) enum Request {
    /// Compare with the repository as it is now; the answer is what that showed. `hard` renders even what is known.
    Refresh {
        hard: bool,
        answer: oneshot::Sender<Application>,
    },
    /// The manifests, without touching anything: of its sources at their targets, but where another revision is named, by the
    /// source's position, which begins with 1.
    Manifests {
        revisions: Vec<(i64, String)>,
        answer: oneshot::Sender<Result<Vec<Manifest>, String>>,
    },
    /// Begin an operation.
    Sync {
        order: SyncOrder,
        answer: oneshot::Sender<Result<Application, SyncRefusal>>,
    },
}

/// An operation somebody asks for.
pub(super) struct SyncOrder {
    pub(super) revision: Option<String>,
    pub(super) prune: bool,
    pub(super) dry_run: bool,
    pub(super) username: String,
}

/// Why an operation is not begun.
pub(super) enum SyncRefusal {
    /// One is running.
    AnotherInProgress,
    /// An automated application follows its target revision alone.
    AutomatedElsewhere { wanted: String, target: String },
    /// The revision cannot be found.
    Unresolved(String),
}

/// The controller of one application.
pub(super) struct Controller {
    pub(super) application: Application,
    pub(super) cluster: Cluster,
    /// One a source.
    pub(super) repositories: Vec<Repository>,
    pub(super) registries: Arc<Registries>,
    pub(super) pace: Pace,
    pub(super) publisher: Publisher,
    pub(super) due: Due,
}

/// When what is under way goes on.
#[derive(Default)]
pub(super) struct Due {
    /// The running operation applies its manifests.
    pub(super) operation: Option<Instant>,
    /// The running operation failed and is tried again.
    pub(super) retry: Option<Instant>,
    /// An operation has ended and the comparison that it asks for is made.
    pub(super) comparison: Option<Instant>,
    /// The coming pods try to pull their images.
    pull: Option<Instant>,
    /// Every pod is ready and the application's health follows.
    health: Option<Instant>,
}

impl Controller {
    /// Works until nobody is left to ask.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut poll = interval(self.pace.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.due.next();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => return,
                },
                () = until(next) => self.go_on().await,
                _ = poll.tick() => self.refresh(false).await,
            }
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Refresh { hard, answer } => {
                self.refresh(hard).await;
                let _ = answer.send(self.application.clone());
            }
            Request::Manifests { revisions, answer } => {
                let _ = answer.send(self.manifests(revisions).await);
            }
            Request::Sync { order, answer } => {
                let outcome = self.order(order).await;
                let _ = answer.send(outcome.map(|()| self.application.clone()));
            }
        }
    }

    /// Does whatever is due.
    async fn go_on(&mut self) {
        let now = Instant::now();
        if take_if_due(&mut self.due.operation, now) {
            self.finish_operation().await;
        } else if take_if_due(&mut self.due.retry, now) {
            self.try_again();
        } else if take_if_due(&mut self.due.comparison, now) {
            self.refresh(false).await;
        } else if take_if_due(&mut self.due.pull, now) {
            self.pull().await;
        } else if take_if_due(&mut self.due.health, now) {
            self.update_health();
            self.publish();
        }
    }

    /// Compares with the repository and, if the application is automated, begins what the difference asks for.
    async fn refresh(&mut self, hard: bool) {
        let targets = self.application.spec.targets();
        self.due.comparison = None;
        match self.load(&targets, hard).await {
            Ok((commits, manifests)) => self.compare(&commits, &manifests),
            Err(error) => self.fail_to_compare(format!("Failed to load target state: {error}")),
        }
        self.application.status.reconciled_at = Some(now());
        self.application.status.controller_namespace = Some(self.application.metadata.namespace.clone());
        self.application.status.resource_health_source = Some("appTree");
        self.publish();
    }

    /// The commit of each source, and the manifests of all of them in their order.
    pub(super) async fn load(
        &mut self,
        revisions: &[String],
        again: bool,
    ) -> Result<(Vec<String>, Vec<Manifest>), String> {
        let all = self.repositories.len();
        let (mut commits, mut manifests) = (Vec::new(), Vec::new());
        for (index, (repository, revision)) in self.repositories.iter_mut().zip(revisions).enumerate() {
            let wrap = |error| {
                format!(
                    "failed to generate manifest for source {} of {all}: rpc error: code = Unknown desc = {error}",
                    index + 1
                )
            };
            let commit = repository.resolve(revision).await.map_err(wrap)?;
            manifests.extend(repository.render(&commit, again).await.map_err(wrap)?);
            commits.push(commit);
        }
        Ok((commits, manifests))
    }

    async fn manifests(&mut self, revisions: Vec<(i64, String)>) -> Result<Vec<Manifest>, String> {
        let mut wanted = self.application.spec.targets();
        for (position, revision) in revisions {
            let index = usize::try_from(position)
                .ok()
                .and_then(|place| place.checked_sub(1));
            let source = index.and_then(|index| wanted.get_mut(index));
            *source.ok_or("source position is out of range")? = revision;
        }
        self.load(&wanted, false).await.map(|(_, manifests)| manifests)
    }

    fn compare(&mut self, commits: &[String], manifests: &[Manifest]) {
        let (manifests, warnings) = each_once(manifests);
        let resources = self.cluster.compare(&manifests);
        let synced = resources
            .iter()
            .all(|resource| resource.status == SyncCode::Synced);
        let status = if synced {
            SyncCode::Synced
        } else {
            SyncCode::OutOfSync
        };
        self.application.status.resources = resources;
        self.set_source_type(Some("Kustomize"));
        self.set_sync(status, commits);
        self.observe();
        let objection = if status == SyncCode::OutOfSync {
            self.begin_by_itself(commits)
        } else {
            None
        };
        let warnings = warnings
            .into_iter()
            .map(|message| ("RepeatedResourceWarning", message));
        let objection = objection.map(|message| ("SyncError", message));
        self.set_conditions(warnings.chain(objection).collect());
    }

    /// Keeps the last good state and says why there is no comparison.
    fn fail_to_compare(&mut self, message: String) {
        self.application.status.resources = self.cluster.compare_with_nothing();
        self.set_source_type(None);
        self.set_conditions(vec![("ComparisonError", message)]);
        // One source keeps the name of its branch.
        let targets = match &self.application.spec.source {
            Some(source) => vec![source.target_revision.clone()],
            None => Vec::new(),
        };
        self.set_sync(SyncCode::Unknown, &targets);
    }

    /// Leaves these conditions and no other; one that was there keeps its time.
    fn set_conditions(&mut self, wanted: Vec<(&'static str, String)>) {
        let conditions = &mut self.application.status.conditions;
        let known = std::mem::take(conditions);
        *conditions = wanted
            .into_iter()
            .map(|(kind, message)| {
                let same = |found: &&Condition| found.kind == kind && found.message == message;
                known.iter().find(same).cloned().unwrap_or_else(|| Condition {
                    kind,
                    message,
                    last_transition_time: now(),
                })
            })
            .collect();
    }

    /// What each source is rendered by.
    fn set_source_type(&mut self, kind: Option<&'static str>) {
        let Application { spec, status, .. } = &mut self.application;
        if spec.source.is_some() {
            status.source_type = kind;
        } else {
            status.source_types = kind
                .into_iter()
                .flat_map(|kind| spec.sources.iter().map(move |_| kind))
                .collect();
        }
    }

    fn set_sync(&mut self, status: SyncCode, commits: &[String]) {
        let Application {
            spec, status: found, ..
        } = &mut self.application;
        let (revision, revisions) = spec.told(commits);
        found.sync = Sync {
            status,
            compared_to: ComparedTo {
                source: spec.source.clone().unwrap_or_default(),
                destination: spec.destination.clone(),
                sources: spec.sources.clone(),
            },
            revision,
            revisions,
        };
    }

    /// Takes over what the cluster shows: the images of its pods, and the health unless it lags behind.
    fn observe(&mut self) {
        self.application.status.summary = Summary {
            images: self.cluster.images(),
        };
        if self.cluster.coming().is_empty() {
            if self.due.health.is_none() {
                self.update_health();
            }
        } else {
            self.due
                .pull
                .get_or_insert_with(|| Instant::now() + self.pace.step);
            self.update_health();
        }
    }

    fn update_health(&mut self) {
        let resources = &mut self.application.status.resources;
        self.cluster.update_health(resources);
        let codes = resources
            .iter()
            .filter_map(|resource| resource.health.as_ref())
            .map(|health| health.status);
        let worst = codes.max().unwrap_or(HealthCode::Healthy);
        let health = &mut self.application.status.health;
        if health.status != Some(worst) {
            *health = AppHealth {
                status: Some(worst),
                last_transition_time: Some(now()),
            };
        }
    }

    /// Lets every coming pod try to pull; those that can become ready.
    async fn pull(&mut self) {
        let before = self.application.status.clone();
        for (key, images) in self.cluster.coming() {
            match self.pull_all(&images).await {
                Ok(()) => self.cluster.pulled(&key),
                Err(reason) => self.cluster.pull_failed(&key, reason),
            }
        }
        self.application.status.summary = Summary {
            images: self.cluster.images(),
        };
        if self.cluster.coming().is_empty() {
            self.cluster.update_health(&mut self.application.status.resources);
            self.due.health = Some(Instant::now() + self.pace.step);
        } else {
            self.update_health();
            self.due.pull = Some(Instant::now() + self.pace.pull_retry);
        }
        // A pull that fails as the one before it did is no news.
        if self.application.status != before {
            self.publish();
        }
    }

    async fn pull_all(&self, images: &[String]) -> Result<(), String> {
        for image in images {
            self.registries.check(image).await?;
        }
        Ok(())
    }

    pub(super) fn publish(&mut self) {
        let (tree, running) = (tree::of(&self.cluster), self.cluster.ready_images());
        self.publisher.publish(&mut self.application, tree, running);
    }
}

impl Due {
    fn next(&self) -> Option<Instant> {
        [
            self.operation,
            self.retry,
            self.comparison,
            self.pull,
            self.health,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Clears the time if it has come.
fn take_if_due(due: &mut Option<Instant>, now: Instant) -> bool {
    due.take_if(|due| *due <= now).is_some()
}
