//! The commits that changed one file, over the API.

use std::sync::{MutexGuard, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::super::project::encode_segment;
use super::super::refusal::refusal;
use super::{AT_ONCE, Branch, Contents, FILE_LIMIT};
use crate::failure::{Failure, Kind, Result};
use crate::git::revision::{History, Revision, trailers};
use crate::http::{Method, StatusCode};

/// How many commits are looked at, one after the other, when more of them are needed.
const DEPTHS: [usize; 4] = [20, 100, 1000, 10_000];

/// A commit, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default)]
    author_name: String,
    #[serde(default)]
    author_email: String,
    #[serde(default)]
    authored_date: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    parent_ids: Vec<String>,
}

impl Listed {
    fn is_merge(&self) -> bool {
        self.parent_ids.len() > 1
    }
}

/// What lies between two commits.
#[derive(Deserialize)]
struct Comparison {
    #[serde(default)]
    commits: Vec<serde::de::IgnoredAny>,
}

impl Branch {
    /// The commits that changed `path`, newest first along first parents, with its content after each, as far as was
    /// asked for: see [`Branch::deepen`].
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers.
    pub async fn history(&self, path: &str) -> Result<History> {
        let wanted = DEPTHS[self.depth];
        let listed = self.commits_of(path, &self.tip, wanted).await?;
        let complete = listed.len() < wanted;
        let merges: Vec<bool> = listed.iter().map(Listed::is_merge).collect();
        let first_parents: Vec<String> = listed.iter().map(|commit| commit.id.clone()).collect();
        let mut revisions = self.revisions(path, listed).await?;
        if merges.contains(&true) {
            // A merge says who merged; what was done, and for which pipeline, is said by the commit that it brought in.
            let mut brought = self.commits_along(path, &self.tip, wanted, false).await?;
            brought.retain(|commit| !commit.is_merge() && !first_parents.contains(&commit.id));
            let mut brought = self.revisions(path, brought).await?;
            for (merge, _) in revisions.iter_mut().zip(merges).filter(|(_, is_merge)| *is_merge) {
                let same = |one: &Revision| one.content == merge.content;
                if let Some(found) = brought.iter().position(same) {
                    // Each is found once, the newest by the newest merge.
                    merge.trailers.extend(brought.remove(found).trailers);
                }
            }
        }
        Ok(History { revisions, complete })
    }

    /// The commits with what `path` held after each.
    async fn revisions(&self, path: &str, listed: Vec<Listed>) -> Result<Vec<Revision>> {
        futures_util::stream::iter(listed)
            .map(async |commit| {
                Ok::<_, Failure>(Revision {
                    content: self.content_at(&commit.id, path).await?,
                    trailers: trailers(&commit.message),
                    commit: commit.id,
                    author: commit.author_name,
                    email: commit.author_email,
                    date: commit.authored_date,
                    subject: commit.title,
                    ..Revision::default()
                })
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The commit of the branch whose name begins like this; none when there is none, or it is not part of the branch.
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers.
    pub async fn commit(&self, prefix: &str) -> Result<Option<String>> {
        let object = format!("the commit {prefix} of {}", self.project);
        let path = format!("repository/commits/{}", encode_segment(prefix));
        let found: Listed = match self.client.read(&self.project, &path, &object).await {
            Err(failure) if failure.kind() == Kind::NotFound => return Ok(None),
            found => found?,
        };
        // GitLab keeps commits that no branch has any more. What the branch does not lack is part of it.
        let url = self.client.url(&self.project, "repository/compare")?;
        let request = self
            .client
            .request(Method::GET, url)
            .query("from", &self.tip)
            .query("to", &found.id);
        let response = self
            .client
            .expect_success(request, &self.project, &object)
            .await?;
        let comparison: Comparison = response.json(FILE_LIMIT).await?;
        Ok(comparison.commits.is_empty().then_some(found.id))
    }

    /// Looks further back from now on. False when nobody looks further.
    ///
    /// # Errors
    /// None yet: as with a clone, asking may fail.
    pub async fn deepen(&mut self) -> Result<bool> {
        if self.depth + 1 == DEPTHS.len() {
            return Ok(false);
        }
        self.depth += 1;
        Ok(true)
    }

    /// The commits reachable from `from` that changed `path`, newest first, at most `limit`.
    pub(super) async fn commits_of(&self, path: &str, from: &str, limit: usize) -> Result<Vec<Listed>> {
        self.commits_along(path, from, limit, true).await
    }

    async fn commits_along(
        &self,
        path: &str,
        from: &str,
        limit: usize,
        first_parent: bool,
    ) -> Result<Vec<Listed>> {
        let object = format!("the commits of {path} of {}", self.project);
        let first_parent = if first_parent { "true" } else { "false" };
        let query = [("ref_name", from), ("path", path), ("first_parent", first_parent)];
        self.client
            .read_up_to(&self.project, "repository/commits", &query, limit, &object)
            .await
    }

    /// What a file held at a commit; none when it was not there.
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers.
    pub async fn content_at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let key = (path.to_owned(), commit.to_owned());
        if let Some(known) = self.kept().get(&key) {
            return Ok(known.clone());
        }
        let url = self.client.url(
            &self.project,
            &format!("repository/files/{}/raw", encode_segment(path)),
        )?;
        let response = self
            .client
            .request(Method::GET, url)
            .query("ref", commit)
            .send()
            .await?;
        let content = match response.status() {
            StatusCode::NOT_FOUND => None,
            status if status.is_success() => Some(response.bytes(FILE_LIMIT).await?.to_vec()),
            _ => {
                let object = format!("the file {path} of {} at {commit}", self.project);
                return Err(refusal(response, &object, &self.project, &self.client.token).await);
            }
        };
        self.kept().insert(key, content.clone());
        Ok(content)
    }

    fn kept(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
