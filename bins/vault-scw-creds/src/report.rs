//! What the tool reports. `exec` reports to the log alone: standard output is the command's.

use serde::Serialize;
use towpath::cli::Report;
use towpath::vault::{Reading, Revocation};

use crate::args::SourceArgs;
use crate::rotation::Rotation;

/// The result of a subcommand.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The subcommand.
    pub(crate) action: &'static str,
    /// Whether anything is different from before.
    pub(crate) changed: bool,
    /// Whether this only tells what would have been done.
    pub(crate) dry_run: bool,
    /// The secret that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<SecretVersion>,
    /// What became of the token: `revoked`, `gone`, `expires`, `kept`, `none` when the secret was read without one, or
    /// `unknown` when the server could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<&'static str>,
    /// What became of the lease, in the same words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<&'static str>,
    /// The names of the variables that the command gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) variables: Vec<String>,
    /// The files, each with what was done to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<FileOutcome>,
    /// What `rotate` found and did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotation: Option<Rotation>,
    /// The checks of `doctor`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<Check>,
}

/// A secret and the version that was got.
#[derive(Debug, Serialize)]
pub(crate) struct SecretVersion {
    /// Where it is.
    pub(crate) path: String,
    /// The version; none from an engine without versions.
    pub(crate) version: Option<u64>,
    /// Whether that version was asked for; else it is the latest.
    pub(crate) pinned: bool,
}

/// A file and what was done to it.
#[derive(Debug, Serialize)]
pub(crate) struct FileOutcome {
    /// Where it is.
    pub(crate) path: String,
    /// `written`, `changed`, `unchanged`, `removed`, `taken out`, `absent`, `failed`, and of others then `taken back` or
    /// `skipped`; `write`, `remove` or `take out` in a dry run.
    pub(crate) outcome: &'static str,
}

impl FileOutcome {
    /// Whether the file is different from before.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self.outcome, "written" | "changed" | "removed" | "taken out")
    }
}

/// One check of `doctor`.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// What was checked.
    pub(crate) check: &'static str,
    /// `ok`, `warning`, `failed`, or `skipped`: it depends on what failed, or was not to be looked at.
    pub(crate) outcome: &'static str,
    /// What was found.
    pub(crate) detail: String,
    /// What to do, after a failure or a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl SecretVersion {
    /// What was got for what was asked.
    pub(crate) fn got(asked: &SourceArgs, reading: &Reading) -> Self {
        SecretVersion {
            path: asked.shown(),
            version: reading.version,
            pinned: asked.secret_version.is_some(),
        }
    }
}

impl Outcome {
    /// A report on `action` in which nothing is said yet.
    pub(crate) fn of(action: &'static str, dry_run: bool) -> Self {
        Outcome {
            action,
            changed: false,
            dry_run,
            secret: None,
            token: None,
            lease: None,
            variables: Vec::new(),
            files: Vec::new(),
            rotation: None,
            checks: Vec::new(),
        }
    }
}

/// The word for what became of a token.
pub(crate) fn token_word(token: Option<Revocation>) -> &'static str {
    token.map_or("unknown", Revocation::name)
}

impl Report for Outcome {
    const SCHEMA: &'static str = "towpath.vault-scw-creds/1";

    fn text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(secret) = &self.secret {
            let version = match (secret.version, secret.pinned) {
                (None, _) => "without versions".to_owned(),
                (Some(version), true) => format!("version {version}, as asked for"),
                (Some(version), false) => format!("version {version}, the latest"),
            };
            lines.push(format!("secret     {} ({version})", secret.path));
        }
        if !self.variables.is_empty() {
            lines.push(format!("variables  {}", self.variables.join(" ")));
        }
        for file in &self.files {
            lines.push(format!("{:10} {}", file.outcome, file.path));
        }
        if let Some(rotation) = &self.rotation {
            let too_old = if rotation.too_old {
                ", older than --max-age when this began"
            } else {
                ""
            };
            lines.push(format!(
                "key        {} ({} days old{too_old})",
                rotation.access_key, rotation.age_days
            ));
            if rotation.steps.is_empty() {
                lines.push("nothing    to do".to_owned());
            }
            for taken in &rotation.steps {
                lines.push(format!(
                    "{:10} {} ({})",
                    taken.step, taken.access_key, taken.detail
                ));
            }
        }
        for check in &self.checks {
            lines.push(format!("{:8} {:10} {}", check.outcome, check.check, check.detail));
            if let Some(hint) = &check.hint {
                lines.push(format!("         hint: {hint}"));
            }
        }
        if let Some(lease) = self.lease {
            lines.push(format!("lease      {lease}"));
        }
        if let Some(token) = self.token {
            lines.push(format!("token      {token}"));
        }
        if self.dry_run {
            lines.push("dry run: nothing was changed".to_owned());
        }
        lines.join("\n")
    }
}
