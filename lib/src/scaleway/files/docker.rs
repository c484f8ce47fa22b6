//! Logins in a `config.json` of docker that others write to as well.
//!
//! Source: docker's documentation, "docker login", sections "Credential stores" and "Credential helpers": a helper for a
//! registry, or else a store for all, comes before what is in the file.

use serde_json::{Map, Value};

use super::receipt::{Added, fingerprint};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// Adds logins, host and `auth`, to a configuration.
///
/// # Errors
/// Input (exit 3) when it is no configuration; conflict (exit 6) when it has another login there, or asks somebody else.
pub(super) fn add(text: &str, logins: &[(String, Secret)], shown: &str) -> Result<(String, Vec<Added>)> {
    let mut root = parse(text, shown)?;
    let mut added = Vec::new();
    for (host, auth) in logins {
        refuse_helpers(&root, host, shown)?;
        if !root.contains_key("auths") {
            root.insert("auths".to_owned(), Value::Object(Map::new()));
            added.push(Added::Auths);
        }
        let Some(auths) = root.get_mut("auths").and_then(Value::as_object_mut) else {
            return Err(malformed(shown, "`auths` is not an object"));
        };
        match auths.get(host).map(|login| login["auth"].as_str()) {
            Some(Some(there)) if there == auth.expose() => continue,
            Some(_) => {
                return Err(
                    Failure::conflict(format!("{shown} holds another login to {host}"))
                        .hint(format!("choose another folder, or `docker logout {host}` first")),
                );
            }
            None => {}
        }
        auths.insert(host.clone(), serde_json::json!({ "auth": auth.expose() }));
        added.push(Added::Login {
            host: host.clone(),
            sha256: fingerprint(auth.expose()),
        });
    }
    Ok((render(&root, text), added))
}

/// Takes logins out again that are still as they were added. Docker may have written the file anew meanwhile.
///
/// # Errors
/// Input (exit 3) when it is no configuration.
pub(super) fn take_out(text: &str, added: &[Added], shown: &str) -> Result<String> {
    let mut root = parse(text, shown)?;
    for addition in added {
        let Added::Login { host, sha256 } = addition else {
            continue;
        };
        if let Some(auths) = root.get_mut("auths").and_then(Value::as_object_mut)
            && auths
                .get(host)
                .and_then(|login| login["auth"].as_str())
                .is_some_and(|auth| fingerprint(auth) == *sha256)
        {
            auths.shift_remove(host);
        }
    }
    let is_empty = root
        .get("auths")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty);
    if is_empty && added.contains(&Added::Auths) {
        root.shift_remove("auths");
    }
    if root.is_empty() {
        return Ok(String::new());
    }
    Ok(render(&root, text))
}

fn parse(text: &str, shown: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    // serde's own words may repeat a value of the file, so only the place is told.
    let value: Value = serde_json::from_str(text).map_err(|error| {
        malformed(
            shown,
            &format!("no JSON at line {}, column {}", error.line(), error.column()),
        )
    })?;
    match value {
        Value::Object(root) => Ok(root),
        _ => Err(malformed(shown, "not an object")),
    }
}

fn malformed(shown: &str, why: &str) -> Failure {
    Failure::input(format!("{shown} is no configuration of docker: {why}"))
        .hint("it was left as it is: repair it, or choose another folder")
}

fn refuse_helpers(root: &Map<String, Value>, host: &str, shown: &str) -> Result<()> {
    let named = |value: Option<&Value>| {
        value
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    };
    let helper = named(root.get("credHelpers").and_then(|helpers| helpers.get(host)));
    match helper.or_else(|| named(root.get("credsStore"))) {
        None => Ok(()),
        Some(helper) => Err(Failure::conflict(format!(
            "{shown} lets docker ask the helper {helper} for {host}, so a login in the file is not looked at"
        ))
        .hint("choose another folder, and point DOCKER_CONFIG to it")),
    }
}

/// Writes it as it was indented before; docker's own way is a tab.
fn render(root: &Map<String, Value>, before: &str) -> String {
    let indent: String = before
        .lines()
        .skip(1)
        .find(|line| !line.trim().is_empty() && line.starts_with([' ', '\t']))
        .map_or("\t".to_owned(), |line| {
            line.chars().take_while(|c| c.is_whitespace()).collect()
        });
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // A map of text and values cannot fail to be written to memory.
    let _ = serde::Serialize::serialize(root, &mut writer);
    let mut text = String::from_utf8(bytes).unwrap_or_default();
    if before.is_empty() || before.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    const BEFORE: &str = "{\n    \"credHelpers\": {\n        \"ecr.example\": \"ecr-login\"\n    },\n    \"auths\": {\n        \"z.example\": {\n            \"auth\": \"eDp5\"\n        },\n        \"a.example\": {\n            \"auth\": \"eDp5\",\n            \"email\": \"me\"\n        }\n    },\n    \"psFormat\": \"x\",\n    \"future\": [\n        1.5,\n        null\n    ]\n}";

    fn logins() -> Vec<(String, Secret)> {
        vec![(
            "rg.fr-par.scw.cloud".to_owned(),
            Secret::new("canary-of-the-docker-merge"),
        )]
    }

    #[test]
    fn a_login_comes_and_goes_and_the_rest_stays_as_it_is() {
        for before in [BEFORE.to_owned(), format!("{BEFORE}\n"), "{}\n".to_owned()] {
            let (merged, added) = add(&before, &logins(), "f").unwrap();
            assert!(merged.contains("canary-of-the-docker-merge"));
            let after = take_out(&merged, &added, "f").unwrap();
            if before.len() > 3 {
                assert_eq!(after, before);
            } else {
                assert_eq!(after, "");
            }
        }
    }

    #[test]
    fn a_login_that_somebody_changed_stays() {
        let (merged, added) = add(BEFORE, &logins(), "f").unwrap();
        let changed = merged.replace("canary-of-the-docker-merge", "somebody");
        let after = take_out(&changed, &added, "f").unwrap();
        assert_eq!(after, changed);
    }

    #[test]
    fn what_docker_would_not_look_at_or_is_somebody_elses_is_refused() {
        for (text, kind) in [
            ("{", Kind::Input),
            ("[]", Kind::Input),
            (r#"{"auths":[]}"#, Kind::Input),
            (
                r#"{"auths":{"rg.fr-par.scw.cloud":{"auth":"eDp5"}}}"#,
                Kind::Conflict,
            ),
            (r#"{"auths":{"rg.fr-par.scw.cloud":{}}}"#, Kind::Conflict),
            (r#"{"credsStore":"desktop"}"#, Kind::Conflict),
            (r#"{"credHelpers":{"rg.fr-par.scw.cloud":"x"}}"#, Kind::Conflict),
        ] {
            let failure = add(text, &logins(), "f").expect_err(text);
            assert_eq!(failure.kind(), kind, "{text}");
            assert!(!format!("{failure:?}").contains("eDp5"), "{failure:?}");
        }
        assert!(add(r#"{"credsStore":""}"#, &logins(), "f").is_ok());
    }
}
