//! The values of arguments, filled in where a Dockerfile names them.

use std::collections::BTreeMap;

/// Fills in `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; fails with the name that has no value.
pub(super) fn expand(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (expression, after) = match rest.strip_prefix('{') {
            Some(inner) => match inner.split_once('}') {
                Some(split) => split,
                None => return Err(inner.to_owned()),
            },
            None => {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        rest = after;
        let (name, alternative) = match expression.find(":-").or_else(|| expression.find(":+")) {
            Some(at) => (
                &expression[..at],
                Some((&expression[at..at + 2], &expression[at + 2..])),
            ),
            None => (expression, None),
        };
        let value = values.get(name).filter(|value| !value.is_empty());
        match (value, alternative) {
            (Some(_), Some((":+", other))) => expanded.push_str(other),
            (None, Some((":+", _))) => {}
            (Some(value), _) => expanded.push_str(value),
            (None, Some((_, default))) => expanded.push_str(default),
            (None, None) => return Err(name.to_owned()),
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// As [`expand`], but leaves alone what it does not know: builders define platform arguments of their own.
pub(super) fn expand_known(text: &str, values: &BTreeMap<String, String>) -> String {
    expand(text, values).unwrap_or_else(|_| text.to_owned())
}

/// The value that an `ARG` line gives by default, quotes taken off; none when it is written in a way that builders may
/// read differently.
pub(super) fn default_value(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let quoted = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    let (text, is_literal) = match (quoted('"'), quoted('\'')) {
        (Some(text), _) => (text, false),
        (None, Some(text)) => (text, true),
        (None, None) => (text, false),
    };
    if text.contains(['"', '\'', '\\', '`']) {
        return None;
    }
    if is_literal {
        return Some(text.to_owned());
    }
    expand(text, values).ok()
}
