//! The arguments of the guard against slow old pipelines.

use std::path::PathBuf;

use clap::ValueEnum;

/// How `set` finds out whether its image is newer than the one that is there.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Order")]
pub(crate) struct OrderArgs {
    /// What to do about an image whose source commit is older than that of the deployed one
    #[arg(
        long,
        value_enum,
        env = "TOWPATH_ORDER",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) order: OrderChoice,
    /// The repository of --source-commit, to ask which commit came first [default: --source-project on the GitLab of
    /// --repo or --project]. Its token is TOWPATH_SOURCE_TOKEN, else CI_JOB_TOKEN, else the one for these
    #[arg(
        long,
        value_name = "URL",
        env = "TOWPATH_SOURCE_REPO",
        conflicts_with = "source_checkout",
        hide_env_values = true
    )]
    pub(crate) source_repo: Option<String>,
    /// A clone of that repository to ask instead
    #[arg(
        long,
        value_name = "DIR",
        env = "TOWPATH_SOURCE_CHECKOUT",
        hide_env_values = true
    )]
    pub(crate) source_checkout: Option<PathBuf>,
}

/// What to do about the order of source commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderChoice {
    /// Refuse (exit 6) an older one; say so where it cannot be known
    #[default]
    Check,
    /// Refuse all that is not known to be as new: exit 6 for older and diverged commits, 4 where it cannot be known
    Require,
    /// Do not look
    Off,
}
