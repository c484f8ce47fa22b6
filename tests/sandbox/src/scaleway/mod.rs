//! Stands in for Scaleway's IAM as far as API keys go (`/iam/v1alpha1/api-keys`).
//!
//! Documented behaviour kept (API reference, "IAM", section "API keys"; the Go SDK's `errors.go`): the header
//! `X-Auth-Token` with a key's secret half; a key is borne by one application or one user, and may do what its bearer
//! may; `secret_key` is told once, by the creation; `description` of 200 characters at most; `expires_at` in the future
//! and, where the organization says so, not beyond its longest; a key past its end is as good as unknown; lists are
//! filtered by `bearer_id`, `description` and `expired`, ordered, and in pages of 1 to 100; nobody makes keys for another
//! user, whatever they may do; its clock is told in the header `Date`; standard errors with `type`: 400
//! `invalid_arguments`, 401 `denied_authentication`, 403 `permissions_denied`, 403 `quotas_exceeded`, 404 `not_found`,
//! 409 `transient_state`, 429 `too_many_requests`.
//!
//! Eventual consistency, which is documented by what Scaleway's Terraform provider works around: several servers with
//! caches of their own answer in turns. A new key is known to some of them first, so it is good, refused and good again
//! for its first requests; a deleted one goes on being listed, found and good for a while on others. Which request meets
//! which server comes from a seed, and how long that lasts is counted in requests, so that tests are deterministic.
//!
//! Departures: no TLS, no other permissions than managing keys and reading, no time passes but the machine's. Absent:
//! everything else.

mod api;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::loopback;
use state::Shared;

pub use state::{ApiKey, Busy, Settings};

/// The stand-in. It ends when this is dropped.
pub struct Iam {
    server: loopback::Server,
    shared: Arc<Shared>,
}

impl Iam {
    /// Starts it, with nothing in it.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::new(settings));
        let router = Router::new()
            .route("/iam/v1alpha1/api-keys", get(api::list).post(api::create))
            .route(
                "/iam/v1alpha1/api-keys/{access_key}",
                get(api::show).patch(api::update).delete(api::delete),
            )
            .fallback(api::elsewhere)
            .layer(axum::middleware::map_response_with_state(
                shared.clone(),
                api::dated,
            ))
            .with_state(shared.clone());
        let server = loopback::Server::start(|_| router).await?;
        Ok(Self { server, shared })
    }

    /// The base URL, without a slash at the end: what `SCW_API_URL` holds.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Makes an application and gives back its id. `manages` lets it manage keys, `reads` look at them.
    pub fn create_application(&self, manages: bool, reads: bool) -> String {
        self.shared.state().create_application(manages, reads)
    }

    /// Makes a key for an application, known everywhere at once.
    ///
    /// # Panics
    /// When there is no such application.
    pub fn create_key(&self, application_id: &str, description: &str) -> ApiKey {
        self.shared
            .state()
            .create_settled_key(application_id, description)
    }

    /// All keys that are there, whatever the caches say, oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<ApiKey> {
        self.shared.state().keys()
    }

    /// Deletes a key behind everybody's back, everywhere at once.
    pub fn forget(&self, access_key: &str) {
        self.shared.state().forget(access_key);
    }

    /// Moves a key's creation and end back by so many seconds, as if that time had passed.
    pub fn age(&self, access_key: &str, seconds: i64) {
        self.shared.state().age(access_key, seconds);
    }

    /// Sets its clock so many seconds ahead of this machine's.
    pub fn set_clock(&self, ahead: i64) {
        self.shared.state().set_clock(ahead);
    }

    /// Whether a secret half is that of a key that is there and has not ended.
    #[must_use]
    pub fn is_good(&self, secret_key: &str) -> bool {
        self.shared.state().is_good(secret_key)
    }

    /// Turns the next so many requests away.
    pub fn refuse_next(&self, busy: Busy, requests: u32) {
        self.shared.state().refuse_next(busy, requests);
    }

    /// Lets everything be known everywhere.
    pub fn settle(&self) {
        self.shared.state().settle();
    }
}
