//! The configuration file of Scaleway's tools (`config.yaml`).
//!
//! A profile is put into a file that others write to as whole lines, and nothing else is touched. That it was so is
//! proven: read strictly, the file before and after must differ in the profile alone.

use secrecy::{ExposeSecret as _, SecretString};
use serde_norway::{Mapping, Value};

use super::Credentials;
use super::credentials::Field;
use super::files::MARK;
use crate::failure::{Failure, Result};

/// A profile as it is to stand in the file.
#[derive(Debug)]
pub struct Profile {
    name: Option<String>,
    access_key: String,
    /// `key: value` lines, without indentation. Values go in unquoted, since their formats hold nothing that YAML would
    /// take for more.
    lines: Vec<SecretString>,
}

/// A file with a profile in it.
pub(super) struct Placed {
    /// The whole file.
    pub(super) text: SecretString,
    /// The piece that was put in.
    pub(super) piece: SecretString,
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
            name: name.map(str::to_owned),
            access_key: credentials.access_key().to_owned(),
            lines,
        }
    }

    /// The public half of the profile's key.
    pub(super) fn access_key(&self) -> &str {
        &self.access_key
    }

    fn indented(&self, indent: &str) -> String {
        self.lines
            .iter()
            .map(|line| format!("{indent}{}\n", line.expose_secret()))
            .collect()
    }

    /// A whole file with this profile alone. One with a name is the active one.
    pub(super) fn alone(&self) -> Placed {
        let text = match &self.name {
            None => format!("{MARK}\n{}", self.indented("")),
            Some(name) => format!(
                "{MARK}\nactive_profile: \"{name}\"\nprofiles:\n  \"{name}\":\n{}",
                self.indented("    ")
            ),
        };
        placed(&text, &text)
    }

    /// Puts the profile into a file. Which profile is the active one stays as it is.
    ///
    /// # Errors
    /// Input (exit 3) when the file is malformed, or written so that more than whole lines would have to change;
    /// conflict (exit 6) when it has such a profile.
    pub(super) fn put_into(&self, text: &str, shown: &str) -> Result<Placed> {
        let before = mapping(text, shown)?;
        let mut wanted = before.clone();
        let fields = || {
            self.lines.iter().filter_map(|line| {
                let (name, value) = line.expose_secret().split_once(": ")?;
                Some((Value::from(name), Value::from(value)))
            })
        };
        let taken = |what: &str| {
            Failure::conflict(format!("{shown} has {what} already"))
                .hint("choose another name with --scw-profile (TOWPATH_SCW_PROFILE), or another file")
        };
        let gap = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let (at, piece) = match &self.name {
            None => {
                for (name, value) in fields() {
                    if wanted.contains_key(&name) {
                        return Err(taken("a default profile"));
                    }
                    wanted.insert(name, value);
                }
                (text.len(), format!("{gap}{MARK}\n{}", self.indented("")))
            }
            Some(name) => {
                let profiles = wanted
                    .entry("profiles".into())
                    .or_insert_with(|| Value::Mapping(Mapping::new()));
                if profiles.is_null() {
                    *profiles = Value::Mapping(Mapping::new());
                }
                let Value::Mapping(profiles) = profiles else {
                    return Err(malformed(shown, "`profiles` is not a mapping"));
                };
                if profiles.contains_key(name.as_str()) {
                    return Err(taken(&format!("a profile {name}")));
                }
                profiles.insert(name.as_str().into(), Value::Mapping(fields().collect()));
                match profiles_line(text) {
                    None => (
                        text.len(),
                        format!(
                            "{gap}profiles:\n  {MARK}\n  \"{name}\":\n{}",
                            self.indented("    ")
                        ),
                    ),
                    Some((at, indent)) => {
                        let gap = if text[..at].ends_with('\n') { "" } else { "\n" };
                        let deeper = format!("{indent}  ");
                        (
                            at,
                            format!(
                                "{gap}{indent}{MARK}\n{indent}\"{name}\":\n{}",
                                self.indented(&deeper)
                            ),
                        )
                    }
                }
            }
        };
        let whole = format!("{}{piece}{}", &text[..at], &text[at..]);
        // The order of keys means nothing in YAML, so it is not compared.
        let after = mapping(&whole, shown).ok();
        if after.as_ref() != Some(&wanted) {
            return Err(Failure::input(format!(
                "{shown} is written so that a profile cannot be added without touching more"
            ))
            .hint("it was left as it is: write it in block style (`scw config set` does), or choose another file"));
        }
        Ok(placed(&whole, &piece))
    }
}

fn placed(text: &str, piece: &str) -> Placed {
    Placed {
        text: SecretString::from(text),
        piece: SecretString::from(piece),
    }
}

/// Where the first profile stands, and how far it is indented.
fn profiles_line(text: &str) -> Option<(usize, String)> {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n');
    for line in lines.by_ref() {
        at += line.len();
        let rest = ["profiles:", "\"profiles\":", "'profiles':"]
            .iter()
            .find_map(|key| line.strip_prefix(key));
        if rest.is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#')) {
            let first = lines.find(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with('#')
            });
            let indent: String = first
                .unwrap_or_default()
                .chars()
                .take_while(|c| *c == ' ')
                .collect();
            return Some((
                at,
                if indent.is_empty() {
                    "  ".to_owned()
                } else {
                    indent
                },
            ));
        }
    }
    None
}

fn mapping(text: &str, shown: &str) -> Result<Mapping> {
    // What the parser says may quote the file, so only the place is told.
    let value: Value = serde_norway::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |place| {
            format!(" at line {}, column {}", place.line(), place.column())
        });
        malformed(shown, &format!("no YAML{place}"))
    })?;
    match value {
        Value::Mapping(mapping) => Ok(mapping),
        Value::Null => Ok(Mapping::new()),
        _ => Err(malformed(shown, "not a mapping")),
    }
}

fn malformed(shown: &str, why: &str) -> Failure {
    Failure::input(format!("{shown} is no configuration of scw: {why}"))
        .hint("it was left as it is: repair it, or choose another file")
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
    use crate::failure::Kind;

    fn credentials() -> Credentials {
        Credentials::gather("a test", |field| match field {
            Field::AccessKey => Some("SCW1234567890ABCDEFG"),
            Field::SecretKey => Some("11111111-2222-4333-8444-caaaaaaaaa02"),
            Field::Zone => Some("fr-par-2"),
            _ => None,
        })
        .expect("credentials")
    }

    fn profile(name: Option<&str>) -> Profile {
        Profile::of(&credentials(), name)
    }

    fn read(text: &SecretString) -> serde_json::Value {
        serde_norway::from_str(text.expose_secret()).expect("YAML")
    }

    #[test]
    fn the_default_profile_stands_at_the_top() {
        assert_eq!(
            read(&profile(None).alone().text),
            serde_json::json!({
                "access_key": "SCW1234567890ABCDEFG",
                "secret_key": "11111111-2222-4333-8444-caaaaaaaaa02",
                "default_zone": "fr-par-2",
            })
        );
    }

    #[test]
    fn a_named_profile_is_the_active_one() {
        let document = read(&profile(Some("ci")).alone().text);
        assert_eq!(document["active_profile"], "ci");
        assert_eq!(document["profiles"]["ci"]["default_zone"], "fr-par-2");
        assert!(document.get("secret_key").is_none());
    }

    #[test]
    fn a_profile_goes_between_the_lines_of_others() {
        let files = [
            "access_key: SCWX # mine\nfuture:\n- a\nprofiles: # all\n    # the first\n    prod:\n        access_key: SCWY\n# the end\n",
            "# nothing but words\n",
            "active_profile: prod\nprofiles:\n  prod: {access_key: SCWY}",
            "send_telemetry: true",
            "profiles:\n",
            "profiles:",
            "text: |\n  profiles:\n    no: 1\n",
            "a: 1\r\nprofiles:\r\n  prod:\r\n    access_key: SCWY\r\n",
        ];
        for before in files {
            let placed = profile(Some("ci")).put_into(before, "f").expect(before);
            let (text, piece) = (placed.text.expose_secret(), placed.piece.expose_secret());
            assert_eq!(text.replacen(piece, "", 1), before);
            assert_eq!(
                read(&placed.text)["profiles"]["ci"]["default_zone"],
                "fr-par-2",
                "{text}"
            );
        }
        let placed = profile(None).put_into(files[2], "f").expect("no default");
        assert_eq!(read(&placed.text)["access_key"], "SCW1234567890ABCDEFG");
        assert_eq!(read(&placed.text)["active_profile"], "prod");
    }

    #[test]
    fn what_is_there_or_cannot_be_added_to_is_refused() {
        for (text, kind) in [
            ("profiles:\n  ci:\n    access_key: SCWY\n", Kind::Conflict),
            ("profiles: {prod: {access_key: SCWY}}\n", Kind::Input),
            ("{a: 1}\n", Kind::Input),
            ("- a\n", Kind::Input),
            ("a: [\n", Kind::Input),
            ("a: 1\n...\n", Kind::Input),
            ("a: 1\n---\nb: 2\n", Kind::Input),
            ("profiles: 3\n", Kind::Input),
            ("a: 1\na: 2\n", Kind::Input),
        ] {
            let failure = profile(Some("ci")).put_into(text, "f").err().expect(text);
            assert_eq!(failure.kind(), kind, "{text}");
        }
        let failure = profile(None)
            .put_into("default_zone: fr-par-1\n", "f")
            .err()
            .expect("it has one");
        assert_eq!(failure.kind(), Kind::Conflict);
    }
}
