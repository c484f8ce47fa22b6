//! What registries say beside their answers: warnings, and how much of our rate is left. Told, and never acted on.
//!
//! Sources: OCI Distribution Specification, "Warnings" (`Warning: 299 - "text"`); Docker's documentation, "Docker Hub
//! pull usage and limits", for `RateLimit-Remaining`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::refusal::tidy;
use crate::http::Response;
use crate::http::header::{self, HeaderName};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// No registry has more to say that anybody would read.
const WARNINGS: usize = 20;

/// The warnings of a run that were told already, with the hosts that gave them.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<BTreeSet<(String, String)>>);

impl Notices {
    /// Tells what an answer has to say and no earlier one said.
    pub(super) fn tell(&self, host: &str, response: &Response) {
        if let Some(remaining) = response.header(&RATE_LIMIT) {
            tracing::debug!(
                action = "rate-limit",
                object = host,
                remaining = tidy(remaining),
                "left"
            );
        }
        for value in response.headers().get_all(header::WARNING) {
            let Some(text) = value.to_str().ok().and_then(warning) else {
                continue;
            };
            if self.is_new(host, &text) {
                tracing::warn!(action = "warning", object = host, "{text}");
            }
        }
    }

    fn is_new(&self, host: &str, text: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < WARNINGS && told.insert((host.to_owned(), text.to_owned()))
    }
}

/// The text of a warning that is the registry's own. Other codes are about caches.
fn warning(value: &str) -> Option<String> {
    let quoted = value.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
    let mut text = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' {
            characters.next()?
        } else {
            character
        });
    }
    let text = tidy(&text);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_warnings_are_read() {
        for (value, expected) in [
            (r#"299 - "this is deprecated.""#, Some("this is deprecated")),
            (r#" 299 - "say \"please\"" "#, Some("say \"please\"")),
            (r#"110 - "stale""#, None),
            (r#"299 proxy.example.com "theirs""#, None),
            ("299 - no quotes", None),
            (r#"299 - """#, None),
            ("", None),
        ] {
            assert_eq!(warning(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn each_warning_is_told_once_and_not_endlessly_many() {
        let notices = Notices::default();
        assert!(notices.is_new("a.example", "one") && !notices.is_new("a.example", "one"));
        assert!(notices.is_new("b.example", "one"));
        let told = (0..100)
            .filter(|number| notices.is_new("a.example", &number.to_string()))
            .count();
        assert_eq!(told, WARNINGS - 2);
    }
}
