//! Environments and deployments over the API; job tokens may do all of it.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;

use super::super::settings::Role;
use super::super::state::{Deployment, Environment, Project, now};
use super::call::{Call, JobTokens, Refusal};
use super::{Answer, entities};

const STATUSES: [&str; 7] = [
    "created", "running", "success", "failed", "canceled", "skipped", "blocked",
];

fn project_of(call: &Call, id: &str, role: Role) -> Result<(Project, Option<u64>), Refusal> {
    let caller = call.caller(JobTokens::Allowed)?;
    Ok((call.project(id, &caller, role)?, caller.user()))
}

fn status_of(call: &Call) -> Result<&'static str, Refusal> {
    let given = call.required("status")?;
    let known = STATUSES.into_iter().find(|status| *status == given);
    known.ok_or_else(|| Refusal::parameter("status does not have a valid value"))
}

/// `GET /projects/:id/deployments`.
pub(super) async fn list(Path(id): Path<String>, call: Call) -> Answer {
    let (project, _) = project_of(&call, &id, Role::Reporter)?;
    let params = &call.params;
    let (environment, status) = (params.text("environment"), params.text("status"));
    let mut found: Vec<Deployment> = {
        let state = call.hub.state();
        let name = |id: u64| {
            state
                .environments
                .get(&id)
                .map(|environment| environment.name.as_str())
        };
        let all = state.deployments.values().filter(|deployment| {
            deployment.project == project.id
                && environment
                    .as_deref()
                    .is_none_or(|wanted| name(deployment.environment) == Some(wanted))
                && status.as_deref().is_none_or(|wanted| deployment.status == wanted)
        });
        all.cloned().collect()
    };
    match params.text("order_by").as_deref() {
        None | Some("id" | "iid" | "created_at") => {}
        Some("updated_at") => found.sort_by_key(|deployment| deployment.updated_at),
        Some("finished_at") => {
            // GitLab orders by the end only what has ended well.
            if status.as_deref() != Some("success") {
                let text =
                    "400 Bad request - `finished_at` sort requires a filter on `status` to be `success`";
                return Err(Refusal::bad_request(text));
            }
            found.sort_by_key(|deployment| deployment.finished_at);
        }
        Some("ref") => found.sort_by_key(|deployment| deployment.ref_name.clone()),
        Some(_) => return Err(Refusal::parameter("order_by does not have a valid value")),
    }
    match params.text("sort").as_deref() {
        None | Some("asc") => {}
        Some("desc") => found.reverse(),
        Some(_) => return Err(Refusal::parameter("sort does not have a valid value")),
    }
    Ok(call.page(found, entities::deployment))
}

fn deployment_of(call: &Call, project: &Project, id: &str) -> Result<Deployment, Refusal> {
    let id: u64 = id
        .parse()
        .map_err(|_| Refusal::parameter("deployment_id is invalid"))?;
    let state = call.hub.state();
    let found = state
        .deployments
        .get(&id)
        .filter(|deployment| deployment.project == project.id);
    found.cloned().ok_or_else(|| Refusal::not_found("Deployment"))
}

/// `GET /projects/:id/deployments/:deployment_id`.
pub(super) async fn show(Path((id, deployment)): Path<(String, String)>, call: Call) -> Answer {
    let (project, _) = project_of(&call, &id, Role::Reporter)?;
    let deployment = deployment_of(&call, &project, &deployment)?;
    Ok(Json(entities::deployment(&call.hub, &deployment)).into_response())
}

/// `POST /projects/:id/deployments`.
pub(super) async fn create(Path(id): Path<String>, call: Call) -> Answer {
    let (project, user) = project_of(&call, &id, Role::Developer)?;
    let user = user.ok_or_else(Refusal::unauthorized)?;
    let (name, sha, ref_name) = (
        call.required("environment")?,
        call.required("sha")?,
        call.required("ref")?,
    );
    let status = status_of(&call)?;
    let tag = call
        .params
        .flag("tag")
        .ok_or_else(|| Refusal::parameter("tag is missing"))?;
    if call.hub.repository(&project).commit_id(&sha).await.is_none() {
        return Err(Refusal::bad_request(
            json!({ "sha": ["The commit does not exist"] }),
        ));
    }
    let deployment = {
        let mut state = call.hub.state();
        let environment = state.environment(project.id, &name, None, None);
        let id = state.next_id("deployment");
        let of = state
            .projects
            .get_mut(&project.id)
            .ok_or_else(|| Refusal::not_found("Project"))?;
        of.last_deployment_iid += 1;
        let deployment = Deployment {
            id,
            iid: of.last_deployment_iid,
            project: project.id,
            environment,
            ref_name,
            tag,
            sha,
            user,
            job: None,
            status,
            created_at: now(),
            updated_at: now(),
            finished_at: is_end(status).then(now),
        };
        state.deployments.insert(id, deployment.clone());
        deployment
    };
    call.hub.changed();
    Ok((
        StatusCode::CREATED,
        Json(entities::deployment(&call.hub, &deployment)),
    )
        .into_response())
}

fn is_end(status: &str) -> bool {
    matches!(status, "success" | "failed" | "canceled")
}

/// `PUT /projects/:id/deployments/:deployment_id`: a new status, for deployments that no job made.
pub(super) async fn update(Path((id, deployment)): Path<(String, String)>, call: Call) -> Answer {
    let (project, _) = project_of(&call, &id, Role::Developer)?;
    let deployment = deployment_of(&call, &project, &deployment)?;
    if deployment.job.is_some() {
        return Err(Refusal::forbidden(None));
    }
    let status = status_of(&call)?;
    if is_end(deployment.status) {
        let text = format!("Status cannot transition from {} to {status}", deployment.status);
        return Err(Refusal::bad_request(json!({ "status": [text] })));
    }
    let deployment = {
        let mut state = call.hub.state();
        let found = state
            .deployments
            .get_mut(&deployment.id)
            .ok_or_else(|| Refusal::not_found("Deployment"))?;
        found.status = status;
        found.updated_at = now();
        found.finished_at = is_end(status).then(now);
        found.clone()
    };
    call.hub.changed();
    Ok(Json(entities::deployment(&call.hub, &deployment)).into_response())
}

/// `GET /projects/:id/environments`.
pub(super) async fn environments(Path(id): Path<String>, call: Call) -> Answer {
    let (project, _) = project_of(&call, &id, Role::Reporter)?;
    let (name, search) = (call.params.text("name"), call.params.text("search"));
    let states = call.params.text("states");
    let found: Vec<Environment> = {
        let state = call.hub.state();
        let all = state.environments.values().filter(|environment| {
            let word = if environment.available {
                "available"
            } else {
                "stopped"
            };
            environment.project == project.id
                && name.as_ref().is_none_or(|wanted| *wanted == environment.name)
                && search
                    .as_ref()
                    .is_none_or(|wanted| environment.name.contains(wanted.as_str()))
                && states.as_ref().is_none_or(|wanted| wanted == word)
        });
        all.cloned().collect()
    };
    Ok(call.page(found, entities::environment))
}

fn environment_of(call: &Call, project: &Project, id: &str) -> Result<Environment, Refusal> {
    let id: u64 = id
        .parse()
        .map_err(|_| Refusal::parameter("environment_id is invalid"))?;
    let state = call.hub.state();
    let found = state
        .environments
        .get(&id)
        .filter(|environment| environment.project == project.id);
    found.cloned().ok_or_else(|| Refusal::not_found("Environment"))
}

fn change(call: &Call, id: &str, environment: &str, change: impl FnOnce(&mut Environment)) -> Answer {
    let (project, _) = project_of(call, id, Role::Developer)?;
    let found = environment_of(call, &project, environment)?;
    if let Some(found) = call.hub.state().environments.get_mut(&found.id) {
        change(found);
        found.updated_at = now();
    }
    call.hub.changed();
    let found = environment_of(call, &project, environment)?;
    Ok(Json(entities::environment(&call.hub, &found)).into_response())
}

/// `GET /projects/:id/environments/:environment_id`.
pub(super) async fn environment(Path((id, environment)): Path<(String, String)>, call: Call) -> Answer {
    let (project, _) = project_of(&call, &id, Role::Reporter)?;
    let found = environment_of(&call, &project, &environment)?;
    Ok(Json(entities::environment(&call.hub, &found)).into_response())
}

/// `POST /projects/:id/environments`.
pub(super) async fn create_environment(Path(id): Path<String>, call: Call) -> Answer {
    let (project, _) = project_of(&call, &id, Role::Developer)?;
    let name = call.required("name")?;
    let (tier, url) = (call.params.text("tier"), call.params.text("external_url"));
    let found = {
        let mut state = call.hub.state();
        let taken = state
            .environments
            .values()
            .any(|found| found.project == project.id && found.name == name);
        if taken {
            return Err(Refusal::bad_request(
                json!({ "name": ["has already been taken"] }),
            ));
        }
        let id = state.environment(project.id, &name, tier.as_deref(), url.as_deref());
        state.environments.get(&id).cloned()
    };
    call.hub.changed();
    let found = found.ok_or_else(|| Refusal::not_found("Environment"))?;
    Ok((
        StatusCode::CREATED,
        Json(entities::environment(&call.hub, &found)),
    )
        .into_response())
}

/// `PUT /projects/:id/environments/:environment_id`.
pub(super) async fn update_environment(
    Path((id, environment)): Path<(String, String)>,
    call: Call,
) -> Answer {
    let (tier, url) = (call.params.text("tier"), call.params.text("external_url"));
    change(&call, &id, &environment, |found| {
        found.external_url = url.or(found.external_url.take());
        if let Some(tier) = tier {
            found.tier = tier;
        }
    })
}

/// `POST /projects/:id/environments/:environment_id/stop`.
pub(super) async fn stop_environment(Path((id, environment)): Path<(String, String)>, call: Call) -> Answer {
    change(&call, &id, &environment, |found| found.available = false)
}
