//! One login at one registry: what it asks for, and the tokens we have for it.
//!
//! Source: the distribution project's "Token Authentication Specification" and "OAuth2 Token Authentication".
//!
//! The first request goes out bare and finds out what the registry asks for; the others wait for that, so there is no
//! separate ping and no burst of 401s. A token is asked for with every scope that the run is known to need, once, and
//! again shortly before it expires.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::challenge::{self, Challenge};
use crate::failure::{Failure, Kind, Result};
use crate::http::{Client, Request, Response, StatusCode, Url, authority, header, is_loopback};
use crate::oci::Credential;
use crate::secret::Secret;

/// What the specification says a token lasts when its server does not.
const DEFAULT_EXPIRY: u64 = 60;
/// No run is longer, so no token is kept for longer, whatever its server says.
const LONGEST_EXPIRY: u64 = 24 * 60 * 60;
/// A token server's answer is a few KiB.
const ANSWER_LIMIT: usize = 1024 * 1024;
const CLIENT_ID: &str = "towpath";

/// What a request does to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reads.
    Pull,
    /// Reads and writes.
    Push,
}

/// Access to repositories, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeMap<String, Access>);

impl Scopes {
    pub(super) fn of(repository: &str, access: Access) -> Self {
        Scopes(BTreeMap::from([(repository.to_owned(), access)]))
    }

    pub(super) fn and(mut self, other: &Scopes) -> Self {
        for (repository, access) in &other.0 {
            let held = self.0.entry(repository.clone()).or_insert(*access);
            *held = (*held).max(*access);
        }
        self
    }

    fn covers(&self, other: &Scopes) -> bool {
        other
            .0
            .iter()
            .all(|(repository, access)| self.0.get(repository).is_some_and(|held| held >= access))
    }

    /// As the token server reads them, and as messages show them.
    pub(super) fn words(&self) -> Vec<String> {
        let word = |(repository, access): (&String, &Access)| match access {
            Access::Pull => format!("repository:{repository}:pull"),
            Access::Push => format!("repository:{repository}:pull,push"),
        };
        self.0.iter().map(word).collect()
    }
}

/// One login at one registry. Shared by all repositories that use it.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    endpoint: String,
    /// Whether the user allowed plain http to this registry.
    plain_http: bool,
    credential: Option<Credential>,
    scheme: Mutex<Scheme>,
    expected: std::sync::Mutex<Scopes>,
}

#[derive(Debug)]
enum Scheme {
    Unknown,
    Open,
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
        tokens: Vec<Token>,
    },
}

#[derive(Debug)]
struct Token {
    scopes: Scopes,
    value: Secret,
    stale: Instant,
}

/// What a request is authenticated with.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Nothing,
    Password { user: String, password: Secret },
    Token(Secret),
}

impl Proof {
    pub(super) fn on<'a>(&self, request: Request<'a>) -> Request<'a> {
        match self {
            Proof::Nothing => request,
            Proof::Password { user, password } => request.basic(user, password),
            Proof::Token(token) => request.bearer(token),
        }
    }
}

impl Session {
    pub(super) fn new(
        client: Client,
        endpoint: &str,
        plain_http: bool,
        credential: Option<Credential>,
    ) -> Self {
        Session {
            client,
            endpoint: endpoint.to_owned(),
            plain_http,
            credential,
            scheme: Mutex::new(Scheme::Unknown),
            expected: std::sync::Mutex::new(Scopes::default()),
        }
    }

    pub(super) fn is(&self, endpoint: &str, credential: Option<&Credential>) -> bool {
        self.endpoint == endpoint && self.credential.as_ref() == credential
    }

    pub(super) fn has_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// Says which scopes this run is going to need, so that one token serves them all.
    pub(super) fn expect(&self, scopes: &Scopes) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        *expected = std::mem::take(&mut *expected).and(scopes);
    }

    /// Sends a request, built anew for each try, with what the registry asks for.
    ///
    /// # Errors
    /// As [`Request::send`]; denied (exit 4) when the token server refuses. A 401 that cannot be met is an answer.
    pub(super) async fn send<'a>(
        &self,
        needed: &Scopes,
        build: impl Fn() -> Request<'a>,
    ) -> Result<Response> {
        {
            let mut scheme = self.scheme.lock().await;
            if matches!(*scheme, Scheme::Unknown) {
                let response = build().send().await?;
                if response.status() != StatusCode::UNAUTHORIZED {
                    *scheme = Scheme::Open;
                    return Ok(response);
                }
                match self.scheme_for(&response)? {
                    Some(asked) => *scheme = asked,
                    None => return Ok(response),
                }
            }
        }
        let mut tried_again = false;
        loop {
            let proof = self.proof(needed).await?;
            let response = proof.on(build()).send().await?;
            let again = response.status() == StatusCode::UNAUTHORIZED
                && !tried_again
                && self.reconsider(&proof, &response).await?;
            if !again {
                return Ok(response);
            }
            tried_again = true;
        }
    }

    /// What to show for these scopes, by what the registry asked for so far.
    ///
    /// # Errors
    /// Denied (exit 4) when the token server refuses.
    pub(super) async fn proof(&self, needed: &Scopes) -> Result<Proof> {
        let mut scheme = self.scheme.lock().await;
        match &mut *scheme {
            Scheme::Unknown | Scheme::Open => Ok(Proof::Nothing),
            Scheme::Basic => Ok(match &self.credential {
                Some(Credential::Password { user, password }) => Proof::Password {
                    user: user.clone(),
                    password: password.clone(),
                },
                _ => Proof::Nothing,
            }),
            Scheme::Bearer {
                realm,
                service,
                tokens,
            } => {
                if let Some(Credential::RegistryToken(token)) = &self.credential {
                    return Ok(Proof::Token(token.clone()));
                }
                let now = Instant::now();
                tokens.retain(|token| token.stale > now);
                if let Some(token) = tokens.iter().find(|token| token.scopes.covers(needed)) {
                    return Ok(Proof::Token(token.value.clone()));
                }
                let token = self.fetch_token(realm, service.as_deref(), needed).await?;
                let value = token.value.clone();
                tokens.push(token);
                Ok(Proof::Token(value))
            }
        }
    }

    /// Whether another try with something else can help after a 401.
    pub(super) async fn reconsider(&self, proof: &Proof, response: &Response) -> Result<bool> {
        let mut scheme = self.scheme.lock().await;
        match (proof, &mut *scheme) {
            // What is open for reading may ask for a login when written to.
            (Proof::Nothing, Scheme::Unknown | Scheme::Open) => Ok(match self.scheme_for(response)? {
                Some(asked) => {
                    *scheme = asked;
                    true
                }
                None => false,
            }),
            (Proof::Nothing, _) => Ok(true),
            (Proof::Token(refused), Scheme::Bearer { tokens, .. }) => {
                let before = tokens.len();
                tokens.retain(|token| token.value != *refused);
                Ok(tokens.len() < before)
            }
            _ => Ok(false),
        }
    }

    fn scheme_for(&self, response: &Response) -> Result<Option<Scheme>> {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        for challenge in challenge::parse(headers.iter().filter_map(|value| value.to_str().ok())) {
            match challenge {
                Challenge::Basic if matches!(self.credential, Some(Credential::Password { .. })) => {
                    return Ok(Some(Scheme::Basic));
                }
                Challenge::Basic => {}
                Challenge::Bearer { realm, service } => {
                    return Ok(Some(Scheme::Bearer {
                        realm: self.check_realm(&realm)?,
                        service,
                        tokens: Vec::new(),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The registry names the address that gets our password, so a registry behind TLS must name one behind TLS.
    fn check_realm(&self, realm: &str) -> Result<Url> {
        let url = Url::parse(realm).map_err(|error| {
            Failure::unavailable(format!(
                "the registry {} names a token server that is no URL",
                self.endpoint
            ))
            .because(error)
        })?;
        // What listens on this machine's loopback is no business of a registry elsewhere.
        let stays_here = is_loopback(&url) && self.is_on_loopback();
        if url.scheme() == "http" && !stays_here && !self.plain_http {
            return Err(Failure::denied(format!(
                "the registry {} names a token server without TLS, {}",
                self.endpoint,
                authority(&url)
            ))
            .hint("ask the registry's operator to serve tokens over https"));
        }
        Ok(url)
    }

    fn is_on_loopback(&self) -> bool {
        Url::parse(&format!("http://{}/", self.endpoint)).is_ok_and(|url| is_loopback(&url))
    }

    async fn fetch_token(&self, realm: &Url, service: Option<&str>, needed: &Scopes) -> Result<Token> {
        let expected = self
            .expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let wide = expected.and(needed);
        match self.request_token(realm, service, &wide).await {
            // Some token servers refuse the whole when they refuse a part.
            Err(refused) if refused.kind() == Kind::Denied && wide != *needed => {
                match self.request_token(realm, service, needed).await {
                    // The part was not to blame, and the whole says more about what the run needs.
                    Err(again) if again.kind() == Kind::Denied => Err(refused),
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn request_token(&self, realm: &Url, service: Option<&str>, scopes: &Scopes) -> Result<Token> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let words = scopes.words();
        let asked = Instant::now();
        let request = if let Some(Credential::IdentityToken(token)) = &self.credential {
            let scope = words.join(" ");
            let mut form = vec![
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("scope", scope.as_str()),
                ("refresh_token", token.expose()),
            ];
            form.extend(service.map(|service| ("service", service)));
            self.client
                .post(realm.clone())
                .form(&form)
                .repeat(crate::http::Repeat::Safe)
        } else {
            let mut request = self.client.get(realm.clone());
            if let Some(service) = service {
                request = request.query("service", service);
            }
            for word in &words {
                request = request.query("scope", word);
            }
            match &self.credential {
                Some(Credential::Password { user, password }) => request.basic(user, password),
                _ => request,
            }
        };
        // What needs the token may itself be what an upload under way waits for.
        let response = request.urgent().send().await?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.token_refusal(realm, status, &words));
        }
        let answer: Answer = response.json(ANSWER_LIMIT).await?;
        let value = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| {
                Failure::unavailable(format!(
                    "the token server {} of the registry {} gives no token",
                    authority(realm),
                    self.endpoint
                ))
            })?;
        let expires_in = answer.expires_in.unwrap_or(DEFAULT_EXPIRY).min(LONGEST_EXPIRY);
        // A tenth of its time is left for the request that it goes along with.
        let lasts = Duration::from_secs(expires_in).mul_f64(0.9);
        Ok(Token {
            scopes: scopes.clone(),
            value: Secret::new(value),
            stale: asked + lasts,
        })
    }

    fn token_refusal(&self, realm: &Url, status: StatusCode, words: &[String]) -> Failure {
        let server = authority(realm);
        let endpoint = &self.endpoint;
        let scope = words.join(" ");
        match status.as_u16() {
            400..=499 if status != StatusCode::TOO_MANY_REQUESTS => {
                let failure = Failure::denied(format!(
                    "the token server {server} refuses a token for {endpoint} with scope {scope} (status {status})"
                ));
                if self.has_credential() {
                    failure.hint(format!(
                        "check the user and password for {endpoint}, and what they may do there"
                    ))
                } else {
                    failure.hint(super::errors::no_credential(endpoint))
                }
            }
            _ => Failure::unavailable(format!(
                "the token server {server} of the registry {endpoint} cannot give a token (status {status})"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_add_up_and_cover() {
        let pull = Scopes::of("team/app", Access::Pull);
        let push = Scopes::of("team/app", Access::Push);
        let both = pull.clone().and(&push).and(&Scopes::of("base", Access::Pull));
        assert!(push.covers(&pull) && !pull.covers(&push) && both.covers(&push));
        assert!(both.covers(&Scopes::default()) && !push.covers(&both));
        assert_eq!(
            both.words(),
            ["repository:base:pull", "repository:team/app:pull,push"]
        );
    }
}
