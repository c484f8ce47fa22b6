//! An API key and what goes with it.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// Variables of older tools that today's still honour. A child must not get them beside the new ones: they may hold
/// another key.
pub const DEPRECATED: [&str; 8] = [
    "SCALEWAY_ACCESS_KEY",
    "SCALEWAY_TOKEN",
    "SCALEWAY_ORGANIZATION",
    "SCALEWAY_REGION",
    "SCW_TOKEN",
    "SCW_ORGANIZATION",
    "SCW_REGION",
    "SCW_TLSVERIFY",
];

/// Variables that would make an S3 client send another session's token along with these keys.
pub const AWS_SHADOWING: [&str; 2] = ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"];

/// One part of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The public half of the API key.
    AccessKey,
    /// The secret half.
    SecretKey,
    /// The organization that resources are created in by default.
    OrganizationId,
    /// The project that resources are created in by default.
    ProjectId,
    /// The region that is meant when none is named.
    Region,
    /// The zone that is meant when none is named.
    Zone,
}

impl Field {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Field; 6] = [
        Field::AccessKey,
        Field::SecretKey,
        Field::OrganizationId,
        Field::ProjectId,
        Field::Region,
        Field::Zone,
    ];

    /// The name in arguments, and of the key in a secret unless mapped.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Field::AccessKey => "access_key",
            Field::SecretKey => "secret_key",
            Field::OrganizationId => "organization_id",
            Field::ProjectId => "project_id",
            Field::Region => "region",
            Field::Zone => "zone",
        }
    }

    /// The environment variable that Scaleway's tools read.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Field::AccessKey => "SCW_ACCESS_KEY",
            Field::SecretKey => "SCW_SECRET_KEY",
            Field::OrganizationId => "SCW_DEFAULT_ORGANIZATION_ID",
            Field::ProjectId => "SCW_DEFAULT_PROJECT_ID",
            Field::Region => "SCW_DEFAULT_REGION",
            Field::Zone => "SCW_DEFAULT_ZONE",
        }
    }

    /// Whether credentials are of no use without it.
    #[must_use]
    pub fn required(self) -> bool {
        matches!(self, Field::AccessKey | Field::SecretKey)
    }

    /// Whether `value` has the field's format.
    #[must_use]
    pub fn accepts(self, value: &str) -> bool {
        match self {
            Field::AccessKey => value.strip_prefix("SCW").is_some_and(|rest| {
                rest.len() == 17 && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            }),
            Field::SecretKey | Field::OrganizationId | Field::ProjectId => is_uuid(value),
            Field::Region => is_region(value),
            Field::Zone => value.rsplit_once('-').is_some_and(|(region, number)| {
                is_region(region)
                    && matches!(number.len(), 1 | 2)
                    && number.bytes().all(|b| b.is_ascii_digit())
            }),
        }
    }

    /// The format in words.
    fn format(self) -> &'static str {
        match self {
            Field::AccessKey => "SCW and 17 capital letters or digits",
            Field::SecretKey | Field::OrganizationId | Field::ProjectId => "a UUID",
            Field::Region => "a region such as fr-par",
            Field::Zone => "a zone such as fr-par-1",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Field {
    type Err = Failure;

    fn from_str(value: &str) -> Result<Self> {
        Field::ALL
            .into_iter()
            .find(|field| field.name() == value)
            .ok_or_else(|| {
                let known = Field::ALL.map(Field::name).join(", ");
                Failure::usage(format!("{value:?} is no field of Scaleway credentials"))
                    .hint(format!("the fields are {known}"))
            })
    }
}

/// An API key with its defaults, every part in its proper format.
#[derive(Clone, Debug)]
pub struct Credentials {
    access_key: String,
    secret_key: Secret,
    /// The optional parts that are there, in the order of [`Field::ALL`].
    defaults: Vec<(Field, String)>,
}

impl Credentials {
    /// Puts credentials together from `value`, which gives the text of a field where there is one. `origin` names
    /// where the fields come from, for messages.
    ///
    /// # Errors
    /// Not found (exit 5) when a required field is missing; input (exit 3) when one is malformed. Neither shows a
    /// value.
    pub fn gather<'a>(origin: &str, value: impl Fn(Field) -> Option<&'a str>) -> Result<Self> {
        let checked = |field: Field| -> Result<Option<&'a str>> {
            let Some(text) = value(field).map(str::trim).filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            if field.accepts(text) {
                return Ok(Some(text));
            }
            Err(
                Failure::input(format!("{field} of {origin} is not {}", field.format())).hint(format!(
                    "check what is stored there, or name another key with --field {field}=KEY"
                )),
            )
        };
        let required = |field: Field| {
            checked(field)?.ok_or_else(|| {
                Failure::not_found(format!("{origin} holds no {field}"))
                    .hint(format!("store it, or name its key with --field {field}=KEY"))
            })
        };
        let access_key = required(Field::AccessKey)?.to_owned();
        let secret_key = Secret::new(required(Field::SecretKey)?);
        let mut defaults = Vec::new();
        for field in Field::ALL.into_iter().filter(|field| !field.required()) {
            if let Some(text) = checked(field)? {
                defaults.push((field, text.to_owned()));
            }
        }
        Ok(Credentials {
            access_key,
            secret_key,
            defaults,
        })
    }

    /// The public half of the key.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret half of the key.
    #[must_use]
    pub fn secret_key(&self) -> &Secret {
        &self.secret_key
    }

    /// The optional parts that are there.
    pub fn defaults(&self) -> impl Iterator<Item = (Field, &str)> {
        self.defaults.iter().map(|(field, text)| (*field, text.as_str()))
    }

    /// The variables for Scaleway's tools. One of the values is the secret key.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, &str)> {
        let mut variables = vec![
            (Field::AccessKey.variable(), self.access_key.as_str()),
            (Field::SecretKey.variable(), self.secret_key.expose()),
        ];
        variables.extend(self.defaults().map(|(field, text)| (field.variable(), text)));
        variables
    }

    /// The variables for S3 clients, such as Terraform's state backend on Object Storage. One of the values is the
    /// secret key.
    #[must_use]
    pub fn aws_environment(&self) -> [(&'static str, &str); 2] {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.expose()),
        ]
    }
}

fn is_uuid(value: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut groups = value.split('-');
    lengths.iter().all(|&length| {
        groups
            .next()
            .is_some_and(|group| group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit()))
    }) && groups.next().is_none()
}

fn is_region(value: &str) -> bool {
    value.split_once('-').is_some_and(|(country, city)| {
        country.len() == 2
            && (3..=7).contains(&city.len())
            && country
                .bytes()
                .chain(city.bytes())
                .all(|b| b.is_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    const SECRET: &str = "11111111-2222-4333-8444-caaaaaaaaa01";

    fn gather(fields: &[(Field, &'static str)]) -> Result<Credentials> {
        Credentials::gather("secret/app", |field| {
            fields
                .iter()
                .find(|(name, _)| *name == field)
                .map(|(_, text)| *text)
        })
    }

    #[test]
    fn formats_are_those_of_scaleways_sdk() {
        let uuid = "6170692e-7363-616c-6577-61792e636f6d";
        let accepted = [
            (Field::AccessKey, "SCW1234567890ABCDEFG"),
            (Field::SecretKey, uuid),
            (Field::ProjectId, "6170692E-7363-616C-6577-61792E636F6D"),
            (Field::Region, "fr-par"),
            (Field::Region, "pl-waw"),
            (Field::Zone, "nl-ams-3"),
            (Field::Zone, "fr-par-12"),
        ];
        for (field, text) in accepted {
            assert!(field.accepts(text), "{field}: {text}");
        }
        let refused = [
            (Field::AccessKey, "SCW1234567890ABCDEF"),
            (Field::AccessKey, "SCW1234567890ABCDEFGH"),
            (Field::AccessKey, "scw1234567890abcdefg"),
            (Field::AccessKey, "AKIA234567890ABCDEFG"),
            (Field::SecretKey, "6170692e7363616c657761792e636f6d"),
            (Field::SecretKey, "6170692e-7363-616c-6577-61792e636f6g"),
            (Field::SecretKey, "6170692e-7363-616c-6577-61792e636f6d-"),
            (Field::OrganizationId, ""),
            (Field::Region, "fr-par-1"),
            (Field::Region, "FR-PAR"),
            (Field::Zone, "fr-par"),
            (Field::Zone, "fr-par-"),
            (Field::Zone, "fr-par-123"),
        ];
        for (field, text) in refused {
            assert!(!field.accepts(text), "{field}: {text}");
        }
    }

    #[test]
    fn a_missing_or_malformed_field_is_named_without_its_value() {
        let missing = gather(&[(Field::AccessKey, "SCW1234567890ABCDEFG")]).expect_err("no secret key");
        assert_eq!(missing.kind(), Kind::NotFound);
        assert_eq!(missing.message(), "secret/app holds no secret_key");
        let malformed = gather(&[
            (Field::AccessKey, "SCW1234567890ABCDEFG"),
            (Field::SecretKey, "canary-no-uuid"),
        ])
        .expect_err("malformed");
        assert_eq!(malformed.kind(), Kind::Input);
        assert!(!format!("{malformed:?}").contains("canary"));
    }

    #[test]
    fn only_what_is_there_reaches_the_environment() {
        let credentials = gather(&[
            (Field::AccessKey, "SCW1234567890ABCDEFG\n"),
            (Field::SecretKey, SECRET),
            (Field::Region, "fr-par"),
            (Field::Zone, ""),
        ])
        .unwrap();
        assert_eq!(
            credentials.environment(),
            [
                ("SCW_ACCESS_KEY", "SCW1234567890ABCDEFG"),
                ("SCW_SECRET_KEY", SECRET),
                ("SCW_DEFAULT_REGION", "fr-par"),
            ]
        );
        assert!(!format!("{credentials:?}").contains(SECRET));
    }
}
