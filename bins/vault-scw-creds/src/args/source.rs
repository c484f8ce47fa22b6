//! Where credentials come from, and how their server is reached.

use std::path::PathBuf;

use clap::ValueEnum;
use towpath::cli::Given;
use towpath::failure::{Failure, Result};
use towpath::scaleway::Field;
use towpath::vault::{self, Mount, SecretPath};

use super::login::parse_mount;
use super::{LoginArgs, needs, parse_pair};

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
        required_unless_present = "dynamic",
        hide_env_values = true
    )]
    pub(crate) secret: Option<SecretPath>,
    /// Instead of a secret, for exec and doctor: where an engine makes credentials with a lease, such as scaleway/creds/ci. They are
    /// renewed while the command runs, and revoked when it ends
    #[arg(
        long,
        value_name = "MOUNT/PATH",
        env = "TOWPATH_DYNAMIC",
        help_heading = "Secret",
        hide_env_values = true
    )]
    pub(crate) dynamic: Option<SecretPath>,
    /// Where the secret's engine is mounted, when it has a slash: the secret is looked for there first [default: the first
    /// part of its path]
    #[arg(
        long,
        value_name = "MOUNT",
        env = "TOWPATH_KV_MOUNT",
        help_heading = "Secret",
        value_parser = parse_mount,
        hide_env_values = true
    )]
    pub(crate) kv_mount: Option<String>,
    /// The version of the secret's engine, which is looked for first [default: 2]
    #[arg(
        long,
        value_enum,
        value_name = "N",
        env = "TOWPATH_KV_VERSION",
        help_heading = "Secret",
        hide_env_values = true
    )]
    pub(crate) kv_version: Option<KvVersion>,
    /// Whether a secret is first asked for without a token, as OpenBao allows: by a login in the same request
    #[arg(
        long,
        value_enum,
        default_value_t = InlineAuth::Auto,
        env = "TOWPATH_INLINE_AUTH",
        help_heading = "Secret",
        hide_env_values = true
    )]
    pub(crate) inline_auth: InlineAuth,
    /// The version of the secret, for all but rotate [default: the latest]
    #[arg(
        long = "version",
        alias = "secret-version",
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
    /// A PEM file with the certificate to show to a server that asks for one
    #[arg(
        long,
        value_name = "FILE",
        env = "VAULT_CLIENT_CERT",
        requires = "vault_client_key",
        hide_env_values = true
    )]
    pub(crate) vault_client_cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "VAULT_CLIENT_KEY",
        requires = "vault_client_cert",
        hide_env_values = true
    )]
    pub(crate) vault_client_key: Option<PathBuf>,
    /// Allow plain http to another machine
    #[arg(long, env = "TOWPATH_PLAIN_HTTP", hide_env_values = true)]
    pub(crate) plain_http: bool,
}

/// Whether to ask without a token first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InlineAuth {
    /// Yes, and log in when that does not give the secret
    Auto,
    /// No: log in at once
    Never,
}

/// The versions of a key/value engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvVersion {
    /// One value a path
    #[value(name = "1")]
    One,
    /// A path keeps several versions of its value
    #[value(name = "2")]
    Two,
}

impl From<KvVersion> for vault::KvVersion {
    fn from(version: KvVersion) -> Self {
        match version {
            KvVersion::One => vault::KvVersion::One,
            KvVersion::Two => vault::KvVersion::Two,
        }
    }
}

impl SourceArgs {
    /// Where a secret is looked for first: as it was said, where that can be so.
    pub(crate) fn likely_mount(&self, secret: &SecretPath) -> Option<Mount> {
        let version = self.kv_version.map(Into::into);
        Mount::likely(secret, self.kv_mount.as_deref(), version)
            .or_else(|| Mount::likely(secret, None, version))
    }

    /// Whether anything was said of where the secret is.
    pub(crate) fn tells_mount(&self) -> bool {
        self.kv_mount.is_some() || self.kv_version.is_some()
    }

    /// Settles what variables set for a job and flags for this command.
    ///
    /// # Errors
    /// Usage (exit 2) when arguments do not go together.
    pub(super) fn settle(&mut self, given: &Given<'_>) -> Result<()> {
        if self.secret.is_some() && self.dynamic.is_some() {
            match (given.by_flag("secret"), given.by_flag("dynamic")) {
                (true, false) => self.dynamic = None,
                (false, true) => self.secret = None,
                _ => {
                    return Err(Failure::usage(
                        "--secret (TOWPATH_SECRET) and --dynamic (TOWPATH_DYNAMIC) are both given",
                    )
                    .hint("give one of them; where variables set both, the flag of the one that is meant decides"));
                }
            }
        }
        let has_versions = self.dynamic.is_none();
        needs(
            given,
            "secret_version",
            &mut self.secret_version,
            has_versions,
            "--version is for --secret: what an engine makes for --dynamic has no versions",
        )?;
        needs(
            given,
            "kv_mount",
            &mut self.kv_mount,
            has_versions,
            "--kv-mount is for --secret: what an engine makes for --dynamic is in no key/value engine",
        )?;
        needs(
            given,
            "kv_version",
            &mut self.kv_version,
            has_versions,
            "--kv-version is for --secret: what an engine makes for --dynamic is in no key/value engine",
        )?;
        // It may be set for other secrets of the job.
        if let (Some(secret), Some(mount)) = (&self.secret, &self.kv_mount)
            && given.by_flag("kv_mount")
            && Mount::likely(secret, Some(mount), None).is_none()
        {
            return Err(
                Failure::usage(format!("--secret {secret} is not below --kv-mount {mount}"))
                    .hint("--secret takes the whole path, MOUNT/PATH, and --kv-mount its beginning"),
            );
        }
        for (at, (field, _)) in self.fields.iter().enumerate() {
            if self.fields[..at].iter().any(|(before, _)| before == field) {
                return Err(Failure::usage(format!(
                    "--field (TOWPATH_FIELDS) names two keys for {}",
                    field.name()
                ))
                .hint("name one key for each field"));
            }
        }
        Ok(())
    }

    /// As [`SourceArgs::settle`], for what cannot see to the end of a lease: where an engine is may be set for others.
    pub(super) fn settle_on_secret(&mut self, given: &Given<'_>) -> Result<()> {
        if self.secret.is_some() && !given.by_flag("dynamic") {
            self.dynamic = None;
        }
        self.settle(given)
    }

    /// The secret, for what cannot see to the end of a lease.
    ///
    /// # Errors
    /// Usage (exit 2) when credentials with a lease were asked for.
    pub(crate) fn secret(&self) -> Result<&SecretPath> {
        match (&self.secret, &self.dynamic) {
            (Some(secret), None) => Ok(secret),
            _ => Err(Failure::usage(
                "--dynamic is for exec (and doctor): a lease ends with the command that it is for",
            )
            .hint("unset --dynamic (TOWPATH_DYNAMIC), and give --secret (TOWPATH_SECRET)")),
        }
    }

    /// What was asked for, for messages and reports.
    pub(crate) fn shown(&self) -> String {
        self.dynamic
            .as_ref()
            .or(self.secret.as_ref())
            .map_or_else(String::new, ToString::to_string)
    }
}

pub(super) fn parse_field(text: &str) -> Result<(Field, String)> {
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
