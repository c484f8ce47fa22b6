//! Logins that a platform hands to its jobs in variables: GitLab, Scaleway and Google.
//!
//! A login of this kind is for the platform's own registry hosts and goes to no other. Its variable is read only when
//! such a host is asked for and no configuration file has a login for it, so that a variable that was set for another
//! tool cannot break a run that has no use for it.
//!
//! Sources: GitLab's documentation, "Authenticate with the container registry" and "Predefined CI/CD variables";
//! Scaleway's, "Container Registry quickstart" (user `nologin`, password the secret key); Google's, "Configure
//! authentication to Artifact Registry for Docker" (users `_json_key` and `oauth2accesstoken`) and "Authorize the
//! gcloud CLI" (`CLOUDSDK_AUTH_ACCESS_TOKEN`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Credential, Login};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// Any Scaleway key may be given with it; the name itself is not looked at.
const SCALEWAY_USER: &str = "nologin";
const SCALEWAY_KEY: &str = "SCW_SECRET_KEY";
/// The user that a job's token belongs to.
const GITLAB_JOB_USER: &str = "gitlab-ci-token";
const GITLAB_PASSWORD: &str = "CI_REGISTRY_PASSWORD";
const GITLAB_JOB_TOKEN: &str = "CI_JOB_TOKEN";
const GOOGLE_TOKEN_USER: &str = "oauth2accesstoken";
const GOOGLE_TOKEN: &str = "CLOUDSDK_AUTH_ACCESS_TOKEN";
const GOOGLE_KEY_USER: &str = "_json_key";
const GOOGLE_KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// Reads a secret from a variable: none when it is not set, a failure when it is empty.
pub type SecretVariable = fn(&str) -> Result<Option<Secret>>;

/// What platforms tell a job about their registries, and how the secrets that go with it are read.
#[derive(Clone, Debug)]
pub struct Platforms {
    /// The host of GitLab's registry (`CI_REGISTRY`), with its port where it has one.
    pub gitlab_registry: Option<String>,
    /// The user there (`CI_REGISTRY_USER`), whose password is `CI_REGISTRY_PASSWORD`.
    pub gitlab_user: Option<String>,
    /// The key file of a Google service account (`GOOGLE_APPLICATION_CREDENTIALS`).
    pub google_key_file: Option<PathBuf>,
    /// How variables with secrets are read.
    pub secret: SecretVariable,
}

impl Platforms {
    /// The login for a registry host, where it is one of a platform's that we have a login for.
    ///
    /// # Errors
    /// Usage (exit 2) when a variable that would be used is empty, or the key file cannot be read; input (exit 3)
    /// when that holds no key.
    pub(super) fn find(&self, registry: &str) -> Result<Option<Login>> {
        if is_scaleway(registry) {
            return self.password(SCALEWAY_USER, SCALEWAY_KEY);
        }
        if is_google(registry) {
            return self.google();
        }
        let is_gitlab = |own: &String| own.eq_ignore_ascii_case(registry);
        if self.gitlab_registry.as_ref().is_some_and(is_gitlab) {
            return self.gitlab();
        }
        Ok(None)
    }

    fn gitlab(&self) -> Result<Option<Login>> {
        if let Some(user) = &self.gitlab_user
            && let Some(login) = self.password(user, GITLAB_PASSWORD)?
        {
            return Ok(Some(login));
        }
        self.password(GITLAB_JOB_USER, GITLAB_JOB_TOKEN)
    }

    /// The token comes first: it was made for this job, where the key file may be anybody's default.
    fn google(&self) -> Result<Option<Login>> {
        if let Some(login) = self.password(GOOGLE_TOKEN_USER, GOOGLE_TOKEN)? {
            return Ok(Some(login));
        }
        let Some(path) = &self.google_key_file else {
            return Ok(None);
        };
        let key = service_account_key(path)?;
        if key.is_none() {
            // Public images are there for everybody, so that this need not be the end.
            tracing::warn!(
                action = "login",
                object = path.display().to_string(),
                "passed over: no key of a service account, which is all that a registry takes; for other credentials \
                 set {GOOGLE_TOKEN} to what `gcloud auth print-access-token` prints"
            );
        }
        Ok(key.map(|password| Login {
            credential: Credential::Password {
                user: GOOGLE_KEY_USER.to_owned(),
                password,
            },
            origin: format!("{} ({GOOGLE_KEY_FILE})", path.display()),
        }))
    }

    fn password(&self, user: &str, variable: &str) -> Result<Option<Login>> {
        let password = (self.secret)(variable)?;
        Ok(password.map(|password| Login {
            credential: Credential::Password {
                user: user.to_owned(),
                password,
            },
            origin: format!("the variable {variable}"),
        }))
    }
}

/// The variables that would log in to a host, for hints.
pub(in crate::oci) fn variables_for(registry: &str) -> Option<&'static str> {
    if is_scaleway(registry) {
        Some("SCW_SECRET_KEY")
    } else if is_google(registry) {
        Some("CLOUDSDK_AUTH_ACCESS_TOKEN or GOOGLE_APPLICATION_CREDENTIALS")
    } else {
        None
    }
}

/// `rg.<region>.scw.cloud`, and nothing that merely ends like it.
fn is_scaleway(registry: &str) -> bool {
    registry
        .strip_prefix("rg.")
        .and_then(|rest| rest.strip_suffix(".scw.cloud"))
        .is_some_and(is_label)
}

/// `gcr.io` with its regional hosts, and `<location>-docker.pkg.dev`.
fn is_google(registry: &str) -> bool {
    let below = |domain: &str| registry.strip_suffix(domain).is_some_and(is_label);
    registry == "gcr.io" || below(".gcr.io") || below(".pkg.dev")
}

/// One label of a host name, without the port that would make it another service.
fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Reads a key file; none when it holds credentials of another kind, such as a person's or a federation's. It is the
/// password as a whole; what is secret in it is made known by itself too.
fn service_account_key(path: &Path) -> Result<Option<Secret>> {
    #[derive(Deserialize)]
    struct Key {
        #[serde(rename = "type")]
        kind: String,
        private_key: Option<String>,
    }
    let whole = Secret::from_file(path, "Google service account key")?;
    // serde's own words may repeat a value of the file.
    let key: Key = serde_json::from_str(whole.expose()).map_err(|_| {
        Failure::input(format!("{} holds no Google credentials", path.display()))
            .hint(format!("check --google-credentials ({GOOGLE_KEY_FILE})"))
    })?;
    let private_key = key.private_key.map(Secret::new);
    Ok((key.kind == "service_account" && private_key.is_some()).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn all(name: &str) -> Result<Option<Secret>> {
        Ok(Some(Secret::new(format!("canary-of-{name}"))))
    }

    fn none(_: &str) -> Result<Option<Secret>> {
        Ok(None)
    }

    fn job_token_alone(name: &str) -> Result<Option<Secret>> {
        if name == GITLAB_JOB_TOKEN {
            all(name)
        } else {
            Ok(None)
        }
    }

    fn empty(name: &str) -> Result<Option<Secret>> {
        Err(Failure::usage(format!("the variable {name} is set but empty")))
    }

    fn platforms(secret: SecretVariable) -> Platforms {
        Platforms {
            gitlab_registry: Some("registry.gitlab.example.com:5050".to_owned()),
            gitlab_user: Some("ci-user".to_owned()),
            google_key_file: None,
            secret,
        }
    }

    /// User and password for a registry.
    fn found(platforms: &Platforms, registry: &str) -> Option<(String, String)> {
        platforms
            .find(registry)
            .unwrap()
            .map(|login| match login.credential {
                Credential::Password { user, password } => (user, password.expose().to_owned()),
                other => panic!("unexpected {other:?}"),
            })
    }

    #[test]
    fn each_platform_logs_in_to_its_own_hosts_alone() {
        let platforms = platforms(all);
        for (registry, expected) in [
            (
                "rg.fr-par.scw.cloud",
                Some(("nologin", "canary-of-SCW_SECRET_KEY")),
            ),
            ("rg.scw.cloud", None),
            ("rg.fr-par.scw.cloud:8443", None),
            ("rg.fr-par.scw.cloud.example.com", None),
            ("rg.evil.example.com/.scw.cloud", None),
            ("rg.a.b.scw.cloud", None),
            ("evil-rg.fr-par.scw.cloud", None),
            (
                "gcr.io",
                Some(("oauth2accesstoken", "canary-of-CLOUDSDK_AUTH_ACCESS_TOKEN")),
            ),
            (
                "eu.gcr.io",
                Some(("oauth2accesstoken", "canary-of-CLOUDSDK_AUTH_ACCESS_TOKEN")),
            ),
            (
                "europe-west9-docker.pkg.dev",
                Some(("oauth2accesstoken", "canary-of-CLOUDSDK_AUTH_ACCESS_TOKEN")),
            ),
            ("evilgcr.io", None),
            ("gcr.io.example.com", None),
            ("pkg.dev", None),
            (
                "registry.gitlab.example.com:5050",
                Some(("ci-user", "canary-of-CI_REGISTRY_PASSWORD")),
            ),
            ("registry.gitlab.example.com", None),
            ("registry.gitlab.example.com:5000", None),
            ("docker.io", None),
        ] {
            let expected = expected.map(|(user, password)| (user.to_owned(), password.to_owned()));
            assert_eq!(found(&platforms, registry), expected, "{registry}");
        }
    }

    #[test]
    fn a_job_token_is_enough_and_nothing_is_nothing() {
        assert_eq!(
            found(&platforms(job_token_alone), "registry.gitlab.example.com:5050"),
            Some(("gitlab-ci-token".to_owned(), "canary-of-CI_JOB_TOKEN".to_owned()))
        );
        for registry in [
            "registry.gitlab.example.com:5050",
            "rg.fr-par.scw.cloud",
            "gcr.io",
        ] {
            assert_eq!(found(&platforms(none), registry), None, "{registry}");
        }
    }

    #[test]
    fn an_empty_variable_matters_only_where_it_would_be_used() {
        let platforms = platforms(empty);
        assert_eq!(found(&platforms, "registry.example.com"), None);
        let failure = platforms.find("rg.fr-par.scw.cloud").expect_err("empty");
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(failure.message().contains("SCW_SECRET_KEY"), "{failure}");
    }

    #[test]
    fn a_service_account_key_is_a_password_and_other_credentials_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Platforms {
                google_key_file: Some(path.clone()),
                ..platforms(none)
            }
        };
        let key = r#"{"type": "service_account", "private_key": "canary-private-key"}"#;
        assert_eq!(
            found(&with(key), "gcr.io"),
            Some(("_json_key".to_owned(), key.to_owned()))
        );
        assert_eq!(crate::secret::redact("canary-private-key"), "****");
        for text in [
            "canary-no-json",
            "{}",
            r#"{"type": 7, "private_key": "canary-7"}"#,
        ] {
            let failure = with(text).find("gcr.io").expect_err(text);
            assert_eq!(failure.kind(), Kind::Input, "{text}");
            let shown = format!("{failure:?}");
            assert!(shown.contains("key.json") && !shown.contains("canary"), "{shown}");
        }
        for text in [
            r#"{"type": "authorized_user", "refresh_token": "canary-refresh"}"#,
            r#"{"type": "external_account"}"#,
            r#"{"type": "service_account"}"#,
        ] {
            assert_eq!(found(&with(text), "gcr.io"), None, "{text}");
        }
    }
}
