//! What `argocd-wait` has to say of each state that an application can come to: one table, for the stand-in and for a real
//! Argo CD alike, so that the two cannot drift apart.
//!
//! Each case commits something and waits for it. They run one after the other on one application, since each begins where
//! the one before ended; a case names what it needs from before by being behind it.

mod changes;
mod table;

use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use self::changes::Which;
use self::table::{Call, Wanted};

pub use self::changes::NEVER_READY;
pub use self::table::{CASES, Case};

/// Pushes files to a repository's branch and gives back the commit.
pub type Commit<'c> = Box<
    dyn Fn(Vec<(String, String)>) -> Pin<Box<dyn Future<Output = Result<String>> + Send + 'c>>
        + Send
        + Sync
        + 'c,
>;

/// The Argo CD under test, with applications that nothing else changes meanwhile.
pub struct Cluster<'c> {
    /// The API's address: `http://127.0.0.1:PORT`.
    pub url: String,
    /// A token that may get and sync both applications.
    pub token: String,
    /// A token of an account that may do nothing.
    pub powerless_token: String,
    /// An application that syncs by itself, with prune, of the folder `app/prod`.
    pub application: String,
    /// One of the folder `app/manual` that does not.
    pub manual: String,
    /// One that syncs by itself, with prune, of the folder `settings` of another repository, and of `app/several` and
    /// `app/more`, in this order.
    pub several: String,
    /// One of `settings` of that repository and of `app/several-manual`, that does not.
    pub several_manual: String,
    /// The environment repository's address.
    pub repository: String,
    /// A token that reads it as the user `oauth2`.
    pub repository_token: String,
    /// Images that can be pulled, by a digit: `registry/web@sha256:cccc...`.
    pub image: Box<dyn Fn(char) -> String + Send + Sync + 'c>,
    /// An image whose pods never become ready.
    pub unready: String,
    /// How to commit to the environment repository.
    pub commit: Commit<'c>,
    /// How to commit to the other one.
    pub commit_elsewhere: Commit<'c>,
    /// The binary.
    pub argocd_wait: std::path::PathBuf,
    /// How long a wait may take.
    pub patience: Duration,
}

/// A run of the tool.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: Option<i32>,
    /// The report; null when there is none.
    pub report: Value,
    /// The log.
    pub log: String,
}

/// What was committed so far.
#[derive(Clone, Debug, Default)]
pub struct State {
    commits: Vec<String>,
    image: Option<String>,
    application: Which,
}

/// Runs the table; `told` hears of each case that went as it has to, with what the tool said.
///
/// # Errors
/// The first case that did not, with the whole log.
pub async fn run(cluster: &Cluster<'_>, mut told: impl FnMut(&Case, &Ran)) -> Result<()> {
    let mut state = State::default();
    for case in CASES {
        let ran = try_case(cluster, case, &mut state).await?;
        told(case, &ran);
    }
    Ok(())
}

async fn try_case(cluster: &Cluster<'_>, case: &Case, state: &mut State) -> Result<Ran> {
    for change in case.changes {
        let made = changes::make(cluster, *change);
        if made.is_elsewhere {
            (cluster.commit_elsewhere)(made.files).await?;
        } else {
            state.commits.push((cluster.commit)(made.files).await?);
            state.image = made.image.or(state.image.take());
        }
        state.application = made.application;
    }
    let commits = &state.commits;
    let latest = commits.last().context("a case needs a commit before")?;
    let current = state.image.clone().context("a case needs an image before")?;
    let unpushed = "f".repeat(40);
    let (commit, image) = match case.wanted {
        Wanted::Latest => (latest, current),
        Wanted::Earlier(digit) => {
            let earlier = commits
                .len()
                .checked_sub(2)
                .context("a case needs two commits before")?;
            (&commits[earlier], (cluster.image)(digit))
        }
        Wanted::Image(digit) => (latest, (cluster.image)(digit)),
        Wanted::Unpushed => (&unpushed, current),
    };
    let nobody = "nobody-knows".to_owned();
    let application = match case.call {
        Call::UnknownApplication => &nobody,
        _ => match state.application {
            Which::One => &cluster.application,
            Which::Manual => &cluster.manual,
            Which::Several => &cluster.several,
            Which::SeveralManual => &cluster.several_manual,
        },
    };
    let ran = wait(cluster, case.call, application, commit, &image).await?;
    let told = || format!("{}: {ran:#?}", case.name);
    ensure!(
        ran.code == Some(case.code),
        "exit {} was expected of {}",
        case.code,
        told()
    );
    if !case.verdict.is_empty() {
        ensure!(
            ran.report["verdict"] == case.verdict,
            "{} was expected of {}",
            case.verdict,
            told()
        );
    }
    for word in case.words {
        ensure!(
            ran.log.contains(word),
            "{word:?} was expected in the log of {}",
            told()
        );
    }
    Ok(ran)
}

async fn wait(
    cluster: &Cluster<'_>,
    call: Call,
    application: &String,
    commit: &str,
    image: &str,
) -> Result<Ran> {
    let token = match call {
        Call::WrongToken => "not-a-token-of-this-server",
        Call::PowerlessToken => &cluster.powerless_token,
        _ => &cluster.token,
    };
    let patience = match call {
        Call::Hurried => Duration::from_secs(4),
        _ => cluster.patience,
    };
    let seconds = format!("{}s", patience.as_secs());
    let mut command = Command::new(&cluster.argocd_wait);
    command
        .env_clear()
        .args([
            "--application",
            application,
            "--revision",
            commit,
            "--image",
            image,
        ])
        .args(["--timeout", &seconds, "--degraded-for", "1s", "--output", "json"])
        .env("ARGOCD_SERVER", &cluster.url)
        .env("ARGOCD_AUTH_TOKEN", token)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // Elsewhere the application's history and the dates of commits have to do.
    if [&cluster.several, &cluster.several_manual].contains(&application) {
        command
            .args(["--repo", &cluster.repository])
            .env("TOWPATH_GIT_TOKEN", &cluster.repository_token)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    }
    match call {
        Call::Sync => command.arg("--sync"),
        Call::Impatient => command.args(["--healthy-within", "5s"]),
        _ => &mut command,
    };
    let output = command.output().await.context("running argocd-wait")?;
    Ok(Ran {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Where the tool is in a folder of binaries.
#[must_use]
pub fn binary_in(folder: &Path) -> std::path::PathBuf {
    folder.join("argocd-wait")
}
