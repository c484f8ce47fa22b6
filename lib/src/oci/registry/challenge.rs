//! What a registry asks for when it answers 401.
//!
//! Sources: RFC 9110, section 11.6.1, for the header; the distribution project's "Token Authentication Specification"
//! and RFC 6750, section 3, for the parameters of `Bearer`. Values without quotes, or with the wrong ones, are read as
//! they are meant.

use std::collections::BTreeMap;

/// One challenge that we can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user and a password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server's address, unchecked.
        realm: String,
        /// What the token server knows the registry as.
        service: Option<String>,
        /// What the request needs, in the token server's words, separated by blanks.
        scope: Option<String>,
        /// Why a token that came along was refused: `invalid_token`, `insufficient_scope`.
        error: Option<String>,
    },
}

/// Reads the values of all `WWW-Authenticate` headers of an answer. What is malformed or of another scheme is left
/// out. Tokens come first: a registry that offers both means the password for its token server.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = headers.flat_map(parse_one).collect();
    challenges.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    challenges
}

fn parse_one(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut scheme: Option<String> = None;
    let mut parameters = BTreeMap::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            break;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        let parsed = value.map(|value| split_value(value.trim_start_matches([' ', '\t'])));
        match parsed {
            Some(Some((value, after))) => {
                parameters.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            // An unterminated string: nothing behind it can be trusted.
            Some(None) => return challenges,
            None => {
                challenges.extend(finish(scheme.take(), &mut parameters));
                scheme = Some(word.to_ascii_lowercase());
                rest = after;
            }
        }
    }
    challenges.extend(finish(scheme, &mut parameters));
    challenges
}

fn finish(scheme: Option<String>, parameters: &mut BTreeMap<String, String>) -> Option<Challenge> {
    let mut parameters = std::mem::take(parameters);
    match scheme?.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm").filter(|realm| !realm.is_empty())?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
            error: parameters.remove("error"),
        }),
        _ => None,
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| c.is_whitespace() || matches!(c, '=' | ',' | '"'))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn split_value(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('\'')
        && let Some((value, rest)) = quoted.split_once('\'')
    {
        return Some((value.to_owned(), rest));
    }
    let Some(quoted) = text.strip_prefix('"') else {
        // An address without quotes may hold an equals sign, and what ends like padding is padding.
        let end = text
            .find(|c: char| c.is_whitespace() || matches!(c, ',' | '"'))
            .unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.trim_start_matches('=').to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: None,
            error: None,
        }
    }

    #[test]
    fn the_challenges_of_real_registries_are_read() {
        for (header, expected) in [
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (
                "Bearer realm=https://a.example/token?x=y,service=registry",
                vec![bearer("https://a.example/token?x=y", Some("registry"))],
            ),
            (
                "Bearer realm='https://a.example/token' service='a b', Basic realm='a'",
                vec![bearer("https://a.example/token", Some("a b")), Challenge::Basic],
            ),
            (
                "Basic, Bearer realm=\"https://a.example/\"",
                vec![bearer("https://a.example/", None), Challenge::Basic],
            ),
            (r#"Bearer realm="""#, vec![]),
            (
                r#"bearer REALM=https://a.example/token , service = "x \"y\"" "#,
                vec![bearer("https://a.example/token", Some("x \"y\""))],
            ),
            (
                r#"Negotiate abc==, Basic realm="a", Bearer realm="https://a.example/""#,
                vec![bearer("https://a.example/", None), Challenge::Basic],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="never ends"#, vec![]),
            ("", vec![]),
            ("=,=", vec![]),
        ] {
            assert_eq!(parse(std::iter::once(header)), expected, "{header}");
        }
    }

    #[test]
    fn what_a_token_lacks_is_read() {
        let header = r#"Bearer realm="https://a.example/",scope="repository:a/b:pull,push repository:c:pull",error="insufficient_scope""#;
        let expected = Challenge::Bearer {
            realm: "https://a.example/".to_owned(),
            service: None,
            scope: Some("repository:a/b:pull,push repository:c:pull".to_owned()),
            error: Some("insufficient_scope".to_owned()),
        };
        assert_eq!(parse(std::iter::once(header)), [expected]);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic_or_hang(header in "[Bb]earer \\PC{0,40}|[a-z=,\"\\\\ ]{0,60}|\\PC{0,60}") {
            let _ = parse(std::iter::once(header.as_str()));
        }

        #[test]
        fn any_realm_comes_back(realm in "[ -~]{1,60}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer service=\"s\",realm=\"{quoted}\"");
            prop_assert_eq!(parse(std::iter::once(header.as_str())), vec![bearer(&realm, Some("s"))]);
        }
    }
}
