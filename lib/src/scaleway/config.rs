//! The configuration file of Scaleway's tools (`config.yaml`).

use super::Credentials;
use super::credentials::Field;
use super::files::MARK;
use crate::secret::Secret;

/// Writes a whole configuration file with one profile: the default one, or the active one of the given name. The text
/// is a secret as a whole. Values go in unquoted, since their formats hold nothing that YAML would take for more.
#[must_use]
pub fn config_file(credentials: &Credentials, profile: Option<&str>) -> Secret {
    let mut text = format!("{MARK}\n");
    let indent = match profile {
        None => "",
        Some(name) => {
            text.push_str(&format!("active_profile: \"{name}\"\nprofiles:\n  \"{name}\":\n"));
            "    "
        }
    };
    let mut line = |name: &str, value: &str| text.push_str(&format!("{indent}{name}: {value}\n"));
    line("access_key", credentials.access_key());
    line("secret_key", credentials.secret_key().expose());
    for (field, value) in credentials.defaults() {
        line(key(field), value);
    }
    Secret::new(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials::gather("a test", |field| match field {
            Field::AccessKey => Some("SCW1234567890ABCDEFG"),
            Field::SecretKey => Some("11111111-2222-4333-8444-caaaaaaaaa02"),
            Field::Zone => Some("fr-par-2"),
            _ => None,
        })
        .expect("credentials")
    }

    fn read(text: &Secret) -> serde_json::Value {
        serde_norway::from_str(text.expose()).expect("YAML")
    }

    #[test]
    fn the_default_profile_stands_at_the_top() {
        assert_eq!(
            read(&config_file(&credentials(), None)),
            serde_json::json!({
                "access_key": "SCW1234567890ABCDEFG",
                "secret_key": "11111111-2222-4333-8444-caaaaaaaaa02",
                "default_zone": "fr-par-2",
            })
        );
    }

    #[test]
    fn a_named_profile_is_the_active_one() {
        let document = read(&config_file(&credentials(), Some("ci")));
        assert_eq!(document["active_profile"], "ci");
        assert_eq!(document["profiles"]["ci"]["default_zone"], "fr-par-2");
        assert!(document.get("secret_key").is_none());
    }
}
