//! What the variables and files are to be. Nothing here touches anything.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use towpath::failure::{Failure, Result};
use towpath::scaleway::{AWS_SHADOWING, Credentials, DEPRECATED, Field, PrivateFile};
use towpath::secret::Secret;
use towpath::vault::Reading;

use crate::args::{FileArgs, Format, VariableArgs};

/// What a login may be made with. The command gets none of it: it has the credentials instead.
const LOGIN_MATERIAL: [&str; 18] = [
    "BAO_CLIENT_CERT",
    "BAO_CLIENT_KEY",
    "BAO_TOKEN",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V1",
    "CI_JOB_JWT_V2",
    "TOWPATH_JWT_FILE",
    "TOWPATH_JWT_VARIABLE",
    "TOWPATH_REVOKE_TOKEN_FILE",
    "VAULT_CLIENT_CERT",
    "VAULT_CLIENT_KEY",
    "VAULT_ID_TOKEN",
    "VAULT_ROLE_ID",
    "VAULT_ROLE_ID_FILE",
    "VAULT_SECRET_ID",
    "VAULT_SECRET_ID_FILE",
    "VAULT_TOKEN",
    "VAULT_TOKEN_FILE",
];
/// Those of them whose value is the secret itself, which may be there under another name, too.
pub(crate) const LOGIN_SECRETS: [&str; 7] = [
    "BAO_TOKEN",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V1",
    "CI_JOB_JWT_V2",
    "VAULT_ID_TOKEN",
    "VAULT_SECRET_ID",
    "VAULT_TOKEN",
];
/// It comes before any file that DOCKER_CONFIG points to (GitLab's runner and kaniko read it).
const DOCKER_SHADOWING: &str = "DOCKER_AUTH_CONFIG";

/// Variables to set and to take away. Formatting it shows their names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    set: Vec<(String, String)>,
    unset: BTreeSet<String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("set", &self.names())
            .field("unset", &self.unset)
            .finish()
    }
}

impl Environment {
    /// The variables that are made of the credentials, and those that would get in their way.
    ///
    /// # Errors
    /// Not found (exit 5) when the secret lacks a key that a Terraform variable is to have.
    pub(crate) fn of(
        credentials: &Credentials,
        reading: &Reading,
        args: &VariableArgs,
        origin: &str,
    ) -> Result<Self> {
        let mut environment = Environment::default();
        for (name, value) in credentials.environment() {
            environment.set(name, value);
        }
        environment.unset.extend(DEPRECATED.map(str::to_owned));
        if args.aws {
            for (name, value) in credentials.aws_environment() {
                environment.set(name, value);
            }
            environment.unset.extend(AWS_SHADOWING.map(str::to_owned));
        }
        for (name, key) in &args.tf_vars {
            let value = reading
                .field(key)
                .ok_or_else(|| no_such_key(origin, key, reading))?;
            environment.set(&format!("TF_VAR_{name}"), value);
        }
        Ok(environment)
    }

    /// Takes away what a login is made with, for a command that is to use the credentials alone.
    #[must_use]
    pub(crate) fn without_login(mut self, jwt_variable: &str) -> Self {
        self.unset.extend(LOGIN_MATERIAL.map(str::to_owned));
        self.unset.insert(jwt_variable.to_owned());
        self
    }

    /// Points docker to a folder, and takes away what it would prefer to it.
    #[must_use]
    pub(crate) fn with_docker_config(mut self, folder: &str) -> Self {
        self.set("DOCKER_CONFIG", folder);
        self.unset.insert(DOCKER_SHADOWING.to_owned());
        self
    }

    fn set(&mut self, name: &str, value: &str) {
        self.set.push((name.to_owned(), value.to_owned()));
    }

    /// The variables to set, with their values.
    pub(crate) fn to_set(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names of the variables to take away.
    pub(crate) fn to_unset(&self) -> impl Iterator<Item = &str> {
        self.unset.iter().map(String::as_str)
    }

    /// The names of the variables to set.
    pub(crate) fn names(&self) -> Vec<String> {
        self.set.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The variables as text, without a final newline.
    ///
    /// # Errors
    /// Input (exit 3) when a value cannot be expressed in that format.
    pub(crate) fn render(&self, format: Format) -> Result<Secret> {
        let lines: Vec<String> = match format {
            Format::Shell => {
                if let Some((name, _)) = self.to_set().find(|(_, value)| value.contains('\0')) {
                    return Err(Failure::input(format!(
                        "the value of {name} cannot stand in a variable: it has a zero byte"
                    ))
                    .hint("use --format json"));
                }
                let unset: Vec<&str> = self.to_unset().collect();
                let exports = self.to_set().map(|(name, value)| {
                    // Within single quotes a shell takes everything as it is, but for the quote itself.
                    format!("export {name}='{}'", value.replace('\'', r"'\''"))
                });
                std::iter::once(format!("unset {}", unset.join(" ")))
                    .chain(exports)
                    .collect()
            }
            Format::Dotenv => self
                .to_set()
                .map(|(name, value)| {
                    // Who reads such files agrees on plain values alone: some take quotes, `#`, `$` and backslashes
                    // as they are, and some do not.
                    let odd = |c: char| c.is_control() || "$`'\"\\#".contains(c);
                    if value.contains(odd) || value.trim() != value {
                        return Err(Failure::input(format!(
                            "the value of {name} cannot stand in a dotenv file: it has a line break, a blank at an end, \
                             a quote, or one of $ ` # \\"
                        ))
                        .hint("use --format json or shell"));
                    }
                    Ok(format!("{name}={value}"))
                })
                .collect::<Result<_>>()?,
            Format::Json => {
                let object: serde_json::Map<String, serde_json::Value> = self
                    .to_set()
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect();
                vec![serde_json::Value::Object(object).to_string()]
            }
        };
        Ok(Secret::new(lines.join("\n")))
    }
}

/// The credentials in a secret, by the names of its keys.
///
/// # Errors
/// Not found (exit 5) when a key that was named is not there; as [`Credentials::gather`].
pub(crate) fn credentials(
    reading: &Reading,
    mapping: &[(Field, String)],
    origin: &str,
) -> Result<Credentials> {
    for (_, key) in mapping {
        if reading.field(key).is_none() {
            return Err(no_such_key(origin, key, reading));
        }
    }
    Credentials::gather(origin, |field| reading.field(key_of(mapping, field)))
}

/// The secret's key for a field.
pub(crate) fn key_of(mapping: &[(Field, String)], field: Field) -> &str {
    mapping
        .iter()
        .find(|(mapped, _)| *mapped == field)
        .map_or(field.name(), |(_, key)| key.as_str())
}

/// What else of the secret reaches the command and must not show: the values of its Terraform variables, unless they are
/// of a kind that everybody may know.
pub(crate) fn further_secrets<'a>(
    reading: &'a Reading,
    args: &'a VariableArgs,
    mapping: &'a [(Field, String)],
) -> impl Iterator<Item = &'a str> {
    let key_of = |field: Field| {
        mapping
            .iter()
            .find(|(mapped, _)| *mapped == field)
            .map_or(field.name(), |(_, key)| key.as_str())
    };
    let known: Vec<&str> = Field::ALL
        .into_iter()
        .filter(|field| *field != Field::SecretKey)
        .map(key_of)
        .collect();
    args.tf_vars
        .iter()
        .filter(move |(_, key)| !known.contains(&key.as_str()))
        .filter_map(|(_, key)| reading.field(key))
}

fn no_such_key(origin: &str, key: &str, reading: &Reading) -> Failure {
    let names: Vec<&str> = reading.names().collect();
    Failure::not_found(format!("{origin} has no key {key:?}"))
        .hint(format!("its keys are: {}", names.join(", ")))
}

/// The files that were named.
pub(crate) fn files(args: &FileArgs) -> Vec<PrivateFile> {
    let path = |path: &Option<PathBuf>, kind: fn(PathBuf) -> PrivateFile| path.clone().map(kind);
    [
        path(&args.scw_config, PrivateFile::ScwConfig),
        path(&args.docker_config, PrivateFile::DockerConfig),
        path(&args.pull_secret, PrivateFile::PullSecret),
        path(&args.dotenv, PrivateFile::Dotenv),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use towpath::failure::Kind;

    use super::*;

    const SECRET_KEY: &str = "11111111-2222-4333-8444-caaaaaaaab01";

    fn reading() -> Reading {
        Reading::new(
            Some(3),
            [
                ("access_key", "SCW1234567890ABCDEFG"),
                ("token", SECRET_KEY),
                ("region", "fr-par"),
                ("motto", "it's $HOME\nsweet"),
            ],
        )
    }

    fn environment(args: &VariableArgs) -> Result<Environment> {
        let mapping = [(Field::SecretKey, "token".to_owned())];
        let credentials = credentials(&reading(), &mapping, "secret/app")?;
        Environment::of(&credentials, &reading(), args, "secret/app")
    }

    fn with(aws: bool, tf_vars: &[(&str, &str)]) -> VariableArgs {
        VariableArgs {
            aws,
            tf_vars: tf_vars
                .iter()
                .map(|(name, key)| ((*name).to_owned(), (*key).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn a_field_may_have_a_key_of_another_name() {
        let found = environment(&with(false, &[])).unwrap();
        assert_eq!(
            found.to_set().collect::<Vec<_>>(),
            [
                ("SCW_ACCESS_KEY", "SCW1234567890ABCDEFG"),
                ("SCW_SECRET_KEY", SECRET_KEY),
                ("SCW_DEFAULT_REGION", "fr-par"),
            ]
        );
        let mapping = [(Field::Zone, "zone".to_owned())];
        let failure = credentials(&reading(), &mapping, "secret/app").expect_err("no such key");
        assert_eq!(failure.kind(), Kind::NotFound);
    }

    #[test]
    fn the_command_gets_neither_login_nor_older_names() {
        let found = environment(&with(true, &[]))
            .unwrap()
            .without_login("CI_JOB_JWT")
            .with_docker_config("/tmp/x");
        let unset: Vec<&str> = found.to_unset().collect();
        for name in [
            "VAULT_TOKEN",
            "CI_JOB_JWT",
            "SCALEWAY_TOKEN",
            "AWS_SESSION_TOKEN",
            "DOCKER_AUTH_CONFIG",
        ] {
            assert!(unset.contains(&name), "{name}");
        }
        let shown = format!("{found:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && shown.contains("DOCKER_CONFIG"));
        assert!(!shown.contains(SECRET_KEY), "{shown}");
    }

    #[test]
    fn a_terraform_variable_is_secret_unless_its_field_is_known_not_to_be() {
        let args = with(
            false,
            &[
                ("a", "region"),
                ("b", "motto"),
                ("c", "token"),
                ("d", "access_key"),
            ],
        );
        let mapping = [(Field::SecretKey, "token".to_owned())];
        let found: Vec<String> = further_secrets(&reading(), &args, &mapping)
            .map(str::to_owned)
            .collect();
        assert_eq!(found, ["it's $HOME\nsweet", SECRET_KEY]);
    }

    #[test]
    fn values_are_quoted_as_each_format_needs() {
        let found = environment(&with(false, &[("motto", "motto")])).unwrap();
        let shell = found.render(Format::Shell).unwrap();
        assert!(
            shell
                .expose()
                .ends_with("export TF_VAR_motto='it'\\''s $HOME\nsweet'"),
            "{}",
            shell.expose()
        );
        let json: serde_json::Value =
            serde_json::from_str(found.render(Format::Json).unwrap().expose()).unwrap();
        assert_eq!(json["TF_VAR_motto"], "it's $HOME\nsweet");
        assert_eq!(
            found.render(Format::Dotenv).expect_err("a line break").kind(),
            Kind::Input
        );
        let plain = environment(&with(false, &[])).unwrap();
        assert!(
            plain
                .render(Format::Dotenv)
                .unwrap()
                .expose()
                .starts_with("SCW_ACCESS_KEY=SCW12")
        );
    }
}
