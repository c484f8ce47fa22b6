//! What the description of a key that `rotate` made says: for which secret, after which version, in whose place.
//!
//! It is written together with the key, in one request, so that a key is never without it. The secret is told from any
//! other by the moment of its first version; its path is there for people. No other run writes the same, and none writes
//! it to the secret after the moment that it says.

use std::fmt;

use jiff::Timestamp;
use towpath::scaleway::DESCRIPTION_LIMIT;

const PREFIX: &str = "vault-scw-creds rotate: ";

/// The description of a key that `rotate` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Where the secret is, perhaps cut.
    pub(crate) secret: String,
    /// When the secret's first version was written, as the server says it.
    pub(crate) born: String,
    /// The version that was the latest when the key was made. If the key was ever put there, it is in the next one.
    pub(crate) after: u64,
    /// The key that it was made to replace.
    pub(crate) replaces: String,
    /// When the run that made it is over, in whole seconds.
    pub(crate) until: Timestamp,
    /// What no other run says.
    pub(crate) nonce: String,
}

impl Marker {
    /// Reads a description; none when it is somebody else's.
    pub(crate) fn read(description: &str) -> Option<Self> {
        let rest = description.strip_prefix(PREFIX)?;
        let (rest, nonce) = rest.rsplit_once(" by ")?;
        let (rest, until) = rest.rsplit_once(" until ")?;
        let (rest, replaces) = rest.rsplit_once(" in place of ")?;
        let (rest, after) = rest.rsplit_once(" after version ")?;
        let (secret, born) = rest.rsplit_once(" of ")?;
        Some(Marker {
            secret: secret.to_owned(),
            born: born.to_owned(),
            after: after.parse().ok()?,
            replaces: replaces.to_owned(),
            until: until.parse().ok()?,
            nonce: nonce.to_owned(),
        })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = format!(
            " of {} after version {} in place of {} until {} by {}",
            self.born, self.after, self.replaces, self.until, self.nonce
        );
        let room = DESCRIPTION_LIMIT.saturating_sub(PREFIX.len() + end.len());
        let secret: String = self.secret.chars().take(room).collect();
        write!(f, "{PREFIX}{secret}{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_fits() {
        for secret in ["secret/ci/scaleway", "a of b after version 3", &"x/".repeat(200)] {
            let marker = Marker {
                secret: secret.to_owned(),
                born: "2026-11-21T14:00:00.123456789Z".to_owned(),
                after: u64::MAX,
                replaces: "SCW1234567890ABCDEFG".to_owned(),
                until: Timestamp::from_second(1_800_000_000).expect("a moment"),
                nonce: "0123456789abcdef".to_owned(),
            };
            let text = marker.to_string();
            assert!(text.chars().count() <= DESCRIPTION_LIMIT, "{text}");
            let read = Marker::read(&text).expect("a marker");
            assert!(marker.secret.starts_with(&read.secret));
            assert_eq!(
                Marker {
                    secret: marker.secret.clone(),
                    ..read
                },
                marker
            );
        }
    }

    #[test]
    fn descriptions_of_people_are_none() {
        for text in [
            "",
            "ci key",
            "vault-scw-creds rotate: by hand",
            "vault-scw-creds rotate: s of b after version x in place of y until 2026-11-21T14:00:00Z by z",
            "vault-scw-creds rotate: s of b after version 1 in place of y until then by z",
        ] {
            assert_eq!(Marker::read(text), None, "{text}");
        }
    }
}
