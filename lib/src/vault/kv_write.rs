//! Writing to a key/value engine of version 2, for whoever replaces a secret that others read.
//!
//! Source: API reference, "KV secrets engine - version 2", sections "Create/update secret" (`options.cas`), "Read secret
//! metadata" and "Create/update metadata" (`custom_metadata`); `sys/capabilities-self`.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::refusal::words_of;
use super::{Answer, KvVersion, Mount, Session};
use crate::failure::{Failure, Result};
use crate::http::{Body, Method, Repeat, StatusCode};

/// A secret as it was read to be replaced: every field in its own type. Its values are shown nowhere.
#[derive(Debug)]
pub struct Original {
    /// The version that was read, which is the latest.
    pub version: u64,
    /// The fields as one JSON object.
    fields: SecretString,
}

impl Original {
    /// The text of a field; none when it is absent or not text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        self.object().get(name)?.as_str().map(str::to_owned)
    }

    fn object(&self) -> Map<String, Value> {
        serde_json::from_str(self.fields.expose_secret()).unwrap_or_default()
    }
}

/// What check-and-set came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// This is the new version.
    Version(u64),
    /// It was refused: somebody may have written another version meanwhile.
    Refused,
}

/// What is known of a secret besides its values.
#[derive(Clone, Debug)]
pub struct SecretMetadata {
    /// When the first version was written, as the server says it. With nanoseconds, it tells this secret from any
    /// other, also from one that has its path later.
    pub created_time: String,
    /// The latest version.
    pub current_version: u64,
    /// What people and tools noted of it.
    pub custom: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Frame<T> {
    data: T,
}

#[derive(Deserialize)]
struct Versioned {
    data: Map<String, Value>,
    metadata: Version,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct RawMetadata {
    created_time: String,
    current_version: u64,
    #[serde(default)]
    custom_metadata: Option<BTreeMap<String, String>>,
}

impl Mount {
    /// The path that reading the secret asks for, as a policy names it.
    #[must_use]
    pub fn values_path(&self) -> String {
        match self.version {
            KvVersion::One => format!("{}/{}", self.path, self.below),
            KvVersion::Two => self.data_path(),
        }
    }

    /// The path of the secret's values in a KV v2 engine, as a policy names it.
    #[must_use]
    pub fn data_path(&self) -> String {
        format!("{}/data/{}", self.path, self.below)
    }

    /// The path of the secret's metadata, as a policy names it.
    #[must_use]
    pub fn metadata_path(&self) -> String {
        format!("{}/metadata/{}", self.path, self.below)
    }
}

impl Session {
    /// Reads the latest version of a secret in a KV v2 engine, to replace it.
    ///
    /// # Errors
    /// Not found (exit 5) when there is none; denied (exit 4) when the token may not read it.
    pub async fn original(&self, mount: &Mount) -> Result<Original> {
        let answer = self.ask(Method::GET, &mount.data_path(), None).await?;
        let found: Versioned = answer.data(&format!("read {}", mount.data_path()))?;
        Ok(Original {
            version: found.metadata.version,
            fields: SecretString::from(Value::Object(found.data).to_string()),
        })
    }

    /// Writes a secret with some fields changed, if `original` is still the latest version.
    ///
    /// # Errors
    /// Denied (exit 4) when the token may not write it; unavailable (exit 7) or deadline (exit 9) when nobody knows
    /// whether it was written.
    pub async fn replace(
        &self,
        mount: &Mount,
        original: &Original,
        changes: &[(&str, &str)],
    ) -> Result<Replaced> {
        let mut fields = original.object();
        for (name, value) in changes {
            fields.insert((*name).to_owned(), (*value).into());
        }
        let body = json!({"data": fields, "options": {"cas": original.version}});
        let path = mount.data_path();
        let answer = self.ask(Method::POST, &path, Some(&body)).await?;
        // A refusal for the version has no status of its own; whoever asks looks which version there is.
        if answer.status == StatusCode::BAD_REQUEST {
            return Ok(Replaced::Refused);
        }
        let written: Version = answer.data(&format!("write {path}"))?;
        Ok(Replaced::Version(written.version))
    }

    /// What is known of a secret in a KV v2 engine besides its values.
    ///
    /// # Errors
    /// Not found (exit 5) when there is none; denied (exit 4) when the token may not read it.
    pub async fn metadata(&self, mount: &Mount) -> Result<SecretMetadata> {
        let path = mount.metadata_path();
        let answer = self.ask(Method::GET, &path, None).await?;
        let found: RawMetadata = answer.data(&format!("read {path}"))?;
        Ok(SecretMetadata {
            created_time: found.created_time,
            current_version: found.current_version,
            custom: found.custom_metadata.unwrap_or_default(),
        })
    }

    /// Notes something of a secret, besides what is noted already.
    ///
    /// # Errors
    /// Denied (exit 4) when the token may not; unavailable (exit 7).
    pub async fn annotate(
        &self,
        mount: &Mount,
        metadata: &SecretMetadata,
        notes: &[(&str, String)],
    ) -> Result<()> {
        let mut custom = metadata.custom.clone();
        for (name, value) in notes {
            custom.insert((*name).to_owned(), value.clone());
        }
        let path = mount.metadata_path();
        let body = json!({ "custom_metadata": custom });
        let answer = self.ask(Method::POST, &path, Some(&body)).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(answer.refusal(&format!("write {path}")))
    }

    /// What the token may do at each of these paths: `read`, `update` and the like; `root` is everything.
    ///
    /// # Errors
    /// Denied (exit 4) when it may not even ask, which the policy `default` allows; unavailable (exit 7).
    pub async fn capabilities(&self, paths: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
        let body = json!({ "paths": paths });
        let answer = self
            .ask(Method::POST, "sys/capabilities-self", Some(&body))
            .await?;
        let found: BTreeMap<String, Value> = answer.data("ask what the token may do")?;
        Ok(paths
            .iter()
            .map(|path| {
                let capabilities = found
                    .get(path)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                (path.clone(), capabilities)
            })
            .collect())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = match body {
            Some(document) => Body::Bytes(document.to_string().into()),
            None => Body::Empty,
        };
        // What is written is looked at again, so a write whose answer was lost is not repeated.
        let repeat = if method == Method::GET {
            Repeat::Safe
        } else {
            Repeat::Unsafe
        };
        self.vault()
            .send(method, self.vault().url(path)?, Some(self.token()), body, repeat)
            .await
    }
}

impl Answer {
    fn data<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T> {
        if self.status != StatusCode::OK {
            return Err(self.refusal(what));
        }
        serde_json::from_slice::<Frame<T>>(&self.body)
            .map(|frame| frame.data)
            .map_err(|error| {
                // What serde says may quote the value it stumbled over.
                Failure::input(format!(
                    "the answer to {} is not the JSON that was expected, at line {}, column {}",
                    self.shown,
                    error.line(),
                    error.column()
                ))
            })
    }

    fn refusal(&self, what: &str) -> Failure {
        let failure = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::denied(format!("the token may not {what}"))
                    .hint("let one of its policies do that, or has it ended meanwhile? Then let the role's token_ttl be longer")
            }
            StatusCode::NOT_FOUND => Failure::not_found(format!("cannot {what}: there is nothing"))
                .hint("check --secret (TOWPATH_SECRET)"),
            StatusCode::BAD_REQUEST => Failure::input(format!("vault refuses to {what}")),
            status => Failure::unavailable(format!("{} is answered with {status}", self.shown))
                .hint("is the server sealed, overloaded or without a leader? Try again later"),
        };
        match words_of(self) {
            Some(words) => failure.because(words),
            None => failure,
        }
    }
}
