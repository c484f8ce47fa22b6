//! An Argo CD that shows what it is told to, or hangs where it is told to.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The commit that is waited for: that of the recorded answers.
const OURS: &str = "267e85da53a9edf6a2d5c03079f020a21e7eea61";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// With a stream.
    Streams,
    /// Without one.
    Answers,
    /// Never to anything.
    HangsAtOnce,
    /// Never to a refresh, nor to the stream.
    HangsLater,
    /// Never as git's repository.
    HangsAsRepository,
    /// Never as GitLab, when it is told the outcome.
    HangsAsGitLab,
}

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    pub(crate) url: String,
    show: watch::Sender<Arc<String>>,
    asked: watch::Sender<String>,
    serving: AbortHandle,
}

#[derive(Clone)]
struct Answers {
    state: watch::Receiver<Arc<String>>,
    asked: watch::Sender<String>,
    manner: Manner,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// One that shows an application which is synced and not healthy yet.
    pub(crate) async fn start(manner: Manner) -> Self {
        let (show, state) = watch::channel(recorded("deploy-3"));
        let asked = watch::Sender::new(String::new());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Answers {
            state,
            asked: asked.clone(),
            manner,
        };
        let routes = Router::new().fallback(answer).with_state(answers);
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Server {
            url,
            show,
            asked,
            serving: serving.abort_handle(),
        }
    }

    /// Shows a recorded answer from now on.
    pub(crate) fn show(&self, name: &str) {
        self.show.send_replace(recorded(name));
    }

    /// Resolves once a request was to a path with this in it.
    pub(crate) async fn is_asked(&self, what: &str) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| asked.contains(what)).await.unwrap();
    }
}

/// The binary, waiting for what the recorded answers are about.
pub(crate) fn tool() -> Command {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_argocd-wait"));
    let image = format!("registry.example.com/web@sha256:{}", "d".repeat(64));
    tool.env_clear()
        .args(["--application", "web-prod", "--revision", OURS, "--image", &image]);
    tool
}

fn recorded(name: &str) -> Arc<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    Arc::new(value.to_string())
}

async fn answer(State(server): State<Answers>, method: Method, uri: Uri) -> Response {
    let path = uri.path();
    server
        .asked
        .send_modify(|asked| asked.push_str(&format!("{method} {uri}\n")));
    let is_stream = path == "/api/v1/stream/applications";
    let hangs = match server.manner {
        Manner::Streams | Manner::Answers => false,
        Manner::HangsAtOnce => true,
        Manner::HangsLater => is_stream || uri.query().is_some_and(|query| query.contains("refresh")),
        Manner::HangsAsRepository => path.starts_with("/shop/env.git"),
        Manner::HangsAsGitLab => method == Method::PUT,
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    let state = server.state.borrow().clone();
    match path {
        "/api/v1/applications/web-prod" => Body::from(state.to_string()).into_response(),
        "/api/v4/projects/shop%2Fenv/deployments" => (
            StatusCode::CREATED,
            Body::from(json!({"id": 42, "iid": 7}).to_string()),
        )
            .into_response(),
        _ if is_stream && server.manner != Manner::Answers => {
            let lines = futures_util::stream::unfold((server.state, true), async |(mut state, first)| {
                if !first {
                    state.changed().await.ok()?;
                }
                let application: Value = serde_json::from_str(&state.borrow_and_update()).ok()?;
                let line = json!({"result": {"type": "MODIFIED", "application": application}});
                Some((
                    Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n"))),
                    (state, false),
                ))
            });
            Body::from_stream(lines).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
