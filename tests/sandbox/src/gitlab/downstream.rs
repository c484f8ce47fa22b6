//! `trigger:` jobs: they start a pipeline in another project and, by their strategy, take its result as theirs: success,
//! `canceled`, and failure for one that failed or was skipped.

use super::hub::{Hub, Shared};
use super::pipelines::{self, Draft, plain_variables};
use super::runner::Outcome;
use super::settings::PipelineRequest;
use super::state::{Source, Status};

/// Runs a `trigger:` job.
pub(super) async fn run(hub: &Shared, id: u64) -> Outcome {
    let found = {
        let state = hub.state();
        let job = state.jobs.get(&id).cloned();
        job.and_then(|job| {
            let spec = job.spec.trigger.clone()?;
            let project = state.project_by(&spec.project)?;
            let member = project.role(job.user).is_some();
            member.then(|| {
                (
                    job.clone(),
                    spec,
                    project.id,
                    project.settings.default_branch.clone(),
                )
            })
        })
    };
    let Some((job, spec, project, default_branch)) = found else {
        return Outcome::failed("downstream_bridge_project_not_found");
    };
    let draft = Draft {
        project,
        ref_name: spec.branch.clone().unwrap_or(default_branch),
        user: job.user,
        source: Source::Pipeline,
        request: PipelineRequest {
            variables: plain_variables(job.spec.yaml_values.iter().cloned()),
            inputs: spec.inputs.clone(),
        },
        before_sha: None,
        sha: None,
        source_job: Some(id),
    };
    let Ok(pipeline) = pipelines::create(hub, draft).await else {
        return Outcome::failed("downstream_pipeline_creation_failed");
    };
    if let Some(job) = hub.state().jobs.get_mut(&id) {
        job.downstream = Some(pipeline);
    }
    if spec.strategy.is_none() {
        return Outcome::SUCCESS;
    }
    match result(hub, id, pipeline).await {
        Status::Success => Outcome::SUCCESS,
        Status::Canceled => {
            if let Some(job) = hub.state().jobs.get_mut(&id) {
                job.cancel_requested = true;
            }
            Outcome::failed("unknown_failure")
        }
        _ => Outcome::failed("unknown_failure"),
    }
}

/// The status the pipeline ends in, or `canceled` when the job is cancelled before.
async fn result(hub: &Hub, job: u64, pipeline: u64) -> Status {
    let mut changes = hub.subscribe();
    loop {
        {
            let state = hub.state();
            let status = state
                .pipelines
                .get(&pipeline)
                .map_or(Status::Failed, |pipeline| pipeline.status);
            if status.is_finished() {
                return status;
            }
            if state.stopping || state.jobs.get(&job).is_some_and(|job| job.cancel_requested) {
                return Status::Canceled;
            }
        }
        if changes.changed().await.is_err() {
            return Status::Canceled;
        }
    }
}
