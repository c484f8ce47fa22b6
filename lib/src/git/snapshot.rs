//! A bare, shallow clone without file contents: what a branch holds at its tip.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::command::Runner;
use super::commit::NewCommit;
use super::files::Files;
use super::history;
use super::remote::{Location, Remote, Service};
use super::revision::History;
use super::sign;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;

/// The depths to which history is fetched, one after the other, when more of it is needed.
const DEPTHS: [u32; 5] = [1, 50, 500, 5000, i32::MAX as u32];

/// Leaves the contents of files with the server until they are read.
const WITHOUT_FILES: &str = "--filter=blob:none";

/// The tip of a branch, in a folder of its own that goes when this is dropped.
#[derive(Debug)]
pub struct Snapshot {
    folder: tempfile::TempDir,
    pub(super) runner: Runner,
    pub(super) remote: Remote,
    branch: String,
    tip: String,
    depth: usize,
    /// What `git ls-tree` said of single paths at the tip; none for what is not there.
    listed: Mutex<BTreeMap<String, Option<TreeEntry>>>,
}

/// One line of `git ls-tree`.
#[derive(Clone, Debug)]
pub(super) struct TreeEntry {
    mode: String,
    object: String,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The branch is at our commit.
    Landed,
    /// Somebody else's commit came first.
    Raced,
    /// The server itself turned it down: a lost race seen late, a locked ref, or a rule.
    Refused,
    /// The connection failed; the commit may have arrived or not.
    Unknown,
}

impl Snapshot {
    /// Clones the tip of `branch`, or of the branch that the repository names as its default.
    ///
    /// # Errors
    /// Denied (exit 4), not found (exit 5) for the repository or the branch, unavailable (exit 7), usage (exit 2).
    pub async fn open(remote: Remote, branch: Option<&str>, deadline: Deadline) -> Result<Self> {
        remote.check(deadline)?;
        if let Some(branch) = branch {
            check_branch(branch)?;
        }
        let folder = tempfile::Builder::new()
            .prefix("towpath-git-")
            .tempdir()
            .map_err(|error| Failure::internal("cannot make a temporary folder for git").because(error))?;
        let runner = Runner::remote(folder.path(), &remote, deadline);
        let mut clone = runner.git("clone").args([
            "--quiet",
            "--bare",
            "--no-local",
            "--depth=1",
            WITHOUT_FILES,
            "--single-branch",
            "--no-tags",
            "--template=",
        ]);
        if let Some(branch) = branch {
            clone = clone.arg(format!("--branch={branch}"));
        }
        let clone = clone.args(["--", &remote.location().to_string(), "."]);
        let ended = clone.capture(runner.network_deadline()).await?;
        if !ended.success() {
            return Err(remote.diagnose(&runner, branch, Service::Read, &ended.tail).await);
        }
        let branch = match branch {
            Some(branch) => branch.to_owned(),
            None => {
                let head = runner.git("symbolic-ref").args(["--short", "HEAD"]);
                runner.local_output("name the default branch", head).await?.text()
            }
        };
        let mut snapshot = Snapshot {
            folder,
            runner,
            remote,
            branch,
            tip: String::new(),
            depth: 0,
            listed: Mutex::default(),
        };
        snapshot.read_tip().await?;
        Ok(snapshot)
    }

    /// The branch.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The commit that the branch was at when last looked at.
    #[must_use]
    pub fn tip(&self) -> &str {
        &self.tip
    }

    /// Where the repository is.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Looks at the branch again.
    ///
    /// # Errors
    /// As [`Snapshot::open`].
    pub async fn refresh(&mut self) -> Result<()> {
        let depth = DEPTHS[self.depth];
        // The server knows what is here and sends what is new alone, so that the files somebody else has just changed
        // come in the same request.
        self.fetch(depth, "--no-filter").await
    }

    /// Fetches more of the history. False when all of it is here already.
    ///
    /// # Errors
    /// As [`Snapshot::open`].
    pub async fn deepen(&mut self) -> Result<bool> {
        let shallow = self.folder.path().join("shallow");
        if self.depth + 1 == DEPTHS.len() || !shallow.exists() {
            return Ok(false);
        }
        self.depth += 1;
        self.fetch(DEPTHS[self.depth], WITHOUT_FILES).await?;
        Ok(true)
    }

    async fn fetch(&mut self, depth: u32, filter: &str) -> Result<()> {
        let branch = &self.branch;
        let fetch = self
            .runner
            .git("fetch")
            .args(["--quiet", "--no-tags", filter])
            .arg(format!("--depth={depth}"))
            .arg("origin")
            .arg(format!("+refs/heads/{branch}:refs/heads/{branch}"));
        let ended = fetch.capture(self.runner.network_deadline()).await?;
        if !ended.success() {
            return Err(self
                .remote
                .diagnose(&self.runner, Some(branch), Service::Read, &ended.tail)
                .await);
        }
        self.read_tip().await
    }

    async fn read_tip(&mut self) -> Result<()> {
        self.listed = Mutex::default();
        if let Some(tip) = self.tip_from_file() {
            self.tip = tip;
            return Ok(());
        }
        let parse = self
            .runner
            .git("rev-parse")
            .args(["--verify", "--quiet"])
            .arg(format!("refs/heads/{}", self.branch));
        let ended = parse.capture(self.runner.local_deadline()).await?;
        if !ended.success() {
            // To git, any page that a web server answers with is a repository without commits.
            if let Location::Http(url) = self.remote.location()
                && let Some(failure) = self
                    .remote
                    .diagnose_http(self.runner.deadline(), url, Service::Read)
                    .await
            {
                return Err(failure);
            }
            return Err(
                Failure::not_found(format!("{} has no commit yet", self.remote.location()))
                    .hint("push a first commit, or check --branch (TOWPATH_BRANCH)"),
            );
        }
        self.tip = ended.text();
        Ok(())
    }

    /// The tip as git keeps it in files; none when it keeps it otherwise.
    fn tip_from_file(&self) -> Option<String> {
        let name = format!("refs/heads/{}", self.branch);
        let is_commit = |text: &str| text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let loose = std::fs::read_to_string(self.folder.path().join(&name));
        if let Ok(text) = loose {
            return Some(text.trim().to_owned()).filter(|text| is_commit(text));
        }
        let packed = std::fs::read_to_string(self.folder.path().join("packed-refs")).ok()?;
        let line = packed.lines().find_map(|line| {
            let (commit, named) = line.split_once(' ')?;
            (named == name).then_some(commit)
        })?;
        Some(line.to_owned()).filter(|text| is_commit(text))
    }

    /// The files in `folder` (`.` is the root) at the tip, with those below it.
    ///
    /// # Errors
    /// Internal (exit 1) when git fails.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let entries = self.tree(&["-r"], &[folder.to_owned()]).await?;
        Ok(entries.into_keys().collect())
    }

    /// The contents of those of `paths` that are there at the tip.
    ///
    /// # Errors
    /// Input (exit 3) for a symbolic link or submodule; unavailable (exit 7) when contents cannot be fetched.
    pub async fn read(&self, paths: &[String]) -> Result<Files> {
        let mut wanted = Vec::new();
        for (path, entry) in self.entries(paths).await? {
            if entry.mode == "040000" {
                continue;
            }
            if !entry.mode.starts_with("100") {
                return Err(
                    Failure::input(format!("{path} is a symbolic link or a submodule"))
                        .hint("name the folder that the file itself is in"),
                );
            }
            wanted.push((path, entry.object));
        }
        let objects: Vec<String> = wanted.iter().map(|(_, object)| object.clone()).collect();
        let contents = self.objects(&objects).await?;
        let mut files = Files::default();
        for (path, object) in wanted {
            if let Some(content) = contents.get(&object) {
                files.insert(path, content.clone());
            }
        }
        Ok(files)
    }

    /// What is at these paths, asked for once a tip.
    async fn entries(&self, paths: &[String]) -> Result<BTreeMap<String, TreeEntry>> {
        let lock = || self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<String> = {
            let listed = lock();
            let unknown = paths.iter().filter(|path| !listed.contains_key(*path));
            unknown.cloned().collect()
        };
        let mut found = self.tree(&[], &unknown).await?;
        let mut listed = lock();
        for path in unknown {
            let entry = found.remove(&path);
            listed.insert(path, entry);
        }
        Ok(paths
            .iter()
            .filter_map(|path| Some((path.clone(), listed.get(path)?.clone()?)))
            .collect())
    }

    async fn tree(&self, flags: &[&str], paths: &[String]) -> Result<BTreeMap<String, TreeEntry>> {
        if paths.is_empty() {
            return Ok(BTreeMap::new());
        }
        let list = self
            .runner
            .git("ls-tree")
            .args(["-z", "--full-tree"])
            .args(flags)
            .arg(&self.tip)
            .arg("--")
            .args(paths);
        let ended = self
            .runner
            .local_output("list the files of the tip", list)
            .await?;
        Ok(parse_tree(&ended.stdout))
    }

    /// Fetches and reads objects. What is here already is not fetched again.
    async fn objects(&self, objects: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
        if objects.len() > 1 {
            // One request for all of them; git by itself would make one for each. The server must not be told what
            // commits are here: it would conclude that their files are here too.
            let list: String = objects.iter().map(|object| format!("{object}\n")).collect();
            let fetch = self
                .runner
                .git_with(&["fetch.negotiationAlgorithm=noop"], "fetch")
                .args([
                    "--quiet",
                    "--no-tags",
                    "--no-write-fetch-head",
                    "--filter=blob:none",
                ])
                .args(["--no-recurse-submodules", "--stdin", "origin"])
                .input(list);
            let ended = fetch.capture(self.runner.network_deadline()).await?;
            if !ended.success() {
                return Err(self
                    .remote
                    .diagnose(&self.runner, Some(&self.branch), Service::Read, &ended.tail)
                    .await);
            }
        }
        match history::contents(&self.runner, objects).await? {
            Ok(contents) => Ok(contents),
            Err(tail) => Err(self
                .remote
                .diagnose(&self.runner, Some(&self.branch), Service::Read, &tail)
                .await),
        }
    }

    /// The commits that changed `path`, newest first, with its content after each, as far as history is here.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub async fn history(&self, path: &str) -> Result<History> {
        let mut history = history::log(&self.runner, &self.tip, path).await?;
        let contents = self.objects(&history.objects()).await?;
        history.fill(&contents);
        Ok(history)
    }

    /// The commits of the branch that are here, newest first.
    ///
    /// # Errors
    /// Internal (exit 1) when git fails.
    pub async fn commits(&self) -> Result<Vec<String>> {
        history::commits(&self.runner, &self.tip).await
    }

    /// What `path` held after a commit that is here; none where it was not there.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub async fn content_at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(object) = history::object_at(&self.runner, commit, path).await? else {
            return Ok(None);
        };
        Ok(self.objects(std::slice::from_ref(&object)).await?.remove(&object))
    }

    /// Writes a commit on top of the tip. Nothing leaves this machine yet.
    pub(super) async fn commit(&self, commit: &NewCommit) -> Result<String> {
        let paths: Vec<String> = commit.changes.iter().map(|change| change.path.clone()).collect();
        let modes = self.entries(&paths).await?;
        let executable = |path: &str| modes.get(path).is_some_and(|entry| entry.mode == "100755");
        let stream = commit.stream(
            &self.tip,
            |path| if executable(path) { "100755" } else { "100644" },
        );
        let import = self
            .runner
            .git("fast-import")
            // Forced, since the ref is our own and may be left from a race that was lost.
            .args(["--quiet", "--done", "--force", "--date-format=now"])
            .input(stream);
        let unsigned = self.runner.local_output("write the commit", import).await?.text();
        match &commit.signing {
            Some(signing) => sign::signed(&self.runner, signing, commit, &unsigned, &self.tip).await,
            None => Ok(unsigned),
        }
    }

    /// Sends a commit to the branch, never forced.
    pub(super) async fn push(&self, commit: &str) -> Result<(Pushed, String)> {
        let push: Command = self
            .runner
            .git("push")
            .args(["--porcelain", "--no-thin", "--no-verify", "origin"])
            .arg(format!("{commit}:refs/heads/{}", self.branch));
        let ended = push.capture(self.runner.network_deadline()).await?;
        let pushed = if ended.success() {
            Pushed::Landed
        } else {
            parse_push(&ended.text())
        };
        Ok((pushed, ended.tail))
    }

    /// Whether `commit`, which was written here, is part of the branch as it is now.
    pub(super) async fn has_landed(&mut self, commit: &str) -> Result<bool> {
        if self.tip == commit {
            return Ok(true);
        }
        // Others may have built on top of it: look further back than the one commit that is here.
        let depth = DEPTHS[self.depth].max(DEPTHS[1]);
        self.fetch(depth, WITHOUT_FILES).await?;
        let ancestor = self
            .runner
            .git("merge-base")
            .args(["--is-ancestor", commit, &self.tip]);
        Ok(ancestor.capture(self.runner.local_deadline()).await?.success())
    }

    /// The folder of the clone.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Checks a branch name against the worst that git-check-ref-format forbids, so that it cannot be taken for an option
/// or for another ref.
fn check_branch(branch: &str) -> Result<()> {
    let bad = branch.is_empty()
        || branch.starts_with(['-', '/'])
        || branch.ends_with(['/', '.'])
        || branch.contains("..")
        || branch.contains("//")
        || branch.contains("@{")
        || branch
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c));
    if bad {
        return Err(Failure::usage(format!("malformed branch name {branch:?}"))
            .hint("give --branch (TOWPATH_BRANCH) as a plain branch name, such as main"));
    }
    Ok(())
}

/// Reads `git ls-tree -z`: `<mode> <type> <object>\t<path>\0`.
fn parse_tree(output: &[u8]) -> BTreeMap<String, TreeEntry> {
    String::from_utf8_lossy(output)
        .split('\0')
        .filter_map(|line| {
            let (meta, path) = line.split_once('\t')?;
            let mut meta = meta.split(' ');
            let (mode, _kind, object) = (meta.next()?, meta.next()?, meta.next()?);
            Some((
                path.to_owned(),
                TreeEntry {
                    mode: mode.to_owned(),
                    object: object.to_owned(),
                },
            ))
        })
        .collect()
}

/// Reads `git push --porcelain`: `<flag>\t<from>:<to>\t<summary> (<reason>)`, where the flag `!` says that the ref was
/// not updated and the summary in brackets says by whom (git-push, "OUTPUT").
fn parse_push(output: &str) -> Pushed {
    let summary = output.lines().find_map(|line| {
        let mut fields = line.split('\t');
        (fields.next() == Some("!")).then(|| fields.nth(1).unwrap_or_default().to_owned())
    });
    match summary {
        Some(summary) if summary.starts_with("[rejected]") => Pushed::Raced,
        Some(summary) if summary.starts_with("[remote rejected]") => Pushed::Refused,
        _ => Pushed::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_told_apart() {
        let line = |summary: &str| format!("To x\n!\tabc:refs/heads/main\t{summary}\nDone\n");
        assert_eq!(parse_push(&line("[rejected] (fetch first)")), Pushed::Raced);
        assert_eq!(
            parse_push(&line("[remote rejected] (pre-receive hook declined)")),
            Pushed::Refused
        );
        assert_eq!(
            parse_push(&line("[remote failure] (remote failed to report status)")),
            Pushed::Unknown
        );
        assert_eq!(parse_push(""), Pushed::Unknown);
    }

    #[test]
    fn branch_names_that_mean_more_are_refused() {
        for branch in ["", "-x", "a..b", "a b", "a:b", "main~1", "refs/heads/", "a@{1}"] {
            assert!(check_branch(branch).is_err(), "{branch:?} was accepted");
        }
        assert!(check_branch("feature/one.two").is_ok());
    }
}
