//! The commits that changed one file, over the API.

use std::sync::{MutexGuard, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::super::project::encode_segment;
use super::super::refusal::refusal;
use super::{AT_ONCE, Branch, Contents, FILE_LIMIT};
use crate::failure::{Failure, Result};
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
        let revisions = futures_util::stream::iter(listed)
            .map(async |commit| {
                Ok::<_, Failure>(Revision {
                    content: self.content(path, &commit.id).await?,
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
            .await?;
        Ok(History { revisions, complete })
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
        let object = format!("the commits of {path} of {}", self.project);
        let query = [("ref_name", from), ("path", path), ("first_parent", "true")];
        self.client
            .read_up_to(&self.project, "repository/commits", &query, limit, &object)
            .await
    }

    /// What a file held at a commit; none when it was not there.
    async fn content(&self, path: &str, commit: &str) -> Result<Option<Vec<u8>>> {
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
