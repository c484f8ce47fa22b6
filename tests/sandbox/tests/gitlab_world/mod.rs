//! A GitLab stand-in with a maintainer and an API client, for the tests of `gitlab_*.rs`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "a helper of tests; clippy sees tests in test functions alone"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::process::Command;

use towpath_sandbox::gitlab::{GitLab, PipelineSnapshot, ProjectSettings, Role, Scope, Settings};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::tools::{Progress, Tools};

/// As long as anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

pub(crate) struct World {
    pub(crate) gitlab: GitLab,
    pub(crate) maintainer: u64,
    /// The maintainer's token, with every scope.
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
    guardian: Arc<Guardian>,
}

impl World {
    pub(crate) async fn start() -> World {
        World::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> World {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        let own = std::env::var_os("PATH").unwrap();
        let folders = [
            tools.bin_dir().to_owned(),
            tools.node.parent().unwrap().to_owned(),
        ];
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&own))).unwrap();
        let mut settings = Settings::new(guardian.dir().join("gitlab"), &tools.gitlab_ci_local, path);
        let template = Arc::new(guardian);
        let hook = Arc::clone(&template);
        settings.command = Arc::new(move |program| hook.command(program));
        change(&mut settings);
        let gitlab = GitLab::start(settings).await.unwrap();
        let maintainer = gitlab.add_user("maintainer");
        let token = gitlab
            .personal_access_token(maintainer, &[Scope::Api, Scope::WriteRepository])
            .unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        World {
            gitlab,
            maintainer,
            token,
            http,
            guardian: template,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.guardian.dir()
    }

    /// For servers beside it.
    pub(crate) fn guardian(&self) -> &Guardian {
        &self.guardian
    }

    /// A project whose maintainer is the world's.
    pub(crate) async fn project(&self, path: &str, settings: ProjectSettings) -> u64 {
        let id = self.gitlab.create_project(path, settings).await.unwrap();
        self.gitlab
            .add_member(id, self.maintainer, Role::Maintainer)
            .unwrap();
        id
    }

    /// A project with files on its default branch, pushed without a pipeline.
    pub(crate) async fn project_with(
        &self,
        path: &str,
        settings: ProjectSettings,
        files: &[(&str, &str)],
    ) -> u64 {
        let id = self.project(path, settings).await;
        self.push(path, "main", files, &["-o", "ci.skip"]).await;
        id
    }

    /// Commits files on top of a branch and pushes them with real git; returns the commit.
    pub(crate) async fn push(
        &self,
        path: &str,
        branch: &str,
        files: &[(&str, &str)],
        options: &[&str],
    ) -> String {
        let clone = self.clone_of(path, branch).await;
        for (name, content) in files {
            let file = clone.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        self.git(&clone, &["add", "--all"]).await.unwrap();
        self.git(&clone, &["commit", "--quiet", "--message", "Change files"])
            .await
            .unwrap();
        let target = format!("HEAD:refs/heads/{branch}");
        let mut arguments = vec!["push", "--quiet"];
        arguments.extend(options);
        arguments.extend(["origin", &target]);
        self.git(&clone, &arguments).await.unwrap();
        self.git(&clone, &["rev-parse", "HEAD"]).await.unwrap()
    }

    /// A clone of a branch, or an empty one that becomes it.
    pub(crate) async fn clone_of(&self, path: &str, branch: &str) -> PathBuf {
        let clones = self.folder().join("clones");
        std::fs::create_dir_all(&clones).unwrap();
        let clone = tempfile::tempdir_in(&clones).unwrap().keep();
        let url = self.gitlab.clone_url(path);
        self.git(&clone, &["clone", "--quiet", &url, "."]).await.unwrap();
        let remote = format!("origin/{branch}");
        let switched = self
            .git(&clone, &["checkout", "--quiet", "-B", branch, &remote])
            .await;
        if switched.is_err() {
            self.git(&clone, &["checkout", "--quiet", "-B", branch])
                .await
                .unwrap();
        }
        clone
    }

    /// Runs git as the maintainer.
    pub(crate) async fn git(&self, folder: &Path, arguments: &[&str]) -> Result<String, String> {
        self.git_as(&self.token, folder, arguments).await
    }

    /// Runs git with a token in the environment, where no process list shows it.
    pub(crate) async fn git_as(
        &self,
        token: &str,
        folder: &Path,
        arguments: &[&str],
    ) -> Result<String, String> {
        let user = if token.starts_with("glcbt-") {
            "gitlab-ci-token"
        } else {
            "anyone"
        };
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {basic}"))
            .stdin(Stdio::null());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "A Person")
                .env(format!("GIT_{role}_EMAIL"), "person@example.test");
        }
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> Response {
        let url = format!("{}{path}", self.gitlab.api_url());
        let header = if token.starts_with("glcbt-") {
            "JOB-TOKEN"
        } else {
            "PRIVATE-TOKEN"
        };
        let mut request = self.http.request(method, url);
        if !token.is_empty() {
            request = request.header(header, token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.call(Method::GET, path, &self.token, Value::Null).await).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.call(Method::POST, path, &self.token, body).await).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.call(Method::PUT, path, &self.token, body).await).await
    }

    /// The pipeline of a commit, once it has ended.
    pub(crate) async fn finished(&self, project: &str, sha: &str) -> PipelineSnapshot {
        let found = self
            .gitlab
            .wait_for_pipeline(project, |found| found.sha == sha, LIMIT)
            .await
            .unwrap();
        self.gitlab.wait_until_finished(found.id, LIMIT).await.unwrap()
    }
}

pub(crate) async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

/// All logs of a pipeline, for the message of a failed check.
pub(crate) fn logs(pipeline: &PipelineSnapshot) -> String {
    let logs = pipeline
        .jobs
        .iter()
        .map(|job| format!("--- {} ({})\n{}", job.name, job.status.as_str(), job.trace));
    format!(
        "{:?} {:?}\n{}",
        pipeline.status,
        pipeline.yaml_errors,
        logs.collect::<String>()
    )
}

/// Files below a folder that hold one of these texts.
pub(crate) fn files_with(folder: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_with(&entry.path(), texts));
        } else {
            let content = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            // The repository itself says what its script compares with.
            if !entry.path().ends_with(".gitlab-ci.yml") && texts.iter().any(|text| content.contains(text)) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Waits until a process has ended.
pub(crate) async fn ended(process: &str) {
    let ended = async {
        while is_alive(process) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, ended)
        .await
        .expect("a process outlived its job");
}

/// Whether a process runs; one that ended and waits to be reaped does not.
fn is_alive(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
