//! `rotate`.

use std::time::Duration;

use towpath::cli::Given;
use towpath::failure::{Failure, Result};

use super::iam::parse_span;
use super::{ManagerArgs, ProofArgs, SourceArgs};

/// `rotate`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RotateArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Whose key asks IAM
    #[command(flatten)]
    pub(crate) manager: ManagerArgs,
    /// How IAM is reached and a key proven
    #[command(flatten)]
    pub(crate) proof: ProofArgs,
    /// The rhythm
    #[command(flatten)]
    pub(crate) rhythm: RhythmArgs,
    /// Look, say what would be done, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
    /// The version that a variable pins for other commands
    #[arg(skip)]
    pub(crate) pinned_elsewhere: Option<u64>,
}

impl RotateArgs {
    /// Settles what variables set for a job and flags for this command. A job may pin a version for the commands that read,
    /// which says nothing about what is written: the next version, in the place of the latest.
    ///
    /// # Errors
    /// Usage (exit 2) when arguments do not go together.
    pub(super) fn settle(&mut self, given: &Given<'_>) -> Result<()> {
        if given.by_flag("secret_version") {
            return Err(Failure::usage(
                "--version is not for rotate, which replaces the key of the latest version",
            )
            .hint("leave it out: rotate does not heed TOWPATH_SECRET_VERSION either"));
        }
        self.pinned_elsewhere = self.source.secret_version.take();
        self.source.settle_on_secret(given)
    }
}

/// When keys come and go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Rhythm")]
pub(crate) struct RhythmArgs {
    /// Replace the key once it is this old, at least ten minutes; younger ones stay
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_ROTATE_EVERY",
        default_value = "30d",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) every: Duration,
    /// Replace the key however young it is. A rotation that was cut short is brought to its end instead
    #[arg(long, env = "TOWPATH_ROTATE_NOW", hide_env_values = true)]
    pub(crate) now: bool,
    /// Warn when the key is older than this
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_MAX_AGE",
        default_value = "90d",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) max_age: Duration,
    /// How long a key goes on working once it is replaced. A later run deletes it
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_GRACE",
        default_value = "24h",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) grace: Duration,
    /// Let a new key end by itself after this, where the organization wants that; clearly longer than --every and --grace
    /// together [default: it has no end]
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_KEY_LIFETIME",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) key_lifetime: Option<Duration>,
}
