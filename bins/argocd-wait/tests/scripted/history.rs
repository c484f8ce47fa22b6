//! Another commit than ours, whose date says the opposite of what the repository's history says.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use towpath_sandbox::tool_run::Ran;

use crate::support::{Ends as _, LATER, LOOK, OURS, Scripted, image, ok, recorded};

/// A repository with three commits on each other, of which the middle one is ours.
struct Repository {
    _folder: TempDir,
    path: PathBuf,
    /// Oldest first.
    commits: Vec<String>,
}

impl Repository {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        std::fs::create_dir(&path).unwrap();
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        let commits = ["one", "two", "three"].map(|message| {
            git(
                &path,
                &["commit", "--quiet", "--allow-empty", "--message", message],
            );
            git(&path, &["rev-parse", "HEAD"])
        });
        Repository {
            _folder: folder,
            path,
            commits: commits.to_vec(),
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(["-c", "commit.gpgSign=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Argo CD shows this commit, which sets the image of digit d. When it says that both commits were written, is the date that
/// each has here.
pub(crate) async fn argocd_at(other: &str, ours: &str, dates: (&str, &str)) -> Scripted {
    let state = recorded("mended-1").to_string().replace(LATER, other);
    let mut state: Value = serde_json::from_str(&state.replace(OURS, ours)).unwrap();
    // What it tells of earlier deployments would be another clue.
    state["status"]["history"] = json!([]);
    let server = Scripted::showing(&state, &[]).await;
    let metadata = |commit: &str| format!("{LOOK}/revisions/{commit}/metadata");
    server
        .on(&metadata(other), [ok(json!({"date": dates.0}))])
        .on(&metadata(ours), [ok(json!({"date": dates.1}))])
        .on(&format!("{LOOK}/manifests?revision={other}"), [ok(json!({"manifests": [
            json!({"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"image": image('d')}]}}).to_string()
        ]}))]);
    server
}

/// Waits for the commit with the image of digit e, for some seconds, with these arguments.
async fn wait(server: &Scripted, ours: &str, arguments: &[&str]) -> Ran {
    let tool = server.tool(&["--timeout", "4s"]).env("ENV_COMMIT", ours);
    let tool = tool.env("IMAGE_REF", &image('e')).args(arguments);
    tool.env("PATH", &std::env::var("PATH").unwrap()).run().await
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

#[tokio::test]
async fn the_repository_knows_better_than_dates() {
    let repository = Repository::make();
    let [older, ours, newer] = repository.commits.as_slice() else {
        panic!("three commits");
    };
    let repo = ["--repo", repository.path.to_str().unwrap()];

    // Merged after ours, and written before it.
    let server = argocd_at(newer, ours, (EARLY, LATE)).await;
    wait(&server, ours, &repo)
        .await
        .ends(6, "superseded", &["superseded by"]);
    let still = ["Argo CD still sees", &older[..12]];
    wait(&server, ours, &[]).await.ends(9, "deadline", &still[..1]);

    // Written after ours, which was merged later.
    let server = argocd_at(older, ours, (LATE, EARLY)).await;
    wait(&server, ours, &repo).await.ends(9, "deadline", &still);
    wait(&server, ours, &[]).await.ends(6, "superseded", &[]);
}

#[tokio::test]
async fn a_repository_that_cannot_be_asked_leaves_it_to_the_dates() {
    let repository = Repository::make();
    let (ours, newer) = (&repository.commits[1], &repository.commits[2]);
    let server = argocd_at(newer, ours, (LATE, EARLY)).await;
    let nowhere = repository.path.join("nowhere");
    let ran = wait(&server, ours, &["--repo", nowhere.to_str().unwrap()]).await;
    ran.ends(6, "superseded", &["the history of", "not to be had"]);
    // Which of them is newer is nothing to ask of an address that carries a password.
    let ran = wait(
        &server,
        ours,
        &["--repo", "https://ada:canary@git.example.com/env.git"],
    )
    .await;
    assert_eq!(ran.code, 2, "{ran}");
    assert!(!ran.stderr.contains("canary"), "{ran}");
}
