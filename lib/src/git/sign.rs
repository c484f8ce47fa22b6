//! Commits that are signed by the programs that git itself would use: `ssh-keygen` or `gpg`.
//!
//! Source: git-config, "gpg.format" and "user.signingKey"; git-commit-tree, "-S". A key that wants a passphrase fails,
//! unless an agent has it: nobody can be asked.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::command::Runner;
use super::commit::{NewCommit, SignatureFormat, Signing};
use crate::failure::{Failure, Result};
use crate::process::Command;

impl Signing {
    /// Checks what can be known before anything is signed.
    ///
    /// # Errors
    /// Usage (exit 2) for a key's file that is not there, or that others may read, which `ssh-keygen` refuses.
    pub fn check(&self) -> Result<()> {
        if self.key.is_empty() || self.key.starts_with('-') || self.key.chars().any(char::is_control) {
            return Err(Failure::usage("malformed signing key").hint(
                "give --signing-key (TOWPATH_SIGNING_KEY) as the file of an SSH key or the id of a GPG key",
            ));
        }
        if self.format == SignatureFormat::OpenPgp {
            return Ok(());
        }
        let metadata = std::fs::metadata(Path::new(&self.key)).map_err(|error| {
            Failure::usage(format!("cannot read the signing key {}", self.key))
                .because(error)
                .hint("give --signing-key (TOWPATH_SIGNING_KEY) as the file of an SSH key")
        })?;
        let is_public = self.key.ends_with(".pub");
        if !is_public && metadata.permissions().mode() & 0o077 != 0 {
            return Err(
                Failure::usage(format!("others may read the signing key {}", self.key))
                    .hint(format!("ssh-keygen refuses such keys: chmod 600 {}", self.key)),
            );
        }
        Ok(())
    }

    /// The same command by which git signs, with the settings it takes from us.
    pub(super) fn command(&self, runner: &Runner, subcommand: &str) -> Command {
        let format = format!("gpg.format={}", self.format.as_str());
        let key = format!("user.signingKey={}", self.absolute());
        runner.git_with(&[&format, &key], subcommand).arg("-S")
    }

    /// git runs in a folder of its own, from which a relative path would lead elsewhere.
    fn absolute(&self) -> String {
        match self.format {
            SignatureFormat::OpenPgp => self.key.clone(),
            SignatureFormat::Ssh => std::path::absolute(&self.key)
                .map_or_else(|_| self.key.clone(), |path| path.display().to_string()),
        }
    }

    pub(super) fn refused(&self, tail: &str) -> Failure {
        let said = tail.lines().next_back().unwrap_or("git said nothing");
        Failure::usage(format!("cannot sign with {}: {said}", self.key)).hint(
            "is the key of the format that --signing-format (TOWPATH_SIGNING_FORMAT) says, and without a passphrase?",
        )
    }
}

/// Writes the same commit again, signed: same tree and message on the same parent.
pub(super) async fn signed(
    runner: &Runner,
    signing: &Signing,
    commit: &NewCommit,
    unsigned: &str,
    parent: &str,
) -> Result<String> {
    let (name, email) = (commit.identity.name(), commit.identity.email());
    let write = signing
        .command(runner, "commit-tree")
        .args(["-p", parent, "-F", "-"])
        .arg(format!("{unsigned}^{{tree}}"))
        .env("GIT_AUTHOR_NAME", name)
        .env("GIT_AUTHOR_EMAIL", email)
        .env("GIT_COMMITTER_NAME", name)
        .env("GIT_COMMITTER_EMAIL", email)
        .input(commit.message());
    let ended = write.capture(runner.local_deadline()).await?;
    if ended.success() {
        return Ok(ended.text());
    }
    Err(signing.refused(&ended.tail))
}
