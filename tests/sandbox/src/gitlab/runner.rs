//! The runner: takes pending jobs, has them run, and says what their end means.
//!
//! How one job runs is in [`super::job_run`]; a `trigger:` job is in [`super::downstream`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::downstream;
use super::hub::{Hub, Shared, UnderWay};
use super::job_run::Run;
use super::scheduler;
use super::state::{Job, Status, now};

/// How a job ended.
pub(super) struct Outcome {
    pub(super) failure: Option<&'static str>,
    pub(super) exit_code: Option<i32>,
}

impl Outcome {
    pub(super) const SUCCESS: Outcome = Outcome {
        failure: None,
        exit_code: Some(0),
    };

    pub(super) fn failed(reason: &'static str) -> Outcome {
        Outcome {
            failure: Some(reason),
            exit_code: None,
        }
    }
}

/// Runs a pending job to its end.
///
/// Boxed, because a `trigger:` job makes a pipeline, which runs jobs. It is under way from the call on, even before it is
/// first polled.
pub(super) fn run(hub: Shared, job: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let under_way = UnderWay::new(&hub);
    Box::pin(async move {
        // Until the jobs after this one have been started, too.
        let _under_way = under_way;
        let (bridge, directed) = {
            let state = hub.state();
            let found = state.jobs.get(&job);
            let directed = found.is_some_and(|job| scheduler::is_directed(&state, job.pipeline));
            (found.is_some_and(Job::is_bridge), directed)
        };
        if directed {
            return;
        }
        let slot = if bridge {
            None
        } else {
            hub.slots.acquire().await.ok()
        };
        if !start(&hub, job) {
            return;
        }
        let outcome = if bridge {
            downstream::run(&hub, job).await
        } else if is_kept_out(&hub, job) {
            Outcome::failed("protected_environment_failure")
        } else {
            match Run::prepare(&hub, job).await {
                Ok(run) => run.execute().await,
                Err(error) => {
                    append(
                        &hub,
                        job,
                        &format!("ERROR: Job failed (system failure): {error:#}\n"),
                    );
                    Outcome::failed("runner_system_failure")
                }
            }
        };
        drop(slot);
        finish(&hub, job, outcome);
    })
}

/// Whether the job deploys to a protected environment that its user may not deploy to.
fn is_kept_out(hub: &Hub, id: u64) -> bool {
    let state = hub.state();
    let found = state.jobs.get(&id);
    found.is_some_and(|job| !state.may_deploy(job.user, job))
}

/// Moves a pending job to running; false when it was cancelled meanwhile.
fn start(hub: &Hub, id: u64) -> bool {
    let mut state = hub.state();
    if state.stopping {
        return false;
    }
    let Some(job) = state
        .jobs
        .get_mut(&id)
        .filter(|job| job.status == Status::Pending)
    else {
        return false;
    };
    job.status = Status::Running;
    job.started_at = Some(now());
    let pipeline = job.pipeline;
    super::deployments::begin(&mut state, id);
    if let Some(pipeline) = state.pipelines.get_mut(&pipeline) {
        pipeline.status = Status::Running;
        pipeline.updated_at = now();
        pipeline.started_at.get_or_insert_with(now);
    }
    drop(state);
    hub.changed();
    true
}

fn finish(hub: &Shared, id: u64, outcome: Outcome) {
    let (pipeline, project, replacement) = {
        let mut state = hub.state();
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        job.finished_at = Some(now());
        job.process_group = None;
        job.exit_code = outcome.exit_code;
        job.status = match outcome.failure {
            _ if job.cancel_requested => Status::Canceled,
            None => Status::Success,
            Some(reason) => {
                job.failure_reason = Some(reason);
                Status::Failed
            }
        };
        let again = job.status == Status::Failed && is_retried(job);
        let (pipeline, project) = (job.pipeline, job.project);
        super::deployments::end(&mut state, id);
        (
            pipeline,
            project,
            if again {
                scheduler::replace(&mut state, id, None)
            } else {
                None
            },
        )
    };
    if let Some(new) = replacement {
        let mut state = hub.state();
        if let Some(job) = state.jobs.get_mut(&new) {
            job.status = Status::Pending;
            job.queued_at = Some(now());
        }
        drop(state);
        tokio::spawn(run(Arc::clone(hub), new));
    }
    scheduler::advance(hub, pipeline);
    scheduler::advance_waiting(hub, project);
}

fn is_retried(job: &Job) -> bool {
    let retry = &job.spec.retry;
    if job.attempt >= retry.max {
        return false;
    }
    if retry.when.is_empty() && retry.exit_codes.is_empty() {
        return true;
    }
    let reason = job.failure_reason.unwrap_or_default();
    retry.when.iter().any(|when| when == "always" || when == reason)
        || job.exit_code.is_some_and(|code| retry.exit_codes.contains(&code))
}

/// Adds text to a job's log.
pub(super) fn append(hub: &Hub, job: u64, text: &str) {
    if let Some(job) = hub.state().jobs.get_mut(&job) {
        job.trace.extend_from_slice(text.as_bytes());
    }
    hub.changed();
}
