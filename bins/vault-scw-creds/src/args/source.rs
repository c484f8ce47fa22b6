//! Where credentials come from, and how their server is reached.

use std::path::PathBuf;

use towpath::failure::Result;
use towpath::scaleway::Field;
use towpath::vault::SecretPath;

use super::{LoginArgs, parse_pair};

/// Where credentials come from: server, login and secret.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The server's address
    #[arg(
        long,
        value_name = "URL",
        env = "VAULT_ADDR",
        help_heading = "Vault",
        hide_env_values = true
    )]
    pub(crate) vault_addr: String,
    /// How the server is reached
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// How to log in
    #[command(flatten)]
    pub(crate) login: LoginArgs,
    /// The secret, as MOUNT/PATH without `data/`
    #[arg(
        long,
        value_name = "MOUNT/PATH",
        env = "TOWPATH_SECRET",
        help_heading = "Secret",
        hide_env_values = true
    )]
    pub(crate) secret: SecretPath,
    /// The version of the secret [default: the latest]
    #[arg(
        long,
        value_name = "N",
        env = "TOWPATH_SECRET_VERSION",
        help_heading = "Secret",
        value_parser = clap::value_parser!(u64).range(1..),
        hide_env_values = true
    )]
    pub(crate) secret_version: Option<u64>,
    /// The secret's key for a field, when it is not called like the field (repeatable): access_key, secret_key,
    /// organization_id, project_id, region or zone
    #[arg(
        long = "field",
        value_name = "NAME=KEY",
        env = "TOWPATH_FIELDS",
        value_delimiter = ',',
        value_parser = parse_field,
        help_heading = "Secret",
        hide_env_values = true
    )]
    pub(crate) fields: Vec<(Field, String)>,
}

/// How the server is reached.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Vault")]
pub(crate) struct ReachArgs {
    /// The namespace
    #[arg(long, value_name = "PATH", env = "VAULT_NAMESPACE", hide_env_values = true)]
    pub(crate) vault_namespace: Option<String>,
    /// A PEM file with the certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE", env = "VAULT_CACERT", hide_env_values = true)]
    pub(crate) vault_ca_file: Option<PathBuf>,
    /// Allow plain http to another machine
    #[arg(long, env = "TOWPATH_PLAIN_HTTP", hide_env_values = true)]
    pub(crate) plain_http: bool,
}

fn parse_field(text: &str) -> Result<(Field, String)> {
    let (name, key) = parse_pair(text)?;
    Ok((name.parse()?, key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_need_both_sides() {
        assert_eq!(
            parse_field("secret_key=token").unwrap(),
            (Field::SecretKey, "token".to_owned())
        );
        for wrong in ["secret_key", "secret_key=", "=token", "password=token"] {
            assert!(parse_field(wrong).is_err(), "{wrong:?}");
        }
    }
}
