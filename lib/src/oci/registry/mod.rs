//! The client of container registries.
//!
//! Source: OCI Distribution Specification 1.1. [`Registries`] holds the connection pool, the logins and their tokens;
//! a [`Repository`] is one repository with the login that belongs to it, and has the calls.
//!
//! Deliberately absent: a ping of `/v2/` (the first request finds out what is asked for), chunked uploads (a blob
//! goes up in one stream, and what broke off goes on in another), and any decision about what to copy, which is
//! [`copy`](super::copy)'s.

mod auth;
mod blobs;
mod challenge;
mod errors;
mod manifests;
mod notices;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod reach;
mod referrers;
mod refusal;
mod scopes;
mod tags;
mod token;

use std::sync::{Arc, Mutex, PoisonError};

pub use self::auth::Access;
pub use self::blobs::{Begun, BlobStream, GoOn, Held, Setback, Upload};
pub use self::manifests::Pointer;
pub use self::reach::RegistrySettings;
pub(crate) use self::referrers::{HeldList, Listed, Lookout, read_list};
pub(crate) use self::tags::{DigestTag, digest_tags};

use self::auth::{Scopes, Session};
use self::reach::Reach;
use super::{Credentials, Reference};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::{Client, Url};

/// All registries of one run.
#[derive(Debug)]
pub struct Registries {
    reach: Reach,
    credentials: Credentials,
    sessions: Mutex<Vec<Arc<Session>>>,
}

impl Registries {
    /// Opens the connection pool. Nothing is sent yet.
    ///
    /// # Errors
    /// Usage (exit 2) when a file with certificates or a key cannot be used.
    pub fn new(settings: RegistrySettings, credentials: Credentials, deadline: Deadline) -> Result<Self> {
        Ok(Registries {
            reach: Reach::new(settings, deadline)?,
            credentials,
            sessions: Mutex::new(Vec::new()),
        })
    }

    /// The repository that a reference names, with its login. May run a credential helper; sends nothing.
    ///
    /// # Errors
    /// As [`Credentials::find`]; usage (exit 2) when the registry's own certificates cannot be used.
    pub async fn repository(&self, reference: &Reference) -> Result<Repository> {
        let way = self.reach.way(reference)?;
        let deadline = self.reach.usual().deadline();
        let login = self.credentials.find(reference, deadline).await?;
        let endpoint = reference.endpoint();
        let scheme = way.scheme;
        let base = Url::parse(&format!("{scheme}://{endpoint}/v2/{}/", reference.repository()))
            .map_err(|error| Failure::usage(format!("{reference} cannot be a URL")).because(error))?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions
            .iter()
            .find(|session| session.is(endpoint, login.as_ref()));
        let session = known.cloned().unwrap_or_else(|| {
            let outcome = match &login {
                Some(login) => format!("from {}", login.origin),
                None => "anonymous".to_owned(),
            };
            tracing::info!(action = "login", object = reference.name(), outcome);
            let session = Arc::new(Session::new(&way, endpoint, login));
            sessions.push(session.clone());
            session
        });
        let place = Place {
            client: way.client,
            session,
            reference: reference.clone().with_tag(None).with_digest(None),
            base,
        };
        Ok(Repository {
            place: Arc::new(place),
        })
    }

    /// How many requests went out so far, to token servers and after redirects too.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.reach.usual().requests_sent()
    }
}

/// One repository, with the login that belongs to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    client: Client,
    session: Arc<Session>,
    reference: Reference,
    base: Url,
}

impl Repository {
    /// Its name, without tag and digest.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.place.reference
    }

    /// The run's deadline.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.place.client.deadline()
    }

    /// Whether both are at one registry, so that blobs may be mounted from one to the other.
    #[must_use]
    pub fn shares_registry_with(&self, other: &Repository) -> bool {
        self.place.reference.endpoint() == other.place.reference.endpoint()
    }

    /// Whether they are the same repository.
    #[must_use]
    pub fn is_same_as(&self, other: &Repository) -> bool {
        self.place.reference == other.place.reference
    }

    /// Says that so many requests are about to be sent at once, so that connections can be opened for them.
    pub(crate) fn open_ahead(&self, count: usize) {
        if self.place.session.speaks_http1() {
            self.place.client.open_ahead(&self.place.base, count);
        }
    }

    /// Says what is going to be done here, so that one token can be asked for that serves all of it.
    pub fn expect(&self, access: Access) {
        self.place.session.expect(&self.scopes(access));
    }

    /// Says that blobs are going to be mounted from `other` at the same registry.
    pub fn expect_mounts_from(&self, other: &Repository) {
        self.place.session.expect(&other.scopes(Access::Pull));
    }

    /// Where the login came from, where there is one.
    fn login_origin(&self) -> Option<&str> {
        self.place.session.login_origin()
    }

    fn scopes(&self, access: Access) -> Scopes {
        Scopes::of(self.place.reference.repository(), access)
    }

    /// The address of something in this repository, such as `tags/list`.
    fn url(&self, path: &str) -> Result<Url> {
        // A digest's colon would make a path that begins with it an absolute URL, so it never does.
        self.place
            .base
            .join(path)
            .map_err(|error| Failure::internal(format!("{path} makes no URL")).because(error))
    }
}
