//! A developer with a laptop: clones, commits and pushes with real git and a token of their own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;

use crate::guardian::Guardian;

/// Who works in the repositories of a world.
pub struct Person {
    guardian: Arc<Guardian>,
    id: u64,
    name: String,
    token: String,
}

impl Person {
    /// A person of this name, whom GitLab knows by this id, and who has this access token.
    pub(crate) fn new(guardian: Arc<Guardian>, id: u64, name: &str, token: String) -> Self {
        Person {
            guardian,
            id,
            name: name.to_owned(),
            token,
        }
    }

    /// Their number in GitLab.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Their access token, for git over HTTP and the API.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Their work tree of a project.
    #[must_use]
    pub fn folder(&self, project: &str) -> PathBuf {
        self.guardian.dir().join("laptop").join(project)
    }

    /// Writes the token to files that only this user reads, for whoever takes over at the keyboard: the token alone, and
    /// git's credential store. Answers both.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_credentials(&self, gitlab: &str) -> Result<(PathBuf, PathBuf)> {
        let folder = self.guardian.dir().join("laptop");
        let address = gitlab.replacen("://", &format!("://ada:{}@", self.token), 1);
        let files = (folder.join("token"), folder.join("git-credentials"));
        for (file, text) in [(&files.0, &self.token), (&files.1, &address)] {
            fs::write(file, format!("{text}\n"))?;
            fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        }
        Ok(files)
    }

    /// Makes the work tree of a project whose repository is still empty.
    ///
    /// # Errors
    /// When git fails.
    pub async fn start_repository(&self, url: &str, project: &str) -> Result<PathBuf> {
        let folder = self.folder(project);
        fs::create_dir_all(&folder)?;
        self.git(&folder, ["init", "--quiet", "--initial-branch=main"])
            .await?;
        self.git(&folder, ["remote", "add", "origin", url]).await?;
        Ok(folder)
    }

    /// Commits everything in the work tree and pushes the branch.
    ///
    /// # Errors
    /// When git fails or the push is refused.
    pub async fn publish(&self, folder: &Path, message: &str) -> Result<()> {
        self.git(folder, ["add", "--all"]).await?;
        self.git(folder, ["commit", "--quiet", "--message", message])
            .await?;
        self.git(folder, ["push", "--quiet", "origin", "HEAD:main"])
            .await?;
        Ok(())
    }

    /// Tags what is checked out and pushes the tag.
    ///
    /// # Errors
    /// When git fails or the push is refused.
    pub async fn push_tag(&self, folder: &Path, tag: &str) -> Result<()> {
        self.git(folder, ["tag", tag]).await?;
        self.git(folder, ["push", "--quiet", "origin", tag]).await?;
        Ok(())
    }

    /// A file of the branch as it is on the server now.
    ///
    /// # Errors
    /// When git fails or there is no such file.
    pub async fn read_remote(&self, folder: &Path, file: &str) -> Result<String> {
        self.git(folder, ["fetch", "--quiet", "origin", "main"]).await?;
        self.git(folder, ["show", &format!("FETCH_HEAD:{file}")]).await
    }

    /// Runs git as this person; answers what it prints.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn git<A: AsRef<OsStr>>(
        &self,
        folder: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        // The token goes by environment, where no list of processes shows it.
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("ada:{}", self.token));
        let output = self
            .guardian
            .bare_command("git")
            .args(arguments)
            .current_dir(folder)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", &self.name)
            .env("GIT_AUTHOR_EMAIL", "ada@example.com")
            .env("GIT_COMMITTER_NAME", &self.name)
            .env("GIT_COMMITTER_EMAIL", "ada@example.com")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {pair}"))
            .stdin(Stdio::null())
            .output()
            .await
            .context("running git")?;
        if !output.status.success() {
            bail!(
                "git failed in {}: {}",
                folder.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
