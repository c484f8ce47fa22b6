//! One commit over the Commits API, and what its answer means.

use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::refusal::refusal;
use super::Branch;
use crate::failure::{Failure, Kind, Result};
use crate::git::commit::NewCommit;
use crate::http::{Method, Repeat, StatusCode, Unanswered};

/// GitLab runs its hooks before it answers.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// The most an answer may have, in bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// A commit that GitLab made.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Made {
    pub(super) id: String,
    #[serde(default)]
    pub(super) parent_ids: Vec<String>,
}

/// What became of a commit that was sent.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on the branch.
    Made(Made),
    /// GitLab refused it for what it holds or for what the branch is at: a lost race, or a rule. Only a look at the
    /// branch tells which.
    Refused(Failure),
    /// The answer was lost: it may have been made or not.
    Unknown(Failure),
}

/// A file of a commit that changed it.
#[derive(Debug, Deserialize)]
struct Diffed {
    #[serde(default)]
    new_path: String,
    #[serde(default)]
    old_path: String,
}

impl Branch {
    /// Sends a commit for this branch. Every file that is there carries the last commit that changed it, so that GitLab
    /// refuses the whole when one of them was changed by somebody else; if it is `guarded`, also when one that must not be
    /// there is.
    ///
    /// # Errors
    /// Denied (exit 4) where the token may not push to the branch, and what a rate limit does not let through; input (exit
    /// 3) for a file that the API would not keep as it is.
    pub(super) async fn send(&self, commit: &NewCommit, guarded: bool) -> Result<Sent> {
        let paths: Vec<String> = commit.changes.iter().map(|change| change.path.clone()).collect();
        // What a decision writes it has most often read; the rest is looked up, since GitLab tells new from old.
        self.read(&paths).await?;
        self.post(commit, guarded, json!({ "branch": self.name })).await
    }

    pub(super) async fn post(&self, commit: &NewCommit, guarded: bool, mut body: Value) -> Result<Sent> {
        if commit.signing.is_some() {
            return Err(
                Failure::usage("GitLab's API takes no signature of ours").hint(
                    "leave --signing-key (TOWPATH_SIGNING_KEY) away, since GitLab can sign such commits itself, or go \
                     by git (--via git)",
                ),
            );
        }
        refuse_windows_line_ends(commit)?;
        body["commit_message"] = commit.message().into();
        body["author_name"] = commit.identity.name().into();
        body["author_email"] = commit.identity.email().into();
        body["stats"] = false.into();
        // A commit that begins a branch anew has nothing to be locked against.
        let locked = body.get("start_sha").is_none();
        let mut actions = if guarded { guards(commit) } else { Vec::new() };
        actions.extend(self.actions(commit, locked)?);
        body["actions"] = actions.into();
        let url = self.client.url(&self.project, "repository/commits")?;
        let request = self
            .client
            .request(Method::POST, url)
            .json(&body)
            .timeout(COMMIT_TIMEOUT)
            .repeat(Repeat::Unsafe);
        let response = match request.send().await {
            Ok(response) => response,
            Err(failure) => return not_answered(failure),
        };
        let status = response.status();
        if status.is_success() {
            // Whatever is wrong with the answer, the commit may be there.
            return Ok(match response.json(ANSWER_LIMIT).await {
                Ok(made) => Sent::Made(made),
                Err(failure) => Sent::Unknown(failure),
            });
        }
        let object = format!("a commit on {} of {}", self.name, self.project);
        let failure = refusal(response, &object, &self.project, &self.client.token).await;
        match status {
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                Ok(Sent::Refused(failure))
            }
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Ok(Sent::Unknown(failure))
            }
            _ => Err(failure),
        }
    }

    fn actions(&self, commit: &NewCommit, locked: bool) -> Result<Vec<Value>> {
        let known = self.known();
        commit
            .changes
            .iter()
            .map(|change| {
                let stored = known.get(&change.path).and_then(Option::as_ref);
                let mut action = json!({ "file_path": change.path });
                action["action"] = match (&change.content, stored) {
                    (Some(_), Some(_)) => "update",
                    (Some(_), None) => "create",
                    (None, Some(_)) => "delete",
                    (None, None) => {
                        return Err(Failure::internal(format!(
                            "{} is to be removed and is not there",
                            change.path
                        )));
                    }
                }
                .into();
                if let Some(content) = &change.content {
                    // Text could not hold every byte.
                    action["encoding"] = "base64".into();
                    action["content"] = base64::engine::general_purpose::STANDARD.encode(content).into();
                }
                if let Some(stored) = stored.filter(|_| locked) {
                    action["last_commit_id"] = stored.last_commit.clone().into();
                }
                Ok(action)
            })
            .collect()
    }

    /// The files that a commit changed, sorted.
    pub(super) async fn changed_by(&self, commit: &str) -> Result<Vec<String>> {
        let object = format!("the changes of commit {commit} of {}", self.project);
        let path = format!("repository/commits/{commit}/diff");
        let diffs: Vec<Diffed> = self.client.read_pages(&self.project, &path, &[], &object).await?;
        let mut paths: Vec<String> = diffs
            .into_iter()
            .flat_map(|diff| [diff.new_path, diff.old_path])
            .filter(|path| !path.is_empty())
            .collect();
        paths.sort();
        paths.dedup();
        Ok(paths)
    }
}

/// Creates each file that must not be there, and deletes it again: nothing changes, unless one is there, which fails the
/// whole commit. GitLab looks at this on the very commit that it builds on, and moves the branch from there alone, so that
/// nothing comes in between. (GitLab's own tests of Gitaly's `UserCommitFiles`: "create duplicate file", "delete created
/// file".)
fn guards(commit: &NewCommit) -> Vec<Value> {
    let guard = |path: &String| {
        [
            json!({ "action": "create", "file_path": path, "content": "not to be here" }),
            json!({ "action": "delete", "file_path": path }),
        ]
    };
    commit.absent.iter().flat_map(guard).collect()
}

/// Refuses what would not arrive as it was sent: GitLab writes files with `core.autocrlf=input` (Gitaly's
/// `GlobalConfiguration`), whatever they are encoded in.
fn refuse_windows_line_ends(commit: &NewCommit) -> Result<()> {
    let has_them = |content: &[u8]| content.windows(2).any(|pair| pair == b"\r\n");
    let mut changes = commit.changes.iter();
    match changes.find(|change| change.content.as_deref().is_some_and(has_them)) {
        Some(change) => Err(Failure::input(format!(
            "{} has the line ends of Windows (CRLF), and GitLab's Commits API would make LF of all of them",
            change.path
        ))
        .hint(
            "go by git, which keeps them: --via git (TOWPATH_VIA); for a merge request, commit the file with LF first",
        )),
        None => Ok(()),
    }
}

/// Sorts a failure to get any answer by whether the request can have arrived.
fn not_answered(failure: Failure) -> Result<Sent> {
    let unanswered = failure
        .source()
        .and_then(|source| source.downcast_ref::<Unanswered>());
    match unanswered {
        Some(_) if failure.kind() == Kind::Unavailable => Ok(Sent::Unknown(failure)),
        _ => Err(failure),
    }
}
