//! `/projects/:id/terraform/state/:name`: where OpenTofu and Terraform keep their state with GitLab, by their `http` backend.
//!
//! Kept from GitLab's "Terraform State API" and the backend's own page: HTTP basic authentication, where a job token goes
//! with `gitlab-ci-token`; a Developer reads, a Maintainer writes and locks; a state that is not there is 404; whoever
//! writes while another holds the lock, or asks for a lock that is taken, gets 409 with what the lock says of itself.
//!
//! Not modelled: versions, lists and the removal of states, size limits.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use serde_json::Value;

use super::super::hub::Shared;
use super::super::settings::{Role, Scope};
use super::super::tokens::Caller;
use super::Answer;
use super::call::Refusal;

/// One state with its lock.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct StoredState {
    pub(in super::super) content: Option<Vec<u8>>,
    lock: Option<Value>,
}

/// The caller, once its role suffices, and the key of the state.
fn authorize(
    hub: &Shared,
    headers: &HeaderMap,
    (id, name): (String, String),
    role: Role,
    scopes: &[Scope],
) -> Result<(u64, String), Refusal> {
    let (user, token) = credentials(headers).ok_or_else(Refusal::unauthorized)?;
    let state = hub.state();
    let caller = state.caller(&token).ok_or_else(Refusal::unauthorized)?;
    if matches!(caller, Caller::Job { .. }) != (user == "gitlab-ci-token") {
        return Err(Refusal::unauthorized());
    }
    let project = state
        .project_by(&id)
        .filter(|project| state.can_read(&caller, project))
        .ok_or_else(|| Refusal::not_found("Project"))?;
    if !caller.has_scope(scopes) || !state.has_role(&caller, project, role) {
        return Err(Refusal::forbidden(None));
    }
    Ok((project.id, name))
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let basic = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(basic.strip_prefix("Basic ")?)
        .ok()?;
    let (user, token) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), token.to_owned()))
}

/// `GET`.
pub(super) async fn read(
    Path(of): Path<(String, String)>,
    State(hub): State<Shared>,
    headers: HeaderMap,
) -> Answer {
    let key = authorize(&hub, &headers, of, Role::Developer, &[Scope::Api, Scope::ReadApi])?;
    let state = hub.state();
    let content = state
        .terraform_states
        .get(&key)
        .and_then(|found| found.content.clone());
    let content = content.ok_or_else(|| Refusal::not_found(""))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], content).into_response())
}

/// `POST`, with the lock's `ID` in the query where there is a lock.
pub(super) async fn write(
    Path(of): Path<(String, String)>,
    State(hub): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let key = authorize(&hub, &headers, of, Role::Maintainer, &[Scope::Api])?;
    let given = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .find_map(|(name, value)| (name == "ID").then(|| value.into_owned()));
    let mut state = hub.state();
    let stored = state.terraform_states.entry(key).or_default();
    if let Some(lock) = &stored.lock
        && lock["ID"].as_str() != given.as_deref()
    {
        return Ok(locked(lock));
    }
    if body.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    stored.content = Some(body.to_vec());
    Ok(StatusCode::OK.into_response())
}

/// `POST` and `DELETE` of `/lock`.
pub(super) async fn lock(
    Path(of): Path<(String, String)>,
    State(hub): State<Shared>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let key = authorize(&hub, &headers, of, Role::Maintainer, &[Scope::Api])?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = hub.state();
    let stored = state.terraform_states.entry(key).or_default();
    match &stored.lock {
        Some(held) if held["ID"] != asked["ID"] => return Ok(locked(held)),
        _ => stored.lock = (method == Method::POST).then_some(asked),
    }
    Ok(StatusCode::OK.into_response())
}

fn locked(lock: &Value) -> Response {
    (StatusCode::CONFLICT, Json(lock)).into_response()
}
