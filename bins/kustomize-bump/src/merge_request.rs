//! A change that goes through a merge request: the arguments, its names, and the decision what to do next.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use towpath::git::NewCommit;
use towpath::gitlab::{HeadPipeline, MergeRequest, MergeState, Status};
use towpath::kustomize::{Pattern, file_candidates, kustomization_folder};
use towpath::oci::Digest;

/// Where the branches of this tool begin.
const PREFIX: &str = "towpath/";
/// How much of a name a branch shows.
const SHOWN: usize = 50;
/// How long a pipeline of the merge request may take to appear.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// Whether and how a change goes through a merge request.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Merge request")]
pub(crate) struct MergeRequestArgs {
    /// Open or update a merge request instead of committing to the branch (with --project; the token needs `api`)
    #[arg(long, env = "TOWPATH_MERGE_REQUEST", hide_env_values = true)]
    pub(crate) merge_request: bool,
    /// Have it merged when its pipeline succeeds
    #[arg(
        long,
        env = "TOWPATH_AUTO_MERGE",
        requires = "merge_request",
        hide_env_values = true
    )]
    pub(crate) auto_merge: bool,
    /// With --auto-merge: merge also where no pipeline comes within a minute
    #[arg(
        long,
        env = "TOWPATH_WITHOUT_PIPELINE",
        requires = "auto_merge",
        hide_env_values = true
    )]
    pub(crate) without_pipeline: bool,
    /// Wait until it is merged: exit 8 when it is closed or its pipeline fails, 9 at the deadline
    #[arg(
        long,
        env = "TOWPATH_WAIT",
        requires = "merge_request",
        hide_env_values = true
    )]
    pub(crate) wait: bool,
}

/// What a merge request does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It sets images.
    #[default]
    Set,
    /// It takes images back and holds them.
    Rollback,
    /// It holds images.
    Hold,
    /// It releases holds.
    Release,
}

impl Action {
    fn is_set(&self) -> bool {
        *self == Action::Set
    }

    /// What the branch of such a merge request is called beside its images.
    fn mark(self) -> &'static str {
        match self {
            Action::Set => "",
            Action::Rollback => "rollback-",
            Action::Hold => "hold-",
            Action::Release => "release-",
        }
    }
}

/// An image that is held, or about to be, as far as the purpose of a merge request could name it.
#[derive(Clone, Debug)]
pub(crate) struct HeldHere {
    /// The folder of the kustomization.
    pub(crate) folder: String,
    /// Whatever it is called.
    pub(crate) names: Vec<String>,
}

/// What a merge request of this tool is for; it is in its description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purpose {
    /// What it does.
    #[serde(default, skip_serializing_if = "Action::is_set")]
    action: Action,
    /// The paths, as they were given.
    pub(crate) paths: Vec<String>,
    /// The images, as they were given.
    pub(crate) images: Vec<String>,
}

impl Purpose {
    pub(crate) fn new(action: Action, paths: &[String], images: impl Iterator<Item = String>) -> Self {
        let mut purpose = Purpose {
            action,
            paths: paths.to_vec(),
            images: images.collect(),
        };
        purpose.paths.sort();
        purpose.images.sort();
        purpose
    }

    /// The one branch for this purpose: readable, and with a digest that keeps apart what looks the same.
    pub(crate) fn branch(&self, target: &str) -> String {
        let (paths, images) = (self.paths.join("+"), self.images.join("+"));
        let mark = self.action.mark();
        let exact = Digest::of(format!("{target}\n{paths}\n{mark}{images}").as_bytes());
        let short: String = exact.hex().chars().take(8).collect();
        format!("{PREFIX}{}/{mark}{}-{short}", plain(&paths), plain(&images))
    }

    /// Whether whoever has this has the other as well.
    fn covers(&self, other: &Purpose) -> bool {
        let all = |these: &[String], those: &[String]| those.iter().all(|one| these.contains(one));
        all(&self.paths, &other.paths) && all(&self.images, &other.images)
    }

    /// Whether it would set this image.
    fn sets(&self, held: &HeldHere) -> bool {
        let is_there = |path: &String| {
            if !Pattern::is_one(path) {
                return *path == held.folder || kustomization_folder(path) == Some(&held.folder);
            }
            let files = file_candidates(&held.folder);
            let named = |pattern: Pattern| pattern.folders(files.iter().map(String::as_str));
            Pattern::parse(path).is_ok_and(|pattern| !named(pattern).is_empty())
        };
        self.action.is_set()
            && self.images.iter().any(|image| held.names.contains(image))
            && self.paths.iter().any(is_there)
    }

    /// The text of the merge request: what changes, the trailers, and the purpose where only this tool looks.
    pub(crate) fn description(&self, commit: &NewCommit) -> String {
        // A fence keeps a line from being a command or a mention.
        let message = commit.message().replace("```", "'''");
        // "-->" would end the comment, and JSON can say the same otherwise.
        let purpose = serde_json::json!(self).to_string().replace('>', "\\u003e");
        format!(
            "```text\n{}\n```\n\n<!-- towpath: {purpose} -->\n",
            message.trim_end()
        )
    }

    fn of(request: &MergeRequest) -> Option<Purpose> {
        let text = request.description.as_deref()?;
        let (_, after) = text.rsplit_once("<!-- towpath: ")?;
        let (purpose, _) = after.split_once(" -->")?;
        serde_json::from_str(purpose).ok()
    }
}

/// Letters, digits, dots and dashes, as many as fit, and nothing that git forbids in a name.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars().take(SHOWN) {
        let kept = c.is_ascii_alphanumeric() || c == '_' || (c == '.' && !plain.ends_with(['.', '-']));
        if kept && !(plain.is_empty() && c == '.') {
            plain.push(c);
        } else if !plain.ends_with('-') {
            plain.push('-');
        }
    }
    let plain = plain.trim_matches(['-', '.']).to_owned();
    let plain = plain.trim_end_matches(".lock").to_owned();
    if plain.is_empty() {
        "root".to_owned()
    } else {
        plain
    }
}

/// The open merge requests of this tool that a new one makes superfluous: for nothing that it is not for too. What sets
/// images does not undo what takes them back or holds them, nor the other way round: see [`overridden`].
pub(crate) fn superseded<'a>(
    open: &'a [MergeRequest],
    own_branch: &str,
    purpose: &Purpose,
) -> Vec<&'a MergeRequest> {
    open.iter()
        .filter(|request| request.source_branch.starts_with(PREFIX) && request.source_branch != own_branch)
        .filter(|request| {
            Purpose::of(request).is_some_and(|other| {
                other.action.is_set() == purpose.action.is_set() && purpose.covers(&other)
            })
        })
        .collect()
}

/// The open merge requests of this tool that would set what is held, whatever else they are for.
pub(crate) fn overridden<'a>(open: &'a [MergeRequest], held: &[HeldHere]) -> Vec<&'a MergeRequest> {
    open.iter()
        .filter(|request| request.source_branch.starts_with(PREFIX))
        .filter(|request| {
            Purpose::of(request).is_some_and(|purpose| held.iter().any(|held| purpose.sets(held)))
        })
        .collect()
}

/// What is known of a merge request at one moment.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) request: &'a MergeRequest,
    /// The newest pipeline of its commit.
    pub(crate) pipeline: Option<&'a HeadPipeline>,
    /// The commit that it should be at.
    pub(crate) head: &'a str,
    /// Whether what GitLab does in the background has had its time.
    pub(crate) grace_is_over: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is merged.
    Merged,
    /// It can be left alone: it merges by itself, or a person merges it.
    Settled,
    /// Look again later.
    Wait,
    /// Ask for the merge.
    Accept,
    /// It conflicts with its target, where the change has to be decided anew.
    Again,
    /// Another run put another commit there.
    Replaced,
    /// Somebody closed it.
    Closed,
    /// Its pipeline ended, and not well.
    PipelineFailed,
    /// A person has to act, for this reason.
    Person(&'static str),
}

/// Decides what to do with a merge request.
pub(crate) fn next(seen: &Seen<'_>, asked: &MergeRequestArgs) -> Next {
    let request = seen.request;
    match request.state {
        MergeState::Merged => return Next::Merged,
        MergeState::Closed => return Next::Closed,
        MergeState::Locked => return Next::Wait,
        MergeState::Opened => {}
    }
    if request.sha.as_deref() != Some(seen.head) {
        return if seen.grace_is_over {
            Next::Replaced
        } else {
            Next::Wait
        };
    }
    let status = request.detailed_merge_status.as_deref().unwrap_or_default();
    if status == "conflict" {
        return Next::Again;
    }
    let pipeline = seen.pipeline.map(|pipeline| &pipeline.status);
    let follows = asked.auto_merge || asked.wait;
    if follows && matches!(pipeline, Some(Status::Failed | Status::Canceled)) {
        return Next::PipelineFailed;
    }
    if asked.auto_merge && request.auto_merge != Some(true) {
        let is_looked_at = matches!(
            status,
            "checking" | "unchecked" | "preparing" | "approvals_syncing"
        );
        return match pipeline {
            _ if is_looked_at => Next::Wait,
            None | Some(Status::Skipped) if asked.without_pipeline && seen.grace_is_over => Next::Accept,
            None if !seen.grace_is_over => Next::Wait,
            // Asked for now, GitLab would merge what nothing has checked.
            None => Next::Person("no pipeline came for it"),
            // GitLab waits for a success, which a skipped pipeline never is.
            Some(Status::Skipped) => Next::Person("its pipeline was skipped"),
            Some(_) => Next::Accept,
        };
    }
    if asked.wait { Next::Wait } else { Next::Settled }
}
