//! What of a value with several lines is secret by itself.
//!
//! A key or a configuration is printed with its lines indented, prefixed or on their own. So each line is looked for, too,
//! but for what such documents have in common with others: the marks around a key, the names of fields, words like
//! `Config`. Masking those would eat ordinary output.

/// Shorter lines are not looked for, in bytes.
const SHORTEST: usize = 8;
/// What stands behind a name that says nothing of a secret has to be as long as this, in bytes, to be one.
const LONG: usize = 20;
/// Words in the names of fields that hold secrets.
const TELLING: [&str; 9] = [
    "auth", "cert", "cred", "data", "key", "pass", "secret", "sig", "token",
];

/// The parts of `value` to look for besides the whole; none when it has a single line.
pub(super) fn secret_parts(value: &str) -> Vec<&str> {
    if !value.trim().contains('\n') {
        return Vec::new();
    }
    let mut parts: Vec<&str> = value.lines().filter_map(secret_part).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

fn secret_part(line: &str) -> Option<&str> {
    let line = line.trim();
    let part = match named(line) {
        Some((name, part)) => {
            let name = name.to_ascii_lowercase();
            let tells = TELLING.iter().any(|word| name.contains(word));
            if tells || is_like_a_secret(part) {
                part
            } else {
                return None;
            }
        }
        None => line,
    };
    let has_letters = part
        .bytes()
        .any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    (part.len() >= SHORTEST && has_letters && !line.starts_with("-----")).then_some(part)
}

/// The name and value of a line of YAML, JSON or an INI file.
fn named(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches("- ").trim_start();
    let at = line.find([':', '='])?;
    let (name, rest) = line.split_at(at);
    let name = name.trim().trim_matches('"');
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
    let value = rest[1..].trim_start();
    // Base64 ends with equals signs, and a URL has a colon.
    let ends_like_base64 = rest.starts_with('=') && (value.is_empty() || value == "=");
    let is_yaml = rest.starts_with('=') || rest.len() == 1 || rest[1..].starts_with([' ', '\t', '"']);
    if !is_name || ends_like_base64 || !is_yaml {
        return None;
    }
    let value = value.trim_end().trim_end_matches([',', ';']);
    let quotes = ['"', '\''];
    Some((name, value.trim_matches(quotes)))
}

/// Whether a value that could be anything looks made up by a machine.
fn is_like_a_secret(value: &str) -> bool {
    value.len() >= LONG
        && !value.contains(char::is_whitespace)
        && value.bytes().any(|byte| byte.is_ascii_digit())
        && value.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_line_of_a_key_is_found_however_it_is_indented(
            lines in proptest::collection::vec("[A-Za-z0-9+/]{8,64}={0,2}", 2..20),
            indent in "[ \t]{0,8}",
        ) {
            let key = lines.iter().map(|line| format!("{indent}{line}\n")).collect::<String>();
            let found = secret_parts(&key);
            for line in &lines {
                prop_assert!(found.contains(&line.as_str()), "{} of {:?}", line, key);
            }
        }

        #[test]
        fn whatever_is_found_stands_in_the_value(value in "\\PC{0,40}(\n\\PC{0,40}){0,6}") {
            for part in secret_parts(&value) {
                prop_assert!(part.len() >= SHORTEST && value.contains(part));
            }
        }
    }

    #[test]
    fn the_body_of_a_key_is_looked_for_line_by_line() {
        let key = "-----BEGIN EC PRIVATE KEY-----\r\nMHcCAQEEIJ0canary0line0one/+AB\r\n  MHcCAQEEIJ0canary0line0two=\r\nqQ==\r\n-----END EC PRIVATE KEY-----\r\n";
        assert_eq!(
            secret_parts(key),
            ["MHcCAQEEIJ0canary0line0one/+AB", "MHcCAQEEIJ0canary0line0two="]
        );
        assert_eq!(secret_parts("one line of text"), [""; 0]);
        assert_eq!(secret_parts("one line of text\n"), [""; 0]);
    }

    #[test]
    fn of_a_configuration_only_what_is_secret_is_looked_for() {
        let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: admin@production\nclusters:\n- name: kubernetes\n\
            \x20 cluster:\n    certificate-authority-data: Y2FuYXJ5LWNh\nusers:\n- name: kubernetes-admin\n  user:\n\
            \x20   token: \"canary-token-1\"\n    password: 'canary-word'\n";
        assert_eq!(
            secret_parts(kubeconfig),
            ["Y2FuYXJ5LWNh", "canary-token-1", "canary-word"]
        );
        let account = "{\n  \"type\": \"service_account\",\n  \"private_key_id\": \"0badcafe0badcafe\",\n  \"id\": \"2f1c9b7e6a5d4c3b2a19\"\n}\n";
        assert_eq!(
            secret_parts(account),
            ["0badcafe0badcafe", "2f1c9b7e6a5d4c3b2a19"]
        );
        let ini = "[default]\nregion = fr-par\nsecret_key = canary-of-ini\n";
        assert_eq!(secret_parts(ini), ["[default]", "canary-of-ini"]);
    }

    #[test]
    fn lines_of_words_are_looked_for_whole() {
        let words = "correct horse\nbattery staple\nshort\n----------\nhttps://ci:pw@example.com/x\n";
        assert_eq!(
            secret_parts(words),
            ["battery staple", "correct horse", "https://ci:pw@example.com/x"]
        );
    }
}
