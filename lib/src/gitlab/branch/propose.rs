//! A commit on a branch of its own, for a merge request.

use serde::Deserialize;
use serde_json::json;

use super::super::project::encode_segment;
use super::super::refusal::refusal;
use super::write::Sent;
use super::{Branch, BranchAnswer, FILE_LIMIT};
use crate::failure::{Failure, Result};
use crate::git::commit::NewCommit;
use crate::git::landing::{BREAKDOWNS, LONGEST_PAUSE, REFUSALS, pause_after, pauses};
use crate::http::{Method, StatusCode};

#[derive(Deserialize)]
struct Comparison {
    #[serde(default)]
    diffs: Vec<Compared>,
}

#[derive(Deserialize)]
struct Compared {
    #[serde(default)]
    new_path: String,
}

impl Branch {
    /// Makes another branch the tip of this one and the commit alone, and gives the commit that it is at then. Whatever
    /// else it held is dropped, so it must be one that nobody else writes to. One that says the same already is left as
    /// it is, with its pipelines: `same` tells of a path, and what is wanted of it and is there, whether it does.
    ///
    /// # Errors
    /// Denied (exit 4) where the token may not push to it or GitLab refuses the commit; unavailable (exit 7).
    pub async fn propose(
        &self,
        commit: &NewCommit,
        branch: &str,
        same: impl Fn(&str, Option<&[u8]>, Option<&[u8]>) -> bool,
    ) -> Result<String> {
        let paths: Vec<String> = commit.changes.iter().map(|change| change.path.clone()).collect();
        self.read(&paths).await?;
        let mut pauses = pauses();
        let (mut refusals, mut breakdowns) = (0, 0);
        loop {
            if let Some(head) = self.head_of(branch).await?
                && self.says_the_same(commit, &head, &same).await?
            {
                return Ok(head);
            }
            let effect = crate::cli::effect("commit", format!("{} {branch}", self.project));
            let to = json!({ "branch": branch, "start_sha": self.tip, "force": true });
            match self.post(commit, false, to).await? {
                Sent::Made(made) => {
                    effect.done("done");
                    return Ok(made.id);
                }
                Sent::Refused(failure) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return Err(Failure::denied(failure.message())
                            .hint("GitLab's own words say which rule is against it"));
                    }
                }
                Sent::Unknown(failure) => {
                    breakdowns += 1;
                    if breakdowns >= BREAKDOWNS {
                        return Err(failure);
                    }
                }
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            self.pause(pause.max(pause_after(refusals))).await;
        }
    }

    async fn head_of(&self, branch: &str) -> Result<Option<String>> {
        let path = format!("repository/branches/{}", encode_segment(branch));
        let url = self.client.url(&self.project, &path)?;
        let response = self.client.request(Method::GET, url).send().await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let answer: BranchAnswer = response.json(FILE_LIMIT).await?;
                Ok(Some(answer.commit.id))
            }
            _ => {
                let object = format!("the branch {branch} of {}", self.project);
                Err(refusal(response, &object, &self.project, &self.client.token).await)
            }
        }
    }

    /// Whether a commit differs from this branch by the files of the proposed one alone, which say the same in it.
    async fn says_the_same(
        &self,
        commit: &NewCommit,
        head: &str,
        same: impl Fn(&str, Option<&[u8]>, Option<&[u8]>) -> bool,
    ) -> Result<bool> {
        let object = format!("the comparison with {head} of {}", self.project);
        let url = self.client.url(&self.project, "repository/compare")?;
        let request = self
            .client
            .request(Method::GET, url)
            .query("from", &self.tip)
            .query("to", head);
        let response = self
            .client
            .expect_success(request, &self.project, &object)
            .await?;
        let comparison: Comparison = response.json(FILE_LIMIT).await?;
        let mut differ: Vec<&str> = comparison
            .diffs
            .iter()
            .map(|diff| diff.new_path.as_str())
            .collect();
        let mut paths: Vec<&str> = commit.changes.iter().map(|change| change.path.as_str()).collect();
        differ.sort_unstable();
        paths.sort_unstable();
        if differ != paths {
            return Ok(false);
        }
        let owned: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let there = self.at(head).read(&owned).await?;
        Ok(commit
            .changes
            .iter()
            .all(|change| same(&change.path, change.content.as_deref(), there.get(&change.path))))
    }
}
