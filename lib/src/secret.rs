//! Values that never print.
//!
//! A [`Secret`] is zeroed when dropped, shows `****` wherever it is formatted, and remembers itself in a process-wide
//! list, which lasts as long as the process, so that [`redact`] can take it out of any text that came from elsewhere (a
//! child's output, a server's error) before that text reaches a log, a report or an error.

mod lines;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::bounded;
use crate::failure::{Failure, Result};

/// What stands wherever a secret would have been printed.
pub const MASK: &str = "****";

/// Shorter values are not searched for: masking every `ab` would eat ordinary text. GitLab masks from 8 on.
const SHORTEST_MASKED: usize = 8;

static KNOWN: RwLock<Vec<SecretString>> = RwLock::new(Vec::new());

/// Lines that tools break base64 into: `base64` of the GNU core utilities, and openssl.
const BASE64_LINES: [usize; 2] = [76, 64];

/// A password, token or key. Formatting it in any way gives `****`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value and makes it known to [`redact`]. White space at both ends is cut off: files and CI variables
    /// often end with a newline, and no token or key of the systems we speak to begins or ends with a blank.
    pub fn new(value: impl Into<String>) -> Self {
        let mut value: String = value.into();
        let trimmed = value.trim();
        if trimmed.len() != value.len() {
            value = trimmed.to_owned();
        }
        remember(&value);
        Secret(SecretString::from(value))
    }

    /// Takes a value of several lines, such as a key or a configuration, and makes each line known as well that is
    /// secret by itself: programs print them indented, prefixed or one by one.
    pub fn with_lines(value: impl Into<String>) -> Self {
        let secret = Secret::new(value);
        let value = secret.expose();
        for part in lines::secret_parts(value) {
            remember(part);
        }
        if value.contains('\n') {
            // The last line may be too short to be looked for by itself.
            let bare = value.replace("\r\n", "\n");
            remember(&bare.replace('\n', "\r\n"));
            remember(&bare);
        }
        secret
    }

    /// Takes a value that is not secret by itself, such as a role, for where a secret is wanted. It is not searched for.
    pub(crate) fn public(value: &str) -> Self {
        Secret(SecretString::from(value.to_owned()))
    }

    /// Reads a secret from a file, at most 64 KiB, trimmed.
    ///
    /// # Errors
    /// Usage (exit 2) when the file, named in the error together with `what`, cannot be read, is empty, too large or
    /// not text.
    pub fn from_file(path: &Path, what: &str) -> Result<Self> {
        const LIMIT: u64 = 64 * 1024;
        let shown = path.display();
        let hint = format!("point it to a readable file that holds nothing but the {what}");
        let text = bounded::read_text(path, LIMIT).map_err(|error| {
            Failure::usage(format!("cannot read the {what} in {shown}"))
                .because(error)
                .hint(&hint)
        })?;
        if text.trim().is_empty() {
            return Err(Failure::usage(format!("the {what} in {shown} is empty")).hint(hint));
        }
        Ok(Secret::new(text))
    }

    /// The value itself. Call it where the value leaves for its destination, nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Secret::new(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

fn remember(value: &str) {
    // A fuzzer makes up more of them than any list should hold.
    if value.len() < SHORTEST_MASKED || cfg!(fuzzing) {
        return;
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if !known.iter().any(|earlier| earlier.expose_secret() == value) {
        known.push(SecretString::from(value.to_owned()));
        // Longest first, so that a secret that contains another is replaced whole.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
    }
}

/// Replaces every known secret in `text`, raw, URL-encoded, escaped as in JSON or in base64, and every password in a URL,
/// known or not, by `****`.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut clean = without_url_passwords(text);
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    for secret in known.iter() {
        let value = secret.expose_secret();
        for form in forms(value) {
            if clean.contains(&form) {
                clean = clean.replace(&form, MASK);
            }
        }
    }
    clean
}

/// A reference to an image as it may be shown: without what stands before an `@` that no digest follows, for somebody
/// may have written a login there, as in a URL.
#[must_use]
pub fn without_login(reference: &str) -> Cow<'_, str> {
    let digest = ["@sha256:", "@sha512:"]
        .iter()
        .find_map(|mark| reference.rfind(mark));
    let (name, digest) = reference.split_at(digest.unwrap_or(reference.len()));
    match name.rsplit_once('@') {
        Some((_, place)) => Cow::Owned(format!("{MASK}@{place}{digest}")),
        None => Cow::Borrowed(reference),
    }
}

/// A wrong argument is repeated when it is refused, and URLs that are handed around, such as `CI_REPOSITORY_URL`, carry
/// passwords.
fn without_url_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let authority = after
            .find(|c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c))
            .map_or(after, |end| &after[..end]);
        rest = after;
        let Some((login, _host)) = authority.rsplit_once('@') else {
            continue;
        };
        match login.split_once(':') {
            Some((user, _password)) => clean.push_str(&format!("{user}:{MASK}")),
            // A name alone is one for ssh, and a token for http.
            None if before.ends_with("http://") || before.ends_with("https://") => clean.push_str(MASK),
            None => clean.push_str(login),
        }
        rest = &after[login.len()..];
    }
    clean.push_str(rest);
    clean
}

/// Every form in which a known secret may show up in what a program prints: those of [`redact`], percent-encoded as in
/// a path, and in base64 together with whatever stands before and after it, such as the user of a registry's login.
pub(crate) fn visible_forms() -> Vec<Form> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known
        .iter()
        .flat_map(|secret| visible_forms_of(secret.expose_secret()))
        .collect()
}

/// A form of a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// Whether it may be broken into lines, wherever those end: base64 and hexadecimal digits are.
    pub(crate) may_break: bool,
}

impl Form {
    fn solid(bytes: Vec<u8>) -> Self {
        Form {
            bytes: Zeroizing::new(bytes),
            may_break: false,
        }
    }

    fn broken(bytes: Vec<u8>) -> Self {
        Form {
            bytes: Zeroizing::new(bytes),
            may_break: true,
        }
    }
}

fn visible_forms_of(value: &str) -> Vec<Form> {
    let bytes = value.as_bytes();
    let plain = forms(value).into_iter().map(String::into_bytes);
    let mut found: Vec<Form> = plain.map(Form::solid).collect();
    found.extend(percent_encoded(bytes).into_iter().map(Form::solid));
    found.extend(escaped_in_json(value).map(|form| Form::solid(form.into_bytes())));
    let digits = |byte: &u8| format!("{byte:02x}");
    let hexadecimal: String = bytes.iter().map(digits).collect();
    found.push(Form::broken(hexadecimal.to_uppercase().into_bytes()));
    found.push(Form::broken(hexadecimal.into_bytes()));
    // The user that Scaleway's registry wants. Its beginning is known, so that not one letter of the secret is left.
    let login = [b"nologin:", bytes].concat();
    for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        found.push(Form::broken(engine.encode(&login).into_bytes()));
    }
    // What is longer than a line is broken into lines, which may have something before them.
    let whole = STANDARD.encode(bytes);
    for width in BASE64_LINES.into_iter().filter(|width| whole.len() > *width) {
        let lines = whole.as_bytes().chunks(width);
        found.extend(
            lines
                .filter(|line| line.len() >= SHORTEST_MASKED)
                .map(|line| Form::solid(line.to_vec())),
        );
    }
    // Three bytes make four letters: where the secret begins among the three decides which letters are its own alone.
    for before in 0..3_usize {
        let begins = (before * 8).div_ceil(6);
        let ends = (before + bytes.len()) * 8 / 6;
        let padded = [&[0; 2][..before], bytes].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded).into_bytes();
            if let Some(core) = text.get(begins..ends)
                && core.len() >= SHORTEST_MASKED
            {
                found.push(Form::broken(core.to_vec()));
            }
        }
    }
    found
}

/// What encoders of URLs leave as it is, besides letters, digits and `-._`, and whether they write a blank as `+`. They do
/// not agree.
const LEFT_IN_URLS: [(&str, bool); 10] = [
    // Everything but what RFC 3986 calls unreserved.
    ("~", false),
    // The same as a form: Go's `QueryEscape`, and with it Terraform's `urlencode`; Python's `quote_plus`.
    ("~", true),
    // PHP's `urlencode`.
    ("", true),
    // Forms as browsers send them.
    ("*", true),
    // Python's `quote`.
    ("~/", false),
    // JavaScript's `encodeURIComponent` and `encodeURI`.
    ("~!*'()", false),
    ("~!*'();,/?:@&=+$#", false),
    // Go, in a path, in a user's password, and in a URL that it writes.
    ("~$&+=:@", false),
    ("~$&+,;=", false),
    ("~$&+,/:;=@", false),
];

/// A secret as it stands in a URL.
fn percent_encoded(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for (left, plus) in LEFT_IN_URLS {
        for upper in [true, false] {
            let mut form = Vec::with_capacity(bytes.len());
            for &byte in bytes {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => form.push(byte),
                    b' ' if plus => form.push(b'+'),
                    _ if left.as_bytes().contains(&byte) => form.push(byte),
                    _ if upper => form.extend(format!("%{byte:02X}").into_bytes()),
                    _ => form.extend(format!("%{byte:02x}").into_bytes()),
                }
            }
            if form != bytes && !found.contains(&form) {
                found.push(form);
            }
        }
    }
    found
}

/// A secret as it stands in JSON of those who escape more than they have to.
fn escaped_in_json(value: &str) -> impl Iterator<Item = String> {
    let quoted = serde_json::Value::from(value).to_string();
    let quoted = quoted[1..quoted.len() - 1].to_owned();
    let escape = |text: &str, is_escaped: fn(char) -> bool| -> String {
        let mut form = String::with_capacity(text.len());
        for letter in text.chars() {
            if is_escaped(letter) {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    form.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                form.push(letter);
            }
        }
        form
    };
    // Go, and with it Terraform, so that a browser takes nothing for a tag.
    let go = escape(&quoted, |letter| matches!(letter, '&' | '<' | '>'));
    // Python, and PHP, which escapes slashes besides.
    let python = escape(&quoted, |letter| !letter.is_ascii());
    let php = python.replace('/', r"\/");
    [go, python, php].into_iter().filter(move |form| *form != quoted)
}

fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let quoted = serde_json::Value::from(value).to_string();
    for form in [
        encoded,
        // Log lines and reports are redacted as they are written, when quotes and backslashes are escaped already.
        quoted[1..quoted.len() - 1].to_owned(),
        STANDARD.encode(value),
        STANDARD_NO_PAD.encode(value),
        URL_SAFE.encode(value),
        URL_SAFE_NO_PAD.encode(value),
    ] {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_shows_only_the_mask() {
        let secret = Secret::new("canary-of-the-format-test\n");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "**** **** Some(****)"
        );
        assert_eq!(secret.expose(), "canary-of-the-format-test");
    }

    #[test]
    fn redaction_finds_the_forms_a_secret_travels_in() {
        let _secret = Secret::new("canary/of+the redaction=test");
        let text = format!(
            "raw canary/of+the redaction=test base64 {} url canary%2Fof%2Bthe+redaction%3Dtest",
            STANDARD.encode("canary/of+the redaction=test"),
        );
        assert_eq!(redact(&text), "raw **** base64 **** url ****");
    }

    #[test]
    fn redaction_finds_a_secret_inside_a_json_document() {
        let _secret = Secret::new(r#"canary"with\quotes of the json test"#);
        let document = serde_json::json!({"said": r#"no: canary"with\quotes of the json test!"#}).to_string();
        assert_eq!(redact(&document), r#"{"said":"no: ****!"}"#);
    }

    #[test]
    fn a_file_without_an_end_is_read_no_further_than_a_secret_can_be_long() {
        let failure = Secret::from_file(Path::new("/dev/zero"), "git token").expect_err("endless");
        assert_eq!(failure.kind(), crate::failure::Kind::Usage);
        assert!(
            format!("{failure:?}").contains("more than 65536 bytes"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_secret_is_found_in_base64_of_anything_around_it() {
        let forms = visible_forms_of("canary-of-the-alignment-test");
        for around in ["", "a", "ab", "user:", "nologin:"] {
            let text = format!("{around}canary-of-the-alignment-test{around}");
            for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                let found = forms
                    .iter()
                    .any(|form| encoded.contains(std::str::from_utf8(&form.bytes).expect("text")));
                assert!(found, "{encoded}");
            }
        }
        let login = STANDARD
            .encode("nologin:canary-of-the-alignment-test")
            .into_bytes();
        assert!(forms.iter().any(|form| *form.bytes == login));
    }

    #[test]
    fn a_secret_is_found_in_urls_however_they_are_written() {
        let forms = visible_forms_of("ca/na ry!*'()+~&@:=$,;#?é");
        for encoded in [
            // As Python's `quote`, `quote(safe='')` and `quote_plus` write it.
            "ca/na%20ry%21%2A%27%28%29%2B~%26%40%3A%3D%24%2C%3B%23%3F%C3%A9",
            "ca%2Fna%20ry%21%2A%27%28%29%2B~%26%40%3A%3D%24%2C%3B%23%3F%C3%A9",
            "ca%2Fna+ry%21%2A%27%28%29%2B~%26%40%3A%3D%24%2C%3B%23%3F%C3%A9",
            // As JavaScript's `encodeURIComponent` and `encodeURI` do.
            "ca%2Fna%20ry!*'()%2B~%26%40%3A%3D%24%2C%3B%23%3F%C3%A9",
            "ca/na%20ry!*'()+~&@:=$,;#?%C3%A9",
            // As Go's `PathEscape` and `UserPassword` do, and as somebody who likes small letters.
            "ca%2Fna%20ry%21%2A%27%28%29+~&@:=$%2C%3B%23%3F%C3%A9",
            "ca%2Fna%20ry%21%2A%27%28%29+~&%40%3A=$,;%23%3F%C3%A9",
            "ca%2fna%20ry%21%2a%27%28%29%2b~%26%40%3a%3d%24%2c%3b%23%3f%c3%a9",
        ] {
            assert!(
                forms.iter().any(|form| *form.bytes == *encoded.as_bytes()),
                "{encoded}"
            );
        }
    }

    #[test]
    fn a_secret_is_found_in_json_of_those_who_escape_more() {
        let forms = visible_forms_of("can\"ary/&<>é😀");
        for encoded in [
            // As Go's `json.Marshal`, Python's `json.dumps` and PHP's `json_encode` write it.
            r#"can\"ary/\u0026\u003c\u003eé😀"#,
            r#"can\"ary/&<>\u00e9\ud83d\ude00"#,
            r#"can\"ary\/&<>\u00e9\ud83d\ude00"#,
        ] {
            assert!(
                forms.iter().any(|form| *form.bytes == *encoded.as_bytes()),
                "{encoded}"
            );
        }
    }

    #[test]
    fn passwords_in_urls_are_masked_without_being_known() {
        assert_eq!(
            redact("invalid 'https://ci:canary@pw@git.example.com/a@b' for ssh://git@host:22/x"),
            "invalid 'https://ci:****@git.example.com/a@b' for ssh://git@host:22/x"
        );
        assert_eq!(
            redact("https://canary@git.example.com"),
            "https://****@git.example.com"
        );
        assert_eq!(
            redact("http://127.0.0.1:5000/app@sha256:00"),
            "http://127.0.0.1:5000/app@sha256:00"
        );
    }

    #[test]
    fn short_values_do_not_eat_ordinary_text() {
        let _secret = Secret::new("ab");
        assert_eq!(redact("abacus"), "abacus");
    }

    #[test]
    fn an_empty_file_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let failure = Secret::from_file(file.path(), "service account token").expect_err("empty");
        assert_eq!(failure.kind(), crate::failure::Kind::Usage);
        assert!(failure.message().contains("service account token"));
        assert!(failure.message().contains(&file.path().display().to_string()));
    }
}
