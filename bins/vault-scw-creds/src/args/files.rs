//! Which files the credentials are written to.

use std::path::PathBuf;

/// The files that `write` writes and `revoke` removes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    /// A configuration for scw, Terraform and whatever else uses Scaleway's SDK
    #[arg(long, value_name = "FILE", env = "TOWPATH_SCW_CONFIG", hide_env_values = true)]
    pub(crate) scw_config: Option<PathBuf>,
    /// A folder for DOCKER_CONFIG, with a config.json
    #[arg(
        long,
        value_name = "DIR",
        env = "TOWPATH_DOCKER_CONFIG",
        hide_env_values = true
    )]
    pub(crate) docker_config: Option<PathBuf>,
    /// A manifest of a Kubernetes pull secret
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_PULL_SECRET",
        hide_env_values = true
    )]
    pub(crate) pull_secret: Option<PathBuf>,
    /// A file with NAME=value lines, for `docker run --env-file` and the like. Never as a dotenv report of GitLab
    #[arg(long, value_name = "FILE", env = "TOWPATH_DOTENV", hide_env_values = true)]
    pub(crate) dotenv: Option<PathBuf>,
}
