//! What must hold of configuration files whatever is in them, see [`crate::oci::properties`].

use super::document::{Document, Found};
use crate::failure::Kind;

/// A text is a configuration whose helpers are programs of that kind and whose logins are found once for each key, or
/// malformed by name.
///
/// # Panics
/// When that does not hold.
pub fn docker_config(text: &str) {
    const ORIGIN: &str = "config.json";
    let document = match Document::parse(text, ORIGIN) {
        Ok(document) => document,
        Err(failure) => {
            assert_eq!(failure.kind(), Kind::Input, "{failure:?}");
            assert!(failure.message().contains(ORIGIN), "{failure:?}");
            assert!(failure.next_action().is_some(), "{failure:?}");
            return;
        }
    };
    let keys = ["example.com/team/app", "example.com/team", "example.com"].map(str::to_owned);
    for keys in [&keys[..], &["docker.io".to_owned()]] {
        let found = document.find(keys);
        // A helper and an entry for each, and the store.
        assert!(found.len() <= keys.len() * 2 + 1, "{found:?}");
        for one in &found {
            if let Found::Helper { program, server } = one {
                let program = program.to_string_lossy();
                assert!(program.starts_with("docker-credential-"), "{program:?}");
                assert!(
                    !program.contains(['/', '\\', '\0']) && program.is_ascii(),
                    "{program:?}"
                );
                assert!(!server.is_empty());
            }
        }
    }
    assert!(document.find(&[]).is_empty());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::render;
    use super::*;
    use crate::secret::Secret;

    /// Entries as tools write them, with mistakes.
    fn entry() -> impl Strategy<Value = Value> {
        let auth = prop_oneof![
            "[A-Za-z0-9+/]{0,16}={0,2}",
            Just("dXNlcjpwYXNz".to_owned()),
            "\\PC{0,8}"
        ];
        let field = |name: &'static str, value: BoxedStrategy<String>| {
            proptest::option::weighted(0.4, value)
                .prop_map(move |value| value.map(|value| (name.to_owned(), Value::from(value))))
        };
        (
            field("auth", auth.boxed()),
            field("username", "[a-z]{0,4}".boxed()),
            field("password", "[a-z]{0,4}".boxed()),
            field("identitytoken", "[a-z]{0,4}".boxed()),
            field("registrytoken", "[a-z]{0,4}".boxed()),
        )
            .prop_map(|(a, b, c, d, e)| {
                [a, b, c, d, e]
                    .into_iter()
                    .flatten()
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
    }

    fn config() -> impl Strategy<Value = Value> {
        let key =
            || "(https?://)?(example\\.com|docker\\.io|index\\.docker\\.io)(/team|/v1|/v2)?/{0,2}|\\PC{0,8}";
        let auths = proptest::collection::btree_map(key(), entry(), 0..4);
        let helpers = proptest::collection::btree_map(key(), "[a-z/.-]{0,8}", 0..3);
        let store = proptest::option::of("[a-z/.-]{0,8}");
        (auths, helpers, store).prop_map(
            |(auths, helpers, store)| json!({"auths": auths, "credHelpers": helpers, "credsStore": store, "other": 1}),
        )
    }

    proptest! {
        #[test]
        fn configurations(config in config()) {
            docker_config(&config.to_string());
        }

        #[test]
        fn configurations_that_are_cut_off(config in config(), at in 0_usize..400) {
            let text = config.to_string();
            docker_config(text.get(..at).unwrap_or(&text));
        }

        #[test]
        fn no_configurations(text in "\\PC{0,80}") {
            docker_config(&text);
        }

        #[test]
        fn what_is_written_is_read(user in "[ -9;-~]{1,12}", password in "[!-~]{1,20}") {
            let entry = ("example.com".to_owned(), user, Secret::new(password));
            let text = render(&[entry]).unwrap();
            let document = Document::parse(text.expose(), "config.json").unwrap();
            prop_assert_eq!(document.find(&["example.com".to_owned()]).len(), 1);
            prop_assert_eq!(document.find(&["example.org".to_owned()]).len(), 0);
        }

        #[test]
        fn a_complaint_repeats_no_secret(noise in "[!-\\[\\]-~]{0,6}", at in 0_usize..4) {
            let canary = format!("canary{}", noise.replace('"', ""));
            let wrong = [
                json!({"auths": {"a.example": {"auth": canary}}}),
                json!({"auths": {"a.example": {"password": canary}}}),
                json!({"auths": {"a.example": {"auth": [canary]}}}),
                json!({"auths": canary}),
            ];
            if let Err(failure) = Document::parse(&wrong[at].to_string(), "config.json") {
                let shown = format!("{failure:?} {failure} {:?}", failure.next_action());
                prop_assert!(!shown.contains("canary"), "{}", shown);
            }
        }
    }
}
