//! `revoke`.

use std::path::PathBuf;

use towpath::scaleway::RegistryHost;

use super::{FileArgs, ReachArgs};

/// `revoke`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("revoked").args(["scw_config", "docker_config", "pull_secret", "dotenv", "token_file"]).required(true).multiple(true)))]
pub(crate) struct RevokeArgs {
    /// Which files
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Take only this profile out of the scw configuration; `default` is the one without a name [default: all that `write`
    /// wrote]
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_SCW_PROFILE",
        hide_env_values = true
    )]
    pub(crate) scw_profile: Option<String>,
    /// Take only the login to this registry out of the docker configuration (repeatable) [default: all that `write` wrote]
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_REGISTRY_LOGIN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) registry_login: Vec<RegistryHost>,
    /// The file with a token to revoke; the file itself stays. Not the variable that a login reads: whose token that is
    /// has to be said
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_REVOKE_TOKEN_FILE",
        requires = "vault_addr",
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// The server's address
    #[arg(long, value_name = "URL", env = "VAULT_ADDR", hide_env_values = true)]
    pub(crate) vault_addr: Option<String>,
    /// How the server is reached
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// Say what would be removed and revoked, and do neither
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
}
