//! Where the members of a JSON object stand in a text, so that one can be put in or taken out and no other byte changes.
//!
//! The text has to be valid JSON already: this only walks over it.

use std::ops::Range;

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name, with escapes resolved.
    pub(super) name: String,
    /// Where its name begins.
    pub(super) at: usize,
    /// Where its value stands.
    pub(super) value: Range<usize>,
}

/// Where the value begins that the text consists of.
pub(super) fn start(text: &str) -> usize {
    skip_space(text, 0)
}

/// Where the value ends that begins at `at`.
pub(super) fn end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(b'"') => string_end(bytes, at),
        Some(b'{' | b'[') => {
            let mut depth = 0_usize;
            let mut at = at;
            while let Some(byte) = bytes.get(at) {
                match byte {
                    b'"' => {
                        at = string_end(bytes, at);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at
        }
        _ => {
            let rest = bytes.get(at..).unwrap_or_default();
            let length = rest
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
            at + length.unwrap_or(rest.len())
        }
    }
}

/// The members of the object that begins at `open`, in their order; none when there is no object.
pub(super) fn members(text: &str, open: usize) -> Option<Vec<Member>> {
    let bytes = text.as_bytes();
    if bytes.get(open) != Some(&b'{') {
        return None;
    }
    let mut members = Vec::new();
    let mut at = skip_space(text, open + 1);
    while bytes.get(at) == Some(&b'"') {
        let name_end = string_end(bytes, at);
        let name = serde_json::from_str(text.get(at..name_end)?).ok()?;
        let value_at = skip_space(text, skip_space(text, name_end) + 1);
        let value_end = end(text, value_at);
        members.push(Member {
            name,
            at,
            value: value_at..value_end,
        });
        at = skip_space(text, value_end);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(text, at + 1);
        }
    }
    Some(members)
}

/// Puts a member before the others of the object that begins at `open`, with the space around it that they have.
pub(super) fn put_first(text: &str, open: usize, name: &str, value: &str) -> String {
    let name = serde_json::Value::from(name);
    let first = members(text, open).and_then(|members| members.first().map(|first| first.at));
    match first {
        Some(first) => format!(
            "{}{name}: {value},{}{}",
            &text[..first],
            &text[open + 1..first],
            &text[first..]
        ),
        None => format!("{}{name}: {value}{}", &text[..=open], &text[open + 1..]),
    }
}

/// Takes a member out of the object that begins at `open`. After [`put_first`] that gives back the text from before.
pub(super) fn take_out(text: &str, open: usize, index: usize) -> String {
    let members = members(text, open).unwrap_or_default();
    let Some(member) = members.get(index) else {
        return text.to_owned();
    };
    let cut = match (members.get(index + 1), index.checked_sub(1)) {
        (Some(next), _) => member.at..next.at,
        (None, Some(before)) => members[before].value.end..member.value.end,
        (None, None) => open + 1..member.value.end,
    };
    format!("{}{}", &text[..cut.start], &text[cut.end..])
}

fn skip_space(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    text.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len()
}

/// Where the string ends that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_whatever_stands_in_them() {
        let text = " { \"a\\\"}\" : [1, {\"x\": \"]\\\\\"}] ,\r\n\"\\u0062\":-1.10e+5,\"c\":{} }\n";
        let found = members(text, start(text)).expect("an object");
        let shown: Vec<_> = found
            .iter()
            .map(|member| (member.name.as_str(), &text[member.value.clone()]))
            .collect();
        assert_eq!(
            shown,
            [
                ("a\"}", "[1, {\"x\": \"]\\\\\"}]"),
                ("b", "-1.10e+5"),
                ("c", "{}")
            ]
        );
        assert_eq!(members("[]", 0), None);
        assert_eq!(members("{ }", 0), Some(vec![]));
    }

    #[test]
    fn what_was_put_in_comes_out_again() {
        for text in ["{}", "{ \r\n}", "{\"a\":1}", "{\n\t\"a\": 1.10,\n\t\"a\": 2\n}\n"] {
            let one = put_first(text, 0, "x", "{\"k\": \"v\"}");
            let two = put_first(&one, 0, "y", "1");
            assert_eq!(take_out(&two, 0, 0), one);
            assert_eq!(take_out(&take_out(&two, 0, 1), 0, 0), text);
            assert_eq!(take_out(&one, 0, 0), text);
            assert!(
                serde_json::from_str::<serde::de::IgnoredAny>(&two).is_ok(),
                "{two}"
            );
        }
    }
}
