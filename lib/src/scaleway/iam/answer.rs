//! What IAM answers: keys, pages of them, and refusals.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::super::Field;
use super::{ApiKey, Bearer};
use crate::failure::{Failure, Result};
use crate::http::{Response, StatusCode};
use crate::secret::Secret;

/// No answer that we ask for is anywhere near this many bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// The type of a refusal for a quota, which has no status of its own (SDK, `scw/errors.go`).
const QUOTA: &str = "quotas_exceeded";
/// How much of the server's words is shown, in characters.
const WORDS: usize = 300;

#[derive(Deserialize)]
pub(super) struct RawKey {
    access_key: String,
    #[serde(default, deserialize_with = "secret")]
    secret_key: Option<Secret>,
    #[serde(default)]
    application_id: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(deserialize_with = "timestamp")]
    created_at: Timestamp,
    #[serde(default, deserialize_with = "perhaps_timestamp")]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    default_project_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawPage {
    pub(super) api_keys: Vec<RawKey>,
    pub(super) total_count: usize,
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<serde_json::Value>,
}

impl RawKey {
    pub(super) fn read(self) -> Result<(ApiKey, Option<Secret>)> {
        // Some servers write nothing as an empty text.
        let named = |id: Option<String>| id.filter(|id| !id.is_empty());
        let bearer = match (named(self.application_id), named(self.user_id)) {
            (Some(id), None) => Bearer::Application(id),
            (None, Some(id)) => Bearer::User(id),
            _ => {
                return Err(Failure::input(format!(
                    "scaleway names no single bearer of the API key {}",
                    self.access_key
                )));
            }
        };
        if !Field::AccessKey.accepts(&self.access_key) {
            return Err(Failure::input("scaleway names an API key as none is called"));
        }
        let key = ApiKey {
            access_key: self.access_key,
            bearer,
            description: self.description,
            created_at: self.created_at,
            expires_at: self.expires_at,
            default_project_id: self.default_project_id.filter(|id| !id.is_empty()),
        };
        Ok((key, self.secret_key))
    }
}

pub(super) async fn read<T: serde::de::DeserializeOwned>(response: Response) -> Result<T> {
    let shown = response.shown().to_owned();
    let body = response.bytes(ANSWER_LIMIT).await?;
    serde_json::from_slice(&body).map_err(|error| {
        // What serde says may quote the value it stumbled over.
        Failure::input(format!(
            "the answer to {shown} is not the JSON that was expected, at line {}, column {}",
            error.line(),
            error.column()
        ))
        .hint("is --scw-api-url (SCW_API_URL) really that of Scaleway's API?")
    })
}

/// What a refusal means. Decided by the status; the server's words go along.
pub(super) async fn refused(response: Response, what: &str) -> Failure {
    let status = response.status();
    let shown = response.shown().to_owned();
    let body = response.bytes(ANSWER_LIMIT).await.unwrap_or_default();
    let said: Refusal = serde_json::from_slice(&body).unwrap_or_default();
    let failure = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            Failure::usage(format!("scaleway does not {what} like this"))
                .hint("if it is about the end: the organization limits how long a key lasts (--key-lifetime, --mint-for)")
        }
        StatusCode::UNAUTHORIZED => {
            Failure::denied(format!("scaleway does not {what}: it knows no such key"))
                .hint("the key that manages keys ended, was deleted, or is not known everywhere yet")
        }
        StatusCode::FORBIDDEN if said.kind == QUOTA => Failure::conflict(format!(
            "scaleway does not {what}: there are as many as there may be"
        ))
        .hint("delete keys of that bearer that nobody uses, or have the quota raised"),
        StatusCode::FORBIDDEN => Failure::denied(format!(
            "scaleway does not {what}: the key that asks may not"
        ))
        .hint("give its bearer the permission set IAMApplicationManager (IAMManager for keys of persons)"),
        StatusCode::NOT_FOUND => Failure::not_found(format!("scaleway cannot {what}: not found"))
            .hint("check the id of the bearer, and --scw-api-url (SCW_API_URL)"),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Failure::conflict(format!(
            "scaleway does not {what}: it conflicts with what is there"
        ))
        .hint("try again; another change may be under way"),
        StatusCode::LOCKED => Failure::denied(format!("scaleway does not {what}: it is locked"))
            .hint("ask Scaleway's support why the organization is"),
        _ => Failure::unavailable(format!("{shown} is answered with {status}"))
            .hint("try again later; is --scw-api-url (SCW_API_URL) right?"),
    };
    match words(&said) {
        Some(words) => failure.because(words),
        None => failure,
    }
}

fn words(said: &Refusal) -> Option<String> {
    let mut text = said.message.clone();
    for detail in said
        .details
        .iter()
        .filter_map(|details| details.as_array())
        .flatten()
    {
        for name in ["argument_name", "help_message", "reason", "resource", "action"] {
            if let Some(word) = detail.get(name).and_then(|word| word.as_str()) {
                text.push(' ');
                text.push_str(word);
            }
        }
    }
    let line: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS)
        .collect();
    (!line.is_empty()).then_some(line)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?
        .filter(|text| !text.is_empty())
        .map(Secret::new))
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(serde::de::Error::custom)
}

fn perhaps_timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(ids: &str) -> Result<Bearer> {
        let text =
            format!(r#"{{"access_key":"SCW1234567890ABCDEFG","created_at":"2026-11-21T14:00:00Z"{ids}}}"#);
        let key: RawKey = serde_json::from_str(&text).expect("a key");
        key.read().map(|(key, _)| key.bearer)
    }

    #[test]
    fn a_bearer_is_one_that_is_named() {
        let application = Bearer::Application("a".to_owned());
        for ids in [
            r#","application_id":"a""#,
            r#","application_id":"a","user_id":null"#,
            r#","application_id":"a","user_id":"""#,
        ] {
            assert_eq!(bearer(ids).expect(ids), application);
        }
        let user = bearer(r#","application_id":"","user_id":"u""#).expect("a user");
        assert_eq!(user, Bearer::User("u".to_owned()));
        for ids in [
            "",
            r#","application_id":"","user_id":"""#,
            r#","application_id":"a","user_id":"u""#,
        ] {
            assert!(bearer(ids).is_err(), "{ids}");
        }
    }
}
