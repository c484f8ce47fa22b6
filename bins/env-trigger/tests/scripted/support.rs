//! A GitLab that answers by script, and the binary run against it from outside.

use std::ops::Deref;

use serde_json::{Value, json};
use towpath_sandbox::scripted;
pub(crate) use towpath_sandbox::scripted::{ok, status, text};
use towpath_sandbox::tool_run::{Ran, Running, Tool};

/// Tokens that may appear nowhere.
pub(crate) const ACCESS: &str = "canary-access-token-4711";
pub(crate) const JOB: &str = "canary-job-token-4712";
pub(crate) const TRIGGER: &str = "canary-trigger-token-4713";

/// A GitLab of which routes are written below its API.
pub(crate) struct Scripted(scripted::Scripted);

impl Deref for Scripted {
    type Target = scripted::Scripted;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Scripted {
    pub(crate) async fn start() -> Self {
        Scripted(scripted::Scripted::start_below("/api/v4").await.unwrap())
    }

    /// The binary with its environment scrubbed and this server as its GitLab.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Trigger {
        Trigger::new(&format!("{}/api/v4", self.url), arguments)
    }
}

/// A run of the binary in the making.
pub(crate) struct Trigger(Tool);

impl Trigger {
    pub(crate) fn new(api: &str, arguments: &[&str]) -> Self {
        let tool = Tool::new(env!("CARGO_BIN_EXE_env-trigger"), &[ACCESS, JOB, TRIGGER]);
        let tool = tool.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Trigger(tool.env("CI_API_V4_URL", api).args(arguments))
    }

    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        Trigger(self.0.env(name, value))
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

    pub(crate) fn spawn(self) -> Running {
        self.0.spawn().unwrap()
    }

    pub(crate) async fn run(self) -> Ran {
        self.0.run().await.unwrap()
    }
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
