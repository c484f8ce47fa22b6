//! The REST API, version 4: routes and what the instance says of itself.

mod call;
mod commits;
mod deployments;
mod entities;
mod jobs;
mod merge_requests;
mod params;
mod pipelines;
mod repository;
mod terraform;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post, put};
use serde_json::{Value, json};

use self::call::{Call, JobTokens, Refusal};
use super::hub::Shared;
use super::settings::{Role, Scope, Visibility};
use super::tokens::Caller;
use super::{git_http, trouble};

pub(super) use self::terraform::StoredState;

/// What every handler returns.
type Answer = Result<Response, Refusal>;

/// Everything the instance answers.
pub(super) fn router(hub: Shared) -> Router {
    let of_project: [(&str, MethodRouter<Shared>); 44] = [
        ("", get(show_project)),
        ("/pipeline", post(pipelines::create)),
        ("/trigger/pipeline", post(pipelines::trigger)),
        ("/ref/{ref}/trigger/pipeline", post(pipelines::trigger_ref)),
        ("/pipelines", get(pipelines::list)),
        ("/pipelines/latest", get(pipelines::latest)),
        ("/pipelines/{pipeline}", get(pipelines::show)),
        ("/pipelines/{pipeline}/variables", get(pipelines::variables)),
        ("/pipelines/{pipeline}/jobs", get(jobs::of_pipeline)),
        ("/pipelines/{pipeline}/bridges", get(jobs::bridges)),
        ("/pipelines/{pipeline}/trigger_jobs", get(jobs::trigger_jobs)),
        ("/pipelines/{pipeline}/cancel", post(pipelines::cancel)),
        ("/pipelines/{pipeline}/retry", post(pipelines::retry)),
        ("/jobs", get(jobs::list)),
        ("/jobs/{job}", get(jobs::show)),
        ("/jobs/{job}/trace", get(jobs::trace)),
        ("/jobs/{job}/play", post(jobs::play)),
        ("/jobs/{job}/retry", post(jobs::retry)),
        ("/jobs/{job}/cancel", post(jobs::cancel)),
        ("/jobs/{job}/artifacts/{*path}", get(jobs::artifact)),
        ("/repository/tree", get(repository::tree)),
        ("/jobs/artifacts/{ref}/raw/{*path}", get(jobs::artifact_of_ref)),
        ("/repository/files/{path}", get(repository::file)),
        ("/repository/files/{path}/raw", get(repository::raw_file)),
        (
            "/repository/commits",
            get(repository::commits).post(commits::create),
        ),
        ("/repository/commits/{sha}", get(repository::commit)),
        ("/repository/commits/{sha}/diff", get(repository::diff)),
        ("/repository/branches", get(repository::branches)),
        (
            "/repository/branches/{branch}",
            get(repository::branch).delete(repository::delete_branch),
        ),
        ("/repository/compare", get(repository::compare)),
        ("/repository/tags/{tag}", get(repository::tag)),
        (
            "/merge_requests",
            get(merge_requests::list).post(merge_requests::create),
        ),
        (
            "/merge_requests/{iid}",
            get(merge_requests::show).put(merge_requests::update),
        ),
        ("/merge_requests/{iid}/merge", put(merge_requests::merge)),
        (
            "/merge_requests/{iid}/cancel_merge_when_pipeline_succeeds",
            post(merge_requests::cancel_auto_merge),
        ),
        (
            "/merge_requests/{iid}/notes",
            get(merge_requests::notes).post(merge_requests::add_note),
        ),
        ("/merge_requests/{iid}/pipelines", get(merge_requests::pipelines)),
        ("/deployments", get(deployments::list).post(deployments::create)),
        (
            "/deployments/{deployment}",
            get(deployments::show).put(deployments::update),
        ),
        (
            "/environments",
            get(deployments::environments).post(deployments::create_environment),
        ),
        (
            "/environments/{environment}",
            get(deployments::environment).put(deployments::update_environment),
        ),
        (
            "/environments/{environment}/stop",
            post(deployments::stop_environment),
        ),
        (
            "/terraform/state/{name}",
            get(terraform::read).post(terraform::write),
        ),
        (
            "/terraform/state/{name}/lock",
            post(terraform::lock).delete(terraform::lock),
        ),
    ];
    // Routes are not nested, so that a handler sees the whole address and can link to its next page.
    let api = of_project.into_iter().fold(Router::new(), |api, (path, route)| {
        api.route(&format!("/api/v4/projects/{{id}}{path}"), route)
    });
    api.route("/api/v4/version", get(version))
        .route("/api/v4/user", get(current_user))
        .route("/api/v4/job", get(jobs::own))
        .route("/oauth/discovery/keys", get(keys))
        .route("/.well-known/openid-configuration", get(discovery))
        .fallback(outside_api)
        .layer(from_fn_with_state(Arc::clone(&hub), trouble::pass))
        .with_state(hub)
}

/// The answer of the limit of requests of a user.
pub(super) fn throttled(limit: usize, wait: Duration) -> Response {
    Refusal::throttled(limit, wait).into_response()
}

/// `GET /<project>/-/raw/<ref>/<file>`, the page that shows a file as it is: of a public project, without a token. For
/// others GitLab asks for a login, which comes to a redirection.
async fn raw_page(hub: &Shared, path: &str) -> Option<Response> {
    let (project, rest) = path.trim_start_matches('/').split_once("/-/raw/")?;
    let project = hub.state().project_by(project).cloned();
    let Some(project) = project.filter(|project| project.settings.visibility == Visibility::Public) else {
        let login = [(header::LOCATION, format!("{}/users/sign_in", hub.url))];
        return Some((StatusCode::FOUND, login).into_response());
    };
    let repository = hub.repository(&project);
    // A ref may hold slashes: the shortest one that is there is meant.
    for (at, _) in rest.match_indices('/') {
        if let Some(content) = repository.file(&rest[..at], &rest[at + 1..]).await {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            return Some((kind, content).into_response());
        }
    }
    Some((StatusCode::NOT_FOUND, "404 Not Found\n").into_response())
}

/// Git, a file's raw page, or GitLab's page for an address that is not there.
async fn outside_api(State(hub): State<Shared>, request: Request) -> Response {
    /// The most bytes of one push or fetch request.
    const MAX_GIT_BODY: usize = 1 << 30;
    if request.uri().path().starts_with("/api/") {
        return Refusal::not_found("").into_response();
    }
    if request.method() == Method::GET
        && let Some(response) = raw_page(&hub, request.uri().path()).await
    {
        return response;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), MAX_GIT_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match git_http::answer(&hub, &parts.method, &parts.uri, &parts.headers, body).await {
        Some(response) => response.into_response(),
        None => (StatusCode::NOT_FOUND, "404 Not Found\n").into_response(),
    }
}

async fn version(call: Call) -> Answer {
    if matches!(call.caller(JobTokens::Ignored)?, Caller::Anonymous) {
        return Err(Refusal::unauthorized());
    }
    Ok(
        Json(json!({ "version": call.hub.settings.version.to_string(), "revision": "sandbox" }))
            .into_response(),
    )
}

async fn current_user(call: Call) -> Answer {
    let scopes = [Scope::Api, Scope::ReadApi, Scope::ReadUser];
    let caller = call.caller_with(JobTokens::Ignored, &scopes)?;
    let id = call.user(&caller)?;
    let mut shown = entities::user(&call.hub, id);
    let state = call.hub.state();
    if let (Some(user), Some(shown)) = (state.users.get(&id), shown.as_object_mut()) {
        shown.insert("email".into(), json!(user.email));
        shown.insert("bot".into(), json!(user.bot));
    }
    Ok(Json(shown).into_response())
}

async fn show_project(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Guest)?;
    Ok(Json(entities::project(&call.hub, &project)).into_response())
}

async fn keys(State(hub): State<Shared>) -> Response {
    Json(hub.settings.jwks.clone().unwrap_or_else(|| json!({ "keys": [] }))).into_response()
}

async fn discovery(State(hub): State<Shared>) -> Response {
    let issuer = hub.settings.issuer.as_ref().unwrap_or(&hub.url);
    let found: Value = json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/oauth/discovery/keys", hub.url),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    Json(found).into_response()
}
