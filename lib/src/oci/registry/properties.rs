//! What must hold of challenges whatever a registry sends, see [`crate::oci::properties`].

use super::challenge::{Challenge, parse};

/// A header gives challenges that come from it and no more of them than fit into it, with the passwords last; written
/// down in order, they are read alike.
///
/// # Panics
/// When that does not hold.
pub fn challenge(header: &str) {
    let challenges = parse(std::iter::once(header));
    // The shortest one is a word and a comma.
    assert!(
        challenges.len() <= header.len() / 5 + 1,
        "{header:?}: {challenges:?}"
    );
    let is_basic = |challenge: &Challenge| matches!(challenge, Challenge::Basic);
    let first_basic = challenges.iter().position(is_basic).unwrap_or(challenges.len());
    assert!(
        challenges[first_basic..].iter().all(is_basic),
        "{header:?}: {challenges:?}"
    );
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let written: Vec<String> = challenges
        .iter()
        .map(|challenge| match challenge {
            Challenge::Basic => "Basic".to_owned(),
            Challenge::Bearer {
                realm,
                service,
                scope,
                error,
            } => {
                let mut text = format!("Bearer realm={}", quoted(realm));
                for (name, value) in [("service", service), ("scope", scope), ("error", error)] {
                    if let Some(value) = value {
                        text.push_str(&format!(",{name}={}", quoted(value)));
                    }
                }
                text
            }
        })
        .collect();
    let in_one = parse(std::iter::once(written.join(", ").as_str()));
    assert_eq!(in_one, challenges, "{header:?}: {written:?}");
    let in_several = parse(written.iter().map(String::as_str));
    assert_eq!(in_several, challenges, "{header:?}: {written:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Headers as registries send them, with mistakes.
    fn header() -> impl Strategy<Value = String> {
        let value = prop_oneof!["\"[ -~]{0,20}\"?", "[a-z:/.=_-]{0,12}", "'[a-z ]{0,8}'?"];
        let parameter = ("(realm|service|scope|error|REALM|x)", "[ \t]?=[ \t]?", value);
        let parameter = parameter.prop_map(|(name, equals, value)| format!("{name}{equals}{value}"));
        let parameters = proptest::collection::vec(parameter, 0..4).prop_map(|all| all.join(","));
        let scheme = "(Bearer|bearer|Basic|BASIC|Negotiate abc==|Digest|)";
        let one = (scheme, parameters).prop_map(|(scheme, parameters)| format!("{scheme} {parameters}"));
        proptest::collection::vec(one, 0..4).prop_map(|all| all.join(", "))
    }

    proptest! {
        #[test]
        fn challenges(header in header()) {
            super::challenge(&header);
        }

        #[test]
        fn anything(header in "\\PC{0,80}") {
            super::challenge(&header);
        }
    }
}
