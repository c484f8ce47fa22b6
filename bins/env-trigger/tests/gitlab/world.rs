//! The GitLab stand-in with two projects, `group/image` and `group/env`, and a maintainer of both.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};
use towpath::deadline::Deadline;
use towpath::http::{Client, Settings as HttpSettings, header::HeaderName};
use towpath::secret::Secret;
use towpath_sandbox::gitlab::{
    CiVariable, GitLab, PipelineRequest, PipelineSnapshot, ProjectSettings, Role, Scope, Settings,
};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::tools::{Progress, Tools};

/// As long as anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) gitlab: GitLab,
    pub(crate) maintainer: u64,
    /// The maintainer's access token.
    pub(crate) token: String,
    pub(crate) image: u64,
    pub(crate) env: u64,
    _guardian: Arc<Guardian>,
}

/// A run of the binary that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// A world whose env project has this configuration.
    pub(crate) async fn with_env(config: &str) -> World {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Arc::new(Guardian::start().unwrap());
        let own = std::env::var_os("PATH").unwrap();
        let folders = [
            tools.bin_dir().to_owned(),
            tools.node.parent().unwrap().to_owned(),
        ];
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&own))).unwrap();
        let mut settings = Settings::new(guardian.dir().join("gitlab"), &tools.gitlab_ci_local, path);
        let hook = Arc::clone(&guardian);
        settings.command = Arc::new(move |program| hook.command(program));
        let gitlab = GitLab::start(settings).await.unwrap();
        let maintainer = gitlab.add_user("maintainer");
        let token = gitlab.personal_access_token(maintainer, &[Scope::Api]).unwrap();
        let mut world = World {
            gitlab,
            maintainer,
            token,
            image: 0,
            env: 0,
            _guardian: guardian,
        };
        let tool = ProjectSettings {
            variables: vec![CiVariable::new("TOOL", env!("CARGO_BIN_EXE_env-trigger"))],
            ..ProjectSettings::default()
        };
        world.image = world.project("group/image", tool).await;
        world.env = world.project("group/env", ProjectSettings::default()).await;
        world.commit(world.env, "main", config).await;
        world
    }

    async fn project(&self, path: &str, settings: ProjectSettings) -> u64 {
        let id = self.gitlab.create_project(path, settings).await.unwrap();
        self.gitlab
            .add_member(id, self.maintainer, Role::Maintainer)
            .unwrap();
        id
    }

    /// Adds `group/infra` with this configuration.
    pub(crate) async fn infra(&self, config: &str) {
        let id = self.project("group/infra", ProjectSettings::default()).await;
        self.commit(id, "main", config).await;
    }

    /// Puts a configuration on a branch, without a pipeline.
    pub(crate) async fn commit(&self, project: u64, branch: &str, config: &str) {
        let body = json!({
            "branch": branch, "commit_message": "Add the pipeline [skip ci]",
            "actions": [{"action": "create", "file_path": ".gitlab-ci.yml", "content": config}],
        });
        self.post(&format!("projects/{project}/repository/commits"), body)
            .await;
    }

    async fn post(&self, path: &str, body: serde_json::Value) {
        let client = Client::new(HttpSettings::new("gitlab"), Deadline::after(LIMIT)).unwrap();
        let url = format!("{}/{path}", self.gitlab.api_url()).parse().unwrap();
        let token = Secret::new(self.token.clone());
        let request = client.post(url).json(&body);
        let request = request.secret_header(HeaderName::from_static("private-token"), &token);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text(4096).await);
    }

    /// Runs the binary in a job of the image project, as a template would.
    pub(crate) async fn in_a_job(&self, arguments: &str) -> PipelineSnapshot {
        let config = format!("promote:\n  script:\n    - \"$TOOL {arguments}\"\n");
        self.commit(self.image, "main", &config).await;
        let request = PipelineRequest::default();
        let id = self
            .gitlab
            .run_pipeline(self.image, self.maintainer, "main", request)
            .await
            .unwrap();
        let ended = self.gitlab.wait_until_finished(id, LIMIT).await.unwrap();
        let trace = &ended.job("promote").unwrap().trace;
        assert!(!trace.contains("glcbt-"), "the job token is in the log: {trace}");
        ended
    }

    /// The binary, by hand, with the maintainer's token.
    pub(crate) fn by_hand(&self, arguments: &[&str]) -> Command {
        self.by_hand_as(&self.token, arguments)
    }

    pub(crate) fn by_hand_as(&self, token: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env-trigger"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("CI_API_V4_URL", self.gitlab.api_url())
            .env("TOWPATH_GITLAB_TOKEN", token)
            .env("TOWPATH_PROJECT", "group/env")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.ended(self.by_hand(arguments).spawn().unwrap()).await
    }

    pub(crate) async fn ended(&self, child: Child) -> Ran {
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .expect("it ends in time")
            .unwrap();
        let ran = Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(
            !ran.stdout.contains("glpat-") && !ran.stderr.contains("glpat-"),
            "{ran:?}"
        );
        ran
    }

    /// The env project's pipelines, oldest first.
    pub(crate) fn env_pipelines(&self) -> Vec<PipelineSnapshot> {
        let mut all = self.gitlab.snapshot();
        all.retain(|pipeline| pipeline.project == "group/env");
        all.sort_by_key(|pipeline| pipeline.id);
        all
    }
}

impl Ran {
    pub(crate) fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
