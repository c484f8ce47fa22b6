//! What must hold of the files of others, whatever is in them: what was put in comes out again, and not one byte differs.

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::entry::Entry;
use super::{docker, scw};
use crate::failure::Kind;
use crate::scaleway::config::Profile;
use crate::scaleway::{Credentials, Field};
use crate::secret::Secret;

const SPACE: &str = "[ \t\n]{0,3}|\r\n  ";

fn logins(count: usize) -> Vec<Entry> {
    (0..count)
        .map(|number| {
            Entry::login(
                &format!("registry-{number}.example"),
                Secret::new("canary-of-the-properties"),
            )
        })
        .collect()
}

fn profiles(names: &[&str]) -> Vec<Entry> {
    let credentials = Credentials::gather("a test", |field| match field {
        Field::AccessKey => Some("SCW1234567890ABCDEFG"),
        Field::SecretKey => Some("11111111-2222-4333-8444-caaaaaaaaa05"),
        Field::Region => Some("fr-par"),
        _ => None,
    })
    .expect("credentials");
    names
        .iter()
        .map(|name| Entry::profile(Profile::of(&credentials, Some(name))))
        .collect()
}

/// JSON as people and tools write it: any space, numbers of any form, keys more than once.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"([a-z{}\\[\\],: é]|\\\\[\"\\\\/bfnrt]|\\\\u00[0-7][0-9a-f]){0,6}\"",
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            Just("\"auths\"".to_owned()),
            Just("\"credsStore\"".to_owned()),
            Just("\"\\u0061\"".to_owned()),
            "\"[a-c{}]{0,2}\"",
        ];
        let member = (key, SPACE, SPACE, inner.clone(), SPACE)
            .prop_map(|(key, a, b, value, c)| format!("{key}{a}:{b}{value}{c}"));
        prop_oneof![
            (SPACE, proptest::collection::vec((SPACE, member), 0..4)).prop_map(|(space, members)| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(space, member)| space + &member)
                    .collect();
                format!("{{{space}{}}}", members.join(","))
            }),
            proptest::collection::vec((SPACE, inner, SPACE), 0..3).prop_map(|values| {
                let values: Vec<String> = values.into_iter().map(|(a, value, b)| a + &value + &b).collect();
                format!("[{}]", values.join(","))
            }),
        ]
    })
}

/// Lines that a `config.yaml` may consist of, right and wrong.
fn yaml() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => Just("profiles:".to_owned()),
        2 => "(a|b|send_telemetry|access_key|active_profile): ('x'|\"y\"|1\\.10|0x1F|yes|~|prod)",
        2 => "    (prod|ci|12):( # why)?",
        2 => "        (access_key|default_zone): [A-Z0-9]{1,4}",
        1 => "  (prod|z): \\{access_key: SCWX\\}",
        1 => "( {0,4})# [a-z:]{0,8}",
        1 => "text: \\|\n  profiles:\n    no: 1",
        1 => "- [a-z]",
        1 => Just(String::new()),
        1 => "[a-z:{}\\[\\] '\"#&*-]{0,8}",
    ];
    (
        proptest::collection::vec((line, prop_oneof![9 => Just("\n"), 1 => Just("\r\n")]), 0..9),
        any::<bool>(),
    )
        .prop_map(|(lines, ends)| {
            let mut text: String = lines.into_iter().map(|(line, end)| line + end).collect();
            if !ends {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
            text
        })
}

/// What was put in comes out again; what is refused says why and repeats nothing.
fn docker_holds(text: &str, count: usize) -> Result<(), TestCaseError> {
    let laid = match docker::lay(text, &logins(count), "config.json") {
        Ok(laid) => laid,
        Err(failure) => {
            prop_assert!(
                matches!(failure.kind(), Kind::Input | Kind::Conflict),
                "{failure:?}"
            );
            prop_assert!(failure.message().contains("config.json"));
            return Ok(());
        }
    };
    let merged = laid.text.expose_secret();
    prop_assert_eq!(
        merged.matches("canary-of-the-properties").count(),
        count,
        "{}",
        merged
    );
    let stripped = docker::take_out(merged, &laid.pieces, "config.json").expect("it was laid");
    prop_assert_eq!(stripped.base.expose_secret(), text);
    prop_assert_eq!(stripped.entries.len(), count);
    // What docker reads of it is what stood there, and ours.
    if let (Ok(before), Ok(after)) = (
        serde_json::from_str::<serde_json::Value>(text),
        serde_json::from_str::<serde_json::Value>(merged),
    ) {
        let mut after = after;
        let auths = after["auths"].as_object_mut().expect("logins");
        auths.retain(|host, _| !host.starts_with("registry-"));
        if before.get("auths").is_none() {
            after.as_object_mut().expect("an object").remove("auths");
        }
        prop_assert_eq!(before, after);
    }
    Ok(())
}

fn scw_holds(text: &str, names: &[&str]) -> Result<(), TestCaseError> {
    let laid = match scw::lay(text, &profiles(names), false, "config.yaml") {
        Ok(laid) => laid,
        Err(failure) => {
            prop_assert!(
                matches!(failure.kind(), Kind::Input | Kind::Conflict),
                "{failure:?}"
            );
            prop_assert!(failure.message().contains("config.yaml"));
            return Ok(());
        }
    };
    let merged = laid.text.expose_secret();
    let stripped = match scw::take_out(merged, &laid.pieces, "config.yaml") {
        Ok(stripped) => stripped,
        Err(failure) => return Err(TestCaseError::fail(format!("{failure:?}: {merged}"))),
    };
    prop_assert_eq!(stripped.base.expose_secret(), text, "{}", merged);
    prop_assert_eq!(stripped.entries.len(), names.len());
    Ok(())
}

/// Whoever writes the file anew keeps what it says and none of its lines; our key goes all the same, and nothing else.
fn scw_holds_anew(text: &str, names: &[&str]) -> Result<(), TestCaseError> {
    let Ok(laid) = scw::lay(text, &profiles(names), text.is_empty(), "config.yaml") else {
        return Ok(());
    };
    let said = |text: &str| -> serde_norway::Mapping {
        let said: Option<serde_norway::Mapping> = serde_norway::from_str(text).expect("YAML");
        let mut said = said.unwrap_or_default();
        // Without its last profile, the list of them is nothing instead of empty.
        if said.get("profiles").is_some_and(serde_norway::Value::is_null) {
            said.shift_remove("profiles");
        }
        said
    };
    let anew = serde_norway::to_string(&said(laid.text.expose_secret())).expect("it is said");
    let stripped = match scw::take_out(&anew, &laid.pieces, "config.yaml") {
        Ok(stripped) => stripped,
        Err(failure) => return Err(TestCaseError::fail(format!("{failure:?}: {anew}"))),
    };
    let base = stripped.base.expose_secret();
    prop_assert!(!base.contains("11111111-2222-4333"), "{}", base);
    prop_assert_eq!(said(base), said(text), "{}", anew);
    prop_assert_eq!(stripped.entries.len(), names.len());
    Ok(())
}

proptest! {
    #[test]
    fn json_of_others_comes_back(text in json(), count in 1..4_usize) {
        docker_holds(&text, count)?;
    }

    #[test]
    fn configurations_of_docker_come_back(inner in json(), space in SPACE, count in 1..4_usize) {
        docker_holds(&format!("{space}{{{space}\"auths\"{space}:{space}{{{space}\"a\":{inner}{space}}},\"b\":{inner}}}{space}"), count)?;
    }

    #[test]
    fn no_json_is_no_panic(text in "[{}\\[\\]\",:\\\\a-c1.e \n]{0,24}") {
        docker_holds(&text, 1)?;
    }

    #[test]
    fn yaml_of_others_comes_back(text in yaml(), which in 0..4_usize) {
        let names: [&[&str]; 4] = [&["ci-1"], &["default"], &["ci-1", "ci-2", "default"], &["default", "ci-1"]];
        scw_holds(&text, names[which])?;
        scw_holds_anew(&text, names[which])?;
    }
}
