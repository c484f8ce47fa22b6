//! A login's token, and giving it back.
//!
//! Source: API reference, "Token auth method", section "Revoke a token (self)"; "Tokens", section "Token types": batch
//! tokens cannot be revoked, they only expire.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::time::Instant;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RevokeTokenSelfRequest};

use super::Vault;
use super::lease::Term;
use super::refusal::Asked;
use crate::failure::Result;
use crate::http::StatusCode;
use crate::secret::Secret;

/// What is good for less than this is not for long, unless it never is for longer.
const SOON: Duration = Duration::from_secs(30);

/// Being logged in. Whoever holds one gives it back with [`Session::revoke`]; dropping it cannot, since that asks the
/// server.
#[derive(Debug)]
pub struct Session {
    vault: Vault,
    token: Secret,
    policies: Vec<String>,
    /// As it was renewed last.
    term: Mutex<Term>,
    /// How many more requests the token is good for; zero when that is not limited.
    uses: u64,
    batch: bool,
    issued: bool,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The server ended it, and every lease that hung on it.
    Revoked,
    /// The server does not know it any more: it expired or was revoked before.
    Gone,
    /// It is a batch token, which nobody can revoke; it ends with its lease.
    Expires,
    /// It was given to us by somebody who may still need it.
    Kept,
    /// There never was one: the secret was read without.
    NeverIssued,
}

impl Revocation {
    /// The word for reports and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Revocation::Revoked => "revoked",
            Revocation::Gone => "gone",
            Revocation::Expires => "expires",
            Revocation::Kept => "kept",
            Revocation::NeverIssued => "none",
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The part `auth` of a login's answer.
#[derive(Deserialize)]
pub(super) struct Auth {
    #[serde(deserialize_with = "secret")]
    client_token: Secret,
    /// Absent when there are none.
    #[serde(default)]
    policies: Option<Vec<String>>,
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    num_uses: u64,
    #[serde(default)]
    token_type: String,
}

impl Auth {
    /// How long the token is good for, from now.
    pub(super) fn term(&self) -> Term {
        Term::new(self.lease_duration, self.renewable)
    }
}

/// What a token's own lookup says.
#[derive(Deserialize)]
pub(super) struct Lookup {
    #[serde(default)]
    policies: Option<Vec<String>>,
    /// Seconds; zero when the token never ends.
    ttl: u64,
    #[serde(default)]
    renewable: bool,
    /// Below zero for the last one.
    #[serde(default)]
    num_uses: i64,
    #[serde(default, rename = "type")]
    token_type: String,
}

impl Session {
    pub(super) fn issued(vault: Vault, auth: Auth) -> Self {
        Session {
            vault,
            term: Mutex::new(auth.term()),
            token: auth.client_token,
            policies: auth.policies.unwrap_or_default(),
            uses: auth.num_uses,
            batch: auth.token_type == "batch",
            issued: true,
        }
    }

    pub(super) fn given(vault: Vault, token: Secret, lookup: Lookup) -> Self {
        Session {
            vault,
            token,
            policies: lookup.policies.unwrap_or_default(),
            term: Mutex::new(Term::new(lookup.ttl, lookup.renewable)),
            uses: lookup.num_uses.unsigned_abs(),
            batch: lookup.token_type == "batch",
            issued: false,
        }
    }

    /// The server that issued the token.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// How long the token is good for, counted from the login or its last renewal; zero for one that never ends.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.term().length
    }

    /// Whether the token has ended, or is about to, so that it should be renewed, or another be got, before it is used.
    #[must_use]
    pub fn ends_soon(&self) -> bool {
        let term = self.term();
        term.left(Instant::now())
            .is_some_and(|left| left <= SOON.min(term.length / 3))
    }

    /// Renews the token now.
    ///
    /// # Errors
    /// Denied (exit 4) when it cannot be renewed or has ended; unavailable (exit 7) when the server cannot be asked.
    pub async fn renew(&self) -> Result<()> {
        let deadline = crate::deadline::Deadline::after(SOON);
        self.prolong(deadline).await.map(|_| ())
    }

    /// Renews the token, and notes until when it is good then.
    pub(super) async fn prolong(&self, deadline: crate::deadline::Deadline) -> Result<Term> {
        let term = self.renew_token(self.lease(), deadline).await?;
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = term;
        Ok(term)
    }

    /// How many requests the token was good for when it was got; zero when that is not limited.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Whether the token is from a login of ours, so that it is ours to end.
    #[must_use]
    pub fn is_issued(&self) -> bool {
        self.issued
    }

    pub(super) fn term(&self) -> Term {
        *self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policies that say what the token may do.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    pub(super) fn token(&self) -> &Secret {
        &self.token
    }

    /// Gives the token back, if this session's login issued it. It can be tried again after a failure.
    ///
    /// # Errors
    /// Unavailable (exit 7) or deadline (exit 9) when the server cannot be asked; then the token lives until its lease
    /// ends.
    pub async fn revoke(&self, deadline: crate::deadline::Deadline) -> Result<Revocation> {
        if !self.issued {
            return Ok(Revocation::Kept);
        }
        if self.batch {
            return Ok(Revocation::Expires);
        }
        self.vault.for_release(deadline).revoke_self(&self.token).await
    }
}

impl Vault {
    /// Ends a token that came from elsewhere. Ending it twice is no error.
    ///
    /// # Errors
    /// Denied (exit 4) when the token is valid but may not revoke itself; unavailable (exit 7) when the server cannot
    /// be asked.
    pub async fn revoke(&self, token: &Secret) -> Result<Revocation> {
        let outcome = self.revoke_self(token).await?;
        if outcome != Revocation::Gone {
            return Ok(outcome);
        }
        // The same 403 stands for a token that is gone and for one whose policies forbid it to revoke itself.
        let answer = self.call(LookupTokenSelfRequest::default(), Some(token)).await?;
        if answer.status == StatusCode::FORBIDDEN {
            return Ok(Revocation::Gone);
        }
        Err(Asked::Revoke.forbidden())
    }

    async fn revoke_self(&self, token: &Secret) -> Result<Revocation> {
        let answer = self.call(RevokeTokenSelfRequest::default(), Some(token)).await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(Revocation::Revoked),
            StatusCode::FORBIDDEN => Ok(Revocation::Gone),
            // With a well-formed request, the only reason is the type of the token.
            StatusCode::BAD_REQUEST => Ok(Revocation::Expires),
            _ => Err(Asked::Revoke.refused(&answer)),
        }
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_may_come_without_policies() {
        let auth: Auth = serde_json::from_str(
            r#"{"client_token":"s.canary-token\n","policies":null,"lease_duration":60}"#,
        )
        .expect("it is read");
        assert_eq!(auth.client_token.expose(), "s.canary-token");
        assert_eq!(auth.policies, None);
    }
}
