//! Credentials that the server ends by itself, unless they are renewed: reading, renewing and revoking them.
//!
//! Source: "Lease, renew, and revoke" in the concepts of Vault and OpenBao; API reference, "/sys/leases" (renew, revoke
//! with `sync`), "Token auth method", section "Renew a token (self)".

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::kv::texts;
use super::refusal::Asked;
use super::session::Auth;
use super::{Reading, Revocation, SecretPath, Session};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::{Repeat, StatusCode};

/// Credentials that a secrets engine made for us.
#[derive(Clone, Debug)]
pub struct Lease {
    id: String,
    path: SecretPath,
    term: Term,
}

/// For how long something is good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    pub(super) length: Duration,
    pub(super) renewable: bool,
    pub(super) since: Instant,
}

impl Term {
    pub(super) fn new(seconds: u64, renewable: bool) -> Self {
        /// A hundred years, in seconds. A clock cannot count to whatever a server may say.
        const LONGEST: u64 = 100 * 365 * 24 * 60 * 60;
        Term {
            length: Duration::from_secs(seconds.min(LONGEST)),
            renewable,
            since: Instant::now(),
        }
    }

    /// The time that is left; none when it never ends.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        (!self.length.is_zero()).then(|| (self.since + self.length).saturating_duration_since(now))
    }
}

impl Lease {
    /// The path that the credentials were read at.
    #[must_use]
    pub fn path(&self) -> &SecretPath {
        &self.path
    }

    /// How long the credentials are good for, counted from when they were made or last renewed.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.term.length
    }

    /// Whether the server lets it be prolonged at all.
    #[must_use]
    pub fn is_renewable(&self) -> bool {
        self.term.renewable
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }
}

/// The answer to a renewal of a lease.
#[derive(Deserialize)]
struct Renewed {
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    auth: Option<Auth>,
}

impl Session {
    /// Reads credentials that an engine makes at this moment, with the lease that they have; none when the engine gives
    /// them without one.
    ///
    /// # Errors
    /// Denied (exit 4) when the token may not read there; not found (exit 5) when there is nothing at the path; usage
    /// (exit 2) when the engine does not know the role; unavailable (exit 7) when it cannot make any now.
    pub async fn obtain(&self, path: &SecretPath) -> Result<(Reading, Option<Lease>)> {
        // Credentials whose answer got lost end with the token, if that is ours to end.
        let repeat = if self.is_issued() {
            Repeat::Safe
        } else {
            Repeat::Unsafe
        };
        let answer = self
            .vault()
            .get_as(path.as_str(), Some(self.token()), repeat)
            .await?;
        let asked = Asked::Obtain {
            path,
            policies: self.policies(),
        };
        let found = answer.read::<Map<String, Value>>(&asked)?;
        let data = found
            .data
            .ok_or_else(|| Failure::input(format!("the answer to {} holds no data", answer.shown)))?;
        let lease = (!found.lease_id.is_empty()).then(|| Lease {
            id: found.lease_id,
            path: path.clone(),
            term: Term::new(found.lease_duration, found.renewable),
        });
        Ok((Reading::new(None, texts(data)), lease))
    }

    /// Prolongs a lease.
    pub(super) async fn renew_lease(&self, lease: &Lease, deadline: Deadline) -> Result<Term> {
        let body = json!({"lease_id": lease.id, "increment": lease.term.length.as_secs()});
        let answer = self
            .vault()
            .with_deadline(deadline)
            .post("sys/leases/renew", &body, self.token(), Repeat::Safe)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(Asked::Renew.refused(&answer));
        }
        let renewed: Renewed = answer.parse()?;
        Ok(Term::new(renewed.lease_duration, renewed.renewable))
    }

    /// Prolongs the token.
    pub(super) async fn renew_token(&self, length: Duration, deadline: Deadline) -> Result<Term> {
        let body = json!({"increment": format!("{}s", length.as_secs())});
        let answer = self
            .vault()
            .with_deadline(deadline)
            .post("auth/token/renew-self", &body, self.token(), Repeat::Safe)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(Asked::Renew.refused(&answer));
        }
        let renewed: Renewed = answer.parse()?;
        let auth = renewed
            .auth
            .ok_or_else(|| Failure::input(format!("the answer to {} holds no token", answer.shown)))?;
        Ok(auth.term())
    }

    /// Ends a lease. The server answers once the credentials are gone, where the engine can be reached.
    ///
    /// # Errors
    /// Denied (exit 4) when the token may not, as with the policy `default` alone: then the lease ends with the token;
    /// unavailable (exit 7) when server or engine cannot do it now, which the server goes on trying.
    pub async fn revoke_lease(&self, lease: &Lease, deadline: Deadline) -> Result<Revocation> {
        let body = json!({"lease_id": lease.id, "sync": true});
        let answer = self
            .vault()
            .for_release(deadline)
            // A server that does not answer is not asked twice: the time is for ending the token, which ends this too.
            .post("sys/leases/revoke", &body, self.token(), Repeat::Unsafe)
            .await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(Revocation::Revoked),
            // With a well-formed request: no such lease.
            StatusCode::BAD_REQUEST => Ok(Revocation::Gone),
            _ => Err(Asked::RevokeLease { path: &lease.path }.refused(&answer)),
        }
    }
}
