//! Real git for the bare repository of one project.
//!
//! Every look and every change goes through the `git` program, so what the API says is what a clone would see.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::hub::Hub;

/// The bare repository of a project, and the git to look at it with.
#[derive(Clone)]
pub(super) struct Repository<'a> {
    pub(super) hub: &'a Hub,
    pub(super) path: PathBuf,
}

/// One commit, as much of it as the API shows.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) id: String,
    pub(super) parents: Vec<String>,
    pub(super) author_name: String,
    pub(super) author_email: String,
    pub(super) authored_date: String,
    pub(super) committer_name: String,
    pub(super) committer_email: String,
    pub(super) committed_date: String,
    pub(super) message: String,
}

impl Commit {
    pub(super) fn title(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    pub(super) fn short_id(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }
}

/// A branch or a tag a pipeline can run for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedRef {
    pub(super) name: String,
    pub(super) tag: bool,
    pub(super) sha: String,
}

/// Why a name does not lead to one ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefProblem {
    NotFound,
    /// A branch and a tag carry the name.
    Ambiguous,
}

/// Which parents a log follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    AllParents,
    FirstParents,
}

const COMMIT_FORMAT: &str = "--format=%H%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00%x01";

impl Repository<'_> {
    /// A git command in this repository, without the machine's or anyone's configuration.
    pub(super) fn command(&self) -> Command {
        let mut command = self.hub.clean_command(&self.hub.git);
        command
            .env("GIT_DIR", &self.path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// Makes the bare repository.
    pub(super) async fn create(&self, default_branch: &str, hooks: &Path) -> anyhow::Result<()> {
        tokio::fs::create_dir_all(&self.path)
            .await
            .context("cannot make the repository's folder")?;
        self.git(&["init", "--quiet", "--bare", "--initial-branch", default_branch])
            .await?;
        let hooks = hooks.to_str().context("the folder's path is not UTF-8")?;
        let hooks = hooks.replace('\\', "\\\\").replace('"', "\\\"");
        // Written at once: a process for each of them takes longer than all the rest.
        let more = format!(
            "[core]\n\thooksPath = \"{hooks}\"\n[http]\n\treceivepack = true\n\
             [uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = true\n\
             [receive]\n\tadvertisePushOptions = true\n\tdenyDeleteCurrent = refuse\n[gc]\n\tauto = 0\n"
        );
        let file = self.path.join("config");
        let config = tokio::fs::read_to_string(&file)
            .await
            .context("git init made no config")?;
        tokio::fs::write(&file, config + &more)
            .await
            .context("cannot write git's config")
    }

    /// Runs git and returns its output.
    ///
    /// # Errors
    /// When git cannot be started or ends with a failure; the message holds what git said.
    pub(super) async fn git(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.run(arguments, None, &[]).await
    }

    /// Runs git with input and extra environment.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        input: Option<&[u8]>,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command();
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.envs(environment.iter().copied());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let verb = arguments.first().copied().unwrap_or_default();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start git {verb}"))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // Git may end before it has read everything; its exit status tells why.
                let _ = stdin.write_all(input).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        let output = output.with_context(|| format!("cannot wait for git {verb}"))?;
        if !output.status.success() {
            bail!("git {verb}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }

    /// Runs git and returns its output as one trimmed line.
    pub(super) async fn line(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.git(arguments).await?)
            .trim()
            .to_owned())
    }

    /// The commit a revision names; `None` when there is none.
    pub(super) async fn commit_id(&self, revision: &str) -> Option<String> {
        if revision.starts_with('-') || revision.is_empty() {
            return None;
        }
        let revision = format!("{revision}^{{commit}}");
        self.line(&["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])
            .await
            .ok()
    }

    /// The head of a branch.
    pub(super) async fn branch(&self, name: &str) -> Option<String> {
        self.commit_id(&format!("refs/heads/{name}")).await
    }

    /// The branch or tag that a pipeline's `ref` means.
    pub(super) async fn resolve(&self, name: &str) -> Result<ResolvedRef, RefProblem> {
        let (short, only) = match name.strip_prefix("refs/heads/") {
            Some(short) => (short, Some(false)),
            None => match name.strip_prefix("refs/tags/") {
                Some(short) => (short, Some(true)),
                None => (name, None),
            },
        };
        let branch = self.branch(short).await.filter(|_| only != Some(true));
        let tag = self
            .commit_id(&format!("refs/tags/{short}"))
            .await
            .filter(|_| only != Some(false));
        match (branch, tag) {
            (Some(_), Some(_)) => Err(RefProblem::Ambiguous),
            (Some(sha), None) => Ok(ResolvedRef {
                name: short.to_owned(),
                tag: false,
                sha,
            }),
            (None, Some(sha)) => Ok(ResolvedRef {
                name: short.to_owned(),
                tag: true,
                sha,
            }),
            (None, None) => Err(RefProblem::NotFound),
        }
    }

    /// The bytes of a file at a revision; `None` when there is no such file.
    pub(super) async fn file(&self, revision: &str, path: &str) -> Option<Vec<u8>> {
        let id = self.commit_id(revision).await?;
        self.git(&["cat-file", "blob", &format!("{id}:{path}")])
            .await
            .ok()
    }

    /// Commits reachable from a revision, newest first.
    pub(super) async fn log(
        &self,
        revision: &str,
        path: Option<&str>,
        limit: usize,
        skip: usize,
    ) -> anyhow::Result<Vec<Commit>> {
        self.log_along(Along::AllParents, revision, path, limit, skip)
            .await
    }

    /// Commits along some of the parents, newest first.
    pub(super) async fn log_along(
        &self,
        along: Along,
        revision: &str,
        path: Option<&str>,
        limit: usize,
        skip: usize,
    ) -> anyhow::Result<Vec<Commit>> {
        let (limit, skip) = (format!("--max-count={limit}"), format!("--skip={skip}"));
        let mut arguments = vec!["log", COMMIT_FORMAT, &limit, &skip];
        if along == Along::FirstParents {
            arguments.push("--first-parent");
        }
        arguments.extend(["--end-of-options", revision, "--"]);
        arguments.extend(path);
        Ok(commits(&self.git(&arguments).await?))
    }

    /// One commit.
    pub(super) async fn commit(&self, revision: &str) -> Option<Commit> {
        let id = self.commit_id(revision).await?;
        self.log(&id, None, 1, 0).await.ok()?.into_iter().next()
    }

    /// Makes a commit of a tree and returns its id.
    pub(super) async fn commit_tree(
        &self,
        tree: &str,
        parents: &[&str],
        message: &str,
        author: (&str, &str),
        committer: (&str, &str),
    ) -> anyhow::Result<String> {
        let mut arguments = vec!["commit-tree", tree, "-F", "-"];
        for parent in parents {
            arguments.extend(["-p", parent]);
        }
        let environment = [
            ("GIT_AUTHOR_NAME", author.0),
            ("GIT_AUTHOR_EMAIL", author.1),
            ("GIT_COMMITTER_NAME", committer.0),
            ("GIT_COMMITTER_EMAIL", committer.1),
        ];
        let id = self
            .run(&arguments, Some(message.as_bytes()), &environment)
            .await?;
        Ok(String::from_utf8_lossy(&id).trim().to_owned())
    }

    /// Moves a branch, if it still is where the caller saw it.
    pub(super) async fn update_branch(
        &self,
        branch: &str,
        new: &str,
        old: Option<&str>,
    ) -> anyhow::Result<()> {
        let zero = "0".repeat(40);
        let name = format!("refs/heads/{branch}");
        self.git(&["update-ref", &name, new, old.unwrap_or(&zero)])
            .await
            .map(drop)
    }
}

fn commits(log: &[u8]) -> Vec<Commit> {
    let log = String::from_utf8_lossy(log);
    log.split('\x01')
        .filter_map(|record| {
            let mut fields = record.trim_start_matches('\n').split('\0');
            let mut next = || fields.next().map(str::to_owned);
            let commit = Commit {
                id: next()?,
                parents: next()?.split_whitespace().map(str::to_owned).collect(),
                author_name: next()?,
                author_email: next()?,
                authored_date: next()?,
                committer_name: next()?,
                committer_email: next()?,
                committed_date: next()?,
                message: next()?.trim_end_matches('\n').to_owned(),
            };
            (!commit.id.is_empty()).then_some(commit)
        })
        .collect()
}
