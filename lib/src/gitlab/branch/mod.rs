//! One branch of a project's repository, read and changed over the API: without git, and without a copy of anything.
//!
//! Source: GitLab documentation, "Repository files API", "Repositories API" (tree), "Commits API" and "Branches API".
//! Everything is read at the commit that the branch was at when it was last looked at, so that a decision sees one state.

mod history;
mod land;
mod propose;
mod write;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::client::Client;
use super::project::{Project, encode_segment};
use super::refusal::refusal;
use crate::failure::{Failure, Kind, Result};
use crate::git::commit::Identity;
use crate::git::files::Files;
use crate::http::{Method, StatusCode};

/// How many files are asked for at once.
const AT_ONCE: usize = 8;
/// The most an answer with one file may have, in bytes.
const FILE_LIMIT: usize = 16 * 1024 * 1024;
/// With more files than this to look for, the tree is listed first, to ask only for those that are there.
const FEW: usize = 60;

/// A branch at the commit that it was last seen at.
#[derive(Debug)]
pub struct Branch {
    client: Client,
    project: Project,
    about: About,
    name: String,
    tip: String,
    may_push: Option<bool>,
    /// What was read at the tip; none for what is not there.
    read: Mutex<BTreeMap<String, Option<Stored>>>,
    /// Contents of files at commits, which never change.
    contents: Mutex<Contents>,
    depth: usize,
}

/// By path and commit; none for what was not there.
type Contents = BTreeMap<(String, String), Option<Vec<u8>>>;

/// A file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    content: Vec<u8>,
    /// The last commit that changed it: what GitLab compares with when it is written.
    last_commit: String,
}

/// What is known of the project itself.
#[derive(Clone, Debug, Deserialize)]
struct About {
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default)]
    http_url_to_repo: Option<String>,
    #[serde(default)]
    path_with_namespace: Option<String>,
}

#[derive(Deserialize)]
struct BranchAnswer {
    commit: CommitAnswer,
    #[serde(default)]
    can_push: Option<bool>,
}

#[derive(Deserialize)]
struct CommitAnswer {
    id: String,
}

#[derive(Deserialize)]
struct FileAnswer {
    content: String,
    last_commit_id: String,
}

#[derive(Deserialize)]
struct TreeEntry {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct User {
    name: String,
    #[serde(default)]
    commit_email: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    public_email: Option<String>,
}

impl Branch {
    /// Looks at a branch, or at the one that the project names as its default.
    ///
    /// # Errors
    /// Denied (exit 4), not found (exit 5) for the project or the branch, unavailable (exit 7).
    pub async fn open(client: Client, project: Project, branch: Option<&str>) -> Result<Self> {
        let about: About = client.read(&project, "", &project.to_string()).await?;
        let name = match (branch, &about.default_branch) {
            (Some(name), _) => name.to_owned(),
            (None, Some(name)) => name.clone(),
            (None, None) => {
                return Err(Failure::not_found(format!("{project} has no commit yet"))
                    .hint("push a first commit, or check --branch (TOWPATH_BRANCH)"));
            }
        };
        let mut branch = Branch {
            client,
            project,
            about,
            name,
            tip: String::new(),
            may_push: None,
            read: Mutex::default(),
            contents: Mutex::default(),
            depth: 0,
        };
        branch.refresh().await?;
        Ok(branch)
    }

    /// Its name.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.name
    }

    /// The commit that it was at when last looked at.
    #[must_use]
    pub fn tip(&self) -> &str {
        &self.tip
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The client that it is read with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The address that git clones from, as GitLab says it, else the project.
    #[must_use]
    pub fn repository(&self) -> String {
        let known = self.about.http_url_to_repo.clone();
        known.unwrap_or_else(|| self.project.to_string())
    }

    /// The project's full path, where GitLab says it.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.about.path_with_namespace.as_deref()
    }

    /// Looks at the branch again.
    ///
    /// # Errors
    /// As [`Branch::open`].
    pub async fn refresh(&mut self) -> Result<()> {
        let path = format!("repository/branches/{}", encode_segment(&self.name));
        let object = format!("the branch {} of {}", self.name, self.project);
        let answer: BranchAnswer = match self.client.read(&self.project, &path, &object).await {
            // The project itself was there.
            Err(failure) if failure.kind() == Kind::NotFound => {
                return Err(
                    Failure::not_found(format!("{} has no branch {}", self.project, self.name))
                        .hint("check --branch (TOWPATH_BRANCH)"),
                );
            }
            answer => answer?,
        };
        self.may_push = answer.can_push;
        if answer.commit.id != self.tip {
            self.tip = answer.commit.id;
            self.read = Mutex::default();
        }
        Ok(())
    }

    /// The person or bot that the token belongs to.
    ///
    /// # Errors
    /// Denied (exit 4) when the token may not read it; input (exit 3) when GitLab shows no address.
    pub async fn identity(&self) -> Result<Identity> {
        let url = self.client.api_url("user")?;
        let request = self.client.request(Method::GET, url);
        let object = "the user of the token";
        let response = self.client.expect_success(request, &self.project, object).await?;
        let user: User = response.json(FILE_LIMIT).await?;
        let email = [user.commit_email, user.email, user.public_email]
            .into_iter()
            .flatten()
            .find(|email| !email.is_empty());
        let email = email.ok_or_else(|| {
            Failure::input("GitLab shows no e-mail address of the user of the token")
                .hint("pass --author and --author-email (TOWPATH_GIT_AUTHOR, TOWPATH_GIT_AUTHOR_EMAIL)")
        })?;
        Identity::new(&user.name, &email)
    }

    /// The files in `folder` at the tip, with those below it.
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let object = format!("the files in {folder} of {}", self.project);
        let mut query = vec![
            ("ref", self.tip.as_str()),
            ("recursive", "true"),
            ("pagination", "keyset"),
        ];
        if folder != "." {
            query.push(("path", folder));
        }
        // A folder that is not there is a 404, but the branch was there a moment ago.
        let found: Option<Vec<TreeEntry>> = self
            .client
            .find_pages(&self.project, "repository/tree", &query, &object)
            .await?;
        let files = found.unwrap_or_default().into_iter();
        let mut files: Vec<String> = files
            .filter(|entry| entry.kind != "tree")
            .map(|entry| entry.path)
            .collect();
        files.sort();
        Ok(files)
    }

    /// The contents of those of `paths` that are there at the tip.
    ///
    /// # Errors
    /// Denied or unavailable, as GitLab answers; input (exit 3) for contents that cannot be decoded.
    pub async fn read(&self, paths: &[String]) -> Result<Files> {
        let mut missing: Vec<&String> = {
            let read = self.known();
            paths.iter().filter(|path| !read.contains_key(*path)).collect()
        };
        missing.sort();
        missing.dedup();
        if missing.len() > FEW {
            let listed = self.list(&common_folder(&missing)).await?;
            let (there, absent): (Vec<&String>, Vec<&String>) = missing
                .into_iter()
                .partition(|path| listed.binary_search(path).is_ok());
            self.known()
                .extend(absent.into_iter().map(|path| (path.clone(), None)));
            missing = there;
        }
        let found: Vec<(String, Option<Stored>)> = futures_util::stream::iter(missing)
            .map(async |path| Ok::<_, Failure>((path.clone(), self.stored(path, &self.tip).await?)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut read = self.known();
        read.extend(found);
        let mut files = Files::default();
        for path in paths {
            if let Some(Some(stored)) = read.get(path) {
                files.insert(path, stored.content.clone());
            }
        }
        Ok(files)
    }

    /// One file at a commit; none when it is not there, or is a folder.
    async fn stored(&self, path: &str, commit: &str) -> Result<Option<Stored>> {
        if path.is_empty() || path == "." {
            return Ok(None);
        }
        let url = self.client.url(
            &self.project,
            &format!("repository/files/{}", encode_segment(path)),
        )?;
        let object = format!("the file {path} of {}", self.project);
        let response = self
            .client
            .request(Method::GET, url)
            .query("ref", commit)
            .send()
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let answer: FileAnswer = response.json(FILE_LIMIT).await?;
                // Base64 in an answer may be broken into lines.
                let text: String = answer
                    .content
                    .chars()
                    .filter(|c| !c.is_ascii_whitespace())
                    .collect();
                let content = base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|error| {
                        Failure::input(format!("GitLab's answer for {object} is not base64")).because(error)
                    })?;
                Ok(Some(Stored {
                    content,
                    last_commit: answer.last_commit_id,
                }))
            }
            _ => Err(refusal(response, &object, &self.project, &self.client.token).await),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Option<Stored>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The deepest folder that all of the paths are in.
fn common_folder(paths: &[&String]) -> String {
    let mut common: Option<Vec<&str>> = None;
    for path in paths {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        common = Some(match common {
            None => parts,
            Some(so_far) => so_far
                .into_iter()
                .zip(parts)
                .take_while(|(one, other)| one == other)
                .map(|(one, _)| one)
                .collect(),
        });
    }
    match common.unwrap_or_default() {
        parts if parts.is_empty() => ".".to_owned(),
        parts => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_folder_is_whole_names() {
        let folder = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            common_folder(&paths.iter().collect::<Vec<_>>())
        };
        assert_eq!(folder(&["a/b/x", "a/b/c/y"]), "a/b");
        assert_eq!(folder(&["a/bc/x", "a/bd/y"]), "a");
        assert_eq!(folder(&["x", "a/y"]), ".");
    }
}
