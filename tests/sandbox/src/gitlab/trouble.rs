//! Trouble on the way between the API and its callers: answers that are slow, are lost, or never come from GitLab at all.
//!
//! A test says, request by request, what happens; and it can read afterwards which requests came. A lost answer is one
//! whose request was carried out: the connection breaks off in the middle of the body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::GitLab;
use super::hub::Shared;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is carried out and answered, and the answer breaks off.
    Lost,
    /// It is answered this much later.
    Slow(Duration),
    /// Something in front of GitLab answers with this status; GitLab never sees it.
    Status(u16),
    /// The limit of requests of a user turns it away for this many seconds ("Rate limit headers"); it is not carried out.
    Throttled(u64),
}

/// Decides by method and path, the part after `/api/v4`.
pub(super) type TroubleHook = Arc<dyn Fn(&str, &str) -> Option<Trouble> + Send + Sync>;

/// What happens between GitLab's look at `last_commit_id` and Gitaly's commit.
pub(super) type CommitHook = Arc<dyn Fn() + Send + Sync>;

/// An API request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// `GET`.
    pub method: String,
    /// The path after `/api/v4`, without the query.
    pub path: String,
    /// The status of the answer that GitLab gave, whatever became of it on the way.
    pub status: u16,
}

impl GitLab {
    /// Lets this decide from now on what goes wrong with each API request.
    pub fn trouble(&self, hook: impl Fn(&str, &str) -> Option<Trouble> + Send + Sync + 'static) {
        self.hub.state().trouble = Some(Arc::new(hook));
    }

    /// Lets this happen from now on in the middle of each commit over the API: GitLab has compared every `last_commit_id`,
    /// and Gitaly has not yet looked what the branch is at.
    pub fn before_commit(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.hub.state().before_commit = Some(Arc::new(hook));
    }

    /// The API requests that came so far, in order of their answers.
    pub fn requests(&self) -> Vec<Asked> {
        self.hub.state().requests.clone()
    }
}

/// Passes a request on, unless there is trouble.
pub(super) async fn pass(State(hub): State<Shared>, request: Request, next: Next) -> Response {
    let Some(path) = request.uri().path().strip_prefix("/api/v4").map(str::to_owned) else {
        return next.run(request).await;
    };
    let method = request.method().to_string();
    let at = Instant::now();
    let hook = hub.state().trouble.clone();
    let trouble = hook.and_then(|hook| hook(&method, &path));
    let response = match trouble {
        Some(Trouble::Status(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            (status, "<html><body>something in front of GitLab</body></html>").into_response()
        }
        Some(Trouble::Throttled(seconds)) => super::api::throttled(60, Duration::from_secs(seconds)),
        _ => next.run(request).await,
    };
    let status = response.status().as_u16();
    hub.state().requests.push(Asked {
        at,
        method,
        path,
        status,
    });
    match trouble {
        Some(Trouble::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            response
        }
        Some(Trouble::Lost) => broken(response).await,
        _ => response,
    }
}

/// The same answer, which ends before its length.
async fn broken(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let half: Bytes = body.slice(..body.len() / 2);
    let chunks = [Ok(half), Err(std::io::Error::other("the connection broke off"))];
    parts
        .headers
        .insert(header::CONTENT_LENGTH, body.len().max(1).into());
    Response::from_parts(parts, Body::from_stream(futures_util::stream::iter(chunks)))
}
