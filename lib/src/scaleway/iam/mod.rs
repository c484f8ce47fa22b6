//! API keys in Scaleway's Identity and Access Management: make, look at, list, end and delete them.
//!
//! Source: Scaleway API reference, "IAM", section "API keys" (`/iam/v1alpha1/api-keys`, header `X-Auth-Token`);
//! Scaleway's Go SDK, `api/iam/v1alpha1`.
//!
//! IAM is eventually consistent, and not monotonic: requests reach servers that know different things, so a new key
//! answers 200, 403 and 200 again, and a deleted one may go on answering 200 for a while. A single answer proves
//! nothing; [`Iam::prove`] asks for several good ones in a row.

mod answer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use self::answer::{RawKey, RawPage, read, refused};
use super::Credentials;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::header::HeaderName;
use crate::http::{self, Client, Method, Response, StatusCode, Url};
use crate::secret::Secret;

/// Where the API is, unless another address is given.
pub const API_URL: &str = "https://api.scaleway.com";

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
/// The most keys that one page may hold.
const PAGE_SIZE: usize = 100;
/// More pages than any bearer has keys for.
const PAGES: usize = 100;
/// How many characters a key's description may have.
pub const DESCRIPTION_LIMIT: usize = 200;
/// How long to wait before asking again for a key that was made a moment ago.
const NEWS: Duration = Duration::from_secs(1);
/// Clocks that differ by less are taken to agree.
const CLOCKS: SignedDuration = SignedDuration::from_secs(5);
/// How often a refusal that may pass, or the absence of a key, is seen before it is believed.
const LOOKS: usize = 4;

/// IAM, as somebody whose key may manage others. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Iam {
    http: Client,
    address: Url,
    manager: Secret,
    /// Between two looks at something that may still be on its way.
    pause: Duration,
    /// By how much its clock is ahead of ours.
    ahead: Arc<Mutex<SignedDuration>>,
}

/// Who acts with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// An application, by its id.
    Application(String),
    /// A person, by their id.
    User(String),
}

impl Bearer {
    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Bearer::Application(id) | Bearer::User(id) => id,
        }
    }
}

/// A key as IAM describes it, without its secret half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public half, and its name.
    pub access_key: String,
    /// Who acts with it.
    pub bearer: Bearer,
    /// What somebody said it is for.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself, if ever.
    pub expires_at: Option<Timestamp>,
    /// The project that Object Storage takes for it.
    pub default_project_id: Option<String>,
}

/// What a new key is to be.
#[derive(Clone, Debug, Serialize)]
pub struct NewApiKey<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    application_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_project_id: Option<&'a str>,
}

impl<'a> NewApiKey<'a> {
    /// A key for `bearer`, said to be for `description`, which is cut to what IAM takes by the caller.
    #[must_use]
    pub fn of(bearer: &'a Bearer, description: &'a str) -> Self {
        let (application_id, user_id) = match bearer {
            Bearer::Application(id) => (Some(id.as_str()), None),
            Bearer::User(id) => (None, Some(id.as_str())),
        };
        NewApiKey {
            application_id,
            user_id,
            description,
            expires_at: None,
            default_project_id: None,
        }
    }

    /// Lets it end by itself.
    #[must_use]
    pub fn ending(mut self, at: Option<Timestamp>) -> Self {
        self.expires_at = at.map(|at| at.to_string());
        self
    }

    /// Names the project that Object Storage takes for it.
    #[must_use]
    pub fn in_project(mut self, project_id: Option<&'a str>) -> Self {
        self.default_project_id = project_id;
        self
    }
}

/// Why no key came of asking for one.
#[derive(Debug)]
pub struct NotMade {
    /// What went wrong.
    pub failure: Failure,
    /// Whether there may be a key all the same, whose secret half nobody knows.
    pub in_doubt: bool,
}

/// How a key is proven.
#[derive(Clone, Debug)]
pub struct Proof {
    /// What is asked for with it: a path of the API that its bearer may read. None stands for the key's own entry.
    pub path: Option<String>,
    /// How many good answers in a row are believed.
    pub successes: u32,
    /// How long that may take.
    pub within: Duration,
    /// The time between two questions.
    pub pause: Duration,
}

impl Iam {
    /// IAM at `address` (see [`API_URL`]), asked with the secret half of a key that may manage keys.
    ///
    /// # Errors
    /// Denied (exit 4) for plain http to another machine; usage (exit 2) when the address carries credentials.
    pub fn new(http: Client, address: Url, manager: Secret) -> Result<Self> {
        http.check_url(&address)?;
        Ok(Iam {
            http,
            address,
            manager,
            pause: Duration::from_millis(500),
            ahead: Arc::default(),
        })
    }

    /// What time it is by the clock that says when keys are made and end, as far as IAM has answered yet. Ours may be wrong,
    /// or be set meanwhile.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::now()
            .saturating_add(ahead)
            .unwrap_or_else(|_| Timestamp::now())
    }

    fn note_clock(&self, response: &Response) {
        let Some(theirs) = response
            .header(&http::header::DATE)
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        else {
            return;
        };
        let ahead = theirs.timestamp().duration_since(Timestamp::now());
        let mut known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        // It tells whole seconds, and has come some way: what differs by less says nothing.
        if (ahead - *known).abs() > CLOCKS {
            *known = ahead;
        }
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        http::authority(&self.address)
    }

    /// The same under another deadline, for cleaning up when the run's own time is over.
    #[must_use]
    pub fn with_deadline(&self, deadline: Deadline) -> Self {
        Iam {
            http: self.http.with_deadline(deadline),
            ..self.clone()
        }
    }

    /// The same with another time between two looks at what may still be on its way.
    #[must_use]
    pub fn with_pause(&self, pause: Duration) -> Self {
        Iam {
            pause,
            ..self.clone()
        }
    }

    /// Makes a key. Its secret half is told this once, so a key whose answer is lost is of no use to anybody, and this
    /// is not repeated unless IAM surely made none.
    ///
    /// # Errors
    /// Denied (exit 4) when the manager may not make keys for that bearer; usage (exit 2) when IAM does not take what
    /// the key is to be, such as an end beyond the organization's limit; conflict (exit 6) when the bearer has as many
    /// keys as it may; unavailable (exit 7); input (exit 3) when the answer cannot be read.
    pub async fn create(&self, new: &NewApiKey<'_>) -> Result<(ApiKey, Secret), NotMade> {
        let asked = self
            .ask(|| Ok(self.http.post(self.url("iam/v1alpha1/api-keys")?).json(new)))
            .await;
        let response = match asked {
            Ok(response) => response,
            Err(failure) => {
                let never_arrived = std::error::Error::source(&failure)
                    .and_then(|source| source.downcast_ref::<http::Unanswered>())
                    .is_some_and(http::Unanswered::never_arrived);
                let in_doubt = !never_arrived;
                return Err(NotMade { failure, in_doubt });
            }
        };
        if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            let in_doubt = !response.status().is_client_error();
            let failure = refused(response, "make an API key").await;
            return Err(NotMade { failure, in_doubt });
        }
        let unreadable = |failure| NotMade {
            failure,
            in_doubt: true,
        };
        let shown = response.shown().to_owned();
        let raw = read::<RawKey>(response).await.map_err(unreadable)?;
        match raw.read().map_err(unreadable)? {
            (key, Some(secret)) => Ok((key, secret)),
            (_, None) => Err(unreadable(Failure::input(format!(
                "the answer to {shown} holds no secret key"
            )))),
        }
    }

    /// Deletes a key that may have been made though nobody knows its name, by the description that no other key has. Looks
    /// for it until this client's time is up, and says what it was called.
    ///
    /// # Errors
    /// Denied (exit 4) when the manager may not; unavailable (exit 7).
    pub async fn delete_lost(&self, bearer: &Bearer, description: &str) -> Result<Option<String>> {
        loop {
            let keys = self.list(bearer).await?;
            if let Some(lost) = keys.into_iter().find(|key| key.description == description) {
                self.delete_new(&lost.access_key).await?;
                return Ok(Some(lost.access_key));
            }
            if self.http.deadline().remaining() <= NEWS {
                return Ok(None);
            }
            tokio::time::sleep(NEWS).await;
        }
    }

    /// Looks at a key; none when IAM says several times that it does not know it.
    ///
    /// # Errors
    /// Denied (exit 4) when the manager may not see it; unavailable (exit 7).
    pub async fn get(&self, access_key: &str) -> Result<Option<ApiKey>> {
        let response = self.ask_until_found(|| self.key(Method::GET, access_key)).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(read::<RawKey>(response).await?.read()?.0)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(response, &format!("show the API key {access_key}")).await),
        }
    }

    /// All keys of a bearer. Each server leaves out what it has not heard of yet, so several are asked, and a key is there
    /// that any of them knows.
    ///
    /// # Errors
    /// Denied (exit 4) when the manager may not see them; unavailable (exit 7).
    pub async fn list(&self, bearer: &Bearer) -> Result<Vec<ApiKey>> {
        let mut keys = Vec::new();
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(self.pause).await;
            }
            self.add_pages(bearer, &mut keys).await?;
        }
        Ok(keys)
    }

    async fn add_pages(&self, bearer: &Bearer, keys: &mut Vec<ApiKey>) -> Result<()> {
        for page in 1..=PAGES {
            let response = self
                .ask(|| {
                    Ok(self
                        .http
                        .get(self.url("iam/v1alpha1/api-keys")?)
                        .query("bearer_id", bearer.id())
                        .query("order_by", "created_at_asc")
                        .query("page", &page.to_string())
                        .query("page_size", &PAGE_SIZE.to_string()))
                })
                .await?;
            if response.status() != StatusCode::OK {
                return Err(refused(response, "list API keys").await);
            }
            let found: RawPage = read(response).await?;
            let last = found.api_keys.len() < PAGE_SIZE;
            for raw in found.api_keys {
                let key = raw.read()?.0;
                if !keys.iter().any(|known| known.access_key == key.access_key) {
                    keys.push(key);
                }
            }
            if last || page * PAGE_SIZE >= found.total_count {
                break;
            }
        }
        Ok(())
    }

    /// Gives a key an end. False when IAM says several times that it does not know it (any more).
    ///
    /// # Errors
    /// Denied (exit 4) when the manager may not; usage (exit 2) when IAM does not take that end; unavailable (exit 7).
    pub async fn end_at(&self, access_key: &str, at: Timestamp) -> Result<bool> {
        let response = self
            .ask_until_found(|| {
                Ok(self
                    .key(Method::PATCH, access_key)?
                    .json(&serde_json::json!({ "expires_at": at.to_string() }))
                    // The same end twice is the same end.
                    .repeat(http::Repeat::Safe))
            })
            .await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(response, &format!("give the API key {access_key} an end")).await),
        }
    }

    /// Deletes a key. False when IAM says several times that it does not know it (any more).
    ///
    /// # Errors
    /// Denied (exit 4) when the manager may not; unavailable (exit 7).
    pub async fn delete(&self, access_key: &str) -> Result<bool> {
        let response = self
            .ask_until_found(|| self.key(Method::DELETE, access_key))
            .await?;
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(response, &format!("delete the API key {access_key}")).await),
        }
    }

    /// Deletes a key that was made a moment ago, which IAM may not know everywhere yet: that it does not know it is believed
    /// only when this client's time is up.
    ///
    /// # Errors
    /// As [`Iam::delete`]; unavailable (exit 7) when IAM goes on not knowing it.
    pub async fn delete_new(&self, access_key: &str) -> Result<()> {
        while !self.delete(access_key).await? {
            if self.http.deadline().remaining() <= NEWS {
                return Err(Failure::unavailable(format!(
                    "IAM does not know the API key {access_key}, which it made a moment ago"
                ))
                .hint("look for it in the console later, and delete it there"));
            }
            tokio::time::sleep(NEWS).await;
        }
        Ok(())
    }

    /// Uses a key until it was good several times in a row, and says how many requests that took.
    ///
    /// # Errors
    /// Unsuccessful (exit 8) when it was not within the bound; unavailable (exit 7) when the API cannot be asked.
    pub async fn prove(&self, access_key: &str, secret_key: &Secret, proof: &Proof) -> Result<u32> {
        let bound = self.http.deadline().within(proof.within);
        let path = match &proof.path {
            Some(path) => path.clone(),
            None => format!("iam/v1alpha1/api-keys/{access_key}"),
        };
        let url = self.url(&path)?;
        let (mut asked, mut row) = (0, 0);
        let mut last = StatusCode::OK;
        loop {
            let response = self
                .http
                .get(url.clone())
                .secret_header(TOKEN, secret_key)
                .send()
                .await?;
            asked += 1;
            match response.status() {
                status if status.is_success() => row += 1,
                // What a server answers that has not heard of the key yet, or of what its bearer may do.
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                    row = 0;
                    last = status;
                }
                _ => {
                    return Err(refused(response, &format!("answer for the new API key {access_key}")).await);
                }
            }
            if row >= proof.successes {
                return Ok(asked);
            }
            if bound.remaining() <= proof.pause {
                return Err(Failure::unsuccessful(format!(
                    "the new API key {access_key} was not good {} times in a row within {} s ({asked} requests, the last refusal {last})",
                    proof.successes,
                    proof.within.as_secs()
                ))
                .hint(format!(
                    "may its bearer read /{path}? Name a path of the API that it may read, or wait longer"
                )));
            }
            tokio::time::sleep(proof.pause).await;
        }
    }

    fn key(&self, method: Method, access_key: &str) -> Result<http::Request<'_>> {
        let url = self.url(&format!("iam/v1alpha1/api-keys/{access_key}"))?;
        Ok(self.http.request(method, url))
    }

    /// Asks as the manager. The manager's key may be new as well, so that a server has not heard of it yet, or of what
    /// it may do; and what is being changed can be asked for in a moment. Whoever is refused has changed nothing.
    async fn ask<'a>(&'a self, request: impl Fn() -> Result<http::Request<'a>>) -> Result<Response> {
        let mut looks = 1;
        loop {
            let response = request()?.secret_header(TOKEN, &self.manager).send().await?;
            self.note_clock(&response);
            let passes = matches!(
                response.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::CONFLICT
            );
            if !passes || looks >= LOOKS {
                return Ok(response);
            }
            looks += 1;
            tokio::time::sleep(self.pause).await;
        }
    }

    /// The same about a key that some servers may not have heard of yet.
    async fn ask_until_found<'a>(
        &'a self,
        request: impl Fn() -> Result<http::Request<'a>>,
    ) -> Result<Response> {
        let mut looks = 1;
        loop {
            let response = self.ask(&request).await?;
            if response.status() != StatusCode::NOT_FOUND || looks >= LOOKS {
                return Ok(response);
            }
            looks += 1;
            tokio::time::sleep(self.pause).await;
        }
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.address
            .join(path.trim_start_matches('/'))
            .map_err(|error| Failure::usage(format!("{path:?} is no path of Scaleway's API")).because(error))
    }
}

impl Credentials {
    /// The same defaults with another key.
    ///
    /// # Errors
    /// Input (exit 3) when the key is malformed.
    pub fn with_key(&self, access_key: &str, secret_key: &Secret) -> Result<Self> {
        Credentials::gather("the new API key", |field| match field {
            super::Field::AccessKey => Some(access_key),
            super::Field::SecretKey => Some(secret_key.expose()),
            other => self
                .defaults()
                .find(|(name, _)| *name == other)
                .map(|(_, text)| text),
        })
    }
}
