//! Pipelines: starting, listing, showing, cancelling.
//!
//! Kept from GitLab: the two ways to start one, whose variables have two shapes; a job token links the pipelines, and is
//! answered 404 for a project that it may not see and 401 once its job has ended; what a release lets a job token read;
//! `cancel` answers 200 whatever the state.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use super::super::pipelines::{self, Draft, PAYLOAD};
use super::super::scheduler;
use super::super::settings::{CiVariable, PipelineRequest, Role};
use super::super::state::{Pipeline, Source, Status};
use super::super::tokens::{Caller, Token};
use super::call::{Call, JobTokens, Refusal};
use super::{Answer, entities};

/// Starts the pipeline and shows it, or says why not in the API's shape.
async fn start(call: &Call, draft: Draft) -> Answer {
    match pipelines::create(&call.hub, draft).await {
        Ok(id) => {
            let pipeline = call.hub.state().pipelines.get(&id).cloned();
            let pipeline = pipeline.ok_or_else(|| Refusal::not_found(""))?;
            Ok((
                StatusCode::CREATED,
                Json(entities::pipeline(&call.hub, &pipeline)),
            )
                .into_response())
        }
        Err(refused) => Err(Refusal::bad_request(json!({ "base": [refused.reason()] }))),
    }
}

fn inputs(call: &Call) -> Result<BTreeMap<String, Value>, Refusal> {
    match call.params.get("inputs") {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(inputs)) => Ok(inputs.clone().into_iter().collect()),
        Some(_) => Err(Refusal::parameter("inputs is invalid")),
    }
}

/// `POST /projects/:id/pipeline`: with an access token alone.
pub(super) async fn create(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let ref_name = call.required("ref")?;
    let mut variables = Vec::new();
    match call.params.get("variables") {
        None => {}
        Some(Value::Array(given)) => {
            for variable in given {
                let text = |key: &str| variable.get(key).and_then(Value::as_str);
                let key = text("key").ok_or_else(|| Refusal::parameter("variables[0][key] is missing"))?;
                let value = text("value").unwrap_or_default();
                let file = match text("variable_type") {
                    None | Some("env_var") => false,
                    Some("file") => true,
                    Some(_) => {
                        return Err(Refusal::parameter(
                            "variables[0][variable_type] does not have a valid value",
                        ));
                    }
                };
                let variable = CiVariable::new(key, value);
                variables.push(if file { variable.file() } else { variable });
            }
        }
        Some(_) => return Err(Refusal::parameter("variables is invalid")),
    }
    let user = call.user(&caller)?;
    let request = PipelineRequest {
        variables,
        inputs: inputs(&call)?,
    };
    let draft = Draft {
        project: project.id,
        ref_name,
        user,
        source: Source::Api,
        request,
        before_sha: None,
        sha: None,
        source_job: None,
    };
    start(&call, draft).await
}

/// `POST /projects/:id/trigger/pipeline`: with a trigger token or a job token as the parameter `token`.
pub(super) async fn trigger(Path(id): Path<String>, call: Call) -> Answer {
    let ref_name = call.required("ref")?;
    trigger_at(&id, ref_name, &call).await
}

/// `POST /projects/:id/ref/:ref/trigger/pipeline`, the older address.
pub(super) async fn trigger_ref(Path((id, ref_name)): Path<(String, String)>, call: Call) -> Answer {
    trigger_at(&id, ref_name, &call).await
}

async fn trigger_at(id: &str, ref_name: String, call: &Call) -> Answer {
    let token = call.parameter_token()?;
    let mut variables = Vec::new();
    match call.params.get("variables") {
        None => {}
        Some(Value::Object(given)) => {
            for (key, value) in given {
                let value = value.as_str().ok_or_else(|| {
                    Refusal::bad_request("variables needs to be a map of key-valued strings")
                })?;
                variables.push(CiVariable::new(key, value));
            }
        }
        Some(_) => return Err(Refusal::parameter("variables is invalid")),
    }
    let (project, source, user, source_job) = {
        let state = call.hub.state();
        let project = state.project_by(id).ok_or_else(|| Refusal::not_found(""))?;
        match token {
            Some(Token::Trigger {
                project: bound,
                owner,
            }) if bound == project.id => (project.id, Source::Trigger, owner, None),
            Some(Token::Job { job }) => {
                let job = state.jobs.get(&job).ok_or_else(|| Refusal::not_found(""))?;
                if !job.runs() {
                    return Err(Refusal::message(StatusCode::UNAUTHORIZED, "Job is not running"));
                }
                let caller = Caller::Job {
                    job: job.id,
                    project: job.project,
                    user: job.user,
                };
                if !state.can_read(&caller, project) {
                    return Err(Refusal::not_found(""));
                }
                (project.id, Source::Pipeline, job.user, Some(job.id))
            }
            _ => return Err(Refusal::not_found("")),
        }
    };
    let payload = CiVariable::new(PAYLOAD, call.params.without_token().to_string()).file();
    variables.push(payload);
    let draft = Draft {
        project,
        ref_name,
        user,
        source,
        request: PipelineRequest {
            variables,
            inputs: inputs(call)?,
        },
        before_sha: None,
        sha: None,
        source_job,
    };
    start(call, draft).await
}

/// `GET /projects/:id/pipelines`: without child pipelines, unless `source` asks for these.
pub(super) async fn list(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(call.pipelines_for_job_tokens())?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let params = &call.params;
    let is = |key: &str, value: &str| params.text(key).is_none_or(|wanted| wanted == value);
    let in_scope = |pipeline: &Pipeline| match params.text("scope").as_deref() {
        Some("running") => pipeline.status == Status::Running,
        Some("pending") => pipeline.status == Status::Pending,
        Some("finished") => pipeline.status.is_finished(),
        Some("tags") => pipeline.tag,
        Some("branches") => !pipeline.tag,
        _ => true,
    };
    let mut found: Vec<Pipeline> = {
        let state = call.hub.state();
        let username = |id: u64| state.users.get(&id).map_or("", |user| user.username.as_str());
        let all = state.pipelines.values().filter(|pipeline| {
            pipeline.project == project.id
                && is("ref", &pipeline.ref_name)
                && is("sha", &pipeline.sha)
                && is("status", pipeline.status.as_str())
                && match params.text("source") {
                    Some(wanted) => wanted == pipeline.source.as_str(),
                    None => pipeline.source != Source::ParentPipeline,
                }
                && params
                    .text("name")
                    .is_none_or(|wanted| pipeline.name.as_ref() == Some(&wanted))
                && is("username", username(pipeline.user))
                && params
                    .flag("yaml_errors")
                    .is_none_or(|wanted| wanted == pipeline.yaml_errors.is_some())
                && in_scope(pipeline)
        });
        all.cloned().collect()
    };
    match params.text("order_by").as_deref() {
        None | Some("id") => {}
        Some("status") => found.sort_by_key(|pipeline| pipeline.status.as_str()),
        Some("ref") => found.sort_by_key(|pipeline| pipeline.ref_name.clone()),
        Some("updated_at") => found.sort_by_key(|pipeline| pipeline.updated_at),
        Some("user_id") => found.sort_by_key(|pipeline| pipeline.user),
        Some(_) => return Err(Refusal::parameter("order_by does not have a valid value")),
    }
    match params.text("sort").as_deref() {
        None | Some("desc") => found.reverse(),
        Some("asc") => {}
        Some(_) => return Err(Refusal::parameter("sort does not have a valid value")),
    }
    Ok(call.page(found, entities::pipeline_basic))
}

/// `GET /projects/:id/pipelines/latest`: of the newest commit of a branch.
pub(super) async fn latest(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let branch = call
        .params
        .text("ref")
        .unwrap_or_else(|| project.settings.default_branch.clone());
    let head = call.hub.repository(&project).branch(&branch).await;
    let found = {
        let state = call.hub.state();
        let of_head = |pipeline: &&Pipeline| {
            pipeline.project == project.id
                && pipeline.ref_name == branch
                && Some(&pipeline.sha) == head.as_ref()
        };
        state.pipelines.values().rev().find(of_head).cloned()
    };
    let found = found.ok_or_else(|| Refusal::forbidden(None))?;
    Ok(Json(entities::pipeline(&call.hub, &found)).into_response())
}

/// `GET /projects/:id/pipelines/:pipeline_id`.
pub(super) async fn show(Path((id, pipeline)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(call.pipelines_for_job_tokens())?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let pipeline = call.pipeline(&project, &pipeline)?;
    Ok(Json(entities::pipeline(&call.hub, &pipeline)).into_response())
}

/// `GET /projects/:id/pipelines/:pipeline_id/variables`.
pub(super) async fn variables(Path((id, pipeline)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let pipeline = call.pipeline(&project, &pipeline)?;
    let shown: Vec<Value> = pipeline
        .variables
        .iter()
        .map(|variable| {
            json!({
                "key": variable.key,
                "value": variable.value,
                "variable_type": if variable.file { "file" } else { "env_var" },
                "raw": false,
            })
        })
        .collect();
    Ok(Json(shown).into_response())
}

/// `POST /projects/:id/pipelines/:pipeline_id/cancel`: 200 whatever state the pipeline is in.
pub(super) async fn cancel(Path((id, pipeline)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let pipeline = call.pipeline(&project, &pipeline)?;
    scheduler::cancel_pipeline(&call.hub, pipeline.id);
    let pipeline = call.pipeline(&project, &pipeline.id.to_string())?;
    Ok(Json(entities::pipeline(&call.hub, &pipeline)).into_response())
}

/// `POST /projects/:id/pipelines/:pipeline_id/retry`: every failed and cancelled job again.
pub(super) async fn retry(Path((id, pipeline)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let user = call.user(&caller)?;
    let pipeline = call.pipeline(&project, &pipeline)?;
    let failed: Vec<u64> = {
        let state = call.hub.state();
        let jobs = state.latest_jobs_of(pipeline.id);
        jobs.filter(|job| matches!(job.status, Status::Failed | Status::Canceled))
            .map(|job| job.id)
            .collect()
    };
    for job in failed {
        // A job that started again by itself in this moment needs no retry.
        let _ = scheduler::retry(&call.hub, job, user);
    }
    let pipeline = call.pipeline(&project, &pipeline.id.to_string())?;
    Ok((
        StatusCode::CREATED,
        Json(entities::pipeline(&call.hub, &pipeline)),
    )
        .into_response())
}
