//! Reading from a key/value engine of either version.
//!
//! Source: API reference, "KV secrets engine", versions 1 and 2, section "Read secret (version)";
//! `sys/internal/ui/mounts`, which the servers' own command line asks as well, to learn the mount that a path belongs
//! to and its version: a mount's name may hold slashes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;

use super::Session;
use super::refusal::Asked;
use crate::failure::{Failure, Kind, Result};

/// Where a secret is: `MOUNT/PATH`, as on the command line of the servers, without `data/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretPath(String);

impl SecretPath {
    /// The path as one text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretPath {
    type Err = Failure;

    fn from_str(value: &str) -> Result<Self> {
        let path = value.trim_matches('/');
        let segments: Vec<&str> = path.split('/').collect();
        let odd =
            |segment: &&str| matches!(*segment, "" | "." | "..") || segment.chars().any(char::is_control);
        if segments.len() < 2 || segments.iter().any(odd) {
            return Err(Failure::usage(format!("malformed secret path {value:?}"))
                .hint("it reads MOUNT/PATH, such as secret/ci/scaleway"));
        }
        Ok(SecretPath(path.to_owned()))
    }
}

/// The version of a key/value engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvVersion {
    /// One value a path.
    One,
    /// A path keeps several versions of its value.
    Two,
}

impl fmt::Display for KvVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvVersion::One => "v1",
            KvVersion::Two => "v2",
        })
    }
}

/// A key/value engine, and what is left of a path below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its path, without a slash at the end.
    pub path: String,
    /// Its version.
    pub version: KvVersion,
    /// The secret's path below it.
    pub below: String,
}

/// A secret that was read. Its values are zeroed when dropped and shown nowhere.
#[derive(Debug)]
pub struct Reading {
    /// The version that was got; none from an engine without versions.
    pub version: Option<u64>,
    fields: BTreeMap<String, SecretString>,
}

impl Reading {
    /// A secret with these fields.
    pub fn new<N: Into<String>, V: Into<String>>(
        version: Option<u64>,
        fields: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Reading {
            version,
            fields: fields
                .into_iter()
                .map(|(name, value)| (name.into(), SecretString::from(value.into())))
                .collect(),
        }
    }

    /// The value of a field: its text, or its JSON when it is not text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(SecretString::expose_secret)
    }

    /// The names of all fields, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }
}

#[derive(Deserialize)]
struct MountAnswer {
    path: String,
    #[serde(rename = "type")]
    engine: String,
    #[serde(default)]
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct VersionedAnswer {
    pub(super) data: Map<String, Value>,
    pub(super) metadata: VersionMetadata,
}

#[derive(Deserialize)]
pub(super) struct VersionMetadata {
    pub(super) version: u64,
}

impl Mount {
    /// Where a secret is most likely: at the engine of that path, else of the first part of the secret's; of that version,
    /// else one with versions. None when the secret is not below that path.
    #[must_use]
    pub fn likely(secret: &SecretPath, path: Option<&str>, version: Option<KvVersion>) -> Option<Self> {
        let (path, below) = match path {
            Some(path) => (path, secret.0.strip_prefix(path)?.strip_prefix('/')?),
            None => secret.0.split_once('/')?,
        };
        Some(Mount {
            path: path.to_owned(),
            version: version.unwrap_or(KvVersion::Two),
            below: below.to_owned(),
        })
    }
}

impl Session {
    /// Finds the engine that `secret` is in.
    ///
    /// # Errors
    /// Denied (exit 4) when the token has no rights below the path or there is no such mount, which the server does
    /// not tell apart; usage (exit 2) when the engine is not a key/value one.
    pub async fn mount_of(&self, secret: &SecretPath) -> Result<Mount> {
        split(secret, self.mounted_for(secret).await?)
    }

    /// Finds the engine that makes the credentials at `path`: where it is mounted, and its type.
    ///
    /// # Errors
    /// Denied (exit 4) as with [`Session::mount_of`]; usage (exit 2) when it is a key/value one, which makes none.
    pub async fn engine_of(&self, path: &SecretPath) -> Result<(String, String)> {
        let found = self.mounted_for(path).await?;
        let mount = found.path.trim_matches('/').to_owned();
        if is_key_value(&found) {
            return Err(
                Failure::usage(format!("the engine at {mount} keeps secrets and makes none"))
                    .hint("a key/value secret is read with --secret (TOWPATH_SECRET)"),
            );
        }
        Ok((mount, found.engine))
    }

    async fn mounted_for(&self, secret: &SecretPath) -> Result<MountAnswer> {
        let path = format!("sys/internal/ui/mounts/{secret}");
        let answer = self.vault().get(&path, Some(self.token())).await?;
        let asked = Asked::Mount {
            secret,
            policies: self.policies(),
            uses: self.uses(),
        };
        answer
            .read(&asked)?
            .data
            .ok_or_else(|| Failure::input(format!("the answer to {} holds no data", answer.shown)))
    }

    /// Reads a secret where it is likely. None when it is not there, or may not be read there; then [`Session::mount_of`]
    /// tells where it is.
    ///
    /// # Errors
    /// Unavailable (exit 7) when the server cannot answer.
    pub async fn read_by_guess(&self, guess: &Mount, version: Option<u64>) -> Result<Option<Reading>> {
        // An engine of another kind may make something at such a path, which would end with a token of ours alone.
        if guess.version == KvVersion::One && !self.is_issued() {
            return Ok(None);
        }
        match self.read(guess, version).await {
            Ok(reading) => Ok(Some(reading)),
            Err(failure) if matches!(failure.kind(), Kind::Unavailable | Kind::Deadline) => Err(failure),
            Err(_) => Ok(None),
        }
    }

    /// Reads a secret: the given version, or the latest.
    ///
    /// # Errors
    /// Not found (exit 5) when there is no such secret or version, or it is deleted or destroyed, told apart; denied
    /// (exit 4) when the token may not read it; usage (exit 2) when a version is asked of an engine without versions.
    pub async fn read(&self, mount: &Mount, version: Option<u64>) -> Result<Reading> {
        let asked = Asked::Read {
            mount,
            version,
            policies: self.policies(),
            uses: self.uses(),
        };
        match mount.version {
            KvVersion::Two => {
                let request = ReadSecretRequest {
                    mount: mount.path.clone(),
                    path: mount.below.clone(),
                    version,
                };
                let answer = self.vault().call(request, Some(self.token())).await?;
                let found: VersionedAnswer = answer
                    .read(&asked)?
                    .data
                    .ok_or_else(|| Failure::input(format!("the answer to {} holds no data", answer.shown)))?;
                Ok(Reading::new(Some(found.metadata.version), texts(found.data)))
            }
            KvVersion::One => {
                if let Some(version) = version {
                    return Err(Failure::usage(format!(
                        "{} has no version {version}: its engine keeps no versions",
                        mount.path
                    ))
                    .hint("leave --version (TOWPATH_SECRET_VERSION) out, or use a KV v2 mount"));
                }
                let request = GetSecretRequest {
                    mount: mount.path.clone(),
                    path: mount.below.clone(),
                };
                let answer = self.vault().call(request, Some(self.token())).await?;
                let found = answer.read::<Map<String, Value>>(&asked)?;
                if !found.lease_id.is_empty() {
                    return Err(not_key_value(&mount.path, "one that makes credentials"));
                }
                let data = found
                    .data
                    .ok_or_else(|| Failure::input(format!("the answer to {} holds no data", answer.shown)))?;
                Ok(Reading::new(None, texts(data)))
            }
        }
    }
}

fn not_key_value(mount: &str, what: &str) -> Failure {
    Failure::usage(format!("the engine at {mount} is {what}, not kv"))
        .hint("give a secret of a key/value engine")
}

fn is_key_value(found: &MountAnswer) -> bool {
    matches!(found.engine.as_str(), "kv" | "generic")
}

fn split(secret: &SecretPath, found: MountAnswer) -> Result<Mount> {
    let mount = found.path.trim_matches('/');
    let below = secret
        .as_str()
        .strip_prefix(mount)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|rest| !rest.is_empty())
        .ok_or_else(|| {
            Failure::usage(format!("{secret} names the mount {mount} alone"))
                .hint("add the path of the secret below the mount: MOUNT/PATH")
        })?;
    if !is_key_value(&found) {
        return Err(not_key_value(mount, &format!("of type {}", found.engine)));
    }
    let version = match found.options.and_then(|options| options.version).as_deref() {
        Some("2") => KvVersion::Two,
        _ => KvVersion::One,
    };
    Ok(Mount {
        path: mount.to_owned(),
        version,
        below: below.to_owned(),
    })
}

pub(super) fn texts(data: Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    data.into_iter().map(|(name, value)| match value {
        Value::String(text) => (name, text),
        other => (name, other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(secret: &str, path: &str, engine: &str, version: Option<&str>) -> Result<Mount> {
        let answer = MountAnswer {
            path: path.to_owned(),
            engine: engine.to_owned(),
            options: version.map(|version| MountOptions {
                version: Some(version.to_owned()),
            }),
        };
        split(&secret.parse()?, answer)
    }

    #[test]
    fn a_mount_may_hold_slashes() {
        let found = mount("team/kv/ci/scw", "team/kv/", "kv", Some("2")).unwrap();
        assert_eq!(
            (found.path.as_str(), found.below.as_str(), found.version),
            ("team/kv", "ci/scw", KvVersion::Two)
        );
        let found = mount("kv/scw", "kv/", "kv", None).unwrap();
        assert_eq!(found.version, KvVersion::One);
    }

    #[test]
    fn a_secret_is_likely_where_it_is_said_to_be() {
        let secret: SecretPath = "team/kv/ci/scw".parse().unwrap();
        let likely = |path, version| {
            Mount::likely(&secret, path, version).map(|mount| (mount.path, mount.below, mount.version))
        };
        let place = |path: &str, below: &str, version| Some((path.to_owned(), below.to_owned(), version));
        assert_eq!(likely(None, None), place("team", "kv/ci/scw", KvVersion::Two));
        assert_eq!(
            likely(Some("team/kv"), Some(KvVersion::One)),
            place("team/kv", "ci/scw", KvVersion::One)
        );
        for elsewhere in ["tea", "team/kv/ci/scw", "secret"] {
            assert_eq!(likely(Some(elsewhere), None), None);
        }
    }

    #[test]
    fn a_mount_alone_or_of_another_engine_is_refused() {
        for refused in [
            mount("team/kv", "team/kv/", "kv", Some("2")),
            mount("db/creds", "db/", "database", None),
        ] {
            assert_eq!(refused.expect_err("refused").kind(), Kind::Usage);
        }
    }

    #[test]
    fn paths_name_a_mount_and_a_secret_and_do_not_climb() {
        assert_eq!(
            "/secret/app/".parse::<SecretPath>().unwrap().as_str(),
            "secret/app"
        );
        for wrong in [
            "",
            "secret",
            "secret/",
            "secret//app",
            "secret/../sys",
            "secret/./a",
            "a/b\nc",
        ] {
            assert!(wrong.parse::<SecretPath>().is_err(), "{wrong:?}");
        }
    }
}
