//! What a branch or tag name stands for in a project.
//!
//! GitLab refuses a pipeline on a missing ref, on an ambiguous one and on one that is out of bounds with the same
//! status, so whoever wants to know which it was has to look. A job token may not use the repository API, but it may
//! read the repository over git, whose first answer lists all refs.

use serde::Deserialize;

use super::client::{Client, Token};
use super::project::{Project, encode_segment};
use super::refusal::refusal;
use crate::failure::{Failure, Result};
use crate::http::{Method, StatusCode};
use crate::secret::Secret;

/// The most a list of refs may have, in bytes: some 500,000 refs.
const LIST_LIMIT: usize = 32 * 1024 * 1024;

/// What has a given name in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedRefs {
    /// A branch has it.
    pub branch: bool,
    /// A tag has it.
    pub tag: bool,
    /// Whether the caller may push to the branch, and so run pipelines on it where it is protected; none when that
    /// cannot be known.
    pub may_push: Option<bool>,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(default)]
    can_push: Option<bool>,
}

impl Client {
    /// Looks up what has this name. None when the token cannot tell: a trigger token, or a job token with a project
    /// that is known by number only.
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers.
    pub async fn refs_named(&self, project: &Project, name: &str) -> Result<Option<NamedRefs>> {
        match (&self.token, project) {
            (Token::Access(_), _) => self.refs_by_api(project, name).await.map(Some),
            (Token::Job(token), Project::Path(path)) => self.refs_by_git(project, path, token, name).await,
            (Token::Job(_) | Token::Trigger(_), _) => Ok(None),
        }
    }

    async fn refs_by_api(&self, project: &Project, name: &str) -> Result<NamedRefs> {
        let branch: Option<Branch> = self.find(project, "branches", name).await?;
        let tag: Option<serde::de::IgnoredAny> = self.find(project, "tags", name).await?;
        Ok(NamedRefs {
            branch: branch.is_some(),
            tag: tag.is_some(),
            may_push: branch.and_then(|branch| branch.can_push),
        })
    }

    async fn find<T: serde::de::DeserializeOwned>(
        &self,
        project: &Project,
        kind: &str,
        name: &str,
    ) -> Result<Option<T>> {
        let url = self.url(project, &format!("repository/{kind}/{}", encode_segment(name)))?;
        let response = self.request(Method::GET, url).send().await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => response.json(LIST_LIMIT).await.map(Some),
            _ => {
                let object = format!("the {kind} of {project}");
                Err(refusal(response, &object, project, &self.token).await)
            }
        }
    }

    async fn refs_by_git(
        &self,
        project: &Project,
        path: &str,
        token: &Secret,
        name: &str,
    ) -> Result<Option<NamedRefs>> {
        let Some(root) = self.base().as_str().strip_suffix("api/v4/") else {
            return Ok(None);
        };
        let address = format!("{root}{path}.git/info/refs");
        let url = address
            .parse()
            .map_err(|error| Failure::internal(format!("cannot make a URL of {address}")).because(error))?;
        let request = self
            .http
            .get(url)
            .query("service", "git-upload-pack")
            .basic("gitlab-ci-token", token);
        let object = format!("the refs of {project}");
        let response = self.expect_success(request, project, &object).await?;
        let list = response.bytes(LIST_LIMIT).await?;
        Ok(Some(NamedRefs {
            branch: lists(&list, &format!("refs/heads/{name}")),
            tag: lists(&list, &format!("refs/tags/{name}")),
            may_push: None,
        }))
    }
}

/// Whether a ref advertisement (gitprotocol-pack, "Reference Discovery") holds a ref: each line ends in a space, the
/// full name and a newline, the first one with capabilities behind a NUL.
fn lists(advertisement: &[u8], full_name: &str) -> bool {
    advertisement.split(|&byte| byte == b'\n').any(|line| {
        let line = line.split(|&byte| byte == 0).next().unwrap_or(line);
        line.strip_suffix(full_name.as_bytes())
            .is_some_and(|before| before.ends_with(b" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_found_by_their_full_name_only() {
        let list = b"001e# service=git-upload-pack\n0000\
            0100aaaa HEAD\0multi_ack symref=HEAD:refs/heads/main\n\
            003dbbbb refs/heads/main\n003fcccc refs/heads/not-main\n003edddd refs/tags/v1\n0041eeee refs/tags/v1^{}\n0000";
        assert!(lists(list, "refs/heads/main"));
        assert!(lists(list, "refs/tags/v1"));
        assert!(!lists(list, "refs/tags/main"));
        assert!(!lists(list, "refs/heads/mai"));
        assert!(!lists(b"", "refs/heads/main"));
    }
}
