//! What a JSON Web Token says about itself, to explain a refused login.
//!
//! Source: RFC 7519, section 4.1; Kubernetes, "Managing Service Accounts", for the claim `kubernetes.io`; GitLab,
//! "ID token authentication". The signature is not checked: that is the server's part, and nothing here is trusted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::secret::Secret;

/// The claims that decide about a login. None of them is secret.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Claims {
    /// Who issued it.
    #[serde(default)]
    pub iss: Option<String>,
    /// Whom it speaks for: a service account, or project and ref of a GitLab job.
    #[serde(default)]
    pub sub: Option<String>,
    /// Whom it is meant for.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// When it ends, in seconds since the epoch.
    #[serde(default)]
    pub exp: Option<i64>,
    /// For a token of a Kubernetes service account: whose it is.
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: Option<KubernetesClaims>,
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct KubernetesClaims {
    /// The namespace that the account is in.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The account.
    #[serde(default)]
    pub serviceaccount: Option<NamedClaim>,
}

/// An object of Kubernetes that a token names.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct NamedClaim {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

impl Claims {
    /// Whether it had ended at `now`, in seconds since the epoch.
    #[must_use]
    pub fn expired(&self, now: i64) -> bool {
        self.exp.is_some_and(|exp| exp <= now)
    }

    /// The claims in a sentence fragment, with the expiry seen from `now`, in seconds since the epoch.
    #[must_use]
    pub fn text(&self, now: i64) -> String {
        let subject = self.sub.as_deref().unwrap_or("nobody in particular");
        let issuer = self.iss.as_deref().unwrap_or("an unnamed issuer");
        let audience = if self.aud.is_empty() {
            "no audience".to_owned()
        } else {
            format!("audience {}", self.aud.join(", "))
        };
        let expiry = match self.exp {
            None => "no expiry".to_owned(),
            Some(exp) if exp <= now => format!("expired {} s ago", now.saturating_sub(exp)),
            Some(exp) => format!("valid for another {} s", exp.saturating_sub(now)),
        };
        let account = self.kubernetes.as_ref().map_or_else(String::new, |claims| {
            let namespace = claims.namespace.as_deref().unwrap_or("none");
            let account = claims
                .serviceaccount
                .as_ref()
                .map_or("none", |account| &account.name);
            format!(", namespace {namespace}, service account {account}")
        });
        format!("{subject}{account}, {audience}, {expiry}, from {issuer}")
    }
}

/// Reads the claims of a token; none when it is no such token.
#[must_use]
pub fn claims(token: &Secret) -> Option<Claims> {
    let mut parts = token.expose().split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Now, in the seconds that a claim counts.
#[must_use]
pub fn seconds_since_epoch() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn claims_are_told_with_the_time_that_is_left() {
        let found = claims(&token(
            r#"{"iss":"https://k8s","sub":"system:serviceaccount:ci:deployer","aud":["vault"],"exp":100}"#,
        ))
        .expect("claims");
        assert_eq!(
            found.text(40),
            "system:serviceaccount:ci:deployer, audience vault, valid for another 60 s, from https://k8s"
        );
        assert!(found.text(130).contains("expired 30 s ago"));
        assert!(found.expired(100) && !found.expired(99));
    }

    #[test]
    fn a_service_account_is_named_with_its_namespace() {
        let found = claims(&token(
            r#"{"kubernetes.io":{"namespace":"ci","serviceaccount":{"name":"deployer","uid":"x"}}}"#,
        ))
        .expect("claims");
        let text = found.text(0);
        assert!(text.contains("namespace ci, service account deployer"), "{text}");
    }

    #[test]
    fn one_audience_may_stand_alone() {
        assert_eq!(claims(&token(r#"{"aud":"one"}"#)).expect("claims").aud, ["one"]);
    }

    #[test]
    fn what_is_no_token_has_no_claims() {
        for text in ["", "a.b.c", "one", "e30.bm90IGpzb24.c2ln"] {
            assert_eq!(claims(&Secret::new(text)), None, "{text:?}");
        }
    }
}
