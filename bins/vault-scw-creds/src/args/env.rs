//! `env`.

use clap::ValueEnum;

use super::{SourceArgs, VariableArgs};

/// `env`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EnvArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Which variables are made of them
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// How they are printed
    #[arg(
        long,
        value_enum,
        default_value_t = Format::Shell,
        env = "TOWPATH_ENV_FORMAT",
        hide_env_values = true
    )]
    pub(crate) format: Format,
}

/// How `env` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For `eval` in a POSIX shell
    Shell,
    /// NAME=value lines
    Dotenv,
    /// One JSON object
    Json,
}
