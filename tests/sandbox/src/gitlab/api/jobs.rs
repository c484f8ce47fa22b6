//! Jobs: lists, logs, artifacts, and what a person does to one.
//!
//! Kept from GitLab: trigger jobs have a list of their own, under the name that the release has for it; a job token lists
//! jobs and reads artifacts, and neither reads a log nor plays, retries or cancels; the list of a project's jobs has a
//! limit of its own; a log is answered whole unless the release knows `byte_offset` and `byte_limit`, never by `Range`.

use std::path::{Component, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::super::scheduler::{self, NotPossible};
use super::super::settings::{CiVariable, Role};
use super::super::state::{Job, Project, Source, Status};
use super::super::tokens::Caller;
use super::call::{Call, JobTokens, Refusal};
use super::{Answer, entities};

fn job_of(call: &Call, project: &Project, id: &str) -> Result<Job, Refusal> {
    let id: u64 = id.parse().map_err(|_| Refusal::parameter("job_id is invalid"))?;
    let state = call.hub.state();
    let job = state.jobs.get(&id).filter(|job| job.project == project.id);
    job.cloned().ok_or_else(|| Refusal::not_found(""))
}

fn shown(call: &Call, job: &Job, status: StatusCode) -> Response {
    (status, Json(entities::job(&call.hub, job))).into_response()
}

/// Jobs in the statuses that `scope` names, newest first as GitLab lists them.
fn page_of(call: &Call, wanted: impl Fn(&Job) -> bool) -> Answer {
    let scope = call.params.list("scope");
    let known = |status: &String| Status::ALL.iter().any(|known| known.as_str() == status);
    if !scope.iter().all(known) {
        return Err(Refusal::parameter("scope does not have a valid value"));
    }
    let in_scope = |job: &Job| scope.is_empty() || scope.iter().any(|status| status == job.status.as_str());
    let jobs: Vec<Job> = {
        let state = call.hub.state();
        state
            .jobs
            .values()
            .rev()
            .filter(|job| wanted(job) && in_scope(job))
            .cloned()
            .collect()
    };
    Ok(call.page(jobs, entities::job))
}

/// `GET /projects/:id/pipelines/:pipeline_id/jobs`: the one look at a pipeline that a job token has.
pub(super) async fn of_pipeline(Path((id, pipeline)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Allowed)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let pipeline = call.pipeline(&project, &pipeline)?.id;
    let retried = call.params.flag("include_retried").unwrap_or(false);
    page_of(&call, |job| {
        job.pipeline == pipeline && !job.is_bridge() && (retried || !job.retried)
    })
}

/// `GET /projects/:id/pipelines/:pipeline_id/bridges`.
pub(super) async fn bridges(Path((id, pipeline)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(call.pipelines_for_job_tokens())?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let pipeline = call.pipeline(&project, &pipeline)?.id;
    page_of(&call, |job| {
        job.pipeline == pipeline && job.is_bridge() && !job.retried
    })
}

/// `GET /projects/:id/pipelines/:pipeline_id/trigger_jobs`, which took the place of `bridges` in 19.2.
pub(super) async fn trigger_jobs(path: Path<(String, String)>, call: Call) -> Answer {
    if !call.hub.settings.version.has_trigger_jobs() {
        return Err(Refusal::not_found(""));
    }
    bridges(path, call).await
}

/// `GET /projects/:id/jobs`.
pub(super) async fn list(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Allowed)?;
    call.count_job_list(&caller)?;
    let project = call.project(&id, &caller, Role::Reporter)?.id;
    page_of(&call, |job| job.project == project && !job.is_bridge())
}

/// `GET /job`: the job whose token this is.
pub(super) async fn own(call: Call) -> Answer {
    let Caller::Job { job, .. } = call.caller(JobTokens::Allowed)? else {
        return Err(Refusal::unauthorized());
    };
    let job = call
        .hub
        .state()
        .jobs
        .get(&job)
        .cloned()
        .ok_or_else(|| Refusal::not_found(""))?;
    Ok(shown(&call, &job, StatusCode::OK))
}

/// `GET /projects/:id/jobs/:job_id`.
pub(super) async fn show(Path((id, job)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    Ok(shown(&call, &job_of(&call, &project, &job)?, StatusCode::OK))
}

/// `GET /projects/:id/jobs/:job_id/trace`: all of it, or the part that `byte_offset` and `byte_limit` name.
pub(super) async fn trace(Path((id, job)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let job = job_of(&call, &project, &job)?;
    if job.is_bridge() {
        return Err(Refusal::not_found(""));
    }
    let bytes = |name: &str| {
        let known = call.hub.settings.version.has_parts_of_logs();
        let number = call.params.number(name).filter(|_| known)?;
        Some(usize::try_from(number).unwrap_or(usize::MAX))
    };
    let from = bytes("byte_offset").unwrap_or(0).min(job.trace.len());
    let end = from
        .saturating_add(bytes("byte_limit").unwrap_or(usize::MAX))
        .min(job.trace.len());
    let plain = (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned());
    let name = (
        header::CONTENT_DISPOSITION,
        format!("infile; filename=\"{}.log\"", job.id),
    );
    Ok(([plain, name], job.trace[from..end].to_vec()).into_response())
}

fn changing(call: &Call, id: &str, job: &str) -> Result<(Job, u64), Refusal> {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(id, &caller, Role::Developer)?;
    let user = call.user(&caller)?;
    let job = job_of(call, &project, job)?;
    let pipeline = call.pipeline(&project, &job.pipeline.to_string())?;
    let allowed = call
        .hub
        .state()
        .may_change_ref(user, &project, &pipeline.ref_name, pipeline.tag);
    if allowed && call.hub.state().may_deploy(user, &job) {
        Ok((job, user))
    } else {
        Err(Refusal::forbidden(None))
    }
}

fn after(call: &Call, id: u64, status: StatusCode) -> Answer {
    let job = call
        .hub
        .state()
        .jobs
        .get(&id)
        .cloned()
        .ok_or_else(|| Refusal::not_found(""))?;
    Ok(shown(call, &job, status))
}

/// `POST /projects/:id/jobs/:job_id/play`.
pub(super) async fn play(Path((id, job)): Path<(String, String)>, call: Call) -> Answer {
    let (job, user) = changing(&call, &id, &job)?;
    let given = call
        .params
        .get("job_variables_attributes")
        .and_then(|value| value.as_array());
    let variables = given.into_iter().flatten().filter_map(|variable| {
        let text = |key: &str| variable.get(key)?.as_str();
        Some(CiVariable::new(text("key")?, text("value").unwrap_or_default()))
    });
    match scheduler::play(&call.hub, job.id, Some(user), variables.collect()) {
        Ok(()) => after(&call, job.id, StatusCode::OK),
        Err(NotPossible::NotPlayable | NotPossible::NotRetryable) => {
            Err(Refusal::bad_request("400 Bad request - Unplayable Job"))
        }
    }
}

/// `POST /projects/:id/jobs/:job_id/retry`.
pub(super) async fn retry(Path((id, job)): Path<(String, String)>, call: Call) -> Answer {
    let (job, user) = changing(&call, &id, &job)?;
    match scheduler::retry(&call.hub, job.id, user) {
        Ok(new) => after(&call, new, StatusCode::CREATED),
        Err(_) => Err(Refusal::message(
            StatusCode::FORBIDDEN,
            "403 Forbidden - Job is not retryable",
        )),
    }
}

/// `POST /projects/:id/jobs/:job_id/cancel`.
pub(super) async fn cancel(Path((id, job)): Path<(String, String)>, call: Call) -> Answer {
    let (job, _) = changing(&call, &id, &job)?;
    if job.status != Status::Manual {
        scheduler::cancel(&call.hub, job.id);
        scheduler::advance(&call.hub, job.pipeline);
    }
    after(&call, job.id, StatusCode::CREATED)
}

/// `GET /projects/:id/jobs/:job_id/artifacts/*artifact_path`.
pub(super) async fn artifact(Path((id, job, path)): Path<(String, String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Allowed)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let job = job_of(&call, &project, &job)?;
    send_artifact(job, path).await
}

/// `GET /projects/:id/jobs/artifacts/:ref_name/raw/*artifact_path?job=name`: of the newest pipeline on the ref that
/// succeeded.
pub(super) async fn artifact_of_ref(
    Path((id, ref_name, path)): Path<(String, String, String)>,
    call: Call,
) -> Answer {
    let caller = call.caller(JobTokens::Allowed)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let name = call.required("job")?;
    let found = {
        let state = call.hub.state();
        let mut pipelines = state.pipelines.values().rev().filter(|pipeline| {
            pipeline.project == project.id
                && pipeline.ref_name == ref_name
                && pipeline.status == Status::Success
                && pipeline.source != Source::ParentPipeline
        });
        pipelines.find_map(|pipeline| {
            let mut jobs = state.latest_jobs_of(pipeline.id);
            let found = jobs.find(|job| job.spec.name == name && job.status == Status::Success);
            found.cloned()
        })
    };
    send_artifact(found.ok_or_else(|| Refusal::not_found(""))?, path).await
}

async fn send_artifact(job: Job, path: String) -> Answer {
    let path = PathBuf::from(path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Refusal::bad_request("400 Bad request"));
    }
    let folder = job.artifacts.ok_or_else(|| Refusal::not_found(""))?;
    let content = tokio::fs::read(folder.join(path))
        .await
        .map_err(|_| Refusal::not_found(""))?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from(content)).into_response())
}
