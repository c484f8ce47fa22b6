//! A GitLab that answers by script, and the binary run against it from outside.

use std::collections::{HashMap, VecDeque};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Tokens that may appear nowhere.
pub(crate) const ACCESS: &str = "canary-access-token-4711";
pub(crate) const JOB: &str = "canary-job-token-4712";
pub(crate) const TRIGGER: &str = "canary-trigger-token-4713";

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    broken: bool,
    delay: Duration,
}

/// A JSON answer with status 200.
pub(crate) fn ok(body: Value) -> Reply {
    status(200, body)
}

/// A JSON answer.
pub(crate) fn status(status: u16, body: Value) -> Reply {
    text(status, &body.to_string())
}

/// An answer that is no JSON.
pub(crate) fn text(status: u16, body: &str) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: body.to_owned(),
        broken: false,
        delay: Duration::ZERO,
    }
}

impl Reply {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The connection breaks off in the middle of the body.
    pub(crate) fn broken(mut self) -> Self {
        self.broken = true;
        self
    }

    pub(crate) fn slow(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `POST /projects/group%2Fenv/pipeline`.
    pub(crate) what: String,
    pub(crate) query: String,
    pub(crate) headers: HashMap<String, String>,
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

impl Scripted {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let router = axum::Router::new().fallback(answer).with_state(script.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Scripted { url, script, server }
    }

    /// `what` is a method and a path below the API's, or below the server's when it starts with two slashes.
    pub(crate) fn on(&self, what: &str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        let mut script = self.script.lock().unwrap();
        script
            .replies
            .insert(what.to_owned(), replies.into_iter().collect());
        self
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    pub(crate) fn asked_for(&self, what: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.what == what);
        asked
    }

    /// The binary with its environment scrubbed and this server as its GitLab.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Tool {
        Tool::new(&format!("{}/api/v4", self.url), arguments)
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path();
    let path = path
        .strip_prefix("/api/v4")
        .map_or(format!("/{path}"), str::to_owned);
    let what = format!("{} {path}", parts.method);
    let headers = parts.headers.iter();
    let reply = {
        let mut script = script.lock().unwrap();
        script.asked.push(Asked {
            what: what.clone(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
                .collect(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        match script.replies.get_mut(&what) {
            Some(replies) if replies.len() > 1 => replies.pop_front(),
            Some(replies) => replies.front().cloned(),
            None => None,
        }
    };
    let reply = reply.unwrap_or_else(|| status(404, json!({ "message": "404 Not Found" })));
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    if reply.broken {
        let start = Bytes::from(reply.body[..reply.body.len() / 2].to_owned());
        let chunks = vec![Ok(start), Err(std::io::Error::other("scripted to break off"))];
        return response
            .header(header::CONTENT_LENGTH, reply.body.len())
            .body(Body::from_stream(futures_util::stream::iter(chunks)))
            .unwrap();
    }
    response.body(Body::from(reply.body)).unwrap()
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
    pub(crate) fn new(api: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env-trigger"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CI_API_V4_URL", api)
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

    /// With an access token, and a commit so that there is a key.
    pub(crate) fn with_access_token(self) -> Self {
        self.env("TOWPATH_GITLAB_TOKEN", ACCESS).for_a_commit()
    }

    /// As in a job, with the job token alone.
    pub(crate) fn with_job_token(self) -> Self {
        self.env("CI_JOB_TOKEN", JOB).for_a_commit()
    }

    fn for_a_commit(self) -> Self {
        self.env("CI_PROJECT_PATH", "group/image")
            .env("CI_COMMIT_SHA", "0123456789abcdef0123456789abcdef01234567")
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
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .expect("the run ends in time")
        .unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    let code = output.status.code();
    let ran = Ran {
        code: code.unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stderr: String::from_utf8(output.stderr).unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
    };
    for canary in [ACCESS, JOB, TRIGGER] {
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
}

/// Sends a signal to a run.
pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it runs").to_string();
    let sent = Command::new("kill")
        .args(["-s", name, &id])
        .status()
        .await
        .unwrap();
    assert!(sent.success());
}

/// A job as the API shows it.
pub(crate) fn job(id: u64, name: &str, state: &str, pipeline: &str) -> Value {
    json!({
        "id": id, "name": name, "stage": "deploy", "status": state, "allow_failure": false,
        "duration": if state == "success" { json!(1.25) } else { Value::Null },
        "web_url": format!("https://git.example.com/jobs/{id}"),
        "pipeline": {"id": 12, "status": pipeline, "web_url": "https://git.example.com/pipelines/12"},
    })
}

/// A pipeline as the API shows it.
pub(crate) fn pipeline(id: u64, state: &str) -> Value {
    json!({
        "id": id, "status": state, "ref": "main", "source": "api", "name": null,
        "web_url": format!("https://git.example.com/pipelines/{id}"),
    })
}
