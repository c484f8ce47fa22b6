//! `write`.

use std::path::PathBuf;

use towpath::scaleway::RegistryHost;

use super::{FileArgs, SourceArgs, VariableArgs};

/// `write`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("written").args(["scw_config", "docker_config", "pull_secret", "dotenv"]).required(true).multiple(true)))]
pub(crate) struct WriteArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Which files
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Which variables are in the dotenv file
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    /// The profile in the scw configuration; `default` is the one without a name [default: default]
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_SCW_PROFILE",
        hide_env_values = true
    )]
    pub(crate) scw_profile: Option<String>,
    /// The name of the pull secret
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_PULL_SECRET_NAME",
        default_value = "scaleway-registry",
        hide_env_values = true
    )]
    pub(crate) pull_secret_name: String,
    /// The registry that docker configuration and pull secret log in to (repeatable)
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_REGISTRY_LOGIN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) registry_login: Vec<RegistryHost>,
    /// The folder that artifacts are taken from: no file is written inside
    #[arg(long, value_name = "DIR", env = "CI_PROJECT_DIR", hide_env_values = true)]
    pub(crate) project_dir: Option<PathBuf>,
    /// Write even inside the project folder
    #[arg(long, env = "TOWPATH_FORCE", hide_env_values = true)]
    pub(crate) force: bool,
    /// Log in and read, say which files would be written, and write none
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
}
