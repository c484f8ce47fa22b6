//! `doctor`.

use super::SourceArgs;

/// `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}
