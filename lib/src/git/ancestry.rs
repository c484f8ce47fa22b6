//! Which of two commits came first: asked of a checkout, or of a remote repository without fetching its files.

use std::path::Path;

use super::command::Runner;
use super::history;
use super::remote::{Remote, Service, check_folder};
use crate::deadline::Deadline;
use crate::failure::{Failure, Kind, Result};

/// The depths to which history is fetched, one after the other, until the two commits meet.
const DEPTHS: [u32; 3] = [100, 2000, i32::MAX as u32];

/// How one commit stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ancestry {
    /// They are one.
    Same,
    /// The one is contained in the other: it is older.
    Ancestor,
    /// The one contains the other: it is newer.
    Descendant,
    /// Neither contains the other.
    Diverged,
}

/// A repository that is asked about its commits.
#[derive(Debug)]
pub struct Lineage {
    runner: Runner,
    remote: Option<(Remote, tempfile::TempDir)>,
}

impl Lineage {
    /// Asks the repository that `folder` lies in. Nothing is fetched into it.
    ///
    /// # Errors
    /// Not found (exit 5) when there is no such folder.
    pub fn of_folder(folder: &Path, deadline: Deadline) -> Result<Self> {
        check_folder(folder)?;
        Ok(Lineage {
            runner: Runner::local(folder, deadline),
            remote: None,
        })
    }

    /// Asks a remote repository. Commits alone are fetched, into a folder of its own that goes when this is dropped.
    ///
    /// # Errors
    /// Denied (exit 4) for plain `http` to another machine; internal (exit 1) when the folder cannot be made.
    pub async fn of_remote(remote: Remote, deadline: Deadline) -> Result<Self> {
        remote.check(deadline)?;
        let folder = tempfile::Builder::new()
            .prefix("towpath-git-")
            .tempdir()
            .map_err(|error| Failure::internal("cannot make a temporary folder for git").because(error))?;
        let runner = Runner::remote(folder.path(), &remote, deadline);
        let init = runner.git("init").args(["--quiet", "--bare", "--template="]);
        runner.local_output("make a repository", init).await?;
        let add = runner
            .git("remote")
            .args(["add", "--", "origin", &remote.location().to_string()]);
        runner.local_output("name the repository", add).await?;
        Ok(Lineage {
            runner,
            remote: Some((remote, folder)),
        })
    }

    /// How the commit `one` stands to `other`, both given in full.
    ///
    /// # Errors
    /// Not found (exit 5) when one is not there, or a clone that is too shallow cannot tell; denied (exit 4) or
    /// unavailable (exit 7) when the repository cannot be asked.
    pub async fn compare(&self, one: &str, other: &str) -> Result<Ancestry> {
        let (one, other) = (full(one)?, full(other)?);
        if one == other {
            return Ok(Ancestry::Same);
        }
        let Some((remote, _folder)) = &self.remote else {
            let found = self.look(&one, &other).await?;
            return match found {
                Ancestry::Diverged if self.is_shallow().await? => Err(Failure::not_found(format!(
                    "the clone is too shallow to tell whether {one} or {other} came first"
                ))
                .hint("git fetch --unshallow, or GIT_DEPTH: 0 in a job")),
                found => Ok(found),
            };
        };
        for depth in DEPTHS {
            self.fetch(remote, depth, &[&one, &other]).await?;
            let found = self.look(&one, &other).await?;
            if found != Ancestry::Diverged || !self.is_shallow().await? {
                return Ok(found);
            }
        }
        Ok(Ancestry::Diverged)
    }

    async fn fetch(&self, remote: &Remote, depth: u32, commits: &[&str]) -> Result<()> {
        let fetch = self
            .runner
            .git("fetch")
            .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--filter=tree:0"])
            .arg(format!("--depth={depth}"))
            .arg("origin")
            .args(commits);
        let ended = fetch.capture(self.runner.network_deadline()).await?;
        if ended.success() {
            return Ok(());
        }
        let failure = remote
            .diagnose(&self.runner, None, Service::Read, &ended.tail)
            .await;
        // The repository answers well: it is one of the commits that it does not have.
        if failure.kind() == Kind::Unavailable && remote.answers(&self.runner).await {
            return Err(Failure::not_found(format!(
                "{} has not both {}",
                remote.location(),
                commits.join(" and ")
            ))
            .hint("was its history rewritten?"));
        }
        Err(failure)
    }

    async fn look(&self, one: &str, other: &str) -> Result<Ancestry> {
        if self.is_ancestor(one, other).await? {
            return Ok(Ancestry::Ancestor);
        }
        if self.is_ancestor(other, one).await? {
            return Ok(Ancestry::Descendant);
        }
        Ok(Ancestry::Diverged)
    }

    async fn is_ancestor(&self, one: &str, other: &str) -> Result<bool> {
        let ask = self.runner.git("merge-base").args(["--is-ancestor", one, other]);
        let ended = ask.capture(self.runner.local_deadline()).await?;
        match ended.code() {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(
                Failure::not_found(format!("{one} and {other} are not both in the repository"))
                    .because(Failure::internal(ended.tail)),
            ),
        }
    }

    async fn is_shallow(&self) -> Result<bool> {
        Ok(!history::boundary(&self.runner).await?.is_empty())
    }
}

/// A commit's full name, in lowercase.
fn full(commit: &str) -> Result<String> {
    if matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(commit.to_ascii_lowercase());
    }
    Err(
        Failure::usage(format!("{commit:?} is not the full name of a commit"))
            .hint("give all 40 digits, as CI_COMMIT_SHA has them"),
    )
}
