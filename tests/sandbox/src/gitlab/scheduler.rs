//! What may run next: stages, `needs`, `when`, retries, resource groups, manual play, cancelling.
//!
//! Nothing polls. Whoever changes a job calls [`advance`] for its pipeline; that looks at the whole pipeline under
//! the lock, moves what can move, and starts what became ready.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::hub::{Hub, Shared};
use super::job_spec::is_named;
use super::pipelines::new_job;
use super::runner;
use super::settings::CiVariable;
use super::state::{Job, Pipeline, Source, State, Status, now};

/// Moves a pipeline as far as it goes by itself now.
pub(super) fn advance(hub: &Shared, pipeline: u64) {
    let mut starts = Vec::new();
    let mut delays = Vec::new();
    let finished = {
        let mut state = hub.state();
        if state.stopping {
            return;
        }
        let directed = is_directed(&state, pipeline);
        while let Some((job, status)) = (!directed).then(|| next_step(&state, pipeline)).flatten() {
            let job = state.jobs.get_mut(&job).expect("the job was just looked at");
            job.status = status;
            match status {
                Status::Pending => {
                    job.queued_at = Some(now());
                    starts.push(job.id);
                }
                Status::Scheduled => delays.push((job.id, job.spec.start_in.unwrap_or_default())),
                Status::Skipped => job.finished_at = Some(now()),
                _ => {}
            }
        }
        settle(&mut state, pipeline)
    };
    for job in starts {
        tokio::spawn(runner::run(Arc::clone(hub), job));
    }
    for (job, delay) in delays {
        tokio::spawn(start_later(Arc::clone(hub), job, delay));
    }
    hub.changed();
    if finished {
        super::merge_requests::pipeline_finished(hub, pipeline);
    }
}

/// Whether a test moves the pipeline's jobs.
pub(super) fn is_directed(state: &State, pipeline: u64) -> bool {
    state.pipelines.get(&pipeline).is_some_and(|found| found.directed)
}

/// Lets every pipeline of a project look again, after a resource group became free.
pub(super) fn advance_waiting(hub: &Shared, project: u64) {
    let waiting: Vec<u64> = {
        let state = hub.state();
        let jobs = state.jobs.values().filter(|job| job.project == project);
        jobs.filter(|job| job.status == Status::WaitingForResource)
            .map(|job| job.pipeline)
            .collect()
    };
    for pipeline in waiting {
        advance(hub, pipeline);
    }
}

async fn start_later(hub: Shared, job: u64, delay: Duration) {
    tokio::time::sleep(delay).await;
    // A person may have played or cancelled it meanwhile.
    let _ = play(&hub, job, None, Vec::new());
}

/// The first job of the pipeline that can leave its status, and for which.
fn next_step(state: &State, pipeline: u64) -> Option<(u64, Status)> {
    let jobs: Vec<&Job> = state.latest_jobs_of(pipeline).collect();
    let stages = &state.pipelines.get(&pipeline)?.stages;
    jobs.iter().find_map(|job| {
        let next = match job.status {
            Status::Created => decide(job, &jobs, stages)?,
            Status::WaitingForResource => Status::Pending,
            _ => return None,
        };
        let next = if next == Status::Pending && group_is_taken(state, job) {
            Status::WaitingForResource
        } else {
            next
        };
        (next != job.status).then_some((job.id, next))
    })
}

fn group_is_taken(state: &State, job: &Job) -> bool {
    let Some(group) = &job.spec.resource_group else {
        return false;
    };
    state.jobs.values().any(|other| {
        other.id != job.id
            && other.project == job.project
            && other.spec.resource_group.as_ref() == Some(group)
            && matches!(
                other.status,
                Status::Pending | Status::Running | Status::Canceling
            )
    })
}

/// What becomes of a created job; `None` while it has to wait for others.
fn decide(job: &Job, jobs: &[&Job], stages: &[String]) -> Option<Status> {
    let stage = |job: &Job| stages.iter().position(|stage| *stage == job.spec.stage);
    let before: Vec<&Job> = match &job.spec.needs {
        Some(needs) => jobs
            .iter()
            .filter(|other| needs.iter().any(|need| is_named(&other.spec.name, &need.job)))
            .copied()
            .collect(),
        None => jobs
            .iter()
            .filter(|other| stage(other) < stage(job))
            .copied()
            .collect(),
    };
    if !before.iter().all(|other| is_settled(other)) {
        return None;
    }
    let by_needs = job.spec.needs.is_some();
    let left_out = |other: &&Job| matches!(other.status, Status::Skipped | Status::Manual);
    if by_needs && before.iter().any(left_out) {
        return Some(Status::Skipped);
    }
    let canceled = before
        .iter()
        .any(|other| other.status == Status::Canceled && !other.failure_is_allowed());
    let failed = before
        .iter()
        .any(|other| other.status == Status::Failed && !other.failure_is_allowed());
    let runs = match job.spec.when.as_str() {
        "on_failure" => failed,
        "always" => !canceled,
        _ => !failed && !canceled,
    };
    Some(match job.spec.when.as_str() {
        _ if !runs => Status::Skipped,
        "manual" => Status::Manual,
        "delayed" => Status::Scheduled,
        _ => Status::Pending,
    })
}

/// Whether later jobs need not wait for this one any more.
fn is_settled(job: &Job) -> bool {
    job.status.is_finished() || (job.status == Status::Manual && job.failure_is_allowed())
}

/// Brings the pipeline's own status up to its jobs'; true when it just ended.
fn settle(state: &mut State, id: u64) -> bool {
    let status = composite(state.latest_jobs_of(id));
    let started = state.jobs_of(id).filter_map(|job| job.started_at).min();
    let Some(pipeline) = state.pipelines.get_mut(&id) else {
        return false;
    };
    if pipeline.yaml_errors.is_some() {
        return false;
    }
    pipeline.started_at = started;
    if pipeline.status == status {
        return false;
    }
    pipeline.status = status;
    pipeline.updated_at = now();
    pipeline.finished_at = status.is_finished().then(now);
    status.is_finished()
}

/// One status for many jobs, by the rules of GitLab's composite status and in their order: first what holds when no
/// other status is there, then what one job alone decides. A failure that is allowed is a success with a warning, and a
/// manual job that is allowed to fail is ignored.
fn composite<'a>(jobs: impl Iterator<Item = &'a Job>) -> Status {
    use Status::{
        Canceled, Canceling, Created, Failed, Manual, Pending, Preparing, Running, Scheduled, Skipped,
        Success, WaitingForCallback, WaitingForResource,
    };
    let mut seen = Vec::new();
    let mut warnings = false;
    for job in jobs {
        let allowed = job.failure_is_allowed();
        match job.status {
            Failed | Canceled if allowed => warnings = true,
            Manual if allowed => {}
            status => seen.push(status),
        }
    }
    let only = |allowed: &[Status]| seen.iter().all(|status| allowed.contains(status));
    let any = |wanted: &[Status]| seen.iter().any(|status| wanted.contains(status));
    if only(&[Skipped]) && !warnings {
        return Skipped;
    }
    let alone = [
        (Success, &[Success, Skipped][..]),
        (Created, &[Created]),
        (Preparing, &[Preparing]),
        (Canceled, &[Canceled, Success, Skipped]),
        (Pending, &[Pending, Created, Skipped]),
    ];
    if let Some((status, _)) = alone.into_iter().find(|(_, allowed)| only(allowed)) {
        return status;
    }
    let decisive = [
        (Running, &[Running, Pending][..]),
        (WaitingForResource, &[WaitingForResource]),
        (WaitingForCallback, &[WaitingForCallback]),
        (Manual, &[Manual]),
        (Scheduled, &[Scheduled]),
        (Preparing, &[Preparing]),
        (Running, &[Created]),
        (Canceling, &[Canceling]),
    ];
    let found = decisive.into_iter().find(|(_, wanted)| any(wanted));
    found.map_or(Failed, |(status, _)| status)
}

/// Why a job cannot be played, retried or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotPossible {
    NotPlayable,
    NotRetryable,
}

/// Starts a manual or delayed job; a person who plays it becomes its user.
pub(super) fn play(
    hub: &Shared,
    id: u64,
    user: Option<u64>,
    variables: Vec<CiVariable>,
) -> Result<(), NotPossible> {
    let (pipeline, start) = {
        let mut state = hub.state();
        let taken = state.jobs.get(&id).is_some_and(|job| group_is_taken(&state, job));
        let job = state.jobs.get_mut(&id).ok_or(NotPossible::NotPlayable)?;
        if !matches!(job.status, Status::Manual | Status::Scheduled) {
            return Err(NotPossible::NotPlayable);
        }
        job.user = user.unwrap_or(job.user);
        job.variables = variables;
        job.status = if taken {
            Status::WaitingForResource
        } else {
            Status::Pending
        };
        job.queued_at = Some(now());
        let pipeline = job.pipeline;
        revive_after(&mut state, id);
        (pipeline, !taken)
    };
    if start {
        tokio::spawn(runner::run(Arc::clone(hub), id));
    }
    advance(hub, pipeline);
    Ok(())
}

/// Puts a new job in the place of a finished one and returns its id.
pub(super) fn retry(hub: &Shared, id: u64, user: u64) -> Result<u64, NotPossible> {
    let (pipeline, new) = {
        let mut state = hub.state();
        let job = state.jobs.get(&id).ok_or(NotPossible::NotRetryable)?;
        if job.retried || !matches!(job.status, Status::Success | Status::Failed | Status::Canceled) {
            return Err(NotPossible::NotRetryable);
        }
        let pipeline = job.pipeline;
        let new = replace(&mut state, id, Some(user)).ok_or(NotPossible::NotRetryable)?;
        let job = state.jobs.get_mut(&new).expect("the job was just made");
        job.status = Status::Pending;
        job.queued_at = Some(now());
        revive_after(&mut state, new);
        (pipeline, new)
    };
    tokio::spawn(runner::run(Arc::clone(hub), new));
    advance(hub, pipeline);
    Ok(new)
}

/// Makes the next attempt of a job; the old one keeps its log and leaves the pipeline's status.
pub(super) fn replace(state: &mut State, id: u64, user: Option<u64>) -> Option<u64> {
    let new = state.next_id("job");
    let old = state.jobs.get_mut(&id)?;
    old.retried = true;
    let old = old.clone();
    let pipeline: &Pipeline = state.pipelines.get(&old.pipeline)?;
    let user_of = user.unwrap_or(old.user);
    let mut job = new_job(new, pipeline, old.spec, user_of, old.environment);
    // A person's retry starts the count of automatic ones again.
    job.attempt = if user.is_some() { 0 } else { old.attempt + 1 };
    job.variables = old.variables;
    state.jobs.insert(new, job);
    Some(new)
}

/// Jobs after this one that were skipped get another chance.
fn revive_after(state: &mut State, id: u64) {
    let Some(job) = state.jobs.get(&id).cloned() else {
        return;
    };
    let Some(pipeline) = state.pipelines.get(&job.pipeline) else {
        return;
    };
    let stages = pipeline.stages.clone();
    let position = |stage: &str| stages.iter().position(|other| other == stage);
    for other in state.jobs.values_mut() {
        if other.pipeline != job.pipeline || other.retried || other.status != Status::Skipped {
            continue;
        }
        let after = match &other.spec.needs {
            // What needs a job that needs this one comes later too: all skipped jobs with needs are looked at again.
            Some(_) => true,
            None => position(&other.spec.stage) > position(&job.spec.stage),
        };
        if after {
            other.status = Status::Created;
            other.finished_at = None;
        }
    }
}

/// Cancels every job of a pipeline that can be, and its child pipelines; what it started in other projects goes on.
pub(super) fn cancel_pipeline(hub: &Shared, pipeline: u64) {
    let jobs: Vec<(u64, bool, Option<u64>)> = {
        let state = hub.state();
        let is_child = |id: &u64| {
            let found = state.pipelines.get(id);
            found.is_some_and(|found| found.source == Source::ParentPipeline)
        };
        let jobs = state.latest_jobs_of(pipeline);
        jobs.map(|job| {
            (
                job.id,
                job.status == Status::Manual,
                job.downstream.filter(is_child),
            )
        })
        .collect()
    };
    for (job, manual, child) in jobs {
        if !manual {
            cancel(hub, job);
        }
        if let Some(child) = child {
            cancel_pipeline(hub, child);
        }
    }
    advance(hub, pipeline);
}

/// Cancels one job: at once when it waits, by signals to its process group when it runs.
pub(super) fn cancel(hub: &Shared, id: u64) {
    let group = {
        let mut state = hub.state();
        let Some(job) = state.jobs.get_mut(&id) else {
            return;
        };
        match job.status {
            // No runner has to let go of a trigger job.
            Status::Running if job.is_bridge() && job.downstream.is_some() => {
                job.status = Status::Canceled;
                job.cancel_requested = true;
                job.finished_at = Some(now());
                None
            }
            Status::Running => {
                job.status = Status::Canceling;
                job.cancel_requested = true;
                job.process_group
            }
            status if status.is_finished() || status == Status::Canceling => return,
            _ => {
                job.status = Status::Canceled;
                job.finished_at = Some(now());
                None
            }
        }
    };
    hub.changed();
    if let Some(group) = group {
        signal_group(group, Signal::TERM);
        tokio::spawn(kill_later(Arc::clone(hub), id, group));
    }
}

async fn kill_later(hub: Shared, job: u64, group: i32) {
    tokio::time::sleep(hub.settings.cancel_grace).await;
    let still = hub
        .state()
        .jobs
        .get(&job)
        .is_some_and(|job| job.process_group == Some(group));
    if still {
        signal_group(group, Signal::KILL);
    }
}

/// Sends a signal to a job's process group, if it is still there.
pub(super) fn signal_group(group: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(group) {
        // The group may have ended by itself in this moment.
        let _ = kill_process_group(group, signal);
    }
}

/// Kills what runs and lets nothing start again.
pub(super) fn stop(hub: &Hub) {
    let groups: Vec<i32> = {
        let mut state = hub.state();
        state.stopping = true;
        state.jobs.values().filter_map(|job| job.process_group).collect()
    };
    for group in groups {
        signal_group(group, Signal::KILL);
    }
    hub.changed();
}
