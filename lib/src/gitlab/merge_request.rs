//! Merge requests: finding, opening, changing, closing and accepting them. Not for job tokens.
//!
//! Source: GitLab documentation, "Merge requests API" and "Notes API". GitLab checks in the background whether a merge
//! request can be merged, and starts its pipeline in the background too, so both come after it is there.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Client;
use super::project::{Project, encode_segment};
use super::refusal::refusal;
use super::status::Status;
use crate::failure::{Failure, Result};
use crate::http::{Method, Repeat, StatusCode};

/// The most an answer may have, in bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// How a merge request stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeState {
    /// It waits to be merged.
    Opened,
    /// Somebody closed it.
    Closed,
    /// It is being merged.
    Locked,
    /// It is merged.
    Merged,
}

/// A merge request.
#[derive(Clone, Debug, Deserialize)]
pub struct MergeRequest {
    /// Its number in the project.
    pub iid: u64,
    /// How it stands.
    pub state: MergeState,
    /// Its title.
    #[serde(default)]
    pub title: Option<String>,
    /// The text below it.
    #[serde(default)]
    pub description: Option<String>,
    /// The branch that is merged.
    pub source_branch: String,
    /// The commit that the branch is at, as far as the merge request knows.
    #[serde(default)]
    pub sha: Option<String>,
    /// Its page.
    #[serde(default)]
    pub web_url: Option<String>,
    /// GitLab's word for what stands between it and a merge: `checking`, `mergeable`, `conflict`, `not_approved`...
    #[serde(default)]
    pub detailed_merge_status: Option<String>,
    /// Whether it merges by itself once its pipeline succeeds; newer versions keep the old name.
    #[serde(default, rename = "merge_when_pipeline_succeeds")]
    pub auto_merge: Option<bool>,
    /// The commit that merged it.
    #[serde(default)]
    pub merge_commit_sha: Option<String>,
    /// The commit that its commits were squashed into.
    #[serde(default)]
    pub squash_commit_sha: Option<String>,
}

impl MergeRequest {
    /// The commit on the target branch that brought it in: of a merge, a squash, or a fast-forward.
    #[must_use]
    pub fn landed(&self) -> Option<&str> {
        let found = self.merge_commit_sha.as_deref();
        found
            .or(self.squash_commit_sha.as_deref())
            .or(self.sha.as_deref())
    }
}

/// A pipeline of a merge request.
#[derive(Clone, Debug, Deserialize)]
pub struct HeadPipeline {
    /// The commit it runs for.
    #[serde(default)]
    pub sha: Option<String>,
    /// How it stands.
    #[serde(default)]
    pub status: Status,
    /// Its page.
    #[serde(default)]
    pub web_url: Option<String>,
}

/// A merge request to open.
#[derive(Clone, Debug)]
pub struct NewMergeRequest<'a> {
    /// The branch to merge; it goes when it is merged.
    pub source_branch: &'a str,
    /// Where to.
    pub target_branch: &'a str,
    /// The title.
    pub title: &'a str,
    /// The text below it, in GitLab's Markdown. A line that begins with a slash would be a command.
    pub description: &'a str,
}

/// What became of the wish to merge.
#[derive(Debug)]
pub enum Accepted {
    /// It is merged, or will be by itself.
    Yes(Box<MergeRequest>),
    /// Not in the state it is in now (405, 406, 422), or its branch is at another commit (409).
    NotNow(Failure),
}

impl Client {
    /// The open merge requests into a branch; with a source branch, those from it.
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers.
    pub async fn open_merge_requests(
        &self,
        project: &Project,
        target: &str,
        source: Option<&str>,
    ) -> Result<Vec<MergeRequest>> {
        let mut query = vec![("state", "opened"), ("target_branch", target)];
        query.extend(source.map(|source| ("source_branch", source)));
        let object = format!("the merge requests of {project}");
        self.read_pages(project, "merge_requests", &query, &object).await
    }

    /// Reads a merge request.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn merge_request(&self, project: &Project, iid: u64) -> Result<MergeRequest> {
        let object = format!("merge request !{iid} of {project}");
        self.read(project, &format!("merge_requests/{iid}"), &object)
            .await
    }

    /// The pipelines of a merge request, newest first.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn merge_request_pipelines(&self, project: &Project, iid: u64) -> Result<Vec<HeadPipeline>> {
        let object = format!("the pipelines of merge request !{iid} of {project}");
        let path = format!("merge_requests/{iid}/pipelines");
        self.read_up_to(project, &path, &[], 20, &object).await
    }

    /// Opens a merge request. GitLab allows one between two branches: look for it before, and after a lost answer.
    ///
    /// # Errors
    /// Conflict (exit 6) when there is one already; denied, input or unavailable, as GitLab answers.
    pub async fn open_merge_request(
        &self,
        project: &Project,
        new: &NewMergeRequest<'_>,
    ) -> Result<MergeRequest> {
        let body = json!({
            "source_branch": new.source_branch,
            "target_branch": new.target_branch,
            "title": new.title,
            "description": new.description,
            "remove_source_branch": true,
        });
        let request = self
            .request(Method::POST, self.url(project, "merge_requests")?)
            .json(&body)
            .repeat(Repeat::Unsafe);
        let object = format!("a merge request of {} of {project}", new.source_branch);
        let response = self.expect_success(request, project, &object).await?;
        response.json(ANSWER_LIMIT).await
    }

    /// Gives a merge request another title and text.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn rewrite_merge_request(
        &self,
        project: &Project,
        iid: u64,
        title: &str,
        description: &str,
    ) -> Result<MergeRequest> {
        let body = json!({ "title": title, "description": description });
        self.change_merge_request(project, iid, &body).await
    }

    /// Closes a merge request and says why in a note.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn close_merge_request(&self, project: &Project, iid: u64, why: &str) -> Result<MergeRequest> {
        let request = self
            .request(
                Method::POST,
                self.url(project, &format!("merge_requests/{iid}/notes"))?,
            )
            .json(&json!({ "body": why }))
            .repeat(Repeat::Unsafe);
        let object = format!("a note on merge request !{iid} of {project}");
        self.expect_success(request, project, &object).await?;
        self.change_merge_request(project, iid, &json!({ "state_event": "close" }))
            .await
    }

    async fn change_merge_request(
        &self,
        project: &Project,
        iid: u64,
        body: &serde_json::Value,
    ) -> Result<MergeRequest> {
        let url = self.url(project, &format!("merge_requests/{iid}"))?;
        let request = self.request(Method::PUT, url).json(body);
        let object = format!("merge request !{iid} of {project}");
        let response = self.expect_success(request, project, &object).await?;
        response.json(ANSWER_LIMIT).await
    }

    /// Asks for a merge request to be merged once its pipeline has succeeded, if its branch still is at `sha`. Where no
    /// pipeline is there yet GitLab merges at once: wait for it before.
    ///
    /// # Errors
    /// Denied (exit 4) for a token that may not merge it; not found or unavailable, as GitLab answers.
    pub async fn accept_merge_request(&self, project: &Project, iid: u64, sha: &str) -> Result<Accepted> {
        let url = self.url(project, &format!("merge_requests/{iid}/merge"))?;
        let body = json!({
            "sha": sha,
            "should_remove_source_branch": true,
            "auto_merge": true,
            // Its name before 17.11; versions that know both take either.
            "merge_when_pipeline_succeeds": true,
        });
        let response = self.request(Method::PUT, url).json(&body).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(Accepted::Yes(Box::new(response.json(ANSWER_LIMIT).await?)));
        }
        let object = format!("the merge of !{iid} of {project}");
        let failure = refusal(response, &object, project, &self.token).await;
        match status {
            StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::CONFLICT
            | StatusCode::UNPROCESSABLE_ENTITY => Ok(Accepted::NotNow(failure)),
            // GitLab answers so to a token that is good and may not merge here.
            StatusCode::UNAUTHORIZED => Err(Failure::denied(format!(
                "the token may not merge !{iid} into its branch in {project}"
            ))
            .because(failure)
            .hint(
                "use a token whose role may merge there, or leave --auto-merge away and let a person merge",
            )),
            _ => Err(failure),
        }
    }

    /// Deletes a branch. One that is gone already is fine.
    ///
    /// # Errors
    /// Denied (exit 4) for a protected one; unavailable, as GitLab answers.
    pub async fn delete_branch(&self, project: &Project, name: &str) -> Result<()> {
        let url = self.url(project, &format!("repository/branches/{}", encode_segment(name)))?;
        let response = self.request(Method::DELETE, url).send().await?;
        if response.status().is_success() || response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let object = format!("the branch {name} of {project}");
        Err(refusal(response, &object, project, &self.token).await)
    }
}
