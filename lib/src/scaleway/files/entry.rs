//! What is brought into a file under one name, and a file with such entries or without them.

use secrecy::SecretString;

use super::receipt::Piece;
use crate::scaleway::config::Profile;
use crate::secret::Secret;

/// What one name stands for in a file: a profile, the login to a registry, the whole file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Profile(Profile),
    Text { text: Secret, access_key: String },
}

/// A file with entries in it.
#[derive(Debug)]
pub(crate) struct Laid {
    /// The whole file.
    pub(crate) text: SecretString,
    /// What was added to it.
    pub(crate) pieces: Vec<Piece>,
}

/// A file without our entries.
#[derive(Debug)]
pub(crate) struct Stripped {
    /// What others wrote.
    pub(crate) base: SecretString,
    /// What was taken out.
    pub(crate) entries: Vec<Entry>,
}

impl Entry {
    pub(crate) fn profile(profile: Profile) -> Self {
        Entry {
            name: profile.name().to_owned(),
            body: Body::Profile(profile),
        }
    }

    /// What authenticates at a registry.
    pub(super) fn login(host: &str, auth: Secret) -> Self {
        Entry {
            name: host.to_owned(),
            body: Body::Text {
                text: auth,
                access_key: String::new(),
            },
        }
    }

    /// A text with this access key in it.
    pub(super) fn whole(name: &str, text: Secret, access_key: &str) -> Self {
        Entry {
            name: name.to_owned(),
            body: Body::Text {
                text,
                access_key: access_key.to_owned(),
            },
        }
    }

    /// The profile, if it is one.
    pub(crate) fn as_profile(&self) -> Option<&Profile> {
        match &self.body {
            Body::Profile(profile) => Some(profile),
            Body::Text { .. } => None,
        }
    }

    /// The text of one that is no profile.
    pub(super) fn secret(&self) -> Secret {
        match &self.body {
            Body::Text { text, .. } => text.clone(),
            Body::Profile(_) => Secret::new(""),
        }
    }

    /// The public half of the key in it.
    pub(super) fn access_key(&self) -> &str {
        match &self.body {
            Body::Profile(profile) => profile.access_key(),
            Body::Text { access_key, .. } => access_key,
        }
    }
}

impl Laid {
    pub(crate) fn of(text: String, pieces: Vec<Piece>) -> Self {
        Laid {
            text: SecretString::from(text),
            pieces,
        }
    }
}

impl Stripped {
    pub(crate) fn of(base: String, entries: Vec<Entry>) -> Self {
        Stripped {
            base: SecretString::from(base),
            entries,
        }
    }
}
