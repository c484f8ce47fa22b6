//! What a refusal means, by what was asked and by its status.
//!
//! The server's own words go along as the reason, since they often tell more, but nothing is decided by them.

use serde::Deserialize;

use super::{Answer, Claims, Login, Mount, SecretPath, seconds_since_epoch};
use crate::failure::{Failure, Kind};
use crate::http::StatusCode;

/// How much of the server's words is shown, in characters.
const WORDS: usize = 600;

/// What was asked of the server.
pub(super) enum Asked<'a> {
    /// To let us in.
    Login {
        login: &'a Login,
        namespace: Option<&'a str>,
        claims: Option<Claims>,
    },
    /// Which mount a secret is in.
    Mount {
        secret: &'a SecretPath,
        policies: &'a [String],
        uses: u64,
    },
    /// The secret.
    Read {
        mount: &'a Mount,
        version: Option<u64>,
        policies: &'a [String],
        uses: u64,
    },
    /// Credentials from an engine that makes them.
    Obtain {
        path: &'a SecretPath,
        policies: &'a [String],
    },
    /// What is wrapped in a token: for this login.
    Unwrap { file: &'a std::path::Path },
    /// To prolong a token or lease.
    Renew,
    /// To end a lease.
    RevokeLease { path: &'a SecretPath },
    /// To end the token.
    Revoke,
}

/// The body of a refusal.
#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    data: Option<Versioned>,
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// What is left of a version that was deleted or destroyed.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

impl Asked<'_> {
    /// The failure that an answer other than 200 stands for.
    pub(super) fn refused(&self, answer: &Answer) -> Failure {
        let body: Body = serde_json::from_slice(&answer.body).unwrap_or_default();
        let failure = match answer.status {
            StatusCode::BAD_REQUEST => self.malformed(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.forbidden(),
            StatusCode::NOT_FOUND => self.missing(&body),
            status if status.is_redirection() => return elsewhere(answer),
            StatusCode::PRECONDITION_FAILED | StatusCode::TOO_MANY_REQUESTS => busy(answer),
            StatusCode::INTERNAL_SERVER_ERROR => self.engine_failed().unwrap_or_else(|| busy(answer)),
            status if status.is_server_error() => busy(answer),
            status => Failure::unavailable(format!("{} is answered with {status}", answer.shown))
                .hint("is the address (VAULT_ADDR) really that of Vault or OpenBao?"),
        };
        match words(&body) {
            Some(words) => failure.because(words),
            None => failure,
        }
    }

    /// 400: for a login, the role or the token is not what the method accepts.
    fn malformed(&self) -> Failure {
        match self {
            Asked::Login { login, .. } => self.login_refused(match login {
                Login::Kubernetes { .. } => "check that the role exists at this mount (--role, TOWPATH_VAULT_ROLE)",
                Login::Jwt { .. } => {
                    "compare the token with the role's bound_audiences and bound_claims; GitLab sets the audience by `aud` under id_tokens"
                }
                Login::AppRole { .. } => {
                    "check that role id and secret id belong together and that the secret id is neither used up nor expired"
                }
                Login::Token { .. } => "log in again",
            }),
            Asked::Obtain { path, .. } => {
                Failure::usage(format!("the engine does not make credentials at {path}"))
                    .hint("check the role at the end of --dynamic (TOWPATH_DYNAMIC)")
            }
            Asked::Renew => Failure::not_found("there is nothing to renew any more")
                .hint("it ended, or somebody has revoked it"),
            Asked::Unwrap { file } => Failure::denied(format!(
                "the wrapped secret id in {} is not there to be unwrapped any more",
                file.display()
            ))
            .hint(
                "unless it is older than its time to live, or was used here before, somebody else has unwrapped it: \
                 take it for intercepted, destroy the secret id (by its accessor), look for the unwrapping in the \
                 server's audit log, and have a new one wrapped",
            ),
            _ => Failure::new(Kind::Input, self.object("refuses")).hint("check the path of the secret"),
        }
    }

    /// 500 with words, for what an engine that works for us says is wrong at its end.
    fn engine_failed(&self) -> Option<Failure> {
        let Asked::Obtain { path, .. } = self else {
            return None;
        };
        Some(
            Failure::unavailable(format!("the engine cannot make credentials at {path} now"))
                .hint("the server's words may tell what is wrong behind it; try again later"),
        )
    }

    /// 401 and 403.
    pub(super) fn forbidden(&self) -> Failure {
        match self {
            Asked::Login { login, .. } => self.login_refused(match login {
                Login::Kubernetes { .. } => {
                    "compare the token with the role's audience, bound_service_account_names and \
                     bound_service_account_namespaces; if they agree, does the mount exist (--auth-mount, \
                     TOWPATH_VAULT_AUTH_MOUNT), and can the server ask the cluster's TokenReview \
                     (system:auth-delegator)?"
                }
                Login::Jwt { .. } | Login::AppRole { .. } => {
                    "check that an auth method of this type is mounted there (--auth-mount, TOWPATH_VAULT_AUTH_MOUNT)"
                }
                Login::Token { .. } => "the token expired, was revoked or is of another namespace: log in again",
            }),
            Asked::Mount { uses, .. } | Asked::Read { uses, .. } if *uses > 0 => {
                let good_for = match uses {
                    1 => "one request".to_owned(),
                    uses => format!("{uses} requests"),
                };
                Failure::denied(format!("{} any more", self.object("does not allow"))).hint(format!(
                    "the token was good for {good_for}: let the role give more (token_num_uses), or no limit"
                ))
            }
            Asked::Mount {
                secret, policies, ..
            } => Failure::denied(format!(
                "the token may do nothing below {secret}, or there is no such mount"
            ))
            .hint(format!(
                "check the mount's name, and let one of the token's policies ({}) read the secret; in a KV v2 mount \
                 a policy names MOUNT/data/PATH",
                policies.join(", ")
            )),
            Asked::Read {
                mount, policies, ..
            } => {
                let data = match mount.version {
                    super::KvVersion::One => "",
                    super::KvVersion::Two => "data/",
                };
                Failure::denied(format!("the token may not read {}/{}", mount.path, mount.below)).hint(format!(
                    "let one of its policies ({}) read {}/{data}{}",
                    policies.join(", "),
                    mount.path,
                    mount.below
                ))
            }
            Asked::Obtain { path, policies } => {
                Failure::denied(format!("the token may not read {path}")).hint(format!(
                    "let one of its policies ({}) read {path}, or check --dynamic (TOWPATH_DYNAMIC)",
                    policies.join(", ")
                ))
            }
            Asked::Unwrap { .. } => self.malformed(),
            Asked::Renew => Failure::denied("vault does not let it be renewed").hint(
                "let the token's policies update auth/token/renew-self and sys/leases/renew, as `default` does",
            ),
            Asked::RevokeLease { path } => Failure::denied(format!("the token may not revoke the lease {path}"))
                .hint("let its policies update sys/leases/revoke, or log in instead of giving a token"),
            Asked::Revoke => Failure::denied("the token may not revoke itself")
                .hint("let its policies update auth/token/revoke-self, as the policy `default` does"),
        }
    }

    /// 404.
    fn missing(&self, body: &Body) -> Failure {
        match self {
            Asked::Login { login, namespace, .. } => Failure::not_found(format!(
                "cannot log in to {}: no such namespace or auth method{}",
                login.shown(),
                namespace.map_or_else(String::new, |namespace| format!(" (namespace {namespace})"))
            ))
            .hint("check --vault-namespace (VAULT_NAMESPACE) and --auth-mount (TOWPATH_VAULT_AUTH_MOUNT)"),
            Asked::Mount { secret, .. } => Failure::not_found(format!("there is no mount for {secret}"))
                .hint("check the mount's name and --vault-namespace (VAULT_NAMESPACE)"),
            Asked::Read { mount, version, .. } => missing_secret(mount, *version, body),
            Asked::Obtain { path, .. } => Failure::not_found(format!("there is nothing at {path}"))
                .hint("check --dynamic (TOWPATH_DYNAMIC): most engines make credentials at MOUNT/creds/ROLE"),
            Asked::Unwrap { .. } => Failure::not_found("there is nothing to unwrap a secret id with")
                .hint("check --vault-addr (VAULT_ADDR) and --vault-namespace (VAULT_NAMESPACE)"),
            Asked::Renew => self.malformed(),
            Asked::RevokeLease { path } => {
                Failure::not_found(format!("there is nothing to revoke at {path}"))
            }
            Asked::Revoke => Failure::not_found("there is nothing to revoke a token at")
                .hint("check --vault-addr (VAULT_ADDR) and --vault-namespace (VAULT_NAMESPACE)"),
        }
    }

    fn login_refused(&self, hint: &str) -> Failure {
        let Asked::Login {
            login,
            namespace,
            claims,
        } = self
        else {
            return Failure::denied(self.object("refuses"));
        };
        let namespace = namespace.map_or_else(String::new, |name| format!(" in namespace {name}"));
        let failure = Failure::denied(format!(
            "vault refuses the {} login {}{namespace}",
            login.method(),
            login.shown()
        ));
        let Some(claims) = claims else {
            return failure.hint(hint);
        };
        let now = seconds_since_epoch();
        let said = claims.text(now);
        if claims.expired(now) {
            // Nothing else can be told before that is put right.
            return failure.hint(format!(
                "the token has ended ({said}): use one that is valid for longer than the job waits"
            ));
        }
        failure.hint(format!("the token says: {said}; {hint}"))
    }

    fn object(&self, verb: &str) -> String {
        match self {
            Asked::Login { login, .. } => format!("vault {verb} the login {}", login.shown()),
            Asked::Mount { secret, .. } => format!("vault {verb} to look up {secret}"),
            Asked::Read { mount, .. } => format!("vault {verb} to read {}/{}", mount.path, mount.below),
            Asked::Obtain { path, .. } => format!("vault {verb} to read {path}"),
            Asked::Unwrap { .. } => format!("vault {verb} to unwrap the secret id"),
            Asked::Renew => format!("vault {verb} to renew"),
            Asked::RevokeLease { path } => format!("vault {verb} to revoke the lease {path}"),
            Asked::Revoke => format!("vault {verb} to revoke the token"),
        }
    }
}

fn missing_secret(mount: &Mount, version: Option<u64>, body: &Body) -> Failure {
    let path = format!("{}/{}", mount.path, mount.below);
    let left = body.data.as_ref().and_then(|data| data.metadata.as_ref());
    match left {
        Some(left) if left.destroyed => {
            Failure::not_found(format!("version {} of {path} was destroyed", left.version))
                .hint("nobody can bring it back: write a new version, or ask for another with --version")
        }
        Some(left) => Failure::not_found(format!(
            "version {} of {path} was deleted at {}",
            left.version, left.deletion_time
        ))
        .hint("undelete it, write a new version, or ask for another with --version"),
        None => {
            let failure = Failure::not_found(match version {
                Some(version) => format!("there is no version {version} of {path}"),
                None => format!("there is no secret {path}"),
            });
            if mount.below.starts_with("data/") {
                failure.hint("leave `data/` out: --secret takes MOUNT/PATH as `vault kv get` does")
            } else {
                failure.hint("check --secret (TOWPATH_SECRET) and --version (TOWPATH_SECRET_VERSION)")
            }
        }
    }
}

fn busy(answer: &Answer) -> Failure {
    Failure::unavailable(format!(
        "{} is answered with {} again and again",
        answer.shown, answer.status
    ))
    .hint("is the server sealed, overloaded or without a leader? Try again later")
}

fn elsewhere(answer: &Answer) -> Failure {
    let target = answer.location.as_deref().unwrap_or("nowhere");
    // Only the origin is shown: what follows may be anything.
    let origin = crate::http::Url::parse(target).map_or_else(
        |_| "another address".to_owned(),
        |url| crate::http::authority(&url),
    );
    Failure::denied(format!("{} redirects to {origin}", answer.shown))
        .hint("credentials do not follow a redirect: set --vault-addr (VAULT_ADDR) to where it leads")
}

/// The server's words in an answer, on one line.
pub(super) fn words_of(answer: &Answer) -> Option<String> {
    words(&serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// The server's words on one line.
fn words(body: &Body) -> Option<String> {
    let said = if body.errors.is_empty() {
        body.warnings.as_deref().unwrap_or_default()
    } else {
        &body.errors
    };
    let line: String = said
        .join("; ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS)
        .collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::secret::Secret;
    use crate::vault::KvVersion;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            body: Bytes::from_static(body.as_bytes()),
            shown: "POST vault.example/v1/x (vault)".to_owned(),
            location: None,
        }
    }

    fn mount() -> Mount {
        Mount {
            path: "secret".to_owned(),
            version: KvVersion::Two,
            below: "ci/scw".to_owned(),
        }
    }

    fn read(status: u16, body: &'static str) -> Failure {
        let mount = mount();
        let asked = Asked::Read {
            mount: &mount,
            version: Some(3),
            policies: &["ci".to_owned()],
            uses: 0,
        };
        asked.refused(&answer(status, body))
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        let absent = read(404, r#"{"errors":[]}"#);
        let deleted = read(
            404,
            r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"2026-01-02T03:04:05Z","destroyed":false}}}"#,
        );
        let destroyed = read(
            404,
            r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"","destroyed":true}}}"#,
        );
        for failure in [&absent, &deleted, &destroyed] {
            assert_eq!(failure.kind(), Kind::NotFound);
        }
        assert_eq!(absent.message(), "there is no version 3 of secret/ci/scw");
        assert_eq!(
            deleted.message(),
            "version 3 of secret/ci/scw was deleted at 2026-01-02T03:04:05Z"
        );
        assert_eq!(destroyed.message(), "version 3 of secret/ci/scw was destroyed");
    }

    #[test]
    fn the_status_alone_decides_about_the_kind() {
        let kinds = [
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (412, Kind::Unavailable),
            (429, Kind::Unavailable),
            (500, Kind::Unavailable),
            (503, Kind::Unavailable),
            (307, Kind::Denied),
        ];
        for (status, kind) in kinds {
            assert_eq!(read(status, "<html>a proxy</html>").kind(), kind, "{status}");
        }
    }

    #[test]
    fn a_refused_login_says_what_the_token_claims_but_not_the_token() {
        let login = Login::Jwt {
            mount: "gitlab".to_owned(),
            role: Some("ci".to_owned()),
            jwt: Secret::new("canary-jwt-of-the-refusal-test"),
        };
        let claims = Claims {
            aud: vec!["https://vault.example".to_owned()],
            ..Claims::default()
        };
        let asked = Asked::Login {
            login: &login,
            namespace: Some("team"),
            claims: Some(claims),
        };
        let failure = asked.refused(&answer(400, r#"{"errors":["invalid\naudience (aud) claim"]}"#));
        assert_eq!(failure.kind(), Kind::Denied);
        let shown = format!("{failure:?}");
        assert!(shown.contains("audience https://vault.example"), "{shown}");
        assert!(shown.contains("namespace team"), "{shown}");
        assert!(shown.contains("invalid audience (aud) claim"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_token_that_ended_is_named_first() {
        let login = Login::Jwt {
            mount: "gitlab".to_owned(),
            role: None,
            jwt: Secret::new(""),
        };
        let claims = Claims {
            exp: Some(1),
            ..Claims::default()
        };
        let asked = Asked::Login {
            login: &login,
            namespace: None,
            claims: Some(claims),
        };
        let failure = asked.refused(&answer(400, ""));
        assert!(
            failure
                .next_action()
                .is_some_and(|hint| hint.contains("has ended"))
        );
    }
}
