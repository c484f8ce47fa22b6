//! The HTTP API: paths, queries and answers as Argo CD's gateway has them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;

use super::access::Caller;
use super::application::Application;
use super::controller::{Request, SyncOrder, SyncRefusal};
use super::refusal::Refusal;
use super::store::{Entry, Snapshot};
use super::{NAMESPACE, Server, VERSION, webhook};

/// Every route.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/api/version", get(version))
        .route("/api/webhook", post(webhook::receive))
        .route("/api/v1/applications", get(list))
        .route("/api/v1/applications/{name}", get(one))
        .route("/api/v1/applications/{name}/resource-tree", get(resource_tree))
        .route("/api/v1/applications/{name}/manifests", get(manifests))
        .route("/api/v1/applications/{name}/sync", post(sync))
        .route("/api/v1/stream/applications", get(watch))
        .fallback(async || Refusal::not_found("Not Found"))
        .with_state(server)
}

/// The parameters of the queries, as far as they matter here. Others are ignored, as the gateway does.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    #[serde(default)]
    name: String,
    #[serde(default)]
    app_namespace: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    projects: String,
    refresh: Option<String>,
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SyncBody {
    revision: Option<String>,
    prune: bool,
    dry_run: bool,
    app_namespace: String,
    project: String,
    resources: Vec<Value>,
    manifests: Vec<Value>,
    source_positions: Vec<i64>,
}

impl Wanted {
    fn project(&self) -> &str {
        if self.project.is_empty() {
            &self.projects
        } else {
            &self.project
        }
    }

    fn fits(&self, application: &Application) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        fits(&self.name, &application.metadata.name)
            && fits(&self.app_namespace, &application.metadata.namespace)
            && fits(self.project(), &application.spec.project)
    }
}

impl Server {
    /// Finds an application for a caller. As the real one, it denies permission alike to who may not look and where there is
    /// none of that name, so that names cannot be guessed, unless the caller names a project that it may look into.
    fn find(&self, caller: &Caller, name: &str, namespace: &str, project: &str) -> Result<&Entry, Refusal> {
        if !caller.may_look() {
            return Err(Refusal::denied("permission denied"));
        }
        let in_namespace = namespace.is_empty() || namespace == NAMESPACE;
        let entry = self.store.get(name).filter(|_| in_namespace);
        match entry {
            Some(entry) if project.is_empty() || project == entry.snapshot().application.spec.project => {
                Ok(entry)
            }
            _ if project.is_empty() => Err(Refusal::denied("permission denied")),
            _ => Err(Refusal::not_found(format!(
                "applications.argoproj.io {name:?} not found"
            ))),
        }
    }

    fn find_for(&self, headers: &HeaderMap, name: &str, wanted: &Wanted) -> Result<&Entry, Refusal> {
        let caller = self.accounts.caller(headers)?;
        self.find(&caller, name, &wanted.app_namespace, wanted.project())
    }
}

async fn version() -> Json<Value> {
    Json(json!({"Version": VERSION}))
}

async fn list(
    State(server): State<Arc<Server>>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let caller = server.accounts.caller(&headers)?;
    let snapshots = server.store.all().map(Entry::snapshot);
    // Who may not look sees an empty list.
    let items: Vec<Application> = snapshots
        .filter(|snapshot| caller.may_look() && wanted.fits(&snapshot.application))
        .map(|snapshot| {
            let mut application = snapshot.application.clone();
            // `resourceHealthSource` says so: the resources' health is in the tree, and a list does not look it up.
            application
                .status
                .resources
                .iter_mut()
                .for_each(|resource| resource.health = None);
            application
        })
        .collect();
    let version = server.store.resource_version().to_string();
    Ok(Json(
        json!({"metadata": {"resourceVersion": version}, "items": items}),
    ))
}

async fn one(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Application>, Refusal> {
    let entry = server.find_for(&headers, &name, &wanted)?;
    let Some(kind) = &wanted.refresh else {
        return Ok(Json(entry.snapshot().application.clone()));
    };
    let (answer, answered) = oneshot::channel();
    let hard = kind == "hard";
    ask(entry, Request::Refresh { hard, answer }, answered)
        .await
        .map(Json)
}

async fn resource_tree(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let entry = server.find_for(&headers, &name, &wanted)?;
    Ok(Json(entry.snapshot().tree.clone()))
}

async fn manifests(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let entry = server.find_for(&headers, &name, &wanted)?;
    let is_one = entry.snapshot().application.spec.source.is_some();
    let revisions = revisions(&query.unwrap_or_default(), is_one).map_err(Refusal::invalid_argument)?;
    let (answer, answered) = oneshot::channel();
    let manifests = ask(entry, Request::Manifests { revisions, answer }, answered)
        .await?
        .map_err(|error| Refusal::unknown(format!("error generating manifests: {error}")))?;
    let texts: Vec<String> = manifests
        .iter()
        .map(|manifest| manifest.object.to_string())
        .collect();
    Ok(Json(json!({"manifests": texts})))
}

/// The revisions that a query names, each with its source's position. `revision` is of the one source; of several, as many
/// `revisions` as `sourcePositions`.
fn revisions(query: &str, is_one: bool) -> Result<Vec<(i64, String)>, String> {
    let (mut positions, mut revisions) = (Vec::new(), Vec::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, is_one) {
            ("revision", true) if !value.is_empty() => {
                positions.push(1);
                revisions.push(value.into_owned());
            }
            ("revisions", false) => revisions.push(value.into_owned()),
            ("sourcePositions", false) => {
                let malformed = |error| format!("parsing field \"sourcePositions\": {error}");
                positions.push(value.parse::<i64>().map_err(malformed)?);
            }
            _ => {}
        }
    }
    if revisions.len() < positions.len() {
        return Err("fewer revisions than source positions".to_owned());
    }
    Ok(positions.into_iter().zip(revisions).collect())
}

async fn sync(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Application>, Refusal> {
    let caller: Caller = server.accounts.caller(&headers)?;
    let body: SyncBody = if body.is_empty() {
        SyncBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal::invalid_argument(error.to_string()))?
    };
    let entry = server.find(&caller, &name, &body.app_namespace, &body.project)?;
    caller.may_sync(&entry.snapshot().application.spec.project, &name)?;
    if !body.resources.is_empty() || !body.manifests.is_empty() {
        return Err(Refusal::unimplemented(
            "a sync of chosen resources or of local manifests",
        ));
    }
    if !body.source_positions.is_empty() {
        return Err(Refusal::unimplemented(
            "a sync of several sources to chosen revisions",
        ));
    }
    let order = SyncOrder {
        revision: body.revision.filter(|revision| !revision.is_empty()),
        prune: body.prune,
        dry_run: body.dry_run,
        username: caller.account,
    };
    let (answer, answered) = oneshot::channel();
    let begun = ask(entry, Request::Sync { order, answer }, answered).await?;
    begun.map(Json).map_err(|refusal| match refusal {
        SyncRefusal::AnotherInProgress => Refusal::failed_precondition(
            "error setting app operation: another operation is already in progress",
        ),
        SyncRefusal::AutomatedElsewhere { wanted, target } => Refusal::failed_precondition(format!(
            "Cannot sync to {wanted}: auto-sync currently set to {target}"
        )),
        SyncRefusal::Unresolved(error) => Refusal::failed_precondition(format!(
            "error resolving repo revision: rpc error: code = Unknown desc = {error}"
        )),
    })
}

/// What a stream still has to say: first what exists, then every change.
struct Events {
    existing: std::vec::IntoIter<Arc<Snapshot>>,
    changes: Option<broadcast::Receiver<Arc<Snapshot>>>,
    wanted: Wanted,
    caller: Caller,
}

async fn watch(
    State(server): State<Arc<Server>>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = server.accounts.caller(&headers)?;
    // Listening begins before looking, so that nothing is missed in between.
    let changes = server.store.changes();
    let from_the_start = wanted.resource_version.is_empty() || !wanted.name.is_empty();
    let snapshots = server.store.all().map(Entry::snapshot);
    let existing: Vec<_> = snapshots
        .filter(|snapshot| from_the_start && caller.may_look() && wanted.fits(&snapshot.application))
        .collect();
    let events = Events {
        existing: existing.into_iter(),
        changes,
        wanted,
        caller,
    };
    let lines = stream::unfold(events, |mut events| async {
        let line = events.next().await?;
        Some((Ok::<_, Infallible>(line), events))
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

impl Events {
    async fn next(&mut self) -> Option<String> {
        if let Some(snapshot) = self.existing.next() {
            return Some(line("ADDED", &snapshot));
        }
        let changes = self.changes.as_mut()?;
        loop {
            match changes.recv().await {
                Ok(snapshot) if self.caller.may_look() && self.wanted.fits(&snapshot.application) => {
                    return Some(line("MODIFIED", &snapshot));
                }
                // Who reads too slowly misses changes, and sees the later ones.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn line(kind: &str, snapshot: &Snapshot) -> String {
    format!(
        "{}\n",
        json!({"result": {"type": kind, "application": snapshot.application}})
    )
}

/// Hands a request to the application's controller and waits for the answer.
async fn ask<T>(entry: &Entry, request: Request, answer: oneshot::Receiver<T>) -> Result<T, Refusal> {
    let ended = || Refusal::unknown("the application controller has ended");
    entry.requests.send(request).map_err(|_| ended())?;
    answer.await.map_err(|_| ended())
}
