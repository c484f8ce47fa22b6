//! Deployments that jobs with `environment:` record.

use super::state::{Deployment, State, Status, now};

/// Records that a job started to deploy.
pub(super) fn begin(state: &mut State, job: u64) {
    let Some(job) = state.jobs.get(&job).cloned() else {
        return;
    };
    let (Some(name), Some(spec)) = (&job.environment, &job.spec.environment) else {
        return;
    };
    let action = spec.action.as_deref().unwrap_or("start");
    let Some(pipeline) = state.pipelines.get(&job.pipeline).cloned() else {
        return;
    };
    let environment = state.environment(
        job.project,
        name,
        spec.deployment_tier.as_deref(),
        spec.url.as_deref(),
    );
    if action != "start" {
        return;
    }
    let id = state.next_id("deployment");
    let Some(project) = state.projects.get_mut(&job.project) else {
        return;
    };
    project.last_deployment_iid += 1;
    let iid = project.last_deployment_iid;
    state.deployments.insert(
        id,
        Deployment {
            id,
            iid,
            project: job.project,
            environment,
            ref_name: pipeline.ref_name,
            tag: pipeline.tag,
            sha: pipeline.sha,
            user: job.user,
            job: Some(job.id),
            status: "running",
            created_at: now(),
            updated_at: now(),
            finished_at: None,
        },
    );
}

/// Records how the job's deployment ended; a successful `stop` ends its environment.
pub(super) fn end(state: &mut State, job: u64) {
    let Some(job) = state.jobs.get(&job).cloned() else {
        return;
    };
    let status = match job.status {
        Status::Success => "success",
        Status::Canceled => "canceled",
        _ => "failed",
    };
    for deployment in state
        .deployments
        .values_mut()
        .filter(|deployment| deployment.job == Some(job.id))
    {
        deployment.status = status;
        deployment.updated_at = now();
        deployment.finished_at = Some(now());
    }
    let stops = job
        .spec
        .environment
        .as_ref()
        .is_some_and(|spec| spec.action.as_deref() == Some("stop"));
    if stops && job.status == Status::Success {
        let name = job.environment.as_deref();
        let ended = state.environments.values_mut();
        for environment in ended.filter(|environment| {
            environment.project == job.project && Some(environment.name.as_str()) == name
        }) {
            environment.available = false;
            environment.updated_at = now();
        }
    }
}
