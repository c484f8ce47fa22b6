//! Accounts, their API tokens and what each may do.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde_json::json;

use super::refusal::Refusal;
use crate::jwt::{Signer, TokenError};
use crate::kubernetes::new_uid;

/// What an account may do with applications, in every project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: its tokens are known, and see no application.
    Nothing,
    /// `applications, get`: look, and ask for a refresh (which is a look, too).
    Read,
    /// `applications, get` and `applications, sync`.
    Sync,
}

/// The accounts of the server.
pub(super) struct Accounts {
    signer: Signer,
    access: Mutex<BTreeMap<String, Access>>,
}

/// Who makes a request.
pub(super) struct Caller {
    pub(super) account: String,
    pub(super) access: Access,
    issued_at: String,
}

impl Accounts {
    pub(super) fn new() -> Accounts {
        Accounts {
            signer: Signer::generate("argocd"),
            access: Mutex::default(),
        }
    }

    pub(super) fn mint(&self, account: &str, access: Access, lifetime: Duration) -> String {
        let mut known = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(account.to_owned(), access);
        let now = jiff::Timestamp::now().as_second();
        self.signer.sign(&json!({
            "iss": "argocd",
            "sub": format!("{account}:apiKey"),
            "exp": now.saturating_add_unsigned(lifetime.as_secs()),
            "nbf": now,
            "iat": now,
            "jti": new_uid(),
        }))
    }

    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let header = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let token = header.strip_prefix("Bearer ").unwrap_or(header).trim();
        if token.is_empty() {
            return Err(Refusal::unauthenticated("no session information"));
        }
        let claims = self.signer.verify(token).map_err(|error| {
            Refusal::unauthenticated(match error {
                TokenError::Malformed => {
                    "invalid session: token is malformed: token contains an invalid number of segments"
                }
                TokenError::UnknownKey | TokenError::WrongSignature => {
                    "invalid session: token signature is invalid: signature is invalid"
                }
                TokenError::Expired => "invalid session: token has invalid claims: token is expired",
                TokenError::NotYetValid => {
                    "invalid session: token has invalid claims: token is not valid yet"
                }
            })
        })?;
        let subject = claims["sub"].as_str().unwrap_or_default();
        let account = subject.strip_suffix(":apiKey").unwrap_or(subject);
        let access = self
            .access
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(account)
            .copied();
        let access =
            access.ok_or_else(|| Refusal::unauthenticated("invalid session: account does not exist"))?;
        let issued_at = claims["iat"]
            .as_i64()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        Ok(Caller {
            account: account.to_owned(),
            access,
            issued_at: issued_at.map_or_else(String::new, |time| time.to_string()),
        })
    }
}

impl Caller {
    /// Whether it sees applications at all.
    pub(super) fn may_look(&self) -> bool {
        self.access != Access::Nothing
    }

    /// Refuses a sync to who may not, in the words of the real one.
    pub(super) fn may_sync(&self, project: &str, application: &str) -> Result<(), Refusal> {
        match self.access {
            Access::Sync => Ok(()),
            Access::Read | Access::Nothing => Err(Refusal::denied(format!(
                "permission denied: applications, sync, {project}/{application}, sub: {}, iat: {}",
                self.account, self.issued_at
            ))),
        }
    }
}
