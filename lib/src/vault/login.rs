//! Logging in, by one of four methods.
//!
//! Source: API reference, "Kubernetes auth method", "JWT/OIDC auth method", "AppRole auth method", each section
//! "Login"; "Token auth method", section "Lookup a token (self)".

use std::path::PathBuf;

use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use super::refusal::Asked;
use super::session::{Lookup, Session};
use super::{Answer, Vault, claims};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// Where a pod finds the token of its service account (Kubernetes, "Service Accounts").
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How to log in, and with what.
#[derive(Clone, Debug)]
pub enum Login {
    /// With the token of a Kubernetes service account, which the server has the cluster review.
    Kubernetes {
        /// Where the auth method is mounted, without `auth/`.
        mount: String,
        /// The role to log in as.
        role: String,
        /// The file with the token. It is read at each login, since the kubelet replaces it every hour or so.
        jwt_file: PathBuf,
    },
    /// With a signed token, such as a GitLab job's ID token.
    Jwt {
        /// Where the auth method is mounted, without `auth/`.
        mount: String,
        /// The role to log in as; none for the mount's default role.
        role: Option<String>,
        /// The token.
        jwt: Secret,
    },
    /// With the two halves of an AppRole.
    AppRole {
        /// Where the auth method is mounted, without `auth/`.
        mount: String,
        /// The file with the role's id.
        role_id_file: PathBuf,
        /// The file with the secret id, or with what it is wrapped in.
        secret_id_file: PathBuf,
        /// Whether the file holds a wrapping token, which gives the secret id once.
        wrapped: bool,
    },
    /// With a token that somebody else logged in for. It is theirs, so it is not revoked at the end.
    Token {
        /// The token.
        token: Secret,
    },
}

impl Login {
    /// The method's name, as arguments and messages have it.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Login::Kubernetes { .. } => "kubernetes",
            Login::Jwt { .. } => "jwt",
            Login::AppRole { .. } => "approle",
            Login::Token { .. } => "token",
        }
    }

    /// What is logged in to, for messages: `auth/kubernetes as role ci`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Login::Kubernetes { mount, role, .. } => format!("auth/{mount} as role {role}"),
            Login::Jwt {
                mount,
                role: Some(role),
                ..
            } => format!("auth/{mount} as role {role}"),
            Login::Jwt {
                mount, role: None, ..
            } => format!("auth/{mount} as its default role"),
            Login::AppRole { mount, .. } => format!("auth/{mount}"),
            Login::Token { .. } => "with the given token".to_owned(),
        }
    }

    /// The token that is sent to log in, where the method has one: read now, so that it can be looked at.
    ///
    /// # Errors
    /// Usage (exit 2) when its file cannot be read.
    pub fn jwt(&self) -> Result<Option<Secret>> {
        match self {
            Login::Kubernetes { jwt_file, .. } => {
                Secret::from_file(jwt_file, "service account token").map(Some)
            }
            Login::Jwt { jwt, .. } => Ok(Some(jwt.clone())),
            Login::AppRole { .. } | Login::Token { .. } => Ok(None),
        }
    }

    /// What must not be left lying about where the login has handed over to the credentials: JWT, token, and both ids of
    /// an AppRole, or what the second is wrapped in. A file that cannot be read has none; the login itself says so.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let files: Vec<&PathBuf> = match self {
            Login::Jwt { jwt, .. } => return vec![jwt.clone()],
            Login::Token { token } => return vec![token.clone()],
            Login::Kubernetes { jwt_file, .. } => vec![jwt_file],
            Login::AppRole {
                role_id_file,
                secret_id_file,
                ..
            } => vec![role_id_file, secret_id_file],
        };
        files
            .into_iter()
            .filter_map(|file| Secret::from_file(file, "login").ok())
            .collect()
    }

    /// Whether this login goes along with a request where the server knows how: what it is made with may be used again
    /// when that does not work out.
    #[must_use]
    pub fn goes_along(&self) -> bool {
        matches!(self, Login::Kubernetes { .. } | Login::Jwt { .. })
    }

    /// Whether it takes no requests but one, so that another may be spent on where the secret is.
    #[must_use]
    pub fn is_one_request(&self) -> bool {
        !matches!(self, Login::AppRole { wrapped: true, .. })
    }

    /// What a login sends, for one that goes along with another request. None when there is nothing to send, or when it
    /// can be sent once only.
    ///
    /// # Errors
    /// Usage (exit 2) when a file cannot be read.
    pub(super) fn parameters(&self) -> Result<Option<Parameters<'_>>> {
        let role = |role: &String| ("role", Secret::public(role));
        Ok(match self {
            Login::Kubernetes {
                mount, role: name, ..
            } => self.jwt()?.map(|jwt| Parameters {
                mount,
                parameters: vec![("jwt", jwt), role(name)],
            }),
            Login::Jwt {
                mount, role: name, ..
            } => self.jwt()?.map(|jwt| Parameters {
                mount,
                parameters: [("jwt", jwt)]
                    .into_iter()
                    .chain(name.as_ref().map(role))
                    .collect(),
            }),
            // A secret id may be good for a number of logins, and this would be one more.
            Login::AppRole { .. } | Login::Token { .. } => None,
        })
    }
}

/// A login as names and values.
pub(super) struct Parameters<'a> {
    /// Where the auth method is mounted.
    pub(super) mount: &'a str,
    /// What it is sent.
    pub(super) parameters: Vec<(&'static str, Secret)>,
}

impl Vault {
    /// Logs in.
    ///
    /// # Errors
    /// Denied (exit 4) with what the JWT claims and what to compare it with, when the server refuses; usage (exit 2)
    /// when a file cannot be read; not found (exit 5) for an unknown namespace; unavailable (exit 7) when the server
    /// is sealed, busy or not reachable.
    pub async fn login(&self, login: &Login) -> Result<Session> {
        let jwt = login.jwt()?;
        let asked = Asked::Login {
            login,
            namespace: self.namespace.as_deref(),
            claims: jwt.as_ref().and_then(claims),
        };
        // Each arm is short-lived: the plain copies in a request go as soon as it is sent.
        let jwt = jwt.as_ref().map_or("", Secret::expose);
        let answer = match login {
            Login::Kubernetes { mount, role, .. } => {
                let request = LoginWithKubernetesRequest {
                    mount: mount.clone(),
                    role: role.clone(),
                    jwt: jwt.to_owned(),
                };
                self.call(request, None).await?
            }
            Login::Jwt { mount, role, .. } => {
                let request = JWTLoginRequest {
                    mount: mount.clone(),
                    jwt: jwt.to_owned(),
                    role: role.clone(),
                };
                self.call(request, None).await?
            }
            Login::AppRole {
                mount,
                role_id_file,
                secret_id_file,
                wrapped,
            } => {
                let role_id = Secret::from_file(role_id_file, "AppRole role id")?;
                let secret_id = if *wrapped {
                    self.unwrap_secret_id(mount, secret_id_file).await?
                } else {
                    Secret::from_file(secret_id_file, "AppRole secret id")?
                };
                let request = LoginWithApproleRequest {
                    mount: mount.clone(),
                    role_id: role_id.expose().to_owned(),
                    secret_id: secret_id.expose().to_owned(),
                };
                self.call(request, None).await?
            }
            Login::Token { token } => return self.adopt(token.clone(), &asked).await,
        };
        self.opened(&answer, &asked)
    }

    fn opened(&self, answer: &Answer, asked: &Asked<'_>) -> Result<Session> {
        let auth = answer.read::<serde::de::IgnoredAny>(asked)?.auth;
        let auth = auth.ok_or_else(|| {
            Failure::input(format!("the answer to {} holds no token", answer.shown))
                .hint("does the role wrap its answers, or ask for a second factor? Neither works for a job")
        })?;
        Ok(Session::issued(self.clone(), auth))
    }

    /// Looks a given token up, to learn whether it is valid and for how long.
    async fn adopt(&self, token: Secret, asked: &Asked<'_>) -> Result<Session> {
        let answer = self.call(LookupTokenSelfRequest::default(), Some(&token)).await?;
        let lookup: Lookup = answer
            .read(asked)?
            .data
            .ok_or_else(|| Failure::input(format!("the answer to {} holds no data", answer.shown)))?;
        Ok(Session::given(self.clone(), token, lookup))
    }
}

/// Whether a text is, or has in it, what looks like a token: the prefixes and lengths are those of the "Tokens" page of
/// either server. One without a prefix that is Vault's alone has to be all there is.
#[must_use]
pub fn looks_like_token(text: &str) -> bool {
    /// Shorter ones are none.
    const SHORTEST: usize = 24;
    let is_body = |body: &str| {
        // The namespace of a token may stand behind it.
        let (random, namespace) = body.split_once('.').unwrap_or((body, ""));
        random.len() >= SHORTEST
            && random
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && namespace.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let whole = text.trim();
    ["s.", "b.", "r."]
        .iter()
        .any(|prefix| whole.strip_prefix(prefix).is_some_and(is_body))
        || whole
            .split(|c: char| c.is_whitespace() || "\"'`=:,;/@&?".contains(c))
            .filter_map(|word| {
                ["hvs.", "hvb.", "hvr."]
                    .iter()
                    .find_map(|prefix| word.strip_prefix(prefix))
            })
            .any(is_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_by_their_looks() {
        for token in [
            "s.Ab3dEf6hIj9lMn2pQr5tUv8x",
            " hvs.CAESIJlc0canary-of_the_test0000\n",
            "b.AAAAAQLcanary0of0the0test00-_",
            "s.Ab3dEf6hIj9lMn2pQr5tUv8x.h4kd9",
            "X-Vault-Token: hvs.CAESIJlc0canary-of_the_test0000",
        ] {
            assert!(looks_like_token(token), "{token}");
        }
        for other in [
            "",
            "s.",
            "s.example.com",
            "hvs.short",
            "https://s.abcdefghijklmnopqrstuvwxyz.example.com/",
            "/usr/bin:/bin",
            "abs.Ab3dEf6hIj9lMn2pQr5tUv8x",
        ] {
            assert!(!looks_like_token(other), "{other}");
        }
    }
}
