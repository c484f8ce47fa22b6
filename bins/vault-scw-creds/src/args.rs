//! What the tool takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use towpath::cli::{Arguments, RunArgs};
use towpath::failure::{Failure, Result};
use towpath::scaleway::{Field, RegistryHost};
use towpath::vault::{SERVICE_ACCOUNT_TOKEN, SecretPath};

const EXAMPLES: &str = "\
Examples:
  # In a GitLab job on Kubernetes, by the service account of the runner's pod:
  vault-scw-creds exec --role ci --secret secret/ci/scaleway -- terraform apply -auto-approve

  # By the job's ID token, with a login to the registry for docker:
  vault-scw-creds exec --auth jwt --auth-mount gitlab --role ci --secret secret/ci/scaleway \\
    --registry-login rg.fr-par.scw.cloud -- docker push rg.fr-par.scw.cloud/team/app:1.2.3

  # In a shell, with the token of `vault login`:
  eval \"$(vault-scw-creds env --auth token --token-file ~/.vault-token --secret secret/ci/scaleway)\"";

/// Logs in to Vault or OpenBao and hands Scaleway credentials to one command
///
/// The secret is a key/value one with the fields access_key and secret_key, and perhaps organization_id, project_id,
/// region and zone. The login's token is revoked as soon as the secret is read.
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
    /// Remove what `write` wrote, and revoke a token from a file
    Revoke(RevokeArgs),
    /// Check address, login and secret one by one, printing no value
    Doctor(DoctorArgs),
}

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
    /// Log in and read, say what the command would get, and do not run it. TOWPATH_DRY_RUN is left to the command, which
    /// may be another of these tools
    #[arg(long, env = "TOWPATH_EXEC_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, num_args = 1.., value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

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

/// `write`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("written").args(["scw_config", "docker_config", "pull_secret"]).required(true).multiple(true)))]
pub(crate) struct WriteArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Which files
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// The profile in the scw configuration [default: the one without a name]
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_SCW_PROFILE",
        requires = "scw_config",
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

/// `revoke`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("revoked").args(["scw_config", "docker_config", "pull_secret", "token_file"]).required(true).multiple(true)))]
pub(crate) struct RevokeArgs {
    /// Which files
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// The file with a token to revoke; the file itself stays
    #[arg(
        long,
        value_name = "FILE",
        env = "VAULT_TOKEN_FILE",
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

/// `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Where the credentials come from
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

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
        value_parser = parse_mount,
        hide_env_values = true
    )]
    pub(crate) auth_mount: Option<String>,
    /// The role, for kubernetes and jwt
    #[arg(
        long,
        env = "TOWPATH_VAULT_ROLE",
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
    /// The file with the token, for token [default: the variable VAULT_TOKEN]
    #[arg(long, value_name = "FILE", env = "VAULT_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
}

/// Which variables are made of the credentials, besides Scaleway's own.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Variables")]
pub(crate) struct VariableArgs {
    /// Also set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for state on Object Storage
    #[arg(long, env = "TOWPATH_AWS", hide_env_values = true)]
    pub(crate) aws: bool,
    /// Also set TF_VAR_NAME to a key of the secret (repeatable)
    #[arg(
        long = "tf-var",
        value_name = "NAME=KEY",
        env = "TOWPATH_TF_VARS",
        value_delimiter = ',',
        value_parser = parse_tf_var,
        hide_env_values = true
    )]
    pub(crate) tf_vars: Vec<(String, String)>,
}

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

    /// The file with the service account's token.
    pub(crate) fn service_account_file(&self) -> PathBuf {
        self.jwt_file
            .clone()
            .unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.into())
    }
}

/// Splits `NAME=KEY`.
fn parse_pair(text: &str) -> Result<(&str, &str)> {
    text.split_once('=')
        .filter(|(name, key)| !name.is_empty() && !key.is_empty())
        .ok_or_else(|| Failure::usage(format!("{text:?} is not NAME=KEY")))
}

fn parse_field(text: &str) -> Result<(Field, String)> {
    let (name, key) = parse_pair(text)?;
    Ok((name.parse()?, key.to_owned()))
}

fn parse_tf_var(text: &str) -> Result<(String, String)> {
    let (name, key) = parse_pair(text)?;
    // Terraform would also take a `-`, which no shell can export.
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Failure::usage(format!(
            "{name:?} is no name for a Terraform variable that comes from the environment"
        )));
    }
    Ok((name.to_owned(), key.to_owned()))
}

fn parse_mount(text: &str) -> Result<String> {
    let mount = text.trim_matches('/');
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.chars().any(char::is_control);
    if mount.split('/').any(odd) {
        return Err(Failure::usage(format!("malformed mount {text:?}")));
    }
    // People copy it as the server's command line shows it.
    Ok(mount.strip_prefix("auth/").unwrap_or(mount).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn pairs_need_both_sides() {
        assert_eq!(
            parse_field("secret_key=token").unwrap(),
            (Field::SecretKey, "token".to_owned())
        );
        for wrong in ["secret_key", "secret_key=", "=token", "password=token"] {
            assert!(parse_field(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse_tf_var("a b=c").is_err());
    }

    #[test]
    fn a_mount_is_understood_with_and_without_its_prefix() {
        assert_eq!(parse_mount("auth/gitlab/").unwrap(), "gitlab");
        assert_eq!(parse_mount("team/k8s").unwrap(), "team/k8s");
        assert!(parse_mount("a/../b").is_err());
    }
}
