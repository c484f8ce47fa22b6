//! Whether another commit is newer, asked of a GitLab by git over HTTP with the job's own token: where it may in, where it may
//! not, and where nothing answers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use towpath_sandbox::gitlab::{
    GitLab, PipelineRequest, PlannedJob, ProjectSettings, Role, Scope, Settings, Status,
};
use towpath_sandbox::tool_run::Ran;

use crate::history::argocd_at;
use crate::support::{Ends as _, Scripted, image, text};

/// What dates say is the opposite of what the repository does, so that the verdict tells who was asked.
const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

/// A GitLab with the repository, and a job of it that runs.
struct World {
    folder: TempDir,
    gitlab: GitLab,
    job: u64,
    /// The job's token.
    token: String,
    /// Oldest first.
    commits: [String; 2],
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        // No pipeline runs here, so the program that would run one is never looked for.
        let settings = Settings::new(folder.path().join("gitlab"), "gitlab-ci-local", path);
        let gitlab = GitLab::start(settings).await.unwrap();
        let ada = gitlab.add_user("ada");
        let project = gitlab
            .create_project("shop/env", ProjectSettings::default())
            .await
            .unwrap();
        gitlab.add_member(project, ada, Role::Maintainer).unwrap();
        let writes = gitlab
            .project_access_token(project, Role::Maintainer, &[Scope::WriteRepository])
            .unwrap();
        let clone = folder.path().join("clone");
        std::fs::create_dir(&clone).unwrap();
        let helper = format!("credential.helper=!f() {{ echo username=oauth2; echo password={writes}; }}; f");
        // The server is this process.
        let git = async |arguments: &[&str]| {
            let output = Command::new("git")
                .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
                .args(["-c", &helper])
                .args(arguments)
                .current_dir(&clone)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .await
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        git(&["init", "--quiet", "--initial-branch=main"]).await;
        std::fs::write(clone.join(".gitlab-ci.yml"), "wait: {script: [\"true\"]}\n").unwrap();
        git(&["add", "--all"]).await;
        let mut commits = Vec::new();
        for message in ["one", "two"] {
            git(&["commit", "--quiet", "--allow-empty", "--message", message]).await;
            commits.push(git(&["rev-parse", "HEAD"]).await);
        }
        let url = gitlab.clone_url("shop/env");
        git(&["push", "--quiet", "-o", "ci.skip", &url, "HEAD:main"]).await;
        let check = vec![PlannedJob::new("wait", "deploy")];
        gitlab.direct(project, check).unwrap();
        let pipeline = gitlab
            .run_pipeline(project, ada, "main", PipelineRequest::default())
            .await
            .unwrap();
        let job = gitlab.pipeline(pipeline).unwrap().jobs[0].id;
        gitlab.move_job(job, Status::Running).unwrap();
        let token = gitlab.job_token(job).unwrap();
        World {
            folder,
            gitlab,
            job,
            token,
            commits: commits.try_into().unwrap(),
        }
    }

    fn url(&self) -> String {
        self.gitlab.clone_url("shop/env")
    }

    /// A git that keeps what it is called with, and each call's environment, before it runs.
    fn watched_git(&self) -> PathBuf {
        let bin = self.folder.path().join("bin");
        if bin.is_dir() {
            return bin;
        }
        std::fs::create_dir(&bin).unwrap();
        let path = std::env::var("PATH").unwrap();
        let real = path.split(':').map(|folder| Path::new(folder).join("git"));
        let real = real.into_iter().find(|git| git.is_file()).unwrap();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{0}/arguments'\nenv >>'{0}/environment'\nexec '{1}' \"$@\"\n",
            self.folder.path().display(),
            real.display()
        );
        let git = bin.join("git");
        std::fs::write(&git, script).unwrap();
        std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).unwrap();
        bin
    }

    fn kept(&self, what: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(what)).unwrap()
    }

    /// Waits for the older commit as the job does, while Argo CD is at the newer one.
    async fn wait(&self, server_url: &str) -> Ran {
        let [ours, newer] = &self.commits;
        let argocd = argocd_at(newer, ours, (EARLY, LATE)).await;
        let temporary = self.folder.path().join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        let bin = self.watched_git();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let ran = argocd
            .tool(&["--timeout", "4s", "--repo", &self.url()])
            .env("ENV_COMMIT", ours)
            .env("IMAGE_REF", &image('e'))
            .env("CI_JOB_TOKEN", &self.token)
            .env("CI_SERVER_URL", server_url)
            .env("TMPDIR", temporary.to_str().unwrap())
            .env("PATH", &path)
            .run()
            .await;
        for (where_to, said) in [
            ("the log", &ran.stderr),
            ("the report", &ran.stdout),
            ("git's arguments", &self.kept("arguments")),
        ] {
            assert!(!said.contains(&self.token), "the token is in {where_to}");
        }
        let left: Vec<_> = std::fs::read_dir(temporary).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        ran
    }
}

#[tokio::test]
async fn the_jobs_own_token_asks_its_own_gitlab() {
    let world = World::start().await;
    let ran = world.wait(world.gitlab.url()).await;
    // The dates say that the other commit is the older one.
    ran.ends(6, "superseded", &["superseded by"]);
    assert!(!ran.stderr.contains("not to be had"), "{ran}");
    assert!(world.kept("arguments").contains(&world.url()));
}

#[tokio::test]
async fn a_token_that_is_refused_leaves_it_to_the_dates() {
    let world = World::start().await;
    // A job's token ends with the job.
    world.gitlab.move_job(world.job, Status::Success).unwrap();
    let refused = format!("{} refuses the token of gitlab-ci-token", world.url());
    let ran = world.wait(world.gitlab.url()).await;
    ran.ends(
        9,
        "deadline",
        &["the history of", "not to be had", &refused, "still sees"],
    );
}

#[tokio::test]
async fn another_host_is_not_offered_the_jobs_token() {
    let world = World::start().await;
    let refused = format!("{} refuses access without a token", world.url());
    let ran = world.wait("https://gitlab.example.com").await;
    ran.ends(9, "deadline", &["not to be had", &refused]);
    // It stands there as it does for every program of a job, and nothing hands it on.
    let environment = world.kept("environment");
    let handed_on = environment.lines().filter(|line| line.contains(&world.token));
    assert!(
        handed_on
            .into_iter()
            .all(|line| line.starts_with("CI_JOB_TOKEN="))
    );
}

#[tokio::test]
async fn a_repository_that_hangs_is_waited_for_half_a_minute() {
    let silent = Scripted::start().await;
    silent.on(
        "GET /shop/env.git/info/refs?service=git-upload-pack",
        [text(200, "").after(Duration::from_secs(3600))],
    );
    let repository = format!("{}/shop/env.git", silent.url);
    let (ours, newer) = ("1".repeat(40), "2".repeat(40));
    let argocd = argocd_at(&newer, &ours, (LATE, EARLY)).await;
    let wait = async |timeout| {
        argocd
            .tool(&["--timeout", timeout, "--repo", &repository])
            .env("ENV_COMMIT", &ours)
            .env("IMAGE_REF", &image('e'))
            .env("PATH", &std::env::var("PATH").unwrap())
            .run()
            .await
    };
    let (whole, cut) = tokio::join!(wait("100s"), wait("5s"));
    let asked = format!("the history of {repository}");
    whole.ends(
        6,
        "superseded",
        &[&asked, "not to be had", "git did not answer within 30 s"],
    );
    let asking = format!("{repository} is asked whether 222222222222 is older or newer");
    cut.ends(9, "deadline", &[&asking]);
}
