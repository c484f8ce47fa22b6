//! The API's requests and refusals.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shares};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::state::{Busy, Shared, State};

type Answer = Result<Response, Box<Response>>;

/// What a request wants to do with keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Read,
    Write,
}

pub(super) async fn create(Shares(shared): Shares<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    answered((|| {
        let mut state = shared.state();
        allowed(&mut state, &headers, Wish::Write)?;
        let body = document(&body)?;
        let named = |name: &str| body[name].as_str().filter(|id| !id.is_empty());
        let application_id = match (named("application_id"), named("user_id")) {
            (Some(id), None) => id,
            (None, Some(_)) => {
                // Nobody makes keys for another person, whatever they may do; and no person asks here.
                return Err(denied("write"));
            }
            (Some(_), Some(_)) => return Err(invalid("user_id", "excludes application_id")),
            (None, None) => return Err(invalid("application_id", "is required")),
        };
        if state.application(application_id).is_none() {
            return Err(refusal(
                StatusCode::NOT_FOUND,
                json!({"type": "not_found", "resource": "application", "resource_id": application_id,
                       "message": "resource is not found"}),
            ));
        }
        let description = described(&body)?;
        let end = end(&state, &body["expires_at"])?;
        if state.is_full(application_id) {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                json!({"type": "quotas_exceeded", "message": "quota(s) exceeded for this resource",
                       "details": [{"resource": "IamApiKeys", "quota": 0, "current": 0}]}),
            ));
        }
        let key = state.new_key(
            application_id,
            &description,
            end,
            body["default_project_id"].as_str(),
        );
        Ok(Json(key.document(true)).into_response())
    })())
}

pub(super) async fn list(
    Shares(shared): Shares<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    answered((|| {
        let mut state = shared.state();
        allowed(&mut state, &headers, Wish::Read)?;
        let number = |name: &str, otherwise: usize, most: usize| match query.get(name) {
            None => Ok(otherwise),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| invalid(name, "is out of range")),
        };
        let page = number("page", 1, usize::MAX)?;
        let size = number("page_size", 20, 100)?;
        let mut keys = state.all_seen();
        if let Some(bearer) = query.get("bearer_id") {
            keys.retain(|key| key.application_id == *bearer);
        }
        if let Some(expired) = query.get("expired") {
            let now = state.now();
            keys.retain(|key| key.ended(now) == (expired == "true"));
        }
        if let Some(description) = query.get("description") {
            keys.retain(|key| key.description.contains(description.as_str()));
        }
        keys.sort_by_key(|key| key.created_at);
        if query
            .get("order_by")
            .is_some_and(|order| order == "created_at_desc")
        {
            keys.reverse();
        }
        let total = keys.len();
        let shown: Vec<Value> = keys
            .iter()
            .skip(size.saturating_mul(page - 1))
            .take(size)
            .map(|key| key.document(false))
            .collect();
        Ok(Json(json!({"api_keys": shown, "total_count": total})).into_response())
    })())
}

pub(super) async fn show(
    Shares(shared): Shares<Arc<Shared>>,
    headers: HeaderMap,
    Path(access_key): Path<String>,
) -> Response {
    answered((|| {
        let mut state = shared.state();
        allowed(&mut state, &headers, Wish::Read)?;
        let key = state.seen(&access_key).ok_or_else(|| missing(&access_key))?;
        Ok(Json(key.document(false)).into_response())
    })())
}

pub(super) async fn update(
    Shares(shared): Shares<Arc<Shared>>,
    headers: HeaderMap,
    Path(access_key): Path<String>,
    body: Bytes,
) -> Response {
    answered((|| {
        let mut state = shared.state();
        allowed(&mut state, &headers, Wish::Write)?;
        let body = document(&body)?;
        let description = match body["description"] {
            Value::Null => None,
            _ => Some(described(&body)?),
        };
        let end = match body["expires_at"] {
            Value::Null => None,
            ref end_text => end(&state, end_text)?,
        };
        let changed = state.change(&access_key, |key| {
            if let Some(description) = description {
                key.description = description;
            }
            if end.is_some() {
                key.expires_at = end;
            }
        });
        let key = changed.ok_or_else(|| missing(&access_key))?;
        Ok(Json(key.document(false)).into_response())
    })())
}

pub(super) async fn delete(
    Shares(shared): Shares<Arc<Shared>>,
    headers: HeaderMap,
    Path(access_key): Path<String>,
) -> Response {
    answered((|| {
        let mut state = shared.state();
        allowed(&mut state, &headers, Wish::Write)?;
        if !state.delete(&access_key) {
            return Err(missing(&access_key));
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    })())
}

pub(super) async fn elsewhere() -> Response {
    *refusal(
        StatusCode::NOT_FOUND,
        json!({"type": "not_found", "message": "route not found"}),
    )
}

fn answered(answer: Answer) -> Response {
    answer.unwrap_or_else(|refusal| *refusal)
}

/// Who asks, and may they?
fn allowed(state: &mut State, headers: &HeaderMap, wish: Wish) -> Result<(), Box<Response>> {
    if let Some(busy) = state.turn_away() {
        let (status, kind) = match busy {
            Busy::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            Busy::Changing => (StatusCode::CONFLICT, "transient_state"),
        };
        let mut response = refusal(status, json!({"type": kind, "message": "try again later"}));
        response
            .headers_mut()
            .insert("retry-after", axum::http::HeaderValue::from_static("0"));
        return Err(response);
    }
    let token = headers.get("x-auth-token").and_then(|token| token.to_str().ok());
    // A server that has not heard of a key cannot tell it from a wrong one.
    let bearer = token.map_or(Err("invalid_argument"), |token| state.bearer(token));
    let application_id = bearer.map_err(|reason| {
        refusal(
            StatusCode::UNAUTHORIZED,
            json!({"type": "denied_authentication", "method": "api_key", "reason": reason,
                   "message": "authentication is denied"}),
        )
    })?;
    let may = state
        .application(&application_id)
        .is_some_and(|application| application.manages || application.reads && wish == Wish::Read);
    if may {
        return Ok(());
    }
    Err(denied(if wish == Wish::Write { "write" } else { "read" }))
}

fn denied(action: &str) -> Box<Response> {
    refusal(
        StatusCode::FORBIDDEN,
        json!({"type": "permissions_denied", "message": "insufficient permissions",
               "details": [{"resource": "iam_api_key", "action": action}]}),
    )
}

/// Tells the time by this server's clock with every answer.
pub(super) async fn dated(Shares(shared): Shares<Arc<Shared>>, mut response: Response) -> Response {
    let now = shared.state().now();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    if let Some(value) = date.ok().and_then(|date| date.parse().ok()) {
        response.headers_mut().insert("date", value);
    }
    response
}

fn document(body: &Bytes) -> Result<Value, Box<Response>> {
    serde_json::from_slice(body).map_err(|_| invalid("body", "is no JSON"))
}

fn described(body: &Value) -> Result<String, Box<Response>> {
    let description = body["description"].as_str().unwrap_or_default();
    if description.chars().count() > 200 {
        return Err(invalid("description", "is longer than 200 characters"));
    }
    Ok(description.to_owned())
}

fn end(state: &State, text: &Value) -> Result<Option<Timestamp>, Box<Response>> {
    let end = match text.as_str() {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| invalid("expires_at", "is no RFC 3339 date"))?,
        ),
    };
    match state.refuses_end(end) {
        Some(why) => Err(invalid("expires_at", why)),
        None => Ok(end),
    }
}

fn invalid(argument: &str, why: &str) -> Box<Response> {
    refusal(
        StatusCode::BAD_REQUEST,
        json!({"type": "invalid_arguments", "message": "invalid argument(s)",
               "details": [{"argument_name": argument, "reason": "constraint", "help_message": why}]}),
    )
}

fn missing(access_key: &str) -> Box<Response> {
    refusal(
        StatusCode::NOT_FOUND,
        json!({"type": "not_found", "resource": "api_key", "resource_id": access_key,
               "message": "resource is not found"}),
    )
}

fn refusal(status: StatusCode, body: Value) -> Box<Response> {
    Box::new((status, Json(body)).into_response())
}
