//! A profile of Scaleway's tools, as it stands in their configuration file (`config.yaml`).
//!
//! Source: Scaleway's Go SDK, `scw/config.go`: the profile called `default` is the one at the top of the file.

use secrecy::{ExposeSecret as _, SecretString};

use super::Credentials;
use super::credentials::Field;

/// What Scaleway's tools call the profile at the top of the file.
pub(super) const DEFAULT: &str = "default";

/// A profile as it is to stand in the file.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    access_key: String,
    /// `key: value` lines, without indentation. Values go in unquoted, since their formats hold nothing that YAML would
    /// take for more.
    lines: Vec<SecretString>,
}

impl Profile {
    /// The default profile, or the one of the given name.
    #[must_use]
    pub fn of(credentials: &Credentials, name: Option<&str>) -> Self {
        let mut lines = vec![
            SecretString::from(format!("access_key: {}", credentials.access_key())),
            SecretString::from(format!("secret_key: {}", credentials.secret_key().expose())),
        ];
        lines.extend(
            credentials
                .defaults()
                .map(|(field, value)| SecretString::from(format!("{}: {value}", key(field)))),
        );
        Profile {
            name: name.unwrap_or(DEFAULT).to_owned(),
            access_key: credentials.access_key().to_owned(),
            lines,
        }
    }

    /// The profile that was written as this piece of text.
    pub(super) fn read(name: &str, access_key: &str, piece: &str) -> Self {
        let lines = piece
            .lines()
            .map(str::trim)
            .filter(|line| {
                line.split_once(": ")
                    .is_some_and(|(name, _)| Field::ALL.iter().any(|field| key(*field) == name))
            })
            .map(SecretString::from)
            .collect();
        Profile {
            name: name.to_owned(),
            access_key: access_key.to_owned(),
            lines,
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the one at the top of the file.
    pub(super) fn is_default(&self) -> bool {
        self.name == DEFAULT
    }

    /// The public half of the profile's key.
    pub(super) fn access_key(&self) -> &str {
        &self.access_key
    }

    /// Its keys and values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines
            .iter()
            .filter_map(|line| line.expose_secret().split_once(": "))
    }

    /// Its lines.
    pub(super) fn indented(&self, indent: &str) -> String {
        self.lines
            .iter()
            .map(|line| format!("{indent}{}\n", line.expose_secret()))
            .collect()
    }
}

/// Whether a profile can be called that: letters, digits, `-` and `_`.
#[must_use]
pub fn is_profile_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn key(field: Field) -> &'static str {
    match field {
        Field::AccessKey => "access_key",
        Field::SecretKey => "secret_key",
        Field::OrganizationId => "default_organization_id",
        Field::ProjectId => "default_project_id",
        Field::Region => "default_region",
        Field::Zone => "default_zone",
    }
}
