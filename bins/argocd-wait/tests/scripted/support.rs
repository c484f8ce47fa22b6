//! An Argo CD, a cluster and a GitLab that answer by script, and the binary run against them from outside.

use std::collections::{HashMap, VecDeque};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Tokens that may appear nowhere.
pub(crate) const ARGOCD: &str = "canary-argocd-token-4711";
pub(crate) const ACCOUNT: &str = "canary-service-account-4712";
pub(crate) const GITLAB: &str = "canary-gitlab-token-4713";

pub(crate) const OLD: &str = "a2c7c195a305f2b35f7b4b6e87bb85efe5cfd9d6";
pub(crate) const OURS: &str = "267e85da53a9edf6a2d5c03079f020a21e7eea61";
pub(crate) const LATER: &str = "f016fa7b4f92db6e21f3eefd6d1a08bae1295c51";

pub(crate) fn image(digit: char) -> String {
    format!(
        "registry.example.com/web@sha256:{}",
        String::from(digit).repeat(64)
    )
}

/// A recorded answer of a real Argo CD.
pub(crate) fn recorded(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// One answer: a status and pieces of a body, each after a pause; the connection breaks off after them when told so, and
/// stays open when told so.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<(Duration, Bytes)>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
    Open,
}

pub(crate) fn ok(body: &Value) -> Reply {
    status(200, body)
}

pub(crate) fn status(status: u16, body: &Value) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        pieces: vec![(Duration::ZERO, body.to_string().into())],
        end: End::Whole,
    }
}

/// A stream of these states, in both systems' way of writing, which then stays open.
pub(crate) fn stream(states: &[Value]) -> Reply {
    let lines = states
        .iter()
        .map(|state| json!({"result": {"type": "MODIFIED", "application": state}}));
    lines_of(lines)
}

pub(crate) fn lines_of(lines: impl Iterator<Item = Value>) -> Reply {
    Reply {
        pieces: lines
            .map(|line| (Duration::ZERO, format!("{line}\n").into()))
            .collect(),
        end: End::Open,
        ..ok(&Value::Null)
    }
}

impl Reply {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn broken(mut self) -> Self {
        self.end = End::Broken;
        self
    }

    /// Its first piece comes after a while.
    pub(crate) fn later(mut self) -> Self {
        if let Some((pause, _)) = self.pieces.first_mut() {
            *pause = Duration::from_secs(1);
        }
        self
    }

    /// In pieces of so many bytes.
    pub(crate) fn in_pieces(mut self, of: usize) -> Self {
        let whole: Vec<u8> = self.pieces.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        self.pieces = whole
            .chunks(of)
            .map(|chunk| (Duration::from_millis(1), Bytes::copy_from_slice(chunk)))
            .collect();
        self
    }

    pub(crate) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.pieces = vec![(Duration::ZERO, body.into())];
        self
    }
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `GET /api/v1/applications/web-prod?refresh=normal`.
    pub(crate) what: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Script {
    replies: HashMap<String, VecDeque<Reply>>,
    asked: Vec<Asked>,
}

/// The server. Each route answers its replies in turn, the last one for ever; other routes answer 404.
pub(crate) struct Scripted {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) const LOOK: &str = "GET /api/v1/applications/web-prod";
pub(crate) const REFRESH: &str = "GET /api/v1/applications/web-prod?refresh=normal";
pub(crate) const STREAM: &str = "GET /api/v1/stream/applications?name=web-prod";
pub(crate) const TREE: &str = "GET /api/v1/applications/web-prod/resource-tree";
pub(crate) const WINDOWS: &str = "GET /api/v1/applications/web-prod/syncwindows";
pub(crate) const SYNC: &str = "POST /api/v1/applications/web-prod/sync";

impl Scripted {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let router = axum::Router::new().fallback(answer).with_state(script.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Scripted { url, script, server }
    }

    /// An Argo CD whose first look and refresh show this state, and whose stream these.
    pub(crate) async fn showing(first: &Value, then: &[Value]) -> Self {
        let server = Self::start().await;
        server
            .on(LOOK, [ok(first)])
            .on(REFRESH, [ok(first)])
            .on(STREAM, [stream(then)]);
        server
    }

    pub(crate) fn on(&self, what: &str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        let mut script = self.script.lock().unwrap();
        script
            .replies
            .insert(what.to_owned(), replies.into_iter().collect());
        self
    }

    pub(crate) fn asked_for(&self, what: &str) -> Vec<Asked> {
        let mut asked = self.script.lock().unwrap().asked.clone();
        asked.retain(|asked| asked.what == what);
        asked
    }

    /// The binary, waiting for our commit and the image of digit d.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Tool {
        let tool = Tool::bare(arguments).env("ARGOCD_SERVER", &self.url);
        tool.env("ARGOCD_AUTH_TOKEN", ARGOCD)
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let what = format!("{} {}", parts.method, parts.uri.path_and_query().unwrap());
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization")
        .or(header("private-token"))
        .unwrap_or_default();
    let reply = {
        let mut script = script.lock().unwrap();
        script.asked.push(Asked {
            what: what.clone(),
            authorization: authorization.to_owned(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        match script.replies.get_mut(&what) {
            Some(replies) if replies.len() > 1 => replies.pop_front(),
            Some(replies) => replies.front().cloned(),
            None => None,
        }
    };
    let reply = reply.unwrap_or_else(|| status(404, &json!({"code": 5, "message": "Not Found"})));
    let mut response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let pieces = futures_util::stream::iter(reply.pieces).then(|(pause, bytes)| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(bytes)
    });
    let end = futures_util::stream::once(async move {
        match reply.end {
            End::Whole => Ok(Bytes::new()),
            End::Broken => Err(std::io::Error::other("scripted to break off")),
            End::Open => std::future::pending().await,
        }
    });
    response.body(Body::from_stream(pieces.chain(end))).unwrap()
}

/// A run of the binary in the making.
pub(crate) struct Tool(Command);

/// A run of the binary that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
}

impl Tool {
    pub(crate) fn bare(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_argocd-wait"));
        command
            .env_clear()
            .env("TOWPATH_APPLICATION", "web-prod")
            .env("ENV_COMMIT", OURS)
            .env("IMAGE_REF", image('d'))
            .env("TOWPATH_TIMEOUT", "60s")
            .env("TOWPATH_DEGRADED_FOR", "1s")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Tool(command)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn spawn(mut self) -> Child {
        self.0.spawn().unwrap()
    }

    pub(crate) async fn run(self) -> Ran {
        ended(self.spawn()).await
    }
}

/// Waits for a run to end, and looks for the canaries in what it printed.
pub(crate) async fn ended(child: Child) -> Ran {
    let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output())
        .await
        .expect("the run ends in time")
        .unwrap();
    let ran = Ran {
        code: output.status.code().expect("it ends by itself"),
        stderr: String::from_utf8(output.stderr).unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
    };
    for canary in [ARGOCD, ACCOUNT, GITLAB] {
        assert!(!ran.stderr.contains(canary), "a token is in the log: {ran}");
        assert!(!ran.stdout.contains(canary), "a token is in the report: {ran}");
    }
    ran
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Ran {
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Checks the code, the verdict and what is said.
    pub(crate) fn ends(&self, code: i32, verdict: &str, words: &[&str]) {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(self.report()["verdict"], verdict, "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self}");
        }
    }
}
