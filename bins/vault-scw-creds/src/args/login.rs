//! How to log in.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use towpath::failure::{Failure, Result};
use towpath::vault::SERVICE_ACCOUNT_TOKEN;

/// How to log in.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Login")]
pub(crate) struct LoginArgs {
    /// The method
    #[arg(
        long,
        value_enum,
        default_value_t = Auth::Kubernetes,
        env = "TOWPATH_VAULT_AUTH",
        hide_env_values = true
    )]
    pub(crate) auth: Auth,
    /// Where the method is mounted, without `auth/` [default: the method's name]
    #[arg(
        long,
        value_name = "PATH",
        env = "TOWPATH_VAULT_AUTH_MOUNT",
        value_parser = parse_auth_mount,
        hide_env_values = true
    )]
    pub(crate) auth_mount: Option<String>,
    /// The role, for kubernetes and jwt
    #[arg(
        long,
        env = "TOWPATH_VAULT_ROLE",
        value_parser = towpath::cli::parse_line,
        required_if_eq("auth", "kubernetes"),
        hide_env_values = true
    )]
    pub(crate) role: Option<String>,
    /// The file with the JWT [default for kubernetes: the pod's own]; for jwt it is read when the variable is not set
    #[arg(long, value_name = "FILE", env = "TOWPATH_JWT_FILE", hide_env_values = true)]
    pub(crate) jwt_file: Option<PathBuf>,
    /// The variable with the JWT, for jwt
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_JWT_VARIABLE",
        default_value = "VAULT_ID_TOKEN",
        hide_env_values = true
    )]
    pub(crate) jwt_variable: String,
    /// The file with the role id, for approle
    #[arg(
        long,
        value_name = "FILE",
        env = "VAULT_ROLE_ID_FILE",
        required_if_eq("auth", "approle"),
        hide_env_values = true
    )]
    pub(crate) role_id_file: Option<PathBuf>,
    /// The file with the secret id, for approle
    #[arg(
        long,
        value_name = "FILE",
        env = "VAULT_SECRET_ID_FILE",
        required_if_eq("auth", "approle"),
        hide_env_values = true
    )]
    pub(crate) secret_id_file: Option<PathBuf>,
    /// That file holds a wrapping token, which gives the secret id once
    #[arg(long, env = "TOWPATH_WRAPPED_SECRET_ID", hide_env_values = true)]
    pub(crate) wrapped_secret_id: bool,
    /// The file with the token, for token [default: the variable VAULT_TOKEN]
    #[arg(long, value_name = "FILE", env = "VAULT_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
}

/// The login methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// By the token of a Kubernetes service account
    Kubernetes,
    /// By a signed token, such as a GitLab job's ID token
    Jwt,
    /// By role id and secret id
    #[value(name = "approle")]
    AppRole,
    /// By a token of somebody's login, which is not revoked at the end
    Token,
}

impl LoginArgs {
    /// Where the method is mounted.
    pub(crate) fn mount(&self) -> String {
        self.auth_mount.clone().unwrap_or_else(|| {
            match self.auth {
                Auth::Kubernetes => "kubernetes",
                Auth::Jwt => "jwt",
                Auth::AppRole => "approle",
                Auth::Token => "token",
            }
            .to_owned()
        })
    }

    /// The files that were named for a login, whatever the method.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        [
            &self.jwt_file,
            &self.role_id_file,
            &self.secret_id_file,
            &self.token_file,
        ]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
    }

    /// The file with the service account's token.
    pub(crate) fn service_account_file(&self) -> PathBuf {
        self.jwt_file
            .clone()
            .unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.into())
    }
}

fn parse_auth_mount(text: &str) -> Result<String> {
    let mount = parse_mount(text)?;
    // People copy it as the server's command line shows it.
    Ok(mount.strip_prefix("auth/").unwrap_or(&mount).to_owned())
}

/// Reads where something is mounted, as the server's command line shows it or without the slash at the end.
pub(super) fn parse_mount(text: &str) -> Result<String> {
    let mount = text.trim_matches('/');
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.chars().any(char::is_control);
    if mount.split('/').any(odd) {
        return Err(Failure::usage(format!("malformed mount {text:?}")));
    }
    Ok(mount.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_understood_with_and_without_its_prefix() {
        assert_eq!(parse_auth_mount("auth/gitlab/").unwrap(), "gitlab");
        assert_eq!(parse_auth_mount("team/k8s").unwrap(), "team/k8s");
        assert!(parse_auth_mount("a/../b").is_err());
    }
}
