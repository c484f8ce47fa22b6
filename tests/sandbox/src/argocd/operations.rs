//! The operations of an application: what begins one, what comes of it, and how it is tried again.

use tokio::time::Instant;

use super::application::{
    Deployed, Initiator, Operation, OperationState, Phase, Retry, SyncOperation, SyncResult, now,
};
use super::cluster::Cluster;
use super::controller::{Controller, SyncOrder, SyncRefusal};
use super::manifest::each_once;

/// How many entries the history keeps (`revisionHistoryLimit`).
const HISTORY_LIMIT: usize = 10;

impl Controller {
    pub(super) async fn order(&mut self, order: SyncOrder) -> Result<(), SyncRefusal> {
        let mut revisions = self.application.spec.targets();
        // What is said of the one source goes past several.
        if let ([target], Some(wanted)) = (revisions.as_mut_slice(), order.revision) {
            if self.application.spec.sync_policy.is_some() && wanted != *target {
                return Err(SyncRefusal::AutomatedElsewhere {
                    wanted,
                    target: target.clone(),
                });
            }
            *target = wanted;
        }
        let mut commits = Vec::new();
        for (repository, revision) in self.repositories.iter().zip(&revisions) {
            let commit = repository.resolve(revision).await;
            commits.push(commit.map_err(SyncRefusal::Unresolved)?);
        }
        if self.application.operation.is_some() {
            return Err(SyncRefusal::AnotherInProgress);
        }
        let initiator = Initiator {
            username: order.username,
            ..Initiator::default()
        };
        self.begin(&commits, order.prune, order.dry_run, initiator, Retry::default());
        self.publish();
        Ok(())
    }

    /// Begins what an automated application begins without being asked. What it will not do, it says why.
    pub(super) fn begin_by_itself(&mut self, commits: &[String]) -> Option<String> {
        let told = commits.join(" ");
        if self.application.spec.sync_policy.is_none() || self.application.operation.is_some() {
            return None;
        }
        let latest = self.application.status.operation_state.as_ref();
        if let Some(tried) = latest.filter(|state| {
            let sync = &state.operation.sync;
            sync.commits() == commits && !sync.dry_run
        }) {
            let failed = tried.phase != Phase::Succeeded;
            return failed.then(|| format!("Failed last sync attempt to [{told}]: {}", tried.message));
        }
        let resources = &self.application.status.resources;
        if resources.iter().all(|resource| resource.requires_pruning) {
            return Some(format!(
                "Skipping sync attempt to [{told}]: auto-sync will wipe out all resources"
            ));
        }
        let initiator = Initiator {
            automated: true,
            ..Initiator::default()
        };
        self.begin(commits, true, false, initiator, Retry { limit: Some(5) });
        None
    }

    fn begin(
        &mut self,
        commits: &[String],
        prune: bool,
        dry_run: bool,
        initiated_by: Initiator,
        retry: Retry,
    ) {
        let spec = &self.application.spec;
        let (revision, revisions) = spec.told(commits);
        let operation = Operation {
            sync: SyncOperation {
                revision,
                revisions,
                prune,
                dry_run,
                source: spec.source.clone(),
                sources: spec.sources.clone(),
            },
            initiated_by,
            retry,
        };
        self.application.operation = Some(operation.clone());
        self.application.status.operation_state = Some(OperationState {
            operation,
            phase: Phase::Running,
            message: String::new(),
            sync_result: None,
            started_at: now(),
            finished_at: None,
            retry_count: 0,
        });
        self.due.operation = Some(Instant::now() + self.pace.step);
    }

    /// Applies what the running operation is for. The rest of the status stays as the last comparison left it.
    pub(super) async fn finish_operation(&mut self) {
        let Some(operation) = self.application.operation.take() else {
            return;
        };
        let commits = operation.sync.commits();
        let SyncOperation {
            revision,
            revisions,
            prune,
            dry_run,
            source,
            sources,
        } = operation.sync.clone();
        let source = source.unwrap_or_default();
        let outcome = self.load(&commits, false).await;
        let outcome = outcome.map(|(_, manifests)| each_once(&manifests).0);
        let (mut phase, mut message, resources) = match outcome {
            Ok(manifests) if dry_run => (Phase::Succeeded, "successfully synced (dry run)".to_owned(), {
                let mut imagined = Cluster::default();
                imagined.apply(&manifests, prune, self.pace.progress_deadline)
            }),
            Ok(manifests) => (
                Phase::Succeeded,
                "successfully synced (all tasks run)".to_owned(),
                self.cluster.apply(&manifests, prune, self.pace.progress_deadline),
            ),
            Err(error) => (
                Phase::Error,
                format!("ComparisonError: Failed to load target state: {error}"),
                Vec::new(),
            ),
        };
        if let Some(refused) = resources.iter().find(|resource| resource.status == "SyncFailed") {
            phase = Phase::Failed;
            message = format!("one or more objects failed to apply, reason: {}", refused.message);
        }
        let status = &mut self.application.status;
        let finished = now();
        if let Some(state) = &mut status.operation_state {
            if matches!(phase, Phase::Failed | Phase::Error) {
                let tried = state.retry_count;
                if tried < operation.retry.limit.unwrap_or_default() {
                    state.retry_count += 1;
                    let pause = self.pace.sync_retry * 2_u32.pow(tried.into());
                    let at = jiff::Timestamp::now() + pause;
                    phase = Phase::Running;
                    message = format!(
                        "{message}. Retrying attempt #{} at {}.",
                        state.retry_count,
                        at.strftime("%-I:%M%p")
                    );
                    self.application.operation = Some(operation.clone());
                    self.due.retry = Some(Instant::now() + pause);
                } else if tried > 0 {
                    message = format!("{message} (retried {tried} times).");
                }
            }
            state.phase = phase;
            state.message = message;
            state.sync_result = Some(SyncResult {
                resources,
                revision: revision.clone(),
                revisions: revisions.clone(),
                source: source.clone(),
                sources: sources.clone(),
            });
            state.finished_at = Some(finished.clone());
            if phase == Phase::Succeeded && !dry_run {
                status.history.push(Deployed {
                    revision,
                    revisions,
                    deployed_at: finished,
                    id: status.history.last().map_or(0, |last| last.id + 1),
                    source,
                    sources,
                    deploy_started_at: state.started_at.clone(),
                    initiated_by: operation.initiated_by,
                });
                let superfluous = status.history.len().saturating_sub(HISTORY_LIMIT);
                status.history.drain(..superfluous);
            }
        }
        self.due.comparison = Some(Instant::now() + self.pace.step);
        self.publish();
    }

    /// Begins the next attempt of the operation that failed. What came of that stays until this one has ended.
    pub(super) fn try_again(&mut self) {
        if let Some(state) = &mut self.application.status.operation_state {
            state.message = format!("Retrying operation. Attempt #{}", state.retry_count);
            state.finished_at = None;
        }
        self.due.operation = Some(Instant::now() + self.pace.step);
        self.publish();
    }
}
