//! `exec`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use towpath::cli::Given;
use towpath::failure::{Failure, Result};
use towpath::scaleway::RegistryHost;

use super::iam::parse_span;
use super::{ManagerArgs, ProofArgs, SourceArgs, VariableArgs, needs};

/// `exec`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Which variables are made of them
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// Log docker and its relatives in to this registry, by a private DOCKER_CONFIG (repeatable)
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_REGISTRY_LOGIN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) registry_login: Vec<RegistryHost>,
    /// The folder that artifacts are taken from: no credentials are written inside
    #[arg(long, value_name = "DIR", env = "CI_PROJECT_DIR", hide_env_values = true)]
    pub(crate) project_dir: Option<PathBuf>,
    /// Use the secret's key only to have IAM make another, for this command alone: it is deleted when the command ends, and
    /// ends by itself if nobody can delete it
    #[arg(long, env = "TOWPATH_MINT", hide_env_values = true)]
    pub(crate) mint: bool,
    /// Whose that key is, by the id of an application [default: whose the secret's key is]
    #[arg(
        long,
        value_name = "ID",
        env = "TOWPATH_MINT_APPLICATION",
        hide_env_values = true
    )]
    pub(crate) mint_application: Option<String>,
    /// When it ends by itself [default: five minutes after the run's own limit]
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_MINT_FOR",
        value_parser = parse_span,
        hide_env_values = true
    )]
    pub(crate) mint_for: Option<Duration>,
    /// Whose key asks IAM
    #[command(flatten)]
    pub(crate) manager: ManagerArgs,
    /// How IAM is reached and the key proven
    #[command(flatten)]
    pub(crate) proof: ProofArgs,
    /// Pass on what the command prints as it is, secrets and all: for output that has to stay the same to the last byte
    #[arg(long, env = "TOWPATH_NO_MASK", hide_env_values = true)]
    pub(crate) no_mask: bool,
    /// Log in and read, say what the command would get, and do not run it. TOWPATH_DRY_RUN is left to the command, which
    /// may be another of these tools
    #[arg(long, env = "TOWPATH_EXEC_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, num_args = 1.., value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl ExecArgs {
    /// Settles what variables set for a job and flags for this command.
    ///
    /// # Errors
    /// Usage (exit 2) when arguments do not go together.
    pub(super) fn settle(&mut self, given: &Given<'_>) -> Result<()> {
        if self.mint && self.source.dynamic.is_some() {
            match (given.by_flag("mint"), given.by_flag("dynamic")) {
                (false, true) => self.mint = false,
                (true, false) if self.source.secret.is_some() => self.source.dynamic = None,
                _ => {
                    return Err(Failure::usage(
                        "--mint (TOWPATH_MINT) and --dynamic (TOWPATH_DYNAMIC) are both given",
                    )
                    .hint("give one of them: IAM makes the key, or an engine does"));
                }
            }
        }
        let mint = self.mint;
        needs(
            given,
            "mint_application",
            &mut self.mint_application,
            mint,
            "--mint-application needs --mint (TOWPATH_MINT)",
        )?;
        needs(
            given,
            "mint_for",
            &mut self.mint_for,
            mint,
            "--mint-for needs --mint (TOWPATH_MINT)",
        )?;
        self.source.settle(given)
    }
}
