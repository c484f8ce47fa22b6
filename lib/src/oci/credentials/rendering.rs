//! Logins of every kind, written down for another program.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::Vacant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::Credential;
use super::document::{HUB, HUB_KEY};
use crate::failure::{Failure, Result};
use crate::oci::Reference;
use crate::secret::Secret;

#[derive(Default, Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identitytoken: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registrytoken: Option<String>,
}

/// Writes a `config.json` with a login for each of these repositories, and for its host the first of them: some programs
/// look for a repository's login and some for a host's alone. The text is a secret as a whole.
///
/// # Errors
/// Usage (exit 2) when a user's name holds a colon, which the format cannot express.
pub fn render_logins(logins: &[(Reference, Credential)]) -> Result<Secret> {
    let mut auths = BTreeMap::new();
    for (reference, credential) in logins {
        let host = reference.registry();
        let key = if host == HUB { HUB_KEY } else { host };
        for key in [reference.name(), key.to_owned()] {
            if let Vacant(place) = auths.entry(key) {
                place.insert(entry(reference, credential)?);
            }
        }
    }
    let text = serde_json::to_string_pretty(&BTreeMap::from([("auths", auths)]))
        .map_err(|error| Failure::internal("cannot write registry credentials as JSON").because(error))?;
    Ok(Secret::new(text))
}

fn entry(reference: &Reference, credential: &Credential) -> Result<Entry> {
    Ok(match credential {
        Credential::Password { user, .. } if user.contains(':') => {
            return Err(Failure::usage(format!(
                "the registry user {user:?} of {} holds a colon",
                reference.registry()
            )));
        }
        Credential::Password { user, password } => {
            let auth = BASE64.encode(format!("{user}:{}", password.expose()));
            Entry {
                // Whoever prints the file by mistake prints this form.
                auth: Some(Secret::new(auth).expose().to_owned()),
                ..Entry::default()
            }
        }
        Credential::IdentityToken(token) => Entry {
            // Some programs pass over what has no user at all.
            auth: Some(BASE64.encode("00000000-0000-0000-0000-000000000000:")),
            identitytoken: Some(token.expose().to_owned()),
            ..Entry::default()
        },
        Credential::RegistryToken(token) => Entry {
            registrytoken: Some(token.expose().to_owned()),
            ..Entry::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigFile, Credentials};
    use super::*;
    use crate::deadline::Deadline;

    #[tokio::test]
    async fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let password = |user: &str| Credential::Password {
            user: user.to_owned(),
            password: Secret::new("canary-password-to-write"),
        };
        let logins: Vec<(Reference, Credential)> = [
            ("registry.example.com/team/a:1", password("a")),
            ("registry.example.com/team/b:1", password("b")),
            ("docker.io/library/debian:12", password("hub")),
            (
                "id.example.com/app",
                Credential::IdentityToken(Secret::new("canary-identity-to-write")),
            ),
            (
                "reg.example.com/app",
                Credential::RegistryToken(Secret::new("canary-registry-to-write")),
            ),
        ]
        .into_iter()
        .map(|(reference, credential)| (reference.parse().unwrap(), credential))
        .collect();
        std::fs::write(&path, render_logins(&logins).unwrap().expose()).unwrap();
        let read = Credentials::read(&[ConfigFile { path, required: true }]).unwrap();
        let deadline = Deadline::after(std::time::Duration::from_secs(20));
        for (reference, credential) in &logins {
            let found = read.find(reference, deadline).await.unwrap().unwrap();
            assert_eq!(&found.credential, credential, "{reference}");
        }
        let other: Reference = "registry.example.com/other".parse().unwrap();
        let found = read.find(&other, deadline).await.unwrap().unwrap();
        assert_eq!(found.credential, password("a"), "the host has the first");
        let wrong = [("r.example.com/a".parse().unwrap(), password("a:b"))];
        assert!(render_logins(&wrong).is_err());
    }
}
