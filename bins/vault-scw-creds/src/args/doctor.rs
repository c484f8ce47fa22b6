//! `doctor`.

use std::time::Duration;

use super::iam::parse_span;
use super::{ApiArgs, ManagerArgs, SourceArgs};

/// `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Check only what needs no server: address, certificates, and what is to be logged in with
    #[arg(long, env = "TOWPATH_OFFLINE", hide_env_values = true)]
    pub(crate) offline: bool,
    /// Also check what `rotate` needs: its rights, and the key in IAM
    #[arg(long, env = "TOWPATH_CHECK_ROTATION", hide_env_values = true)]
    pub(crate) rotation: bool,
    /// Warn when the key is older than this, with --rotation
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_MAX_AGE",
        default_value = "90d",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) max_age: Duration,
    /// Whose key asks IAM
    #[command(flatten)]
    pub(crate) manager: ManagerArgs,
    /// Where IAM is
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}
