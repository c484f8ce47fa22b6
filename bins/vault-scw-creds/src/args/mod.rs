//! What the tool takes: here what all subcommands do, and a file for each of them.

mod doctor;
mod env;
mod exec;
mod files;
mod iam;
mod login;
mod revoke;
mod rotate;
mod source;
mod variables;
mod write;

pub(crate) use doctor::DoctorArgs;
pub(crate) use env::{EnvArgs, Format};
pub(crate) use exec::ExecArgs;
pub(crate) use files::FileArgs;
pub(crate) use iam::{ApiArgs, ManagerArgs, ProofArgs};
pub(crate) use login::{Auth, LoginArgs};
pub(crate) use revoke::RevokeArgs;
pub(crate) use rotate::RotateArgs;
pub(crate) use source::{InlineAuth, ReachArgs, SourceArgs};
pub(crate) use variables::VariableArgs;
pub(crate) use write::WriteArgs;

use clap::{Parser, Subcommand};
use towpath::cli::{Arguments, Given, LogTarget, RunArgs};
use towpath::failure::{Failure, Result};

const EXAMPLES: &str = "\
Examples:
  # In a GitLab job on Kubernetes, by the service account of the runner's pod:
  vault-scw-creds exec --role ci --secret secret/ci/scaleway -- terraform apply -auto-approve

  # By the job's ID token, with a login to the registry for docker:
  vault-scw-creds exec --auth jwt --auth-mount gitlab --role ci --secret secret/ci/scaleway \\
    --registry-login rg.fr-par.scw.cloud -- docker push rg.fr-par.scw.cloud/team/app:1.2.3

  # With a key that an engine makes for this command alone:
  vault-scw-creds exec --role ci --dynamic scaleway/creds/ci -- scw instance server list

  # In a shell, with the token of `vault login`:
  eval \"$(vault-scw-creds env --auth token --token-file ~/.vault-token --secret secret/ci/scaleway)\"";

/// Logs in to Vault or OpenBao and hands Scaleway credentials to one command
///
/// The secret is a key/value one with the fields access_key and secret_key, and perhaps organization_id, project_id,
/// region and zone; the login's token is revoked as soon as it is read. Or an engine makes a key for the command, which
/// is renewed while the command runs and revoked when it ends.
#[derive(Clone, Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Task,
    /// What all binaries take
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "vault-scw-creds";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn settle(&mut self, given: &Given<'_>) -> Result<()> {
        match &mut self.command {
            Task::Exec(args) => args.settle(given),
            Task::Env(args) => {
                // Standard output is for a shell to run, or a program to read.
                if self.run.log_target == LogTarget::Stdout {
                    if given.by_flag("log_target") {
                        return Err(Failure::usage(
                            "--log-target stdout (TOWPATH_LOG_TARGET) would mix the log into the variables",
                        )
                        .hint("leave it out: env logs to standard error"));
                    }
                    self.run.log_target = LogTarget::Stderr;
                }
                args.source.settle_on_secret(given)
            }
            Task::Write(args) => {
                needs(
                    given,
                    "scw_profile",
                    &mut args.scw_profile,
                    args.files.scw_config.is_some(),
                    "--scw-profile needs --scw-config (TOWPATH_SCW_CONFIG)",
                )?;
                args.source.settle_on_secret(given)
            }
            Task::Rotate(args) => args.settle(given),
            Task::Doctor(args) => args.source.settle(given),
            Task::Revoke(_) => Ok(()),
        }
    }
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a command with the credentials in its environment, and end with its exit code
    Exec(ExecArgs),
    /// Print the credentials as variables
    Env(EnvArgs),
    /// Write the credentials to files that other tools read
    Write(WriteArgs),
    /// Replace the API key in the secret by a new one, and let the old one end
    Rotate(RotateArgs),
    /// Remove what `write` wrote, and revoke a token from a file
    Revoke(RevokeArgs),
    /// Check address, login and secret one by one, printing no value
    Doctor(DoctorArgs),
}

/// Forgets a value that is there for another command, by a variable, when what it is for is not; refuses it when it was
/// given for this one.
fn needs<T>(
    given: &Given<'_>,
    id: &str,
    value: &mut Option<T>,
    is_used: bool,
    complaint: &'static str,
) -> Result<()> {
    if value.is_some() && !is_used {
        if given.by_flag(id) {
            return Err(Failure::usage(complaint).hint("give both, or neither"));
        }
        *value = None;
    }
    Ok(())
}

/// Splits `NAME=KEY`.
fn parse_pair(text: &str) -> Result<(&str, &str)> {
    text.split_once('=')
        .filter(|(name, key)| !name.is_empty() && !key.is_empty())
        .ok_or_else(|| Failure::usage(format!("{text:?} is not NAME=KEY")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }
}
