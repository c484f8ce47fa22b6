//! An Argo CD, a cluster and a GitLab that answer by script, and the binary run against them from outside.

use std::ops::Deref;

use serde_json::{Value, json};
use towpath_sandbox::scripted;
use towpath_sandbox::scripted::Reply;
pub(crate) use towpath_sandbox::scripted::{lines, ok, status, text};
use towpath_sandbox::tool_run::{Ran, Running, Tool};

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

/// A stream of these states, which then stays open.
pub(crate) fn stream(states: &[Value]) -> Reply {
    let of_one = |state| json!({"result": {"type": "MODIFIED", "application": state}});
    lines(states.iter().map(of_one))
}

/// What a request authenticates itself by.
pub(crate) fn authorization(asked: &scripted::Asked) -> &str {
    let header = |name| asked.headers.get(name).map(String::as_str);
    header("authorization")
        .or(header("private-token"))
        .unwrap_or_default()
}

/// A server of which routes are written with their queries.
pub(crate) struct Scripted(scripted::Scripted);

impl Deref for Scripted {
    type Target = scripted::Scripted;

    fn deref(&self) -> &Self::Target {
        &self.0
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
        Scripted(scripted::Scripted::start().await.unwrap())
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

    /// The binary, waiting for our commit and the image of digit d.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Wait {
        let tool = Wait::bare(arguments).env("ARGOCD_SERVER", &self.url);
        tool.env("ARGOCD_AUTH_TOKEN", ARGOCD)
    }
}

/// A run of the binary in the making.
pub(crate) struct Wait(Tool);

impl Wait {
    pub(crate) fn bare(arguments: &[&str]) -> Self {
        let tool = Tool::new(env!("CARGO_BIN_EXE_argocd-wait"), &[ARGOCD, ACCOUNT, GITLAB]);
        let tool = tool
            .env("TOWPATH_APPLICATION", "web-prod")
            .env("ENV_COMMIT", OURS)
            .env("IMAGE_REF", image('d'))
            .env("TOWPATH_TIMEOUT", "60s")
            .env("TOWPATH_DEGRADED_FOR", "1s");
        Wait(tool.args(arguments))
    }

    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        Wait(self.0.env(name, value))
    }

    pub(crate) fn args(self, arguments: &[&str]) -> Self {
        Wait(self.0.args(arguments))
    }

    pub(crate) fn spawn(self) -> Running {
        self.0.spawn().unwrap()
    }

    pub(crate) async fn run(self) -> Ran {
        self.0.run().await.unwrap()
    }
}

/// Checks the code, the verdict and what is said.
pub(crate) trait Ends {
    fn ends(&self, code: i32, verdict: &str, words: &[&str]);
}

impl Ends for Ran {
    fn ends(&self, code: i32, verdict: &str, words: &[&str]) {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(self.report().unwrap()["verdict"], verdict, "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self}");
        }
    }
}
