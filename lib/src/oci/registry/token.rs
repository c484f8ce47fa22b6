//! The token server behind a registry.
//!
//! Sources: the distribution project's "Token Authentication Specification" for `GET`, "OAuth2 Token Authentication" for
//! `POST`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::scopes::Scopes;
use crate::failure::{Failure, Result};
use crate::http::{Client, Repeat, Request, StatusCode, Url, authority};
use crate::oci::Credential;
use crate::secret::Secret;

/// What the specification says a token lasts when its server does not, in seconds.
const DEFAULT_EXPIRY: u64 = 60;
/// No run is longer, so no token is kept for longer, whatever its server says.
const LONGEST_EXPIRY: u64 = 24 * 60 * 60;
/// A token server's answer is a few KiB.
const ANSWER_LIMIT: usize = 1024 * 1024;
const CLIENT_ID: &str = "towpath";

/// Where tokens for a registry are had.
#[derive(Clone, Debug)]
pub(super) struct TokenServer {
    pub(super) realm: Url,
    /// What it knows the registry as.
    pub(super) service: Option<String>,
}

/// What came of asking for a token.
#[derive(Debug)]
pub(super) enum Given {
    Token(Token),
    /// The server refuses, with this status and these words. Asking the same once more would be answered the same.
    Refused(String),
}

/// A token, as long as it counts.
#[derive(Debug)]
pub(super) struct Token {
    /// What it is used for.
    pub(super) scopes: Scopes,
    /// What it was asked for with.
    pub(super) words: Vec<String>,
    pub(super) value: TokenValue,
    stale: Instant,
}

/// What goes along with requests, and whether it was ever accepted. All copies know the latter.
#[derive(Clone, Debug)]
pub(super) struct TokenValue {
    pub(super) secret: Secret,
    accepted: Arc<AtomicBool>,
}

impl Token {
    /// Whether it runs out before it could arrive.
    pub(super) fn is_stale(&self) -> bool {
        self.stale <= Instant::now()
    }
}

impl TokenValue {
    pub(super) fn new(secret: Secret) -> Self {
        TokenValue {
            secret,
            accepted: Arc::default(),
        }
    }

    pub(super) fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Whoever asks for a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) client: &'a Client,
    /// The registry, as host and port.
    pub(super) endpoint: &'a str,
    pub(super) credential: Option<&'a Credential>,
    /// Where that came from.
    pub(super) origin: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    // Some give it as text.
    expires_in: Option<Value>,
}

impl Asker<'_> {
    /// Asks for a token with these scopes.
    ///
    /// # Errors
    /// Unavailable (exit 7) when the server cannot answer.
    pub(super) async fn token(
        &self,
        server: &TokenServer,
        scopes: &Scopes,
        words: Vec<String>,
    ) -> Result<Given> {
        let asked = Instant::now();
        // What needs the token may itself be what an upload under way waits for.
        let mut response = self.first_request(server, &words).urgent().send().await?;
        // A server that knows one of the two ways alone says so, and both are safe to repeat.
        if let Some(other) = self.other_request(server, &words, response.status()) {
            response = other.urgent().send().await?;
        }
        let status = response.status();
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            let said = super::refusal::said(response).await;
            return Ok(Given::Refused(format!("status {status}{said}")));
        }
        if !status.is_success() {
            return Err(Failure::unavailable(format!(
                "the token server {} of the registry {} cannot give a token (status {status})",
                authority(&server.realm),
                self.endpoint
            )));
        }
        let answer: Answer = response.json(ANSWER_LIMIT).await?;
        let lasts = lasts(answer.expires_in.as_ref());
        let value = answer
            .token
            .filter(|token| !token.is_empty())
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| {
                Failure::unavailable(format!(
                    "the token server {} of the registry {} gives no token",
                    authority(&server.realm),
                    self.endpoint
                ))
            })?;
        tracing::debug!(
            action = "token",
            object = self.endpoint,
            scope = words.join(" "),
            seconds = lasts.as_secs(),
            "got"
        );
        Ok(Given::Token(Token {
            scopes: scopes.clone(),
            words,
            value: TokenValue::new(Secret::new(value)),
            stale: asked + lasts,
        }))
    }

    fn first_request(&self, server: &TokenServer, words: &[String]) -> Request<'_> {
        match self.credential {
            Some(Credential::IdentityToken(token)) => self.post(
                server,
                words,
                &[("grant_type", "refresh_token"), ("refresh_token", token.expose())],
            ),
            _ => self.get(server, words),
        }
    }

    /// The other way to ask, after this answer to the first.
    fn other_request(
        &self,
        server: &TokenServer,
        words: &[String],
        status: StatusCode,
    ) -> Option<Request<'_>> {
        match self.credential {
            Some(Credential::Password { user, password })
                if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) =>
            {
                let form = [
                    ("grant_type", "password"),
                    ("username", user.as_str()),
                    ("password", password.expose()),
                ];
                Some(self.post(server, words, &form))
            }
            _ => None,
        }
    }

    fn get(&self, server: &TokenServer, words: &[String]) -> Request<'_> {
        let mut request = self.client.get(server.realm.clone());
        if let Some(service) = &server.service {
            request = request.query("service", service);
        }
        for word in words {
            request = request.query("scope", word);
        }
        match self.credential {
            Some(Credential::Password { user, password }) => request.basic(user, password),
            _ => request,
        }
    }

    fn post(&self, server: &TokenServer, words: &[String], grant: &[(&str, &str)]) -> Request<'_> {
        let scope = words.join(" ");
        let mut form = grant.to_vec();
        form.extend([("client_id", CLIENT_ID), ("scope", &scope)]);
        form.extend(server.service.as_deref().map(|service| ("service", service)));
        self.client
            .post(server.realm.clone())
            .form(&form)
            .repeat(Repeat::Safe)
    }

    /// The failure of a run that cannot do without a token for these words.
    pub(super) fn refused(&self, server: &TokenServer, why: &str, words: &[String]) -> Failure {
        let realm = authority(&server.realm);
        let endpoint = self.endpoint;
        let scope = words.join(" ");
        let failure = Failure::denied(format!(
            "the token server {realm} refuses a token for {endpoint} with scope {scope} ({why})"
        ));
        match self.origin {
            Some(origin) => failure.hint(format!(
                "check the user and password for {endpoint} (from {origin}), and what they may do there"
            )),
            None => failure.hint(super::errors::no_credential(endpoint)),
        }
    }
}

/// How long a token is used: a tenth of its time is left for the request that it goes along with.
fn lasts(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64().map(|seconds| seconds as u64),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let seconds = seconds.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_EXPIRY);
    Duration::from_secs(seconds.min(LONGEST_EXPIRY)).mul_f64(0.9)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_used_for_less_than_it_lasts() {
        for (said, seconds) in [
            (json!(300), 270),
            (json!("300"), 270),
            (json!(300.9), 270),
            (json!(10), 9),
            (json!(0), 54),
            (json!(-1), 54),
            (json!("soon"), 54),
            (json!(null), 54),
            (json!(1e300), 77_760),
        ] {
            assert_eq!(lasts(Some(&said)).as_secs(), seconds, "{said}");
        }
        assert_eq!(lasts(None).as_secs(), 54);
    }
}
