//! What `argocd-wait` has to say of each state that an application can come to: one table, for the stand-in and for a real
//! Argo CD alike, so that the two cannot drift apart.
//!
//! Each case commits something and waits for it. They run one after the other on one application, since each begins where
//! the one before ended; a case names what it needs from before by being behind it.

use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

/// What never becomes ready carries this label on its pods. Where pods are simulated, whoever simulates them has to
/// leave those alone; where images are pulled, [`Cluster::unready`] names one that is not there.
pub const NEVER_READY: &str = "towpath.example.com/never-ready";

/// Pushes files to the environment repository's branch and gives back the commit.
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
    /// Images that can be pulled, by a digit: `registry/web@sha256:cccc...`.
    pub image: Box<dyn Fn(char) -> String + Send + Sync + 'c>,
    /// An image whose pods never become ready.
    pub unready: String,
    /// How to commit.
    pub commit: Commit<'c>,
    /// The binary.
    pub argocd_wait: std::path::PathBuf,
    /// How long a wait may take.
    pub patience: Duration,
}

/// What is committed before the wait.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A Deployment of the image of this digit.
    Deploy(char),
    /// The same with other text in the repository.
    Text,
    /// A base that is not there.
    Break,
    /// A Deployment whose pods never become ready.
    Unready,
    /// A Deployment that selects other pods than the one that is there, which nobody may change.
    Selector(char),
    /// A CronJob in the place of the Deployment.
    CronJob(char),
    /// The application that does not sync by itself.
    Manual(char),
}

/// Which commit and image are waited for.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// Those of the last change.
    Latest,
    /// The commit of the last but one change, with this image.
    Earlier(char),
    /// The commit of the last change, with this image.
    Image(char),
    /// A commit that was never pushed, with the last image.
    Unpushed,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    changes: &'static [Change],
    wanted: Wanted,
    /// What is wrong with the call.
    call: Call,
    code: i32,
    verdict: &'static str,
    /// What the message has to say.
    words: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Plain,
    /// With `--sync`.
    Sync,
    /// With `--healthy-within 5s`, which the second attempt of a sync that fails is behind.
    Impatient,
    /// With `--timeout 4s`.
    Hurried,
    UnknownApplication,
    WrongToken,
    PowerlessToken,
}

const fn case(
    name: &'static str,
    changes: &'static [Change],
    wanted: Wanted,
    code: i32,
    verdict: &'static str,
    words: &'static [&'static str],
) -> Case {
    Case {
        name,
        changes,
        wanted,
        call: Call::Plain,
        code,
        verdict,
        words,
    }
}

const fn called(call: Call, case: Case) -> Case {
    Case { call, ..case }
}

/// The table.
pub const CASES: &[Case] = &[
    case(
        "a first deployment",
        &[Change::Deploy('c')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "another digest",
        &[Change::Deploy('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case("what runs already", &[], Wanted::Latest, 0, "ready", &[]),
    called(
        Call::Hurried,
        case(
            "a commit that is not there",
            &[],
            Wanted::Unpushed,
            9,
            "deadline",
            &["not synced yet"],
        ),
    ),
    case(
        "other text, same manifests",
        &[Change::Text],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "an earlier commit with the same image",
        &[],
        Wanted::Earlier('d'),
        0,
        "ready",
        &[],
    ),
    case(
        "a base that is not there",
        &[Change::Break],
        Wanted::Image('d'),
        8,
        "comparison_error",
        &["ComparisonError", "nothere"],
    ),
    case("mended", &[Change::Deploy('e')], Wanted::Latest, 0, "ready", &[]),
    case(
        "an earlier commit with another image",
        &[Change::Deploy('d'), Change::Deploy('e')],
        Wanted::Earlier('d'),
        6,
        "superseded",
        &["superseded"],
    ),
    case(
        "another image than the commit sets",
        &[],
        Wanted::Image('c'),
        6,
        "not_in_manifests",
        &["does not make"],
    ),
    case(
        "pods that never become ready",
        &[Change::Unready],
        Wanted::Latest,
        8,
        "degraded",
        &["Degraded", "Deployment web"],
    ),
    case(
        "nothing but a CronJob",
        &[Change::CronJob('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "well again",
        &[Change::Deploy('c')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    // The last one of this application: Argo CD goes on trying for minutes.
    called(
        Call::Impatient,
        case(
            "a field that cannot be changed",
            &[Change::Selector('d')],
            Wanted::Latest,
            8,
            "sync_failed",
            &["failed in attempt 1 of 6", "Deployment web", "field is immutable"],
        ),
    ),
    called(
        Call::UnknownApplication,
        case(
            "an application that is not there",
            &[],
            Wanted::Latest,
            4,
            "",
            &["none of that name", "may not"],
        ),
    ),
    called(
        Call::PowerlessToken,
        case(
            "an application that may not be read",
            &[],
            Wanted::Latest,
            4,
            "",
            &["none of that name", "may not"],
        ),
    ),
    called(
        Call::WrongToken,
        case(
            "a token that is none",
            &[],
            Wanted::Latest,
            4,
            "",
            &["does not know the token"],
        ),
    ),
    case(
        "auto-sync is off",
        &[Change::Manual('c')],
        Wanted::Latest,
        9,
        "auto_sync_off",
        &["auto-sync is off"],
    ),
    called(
        Call::Sync,
        case("a sync on request", &[], Wanted::Latest, 0, "ready", &[]),
    ),
];

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
    is_manual: bool,
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
        let (files, image) = files(cluster, *change);
        let commit = (cluster.commit)(files).await?;
        state.commits.push(commit);
        state.image = image.or(state.image.take());
        state.is_manual = matches!(change, Change::Manual(_));
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
    let application = match case.call {
        Call::UnknownApplication => "nobody-knows",
        _ if state.is_manual => &cluster.manual,
        _ => &cluster.application,
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
    application: &str,
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

/// What a change writes, and the image that the application runs then.
fn files(cluster: &Cluster<'_>, change: Change) -> (Vec<(String, String)>, Option<String>) {
    let deployment = |image: &str, labels: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 1\n  \
             progressDeadlineSeconds: 5\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: \
             web{labels}}}}}\n    spec:\n      containers:\n      - name: web\n        image: {image}\n"
        )
    };
    let kustomization = "resources: [web.yaml]\n".to_owned();
    let with = |folder: &str, resource: String, kustomization: String| {
        vec![
            (format!("{folder}/web.yaml"), resource),
            (format!("{folder}/kustomization.yaml"), kustomization),
        ]
    };
    match change {
        Change::Deploy(digit) => {
            let image = (cluster.image)(digit);
            (
                with("app/prod", deployment(&image, ""), kustomization),
                Some(image),
            )
        }
        Change::Text => {
            let text = (
                "app/prod/kustomization.yaml".to_owned(),
                format!("# Nothing new.\n{kustomization}"),
            );
            (vec![text], None)
        }
        Change::Break => {
            let broken = "resources: [web.yaml, ../nothere]\n".to_owned();
            (vec![("app/prod/kustomization.yaml".to_owned(), broken)], None)
        }
        Change::Unready => {
            let label = format!(", {NEVER_READY}: \"true\"");
            let resource = deployment(&cluster.unready, &label);
            (
                with("app/prod", resource, kustomization),
                Some(cluster.unready.clone()),
            )
        }
        Change::Selector(digit) => {
            let image = (cluster.image)(digit);
            let resource = deployment(&image, "").replace("{app: web}", "{app: other}");
            (with("app/prod", resource, kustomization), Some(image))
        }
        Change::CronJob(digit) => {
            let image = (cluster.image)(digit);
            let resource = format!(
                "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: report}}\nspec:\n  schedule: \"0 3 1 1 *\"\n  \
                 jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          \
                 containers:\n          - name: report\n            image: {image}\n"
            );
            (with("app/prod", resource, kustomization), Some(image))
        }
        Change::Manual(digit) => {
            let image = (cluster.image)(digit);
            let resource = deployment(&image, "")
                .replace("web}", "manual}")
                .replace("name: web}", "name: manual}");
            (with("app/manual", resource, kustomization), Some(image))
        }
    }
}

/// Where the tool is in a folder of binaries.
#[must_use]
pub fn binary_in(folder: &Path) -> std::path::PathBuf {
    folder.join("argocd-wait")
}
