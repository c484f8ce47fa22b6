//! What Argo CD needs around it: a repository served by `git http-backend`, a registry that knows some digests, and a
//! client.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::routing::{any, head};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::AbortHandle;
use towpath_sandbox::argocd::{Access, ArgoCd, Credentials, Declaration, Pace, Settings, Source};
use towpath_sandbox::servers::http_client;
use towpath_sandbox::tools::{Progress, Tools};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Names and passwords that the servers ask for.
const USER: &str = "deploy";
pub(crate) const PASSWORD: &str = "a-password-of-this-test";
/// What an access token of GitLab logs in as.
const TOKEN_USER: &str = "oauth2";
/// The repository of the environment, and one from which an application may take another source.
const ENV: &str = "env";
const SETTINGS: &str = "settings";

/// A small world with one application, `web-prod`, of which nothing is committed yet.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) tools: Tools,
    pub(crate) registry: Registry,
    host: String,
    servers: Vec<AbortHandle>,
}

/// A registry that has the manifests it was told of.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) host: String,
    digests: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.iter().for_each(AbortHandle::abort);
    }
}

impl World {
    pub(crate) async fn new() -> World {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("served");
        for name in [ENV, SETTINGS] {
            let bare = root.join(format!("shop/{name}.git"));
            let bare = bare.to_str().unwrap();
            let init = ["init", "--quiet", "--initial-branch=main"];
            git(folder.path(), &[&init[..], &["--bare", bare]].concat()).await;
            git(folder.path(), &[&init[..], &[name]].concat()).await;
        }
        let (git_host, git_server) = serve(Router::new().fallback(any(git_backend)).with_state(root)).await;
        let digests = Arc::new(Mutex::new(BTreeSet::new()));
        let routes = Router::new().route("/v2/{name}/manifests/{reference}", head(manifest));
        let (host, registry_server) = serve(routes.with_state(digests.clone())).await;
        World {
            folder,
            tools,
            registry: Registry { host, digests },
            host: git_host,
            servers: vec![git_server, registry_server],
        }
    }

    /// What Argo CD is told of this world: one automated application and quick steps.
    pub(crate) fn settings(&self) -> Settings {
        let credentials = Credentials {
            username: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        Settings {
            git: self.tools.git.clone(),
            kubectl: self.tools.kubectl.clone(),
            folder: self.folder.path().to_owned(),
            world: None,
            applications: vec![Declaration {
                name: "web-prod".to_owned(),
                sources: vec![self.source("app/prod")],
                namespace: "default".to_owned(),
                automated: true,
            }],
            repositories: [(format!("http://{}/", self.host), credentials.clone())].into(),
            registries: [(self.registry.host.clone(), credentials)].into(),
            webhook_secret: None,
            // Nothing looks at the repository by itself, so that each test decides when.
            pace: Pace {
                step: Duration::from_millis(20),
                poll: Duration::from_secs(3600),
                pull_retry: Duration::from_millis(20),
                ..Pace::default()
            },
        }
    }

    /// A folder of the environment's repository.
    pub(crate) fn source(&self, path: &str) -> Source {
        self.source_of(ENV, path)
    }

    /// A folder of the other one.
    pub(crate) fn source_elsewhere(&self, path: &str) -> Source {
        self.source_of(SETTINGS, path)
    }

    fn source_of(&self, name: &str, path: &str) -> Source {
        Source {
            repo_url: format!("http://{}/shop/{name}.git", self.host),
            path: path.to_owned(),
            target_revision: "main".to_owned(),
        }
    }

    pub(crate) fn image(&self, digest: &str) -> String {
        format!("{}/web@{digest}", self.registry.host)
    }

    /// Commits the application with this digest and returns the commit.
    pub(crate) async fn commit_digest(&self, digest: &str) -> String {
        self.commit_image(&self.registry.host, digest).await
    }

    /// Commits the application with the image `web` of this registry and returns the commit.
    pub(crate) async fn commit_image(&self, host: &str, digest: &str) -> String {
        let deployment = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 1\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
             spec:\n      containers:\n      - name: web\n        image: {host}/web\n"
        );
        let kustomization =
            format!("resources: [../base]\nimages:\n- name: {host}/web\n  digest: {digest}\n");
        self.commit(&[
            ("app/base/deployment.yaml", &deployment),
            ("app/base/kustomization.yaml", "resources: [deployment.yaml]\n"),
            ("app/prod/kustomization.yaml", &kustomization),
        ])
        .await
    }

    /// Writes files, commits and pushes them to the environment's repository, and returns the commit.
    pub(crate) async fn commit(&self, files: &[(&str, &str)]) -> String {
        self.commit_to(ENV, files).await
    }

    /// The same in the other repository.
    pub(crate) async fn commit_elsewhere(&self, files: &[(&str, &str)]) -> String {
        self.commit_to(SETTINGS, files).await
    }

    async fn commit_to(&self, name: &str, files: &[(&str, &str)]) -> String {
        let work = self.folder.path().join(name);
        for (path, text) in files {
            let path = work.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let bare = self.folder.path().join(format!("served/shop/{name}.git"));
        git(&work, &["add", "--all"]).await;
        git(&work, &["commit", "--quiet", "--message=Change"]).await;
        git(&work, &["push", "--quiet", bare.to_str().unwrap(), "HEAD:main"]).await;
        git(&work, &["rev-parse", "HEAD"]).await
    }
}

impl Registry {
    /// From now on the registry has this manifest.
    pub(crate) fn push(&self, digest: &str) {
        self.digests.lock().unwrap().insert(digest.to_owned());
    }
}

/// Someone who may read and sync.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// The changes of one application, as they come.
pub(crate) struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(argocd: &ArgoCd) -> Client {
        let http = http_client().unwrap();
        let token = argocd.mint_token("ci", Access::Sync, PATIENCE);
        Client {
            http,
            url: argocd.url(),
            token,
        }
    }

    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client {
            http: self.http.clone(),
            url: self.url.clone(),
            token: token.to_owned(),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.request(Method::GET, path).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.request(Method::POST, path).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The application after a comparison with the repository as it is now.
    pub(crate) async fn refresh(&self) -> Value {
        let (status, application) = self.get("/api/v1/applications/web-prod?refresh=normal").await;
        assert_eq!(status, 200, "{application}");
        application
    }

    /// Follows the application; the first state is the present one.
    pub(crate) async fn watch(&self) -> Stream {
        let path = "/api/v1/stream/applications?name=web-prod";
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Stream {
            response,
            buffer: Vec::new(),
        }
    }
}

impl Stream {
    /// The next event's type and application.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        self.try_next().await.unwrap()
    }

    async fn try_next(&mut self) -> reqwest::Result<(String, Value)> {
        let end = loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            let chunk = self.response.chunk().await?;
            self.buffer.extend(chunk.expect("the stream goes on"));
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        let mut event: Value = serde_json::from_slice(&line).unwrap();
        let mut result = event["result"].take();
        let kind = result["type"].as_str().unwrap().to_owned();
        Ok((kind, result["application"].take()))
    }

    /// The states up to and including the first that fits.
    pub(crate) async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut states = Vec::new();
        loop {
            let (_, state) = match self.try_next().await {
                Ok(event) => event,
                Err(error) => panic!("{error} after {states:#?}"),
            };
            let last = fits(&state);
            states.push(state);
            if last {
                return states;
            }
        }
    }
}

/// A digest made of one digit.
pub(crate) fn digest(digit: char) -> String {
    format!("sha256:{}", String::from(digit).repeat(64))
}

/// Whether the application is as its repository says and well.
pub(crate) fn is_settled(state: &Value) -> bool {
    state["status"]["sync"]["status"] == "Synced" && state["status"]["health"]["status"] == "Healthy"
}

async fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "Test")
            .env(format!("GIT_{role}_EMAIL"), "test@example.com");
    }
    let output = command.output().await.unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn serve(routes: Router) -> (String, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
    (host, task.abort_handle())
}

fn is_allowed(headers: &HeaderMap) -> bool {
    let expected = |user| format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")));
    let sent = headers.get("authorization").map(|value| value.as_bytes());
    [USER, TOKEN_USER]
        .iter()
        .any(|user| sent == Some(expected(user).as_bytes()))
}

async fn manifest(
    State(digests): State<Arc<Mutex<BTreeSet<String>>>>,
    UrlPath((_, reference)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> StatusCode {
    match (is_allowed(&headers), digests.lock().unwrap().contains(&reference)) {
        (false, _) => StatusCode::UNAUTHORIZED,
        (true, false) => StatusCode::NOT_FOUND,
        (true, true) => StatusCode::OK,
    }
}

/// Runs `git http-backend` as the gateway it is (RFC 3875).
async fn git_backend(
    State(root): State<PathBuf>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let answer = |status: StatusCode| Response::builder().status(status);
    if !is_allowed(&headers) {
        return answer(StatusCode::UNAUTHORIZED).body(Body::empty()).unwrap();
    }
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&body).await.unwrap();
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let mut response = answer(StatusCode::OK);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap()),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(output[end + 4..].to_vec())).unwrap()
}
