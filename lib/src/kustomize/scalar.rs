//! How a value is written as a YAML scalar, so that readers of YAML 1.1 and 1.2 agree that it is that text.

/// How a scalar is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    None,
    Single,
    Double,
}

impl Quotes {
    /// The quotes around a scalar as it stands in the text.
    pub(super) fn of(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'"') => Quotes::Double,
            Some(b'\'') => Quotes::Single,
            _ => Quotes::None,
        }
    }
}

/// Writes `value`, an image name, tag, digest or field name. These hold neither quotes nor backslashes nor line
/// breaks, so nothing needs escaping. `fallback` is taken where a plain scalar would be misread.
pub(super) fn write(value: &str, quotes: Quotes, fallback: Quotes, in_flow: bool) -> String {
    let quotes = match quotes {
        Quotes::None if needs_quotes(value, in_flow) => match fallback {
            Quotes::None => Quotes::Double,
            other => other,
        },
        other => other,
    };
    match quotes {
        Quotes::None => value.to_owned(),
        Quotes::Single => format!("'{value}'"),
        Quotes::Double => format!("\"{value}\""),
    }
}

/// Whether a plain scalar with this text could be read as anything but a string.
pub(super) fn needs_quotes(value: &str, in_flow: bool) -> bool {
    let plain_characters = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-/:+".contains(&b));
    // Old readers end a plain scalar of a flow collection at any colon.
    let misread_colon = value.ends_with(':') || (in_flow && value.contains(':'));
    !plain_characters
        || misread_colon
        || value.starts_with(['-', ':'])
        || is_yaml_word(value)
        || is_number(value)
        || is_date(value)
}

/// What kustomize takes a plain scalar for, where it refuses the file since that is no text. It reads neither dates nor
/// base 60, and takes a word for a boolean only in the spellings of YAML 1.1 (seen with `kubectl kustomize` 5.5).
pub(super) fn refused_by_kustomize(plain: &str) -> Option<&'static str> {
    let lower = plain.to_ascii_lowercase();
    let title = lower
        .char_indices()
        .map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c })
        .collect::<String>();
    let spelled = plain == lower || plain == title || plain == lower.to_ascii_uppercase();
    if spelled
        && matches!(
            lower.as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false"
        )
    {
        return Some("a boolean");
    }
    let special = matches!(lower.as_str(), ".inf" | "+.inf" | "-.inf" | ".nan");
    let begins = plain.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if special || (begins && is_number(plain) && !plain.contains(':') && plain.parse() != Ok(f64::INFINITY)) {
        return Some("a number");
    }
    None
}

/// Words of YAML 1.1's types bool, null, float and merge (yaml.org/type), in any case.
fn is_yaml_word(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "y"
            | "n"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "true"
            | "false"
            | "null"
            | "~"
            | ".inf"
            | "+.inf"
            | "-.inf"
            | ".nan"
            | "<<"
            | "="
    )
}

/// Integers and floats of YAML 1.1 and 1.2: decimal, octal, hexadecimal, binary, base 60, with underscores anywhere.
fn is_number(value: &str) -> bool {
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let digits: String = unsigned.chars().filter(|c| *c != '_').collect();
    let lower = digits.to_ascii_lowercase();
    let prefixed = |prefix: &str, radix: u32| {
        lower
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    if prefixed("0x", 16) || prefixed("0o", 8) || prefixed("0b", 2) {
        return true;
    }
    is_decimal(&lower) || is_base_60(&lower)
}

/// `1`, `1.5`, `.5`, `1.`, `1e3`, `1.5e-3`.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && exponent.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    exponent_fits && !(whole.is_empty() && fraction.is_empty()) && all_digits(whole) && all_digits(fraction)
}

/// `1:30`, `1:30:00.5`.
fn is_base_60(text: &str) -> bool {
    text.contains(':')
        && text
            .split(':')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// `2024-01-31`, and everything that begins so, since timestamps do.
fn is_date(value: &str) -> bool {
    let mut parts = value.splitn(3, '-');
    let digits = |part: Option<&str>, lengths: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|part| lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
    };
    digits(parts.next(), 4..=4)
        && digits(parts.next(), 1..=2)
        && parts
            .next()
            .is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_yaml_1_1_reader_would_mistake_is_quoted() {
        for value in [
            "y",
            "N",
            "yes",
            "No",
            "on",
            "OFF",
            "true",
            "False",
            "null",
            "1",
            "20240101",
            "1.10",
            "1e5",
            "12e4567",
            ".5",
            "1.",
            "1_000",
            "0x1f",
            "0b11",
            "0o17",
            "017",
            "1:30",
            "2024-01-31",
            "2024-1-1",
            "2024-01-31T10",
            "-x",
            "~",
            ".nan",
            "_1",
            "1__0",
            "",
        ] {
            assert!(needs_quotes(value, false), "{value:?} would stand unquoted");
        }
    }

    #[test]
    fn kustomize_refuses_what_is_no_text_to_it() {
        for plain in [
            "y", "N", "yes", "No", "ON", "true", "False", "1", "+1", "-1", "1.10", "1e5", ".5", "1.",
            "1_000", "0x1f", "0X1F", "0b11", "0o17", "017", "08", ".inf", "-.Inf", ".NaN", "1__0", "1_0.5",
            "1.5e+3", "00",
        ] {
            assert!(refused_by_kustomize(plain).is_some(), "{plain}");
        }
        for plain in [
            "null",
            "~",
            "12e4567",
            "1:30",
            "12:30:45",
            "2024-01-31",
            "=",
            "<<",
            "_1",
            "0x",
            "0b",
            "0o8",
            "1e",
            "inf",
            "nan",
            "v1",
            "1.2.3",
            "yEs",
            "",
        ] {
            assert_eq!(refused_by_kustomize(plain), None, "{plain}");
        }
    }

    #[test]
    fn ordinary_versions_stay_plain() {
        for value in [
            "v1",
            "1.2.3",
            "1.2.3-rc.1",
            "latest",
            "1a",
            "deadbeef",
            "main-0123abc",
            "sha256:ab",
            "2024.01.31",
            "registry.example.com:5000/team/app",
            "nightly",
            "0xyz",
            "1.2.3_4",
            "2024-01",
            "v1.10",
        ] {
            assert!(!needs_quotes(value, false), "{value:?} would be quoted");
        }
        assert!(needs_quotes("sha256:ab", true));
    }
}
