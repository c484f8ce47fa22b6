//! `argocd-wait` against a real Argo CD, by the table that the stand-in is held to as well.
//!
//! It runs where the cluster's tools are in the cache; see `cluster.rs` for elsewhere.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use towpath_sandbox::argocd::{Access, Credentials, Declaration};
use towpath_sandbox::argocd_cases::{self, CASES, Case, Ran};
use towpath_sandbox::cluster::Cluster;
use towpath_sandbox::gitlab::{GitLab, ProjectSettings, Role, Scope, Settings};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::tools::{ClusterTools, Progress, Tools};
use towpath_sandbox::towpath_binaries;

const HOUR: Duration = Duration::from_secs(3600);
const PROJECT: &str = "shop/env";
/// What all images are called but for their digests.
const REPOSITORY: &str = "registry.example.com/shop/web";

/// The environment repository, as a person with a clone sees it.
struct Repository {
    guardian: Arc<Guardian>,
    folder: PathBuf,
    token: String,
}

impl Repository {
    async fn git(&self, arguments: &[&str]) -> Result<String> {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("ada:{}", self.token));
        let output = self
            .guardian
            .bare_command("git")
            .args(arguments)
            .current_dir(&self.folder)
            .envs([
                ("GIT_AUTHOR_NAME", "Ada"),
                ("GIT_AUTHOR_EMAIL", "ada@example.com"),
                ("GIT_COMMITTER_NAME", "Ada"),
                ("GIT_COMMITTER_EMAIL", "ada@example.com"),
                ("GIT_CONFIG_COUNT", "1"),
                ("GIT_CONFIG_KEY_0", "http.extraHeader"),
            ])
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {pair}"))
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Writes files, pushes them and answers the commit.
    async fn commit(&self, files: &[(String, String)]) -> Result<String> {
        for (file, text) in files {
            let file = self.folder.join(file);
            fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
            fs::write(file, text)?;
        }
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--message", "Change what runs"])
            .await?;
        self.git(&["push", "--quiet", "origin", "HEAD:main"]).await?;
        self.git(&["rev-parse", "HEAD"]).await
    }
}

/// GitLab with the environment repository, of which nothing is committed yet, and the token by which Argo CD reads it.
async fn serve_repository(guardian: &Arc<Guardian>, tools: &Tools) -> Result<(GitLab, Repository, String)> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    let mut settings = Settings::new(guardian.dir().join("gitlab"), &tools.gitlab_ci_local, path);
    let owner = Arc::clone(guardian);
    settings.command = Arc::new(move |program| owner.command(program));
    let gitlab = GitLab::start(settings).await?;
    let user = gitlab.add_user("ada");
    let token = gitlab.personal_access_token(user, &[Scope::WriteRepository])?;
    let project = gitlab.create_project(PROJECT, ProjectSettings::default()).await?;
    gitlab.add_member(project, user, Role::Maintainer)?;
    let reads = gitlab.project_access_token(project, Role::Reporter, &[Scope::ReadRepository])?;
    let folder = guardian.dir().join("laptop");
    fs::create_dir(&folder)?;
    let repository = Repository {
        guardian: Arc::clone(guardian),
        folder,
        token,
    };
    repository
        .git(&["init", "--quiet", "--initial-branch=main"])
        .await?;
    repository
        .git(&["remote", "add", "origin", &gitlab.clone_url(PROJECT)])
        .await?;
    Ok((gitlab, repository, reads))
}

fn image(digit: char) -> String {
    format!("{REPOSITORY}@sha256:{}", digit.to_string().repeat(64))
}

fn declaration(gitlab: &GitLab, name: &str, path: &str, automated: bool) -> Declaration {
    Declaration {
        name: name.to_owned(),
        repo_url: gitlab.clone_url(PROJECT),
        path: path.to_owned(),
        target_revision: "main".to_owned(),
        namespace: name.to_owned(),
        automated,
    }
}

/// Tells what the tool said of a case where somebody wants to read it: `TOWPATH_CLUSTER_SAID` is a file.
fn tell(case: &Case, ran: &Ran) {
    let Some(file) = std::env::var_os("TOWPATH_CLUSTER_SAID") else {
        return;
    };
    let mut file = fs::File::options()
        .append(true)
        .create(true)
        .open(Path::new(&file))
        .unwrap();
    writeln!(
        file,
        "## {}: exit {:?}\n{}\n{:#}\n",
        case.name, ran.code, ran.log, ran.report
    )
    .unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn every_case_ends_as_on_the_stand_in() {
    let Some(parts) = ClusterTools::find().await.unwrap() else {
        let why = "the cluster's tools are not in the cache: `cargo demo -- --cluster` builds them";
        assert!(std::env::var_os("TOWPATH_CLUSTER").is_none(), "{why}");
        let _ = writeln!(
            std::io::stderr(),
            "argocd-wait on a real Argo CD is left out: {why}"
        );
        return;
    };
    let bin = towpath_binaries::build().unwrap();
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Arc::new(Guardian::start().unwrap());
    let cluster = Cluster::start(&guardian, &tools, &parts).await.unwrap();
    let (gitlab, repository, reads) = serve_repository(&guardian, &tools).await.unwrap();
    cluster.refuse_image(&image('f')).await.unwrap();
    let credentials = Credentials {
        username: "argocd".to_owned(),
        password: reads,
    };
    cluster
        .add_repositories(&BTreeMap::from([(gitlab.url().to_owned(), credentials)]))
        .await
        .unwrap();
    let empty = |folder: &str| {
        (
            format!("{folder}/kustomization.yaml"),
            "resources: []\n".to_owned(),
        )
    };
    repository
        .commit(&[empty("app/prod"), empty("app/manual")])
        .await
        .unwrap();
    for (name, path, automated) in [("web-prod", "app/prod", true), ("manual", "app/manual", false)] {
        cluster
            .add_application(&declaration(&gitlab, name, path, automated))
            .await
            .unwrap();
    }
    let under_test = argocd_cases::Cluster {
        url: cluster.argocd_url().to_owned(),
        token: cluster.mint_argocd_token("ci", Access::Sync, HOUR).await.unwrap(),
        application: "web-prod".to_owned(),
        manual: "manual".to_owned(),
        image: Box::new(image),
        unready: image('f'),
        commit: Box::new(|files| Box::pin(async { repository.commit(&{ files }).await })),
        argocd_wait: argocd_cases::binary_in(&bin),
        patience: Duration::from_secs(120),
    };
    let mut cases = 0;
    let outcome = argocd_cases::run(&under_test, |case, ran| {
        cases += 1;
        tell(case, ran);
    })
    .await;
    outcome.unwrap();
    assert_eq!(cases, CASES.len());
    a_window_that_forbids_it(&cluster, &repository, &under_test).await;
    drop(under_test);
    drop((repository, cluster));
    gitlab.shutdown().await;
}

/// A Deployment of an image, whose pods are selected by this label.
fn deployment(image: &str, label: &str) -> Vec<(String, String)> {
    let resource = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: other}}\nspec:\n  selector: {{matchLabels: {{app: {label}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {label}}}}}\n    spec: {{containers: [{{name: web, image: \"{image}\"}}]}}\n"
    );
    vec![
        ("app/prod/web.yaml".to_owned(), resource),
        (
            "app/prod/kustomization.yaml".to_owned(),
            "resources: [web.yaml]\n".to_owned(),
        ),
    ]
}

/// Commits files and waits for this image; answers the exit code, the verdict and the log.
async fn wait_for(
    repository: &Repository,
    under_test: &argocd_cases::Cluster<'_>,
    what: &str,
    files: &[(String, String)],
    image: &str,
) -> (Option<i32>, serde_json::Value, String) {
    let commit = repository.commit(files).await.unwrap();
    let output = repository
        .guardian
        .bare_command(&under_test.argocd_wait)
        .args(["--application", &under_test.application, "--revision", &commit])
        .args(["--image", image, "--timeout", "200s", "--output", "json"])
        .env("ARGOCD_SERVER", &under_test.url)
        .env("ARGOCD_AUTH_TOKEN", &under_test.token)
        .output()
        .await
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if let Some(file) = std::env::var_os("TOWPATH_CLUSTER_SAID") {
        let mut file = fs::File::options().append(true).create(true).open(file).unwrap();
        writeln!(
            file,
            "## {what}: exit {:?}\n{log}\n{report:#}\n",
            output.status.code()
        )
        .unwrap();
    }
    (output.status.code(), report["verdict"].clone(), log)
}

async fn a_window_that_forbids_it(
    cluster: &Cluster,
    repository: &Repository,
    under_test: &argocd_cases::Cluster<'_>,
) {
    let project = "/apis/argoproj.io/v1alpha1/namespaces/argocd/appprojects/default";
    let window = serde_json::json!({
        "kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["*"], "manualSync": false,
    });
    let windows = |windows: &[serde_json::Value]| serde_json::json!({"spec": {"syncWindows": windows}});
    cluster.change(project, &windows(&[window])).await.unwrap();
    let files = deployment(&image('c'), "other");
    let (code, verdict, log) = wait_for(repository, under_test, "a sync window", &files, &image('c')).await;
    assert_eq!((code, verdict.as_str()), (Some(9), Some("sync_window")), "{log}");
    cluster.change(project, &windows(&[])).await.unwrap();
}
