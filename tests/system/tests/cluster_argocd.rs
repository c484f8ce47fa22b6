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

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use towpath_sandbox::argocd::{Access, Credentials, Declaration, Source};
use towpath_sandbox::argocd_cases::{self, CASES};
use towpath_sandbox::cluster::Cluster;
use towpath_sandbox::gitlab::{GitLab, ProjectSettings, Role, Scope, Settings};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::kubernetes::API_AUDIENCES;
use towpath_sandbox::tools::{ClusterTools, Progress, Tools};
use towpath_sandbox::towpath_binaries;

const HOUR: Duration = Duration::from_secs(3600);
const PROJECT: &str = "shop/env";
/// What an application of several sources takes one of them from.
const OTHER_PROJECT: &str = "shop/settings";
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

/// GitLab with the repositories, of which nothing is committed yet: that of the environment and another one. And the
/// tokens by which Argo CD reads them.
async fn serve_repositories(
    guardian: &Arc<Guardian>,
    tools: &Tools,
) -> Result<(GitLab, [Repository; 2], BTreeMap<String, Credentials>)> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    let mut settings = Settings::new(guardian.dir().join("gitlab"), &tools.gitlab_ci_local, path);
    let owner = Arc::clone(guardian);
    settings.command = Arc::new(move |program| owner.command(program));
    let gitlab = GitLab::start(settings).await?;
    let user = gitlab.add_user("ada");
    let token = gitlab.personal_access_token(user, &[Scope::WriteRepository])?;
    let mut reads = BTreeMap::new();
    let mut repositories = Vec::new();
    for (name, folder) in [(PROJECT, "laptop"), (OTHER_PROJECT, "other-laptop")] {
        let project = gitlab.create_project(name, ProjectSettings::default()).await?;
        gitlab.add_member(project, user, Role::Maintainer)?;
        let credentials = Credentials {
            username: "argocd".to_owned(),
            password: gitlab.project_access_token(project, Role::Reporter, &[Scope::ReadRepository])?,
        };
        reads.insert(gitlab.clone_url(name), credentials);
        let folder = guardian.dir().join(folder);
        fs::create_dir(&folder)?;
        let repository = Repository {
            guardian: Arc::clone(guardian),
            folder,
            token: token.clone(),
        };
        repository
            .git(&["init", "--quiet", "--initial-branch=main"])
            .await?;
        repository
            .git(&["remote", "add", "origin", &gitlab.clone_url(name)])
            .await?;
        repositories.push(repository);
    }
    let repositories = repositories
        .try_into()
        .map_err(|_| anyhow!("two repositories were made"))?;
    Ok((gitlab, repositories, reads))
}

fn image(digit: char) -> String {
    format!("{REPOSITORY}@sha256:{}", digit.to_string().repeat(64))
}

fn declaration(gitlab: &GitLab, name: &str, sources: &[(&str, &str)], automated: bool) -> Declaration {
    let source = |(project, path): &(&str, &str)| Source {
        repo_url: gitlab.clone_url(project),
        path: (*path).to_owned(),
        target_revision: "main".to_owned(),
    };
    Declaration {
        name: name.to_owned(),
        sources: sources.iter().map(source).collect(),
        namespace: name.to_owned(),
        automated,
    }
}

/// Tells what the tool said where somebody wants to read it: `TOWPATH_CLUSTER_SAID` is a file.
fn record(what: &str, code: Option<i32>, log: &str, report: &[u8]) {
    let Some(file) = std::env::var_os("TOWPATH_CLUSTER_SAID") else {
        return;
    };
    let mut file = fs::File::options().append(true).create(true).open(file).unwrap();
    let report = String::from_utf8_lossy(report);
    writeln!(file, "## {what}: exit {code:?}\n{log}\n{report}\n").unwrap();
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
    let (gitlab, repositories, reads) = serve_repositories(&guardian, &tools).await.unwrap();
    let [repository, other] = &repositories;
    cluster.refuse_image(&image('f')).await.unwrap();
    cluster.add_repositories(&reads).await.unwrap();
    let empty = |folder: &str| {
        (
            format!("{folder}/kustomization.yaml"),
            "resources: []\n".to_owned(),
        )
    };
    let folders = [
        "app/prod",
        "app/manual",
        "app/several",
        "app/more",
        "app/several-manual",
    ];
    repository.commit(&folders.map(empty)).await.unwrap();
    other.commit(&[empty("settings")]).await.unwrap();
    let settings = (OTHER_PROJECT, "settings");
    for (name, sources, automated) in [
        ("web-prod", &[(PROJECT, "app/prod")][..], true),
        ("manual", &[(PROJECT, "app/manual")], false),
        (
            "several",
            &[settings, (PROJECT, "app/several"), (PROJECT, "app/more")],
            true,
        ),
        (
            "several-manual",
            &[settings, (PROJECT, "app/several-manual")],
            false,
        ),
    ] {
        cluster
            .add_application(&declaration(&gitlab, name, sources, automated))
            .await
            .unwrap();
    }
    let under_test = argocd_cases::Cluster {
        url: cluster.argocd_url().to_owned(),
        token: cluster.mint_argocd_token("ci", Access::Sync, HOUR).await.unwrap(),
        powerless_token: cluster
            .mint_argocd_token("nobody", Access::Nothing, HOUR)
            .await
            .unwrap(),
        application: "web-prod".to_owned(),
        manual: "manual".to_owned(),
        several: "several".to_owned(),
        several_manual: "several-manual".to_owned(),
        repository: gitlab.clone_url(PROJECT),
        repository_token: repository.token.clone(),
        image: Box::new(image),
        unready: image('f'),
        commit: Box::new(|files| Box::pin(async { repository.commit(&{ files }).await })),
        commit_elsewhere: Box::new(|files| Box::pin(async { other.commit(&{ files }).await })),
        argocd_wait: argocd_cases::binary_in(&bin),
        patience: Duration::from_secs(120),
    };
    // First: the last of the cases on this application leaves a sync behind that is tried for minutes.
    a_window_that_forbids_it(&cluster, repository, &under_test).await;
    let mut cases = 0;
    let outcome = argocd_cases::run(&under_test, |case, ran| {
        cases += 1;
        record(case.name, ran.code, &ran.log, ran.report.to_string().as_bytes());
    })
    .await;
    outcome.unwrap();
    assert_eq!(cases, CASES.len());
    by_the_clusters_own_api(&cluster, repository, &under_test).await;
    drop(under_test);
    drop((repositories, cluster));
    gitlab.shutdown().await;
}

/// What the tool's page says that the service account needs is enough, and nothing of it too much.
async fn by_the_clusters_own_api(
    cluster: &Cluster,
    repository: &Repository,
    under_test: &argocd_cases::Cluster<'_>,
) {
    const ACCOUNT: &str = "deploys";
    let of_account = |namespace: &str, rule: Value| {
        let metadata = json!({"namespace": namespace, "name": ACCOUNT});
        let subject = json!({"kind": "ServiceAccount", "namespace": "argocd", "name": ACCOUNT});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT});
        let version = "rbac.authorization.k8s.io/v1";
        [
            json!({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [rule]}),
            json!({"apiVersion": version, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": [subject]}),
        ]
    };
    cluster.create_service_account("argocd", ACCOUNT).await.unwrap();
    let folder = repository.guardian.dir();
    let (token, authority) = (folder.join("account-token"), folder.join("authority.pem"));
    let minted = cluster
        .mint_service_account_token("argocd", ACCOUNT, &API_AUDIENCES, HOUR)
        .await;
    fs::write(&token, minted.unwrap()).unwrap();
    fs::write(&authority, cluster.authority()).unwrap();
    let commit = repository.git(&["rev-parse", "HEAD"]).await.unwrap();
    let wait = async |application: &str, digit: char, authority: Option<&Path>| {
        let mut command = repository.guardian.bare_command(&under_test.argocd_wait);
        command
            .args(["--via", "kubernetes", "--kubernetes-url", cluster.url()])
            .args(["--application", application, "--revision", &commit])
            .args(["--image", &image(digit), "--timeout", "20s", "--output", "json"])
            .arg("--kubernetes-token-file")
            .arg(&token);
        if let Some(authority) = authority {
            command.arg("--kubernetes-ca-file").arg(authority);
        }
        let output = command.output().await.unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        record(
            "by the cluster's own API",
            output.status.code(),
            &log,
            &output.stdout,
        );
        (output.status.code(), log)
    };
    // What runs since the last cases.
    let [manual, several] = [(&under_test.manual, 'd'), (&under_test.several_manual, 'c')];
    let (code, log) = wait(manual.0, manual.1, None).await;
    assert_eq!(
        code,
        Some(4),
        "its certificate is of an authority of its own: {log}"
    );
    let (code, log) = wait(manual.0, manual.1, Some(&authority)).await;
    assert_eq!(code, Some(4), "the account may do nothing yet: {log}");
    let applications = json!({"apiGroups": ["argoproj.io"], "resources": ["applications"], "verbs": ["get", "watch", "patch"]});
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    for (namespace, rule) in [
        ("argocd", applications),
        (manual.0, pods.clone()),
        (several.0, pods),
    ] {
        cluster.apply(&of_account(namespace, rule)).await.unwrap();
    }
    for (application, digit) in [manual, several] {
        let (code, log) = wait(application, digit, Some(&authority)).await;
        assert_eq!(code, Some(0), "{log}");
    }
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
) -> (Option<i32>, Value, String) {
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
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    record(what, output.status.code(), &log, &output.stdout);
    (output.status.code(), report["verdict"].clone(), log)
}

async fn a_window_that_forbids_it(
    cluster: &Cluster,
    repository: &Repository,
    under_test: &argocd_cases::Cluster<'_>,
) {
    let project = "/apis/argoproj.io/v1alpha1/namespaces/argocd/appprojects/default";
    let window = json!({
        "kind": "deny", "schedule": "* * * * *", "duration": "1h", "applications": ["*"], "manualSync": false,
    });
    let windows = |windows: &[Value]| json!({"spec": {"syncWindows": windows}});
    cluster.change(project, &windows(&[window])).await.unwrap();
    let files = deployment(&image('c'), "other");
    let (code, verdict, log) = wait_for(repository, under_test, "a sync window", &files, &image('c')).await;
    assert_eq!((code, verdict.as_str()), (Some(9), Some("sync_window")), "{log}");
    cluster.change(project, &windows(&[])).await.unwrap();
}
