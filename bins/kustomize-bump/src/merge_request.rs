//! A change that goes through a merge request: the arguments, its names, and the decision what to do next.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use towpath::git::NewCommit;
use towpath::gitlab::{HeadPipeline, MergeRequest, MergeState, Status};
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

/// What a merge request of this tool is for; it is in its description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purpose {
    /// The paths, as they were given.
    pub(crate) paths: Vec<String>,
    /// The images, as they were given.
    pub(crate) images: Vec<String>,
}

impl Purpose {
    pub(crate) fn new(paths: &[String], images: impl Iterator<Item = String>) -> Self {
        let mut purpose = Purpose {
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
        let exact = Digest::of(format!("{target}\n{paths}\n{images}").as_bytes());
        let short: String = exact.hex().chars().take(8).collect();
        format!("{PREFIX}{}/{}-{short}", plain(&paths), plain(&images))
    }

    /// Whether whoever has this has the other as well.
    fn covers(&self, other: &Purpose) -> bool {
        let all = |these: &[String], those: &[String]| those.iter().all(|one| these.contains(one));
        all(&self.paths, &other.paths) && all(&self.images, &other.images)
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

/// The open merge requests of this tool that a new one makes superfluous: for nothing that it is not for too.
pub(crate) fn superseded<'a>(
    open: &'a [MergeRequest],
    own_branch: &str,
    purpose: &Purpose,
) -> Vec<&'a MergeRequest> {
    open.iter()
        .filter(|request| request.source_branch.starts_with(PREFIX) && request.source_branch != own_branch)
        .filter(|request| Purpose::of(request).is_some_and(|other| purpose.covers(&other)))
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
