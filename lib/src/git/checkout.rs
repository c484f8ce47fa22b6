//! A folder that somebody else checked out: files are edited in it, committing is up to them unless asked for.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::command::Runner;
use super::commit::NewCommit;
use super::files::Files;
use super::history;
use super::remote::check_folder;
use super::revision::History;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};

/// A folder with files, most often the work tree of a repository.
#[derive(Debug)]
pub struct Checkout {
    root: PathBuf,
    prefix: String,
    has_repository: bool,
    runner: Runner,
}

impl Checkout {
    /// Opens a folder. When it lies in the work tree of a repository, paths count from that tree's root.
    ///
    /// # Errors
    /// Not found (exit 5) when there is no such folder; usage (exit 2) when git is not there.
    pub async fn open(folder: &Path, deadline: Deadline) -> Result<Self> {
        check_folder(folder)?;
        let runner = Runner::local(folder, deadline);
        let ask = runner.git("rev-parse").args(["--show-toplevel", "--show-prefix"]);
        let ended = ask.capture(runner.local_deadline()).await?;
        let answer = String::from_utf8_lossy(&ended.stdout).into_owned();
        let mut lines = answer.lines();
        let (root, prefix) = match (ended.success(), lines.next()) {
            (true, Some(root)) if !root.is_empty() => {
                (PathBuf::from(root), lines.next().unwrap_or_default().to_owned())
            }
            _ => (folder.to_owned(), String::new()),
        };
        let root = root
            .canonicalize()
            .map_err(|error| Failure::internal(format!("cannot find {}", root.display())).because(error))?;
        Ok(Checkout {
            runner: Runner::local(&root, deadline),
            has_repository: ended.success(),
            root,
            prefix,
        })
    }

    /// A path given relative to the folder that was opened, from the root.
    #[must_use]
    pub fn path_from_root(&self, path: &str) -> String {
        match (self.prefix.trim_end_matches('/'), path) {
            ("", path) => path.to_owned(),
            (prefix, ".") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        }
    }

    /// The root: of the work tree, or the folder itself where there is no repository.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files in `folder` (`.` is the root), with those below it; not what git keeps for itself.
    ///
    /// # Errors
    /// Internal (exit 1) when it cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(self.root.join(&folder)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(Failure::internal(format!("cannot read the folder {folder}")).because(error));
                }
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if folder == "." {
                    name.clone()
                } else {
                    format!("{folder}/{name}")
                };
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && name == ".git" => {}
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(kind) if kind.is_file() => files.push(path),
                    _ => {}
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The contents of those of `paths` that are there.
    ///
    /// # Errors
    /// Input (exit 3) for a symbolic link, or a folder that leads out of the checkout by one.
    pub fn read(&self, paths: &[String]) -> Result<Files> {
        let mut files = Files::default();
        for path in paths {
            let full = self.root.join(path);
            match std::fs::symlink_metadata(&full) {
                Ok(kind) if kind.is_file() => {
                    self.stay_inside(path)?;
                    let content = std::fs::read(&full)
                        .map_err(|error| Failure::input(format!("cannot read {path}")).because(error))?;
                    files.insert(path, content);
                }
                Ok(kind) if kind.is_symlink() => {
                    return Err(Failure::input(format!("{path} is a symbolic link"))
                        .hint("name the folder that the file itself is in"));
                }
                // A folder, or nothing: not the file that was asked for.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(files)
    }

    fn stay_inside(&self, path: &str) -> Result<()> {
        let inside = self
            .root
            .join(path)
            .canonicalize()
            .is_ok_and(|full| full.starts_with(&self.root));
        if inside {
            return Ok(());
        }
        Err(
            Failure::input(format!("{path} leads out of {}", self.root.display()))
                .hint("a folder on the way is a symbolic link; name the folder itself"),
        )
    }

    /// Writes the changes to the files, each whole or not at all.
    ///
    /// # Errors
    /// Internal (exit 1) naming the file.
    pub fn write(&self, commit: &NewCommit) -> Result<()> {
        for change in &commit.changes {
            let full = self.root.join(&change.path);
            let broke = |error: std::io::Error| {
                Failure::internal(format!("cannot write {}", change.path)).because(error)
            };
            match &change.content {
                None => std::fs::remove_file(&full).map_err(broke)?,
                Some(content) => {
                    let folder = full.parent().unwrap_or(&self.root);
                    std::fs::create_dir_all(folder).map_err(broke)?;
                    let permissions = std::fs::metadata(&full)
                        .map(|metadata| metadata.permissions())
                        .unwrap_or_else(|_| std::os::unix::fs::PermissionsExt::from_mode(0o644));
                    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(broke)?;
                    file.write_all(content).map_err(broke)?;
                    file.as_file().set_permissions(permissions).map_err(broke)?;
                    file.persist(&full).map_err(|error| broke(error.error))?;
                }
            }
        }
        Ok(())
    }

    /// Commits the changed files, and nothing else that may be staged, on the branch that is checked out. None when
    /// they are as the last commit has them, as after a change and its reversal.
    ///
    /// # Errors
    /// Usage (exit 2) where there is no repository; internal (exit 1) when git refuses.
    pub async fn commit(&self, commit: &NewCommit) -> Result<Option<String>> {
        self.needs_repository()?;
        let paths = |gone: bool| {
            let changes = commit
                .changes
                .iter()
                .filter(move |change| change.content.is_none() == gone);
            changes.map(|change| change.path.as_str()).collect::<Vec<_>>()
        };
        let (written, gone) = (paths(false), paths(true));
        if !written.is_empty() {
            let add = self.runner.git("add").args(["--force", "--"]).args(&written);
            self.runner.local_output("add the changed files", add).await?;
        }
        if !gone.is_empty() {
            let remove = self
                .runner
                .git("rm")
                .args(["--quiet", "--cached", "--ignore-unmatch", "--"])
                .args(&gone);
            self.runner
                .local_output("remove the deleted files", remove)
                .await?;
        }
        let compare = self
            .runner
            .git("diff")
            .args(["--cached", "--name-only", "-z", "--"])
            .args(&written)
            .args(&gone);
        let staged = self
            .runner
            .local_output("compare the changed files", compare)
            .await?
            .text();
        let paths: Vec<&str> = staged.split_terminator('\0').collect();
        if paths.is_empty() {
            return Ok(None);
        }
        let (name, email) = (commit.identity.name(), commit.identity.email());
        let command = match &commit.signing {
            Some(signing) => signing.command(&self.runner, "commit"),
            None => self.runner.git("commit"),
        };
        let write = command
            .args([
                "--quiet",
                "--no-verify",
                "--only",
                "--cleanup=verbatim",
                "--file=-",
                "--",
            ])
            .args(&paths)
            .env("GIT_AUTHOR_NAME", name)
            .env("GIT_AUTHOR_EMAIL", email)
            .env("GIT_COMMITTER_NAME", name)
            .env("GIT_COMMITTER_EMAIL", email)
            .input(commit.message());
        match &commit.signing {
            Some(signing) => {
                let ended = write.capture(self.runner.local_deadline()).await?;
                if !ended.success() {
                    return Err(signing.refused(&ended.tail));
                }
            }
            None => {
                self.runner
                    .local_output("commit the changed files", write)
                    .await?;
            }
        }
        let head = self.runner.git("rev-parse").args(["--verify", "HEAD"]);
        Ok(Some(
            self.runner
                .local_output("name the new commit", head)
                .await?
                .text(),
        ))
    }

    /// The commits that changed `path`, newest first, with its content after each, as far as history is here.
    ///
    /// # Errors
    /// Usage (exit 2) where there is no repository.
    pub async fn history(&self, path: &str) -> Result<History> {
        self.needs_repository()?;
        let mut history = history::log(&self.runner, "HEAD", path).await?;
        let contents = history::contents(&self.runner, &history.objects())
            .await?
            .map_err(|tail| Failure::internal(format!("git cannot read the history of {path}: {tail}")))?;
        history.fill(&contents);
        Ok(history)
    }

    /// The commits of the branch that is checked out, newest first, as far as they are here.
    ///
    /// # Errors
    /// Usage (exit 2) where there is no repository.
    pub async fn commits(&self) -> Result<Vec<String>> {
        self.needs_repository()?;
        history::commits(&self.runner, "HEAD").await
    }

    /// What `path` held after a commit that is here; none where it was not there.
    ///
    /// # Errors
    /// Internal (exit 1) when git fails.
    pub async fn content_at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(object) = history::object_at(&self.runner, commit, path).await? else {
            return Ok(None);
        };
        let contents = history::contents(&self.runner, std::slice::from_ref(&object)).await?;
        contents
            .map(|mut contents| contents.remove(&object))
            .map_err(|tail| Failure::internal(format!("git cannot read {path} at {commit}: {tail}")))
    }

    fn needs_repository(&self) -> Result<()> {
        if self.has_repository {
            return Ok(());
        }
        Err(
            Failure::usage(format!("{} is not in a git repository", self.root.display()))
                .hint("give --checkout or --repo"),
        )
    }
}
