//! The stand-in with projects whose pipelines are directed, and the binary run against it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use towpath_sandbox::gitlab::{
    GitLab, PipelineRequest, PipelineSnapshot, PlannedJob, ProjectSettings, Role, Scope, Settings,
};

/// As long as anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(150);

/// Nobody runs it; the input carries a key into the pipeline's name.
const CONFIG: &str = "spec:\n  inputs:\n    delivery: {default: none}\n---\nworkflow:\n  name: 'Deploy $[[ inputs.delivery ]]'\njob: {script: ['true']}\n";

/// Which tokens a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    Access,
    Job,
    TriggerAndJob,
}

pub(crate) struct World {
    pub(crate) gitlab: GitLab,
    pub(crate) maintainer: u64,
    token: String,
    job_token: String,
    source: u64,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start(change: impl FnOnce(&mut Settings)) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        // Nothing runs here, so gitlab-ci-local is not asked.
        let mut settings = Settings::new(folder.path().join("gitlab"), "/nowhere/gitlab-ci-local", path);
        settings.limits.pipelines_per_minute = 1000;
        change(&mut settings);
        let gitlab = GitLab::start(settings).await.unwrap();
        let maintainer = gitlab.add_user("maintainer");
        let token = gitlab.personal_access_token(maintainer, &[Scope::Api]).unwrap();
        let mut world = World {
            gitlab,
            maintainer,
            token,
            job_token: String::new(),
            source: 0,
            _folder: folder,
        };
        world.source = world
            .project("group/image", vec![PlannedJob::new("promote", "deploy")])
            .await;
        let id = world.pipeline(world.source).await;
        let job = world.gitlab.pipeline(id).unwrap().jobs[0].id;
        world
            .gitlab
            .move_job(job, towpath_sandbox::gitlab::Status::Running)
            .unwrap();
        world.job_token = world.gitlab.job_token(job).unwrap();
        world
    }

    /// A project whose pipelines have these jobs, which the source project's job token may reach.
    pub(crate) async fn project(&self, path: &str, jobs: Vec<PlannedJob>) -> u64 {
        let id = self
            .gitlab
            .create_project(path, ProjectSettings::default())
            .await
            .unwrap();
        self.gitlab
            .add_member(id, self.maintainer, Role::Maintainer)
            .unwrap();
        if self.source != 0 {
            self.gitlab.allow_job_tokens(id, self.source).unwrap();
        }
        self.commit(id).await;
        self.gitlab.direct(id, jobs).unwrap();
        id
    }

    /// Puts the configuration on the default branch, past the API.
    async fn commit(&self, project: u64) {
        let repository = self.gitlab.repository(project).unwrap();
        let script = "blob=$(git hash-object -w --stdin) && \
            tree=$(printf '100644 blob %s\\t.gitlab-ci.yml\\n' \"$blob\" | git mktree) && \
            commit=$(git commit-tree -m 'Add the configuration' \"$tree\") && \
            git update-ref refs/heads/main \"$commit\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("GIT_DIR", repository)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::piped());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "A Person")
                .env(format!("GIT_{role}_EMAIL"), "person@example.test");
        }
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut input, CONFIG.as_bytes())
            .await
            .unwrap();
        drop(input);
        assert!(child.wait().await.unwrap().success());
    }

    /// Starts a pipeline as the maintainer would.
    pub(crate) async fn pipeline(&self, project: u64) -> u64 {
        let request = PipelineRequest::default();
        self.gitlab
            .run_pipeline(project, self.maintainer, "main", request)
            .await
            .unwrap()
    }

    /// The binary, with these tokens for this project.
    pub(crate) fn tool(&self, tokens: Tokens, project: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_env-trigger"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("CI_API_V4_URL", self.gitlab.api_url())
            .env("TOWPATH_PROJECT", project)
            .env("TOWPATH_TIMEOUT", "120s")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        match tokens {
            Tokens::Access => command.env("TOWPATH_GITLAB_TOKEN", &self.token),
            Tokens::Job => command.env("CI_JOB_TOKEN", &self.job_token),
            Tokens::TriggerAndJob => {
                let project = self.project_id(project);
                let token = self.gitlab.trigger_token(project, self.maintainer).unwrap();
                command
                    .env("TOWPATH_TRIGGER_TOKEN", token)
                    .env("CI_JOB_TOKEN", &self.job_token)
            }
        };
        command
    }

    fn project_id(&self, path: &str) -> u64 {
        self.gitlab.project_id(path).unwrap()
    }

    /// The pipelines of a project, oldest first.
    pub(crate) fn pipelines(&self, project: &str) -> Vec<PipelineSnapshot> {
        let mut all = self.gitlab.snapshot();
        all.retain(|pipeline| pipeline.project == project);
        all
    }
}

/// A run of the binary that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) async fn of(child: Child) -> Ran {
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .expect("it ends in time")
            .unwrap();
        let ran = Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in ["glpat-", "glptt-", "glcbt-"] {
            let leaks = ran.stdout.contains(secret) || ran.stderr.contains(secret);
            assert!(!leaks, "a token is shown: {ran:?}");
        }
        ran
    }

    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends SIGTERM; false when the run has ended already.
pub(crate) async fn terminate(child: &Child) -> bool {
    let Some(id) = child.id() else { return false };
    let sent = Command::new("kill")
        .args(["-s", "TERM", &id.to_string()])
        .stderr(Stdio::null())
        .status()
        .await
        .unwrap();
    sent.success()
}
