//! What a registry's refusal means.
//!
//! Source: OCI Distribution Specification, "Error Codes". Status and code decide; the words beside them are shown.

use serde::Deserialize;
use serde_json::Value;

use super::Repository;
use super::auth::Scopes;
use crate::failure::Failure;
use crate::http::{Response, StatusCode};
use crate::oci::credentials::variables_for;
use crate::secret::redact;

/// How much of an error's body is read, and of a message in it shown.
const BODY_LIMIT: usize = 64 * 1024;
const SHOWN_ERRORS: usize = 3;
const SHOWN_CHARACTERS: usize = 240;

/// What was tried.
pub(super) struct Tried<'a> {
    pub(super) repository: &'a Repository,
    /// A gerund: `reading`.
    pub(super) verb: &'static str,
    /// With its article: `the manifest team/app:1`.
    pub(super) object: String,
    pub(super) scopes: &'a Scopes,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: Value,
}

/// The hint for whoever is nobody at a registry.
pub(super) fn no_credential(endpoint: &str) -> String {
    let variables = match variables_for(endpoint) {
        Some(variables) => format!(", or set {variables}"),
        None => String::new(),
    };
    format!(
        "no login for {endpoint} was found: run `docker login {endpoint}`, or point --docker-config (DOCKER_CONFIG) to the folder of a config.json that has one{variables}"
    )
}

impl Tried<'_> {
    /// Turns an answer that is no success into a failure.
    pub(super) async fn refused(self, response: Response) -> Failure {
        let status = response.status();
        let errors = match response.bytes(BODY_LIMIT).await {
            Ok(bytes) => {
                serde_json::from_slice::<Body>(&bytes).map_or_else(|_| Vec::new(), |body| body.errors)
            }
            Err(_) => Vec::new(),
        };
        let code = errors
            .first()
            .map(|error| error.code.as_str())
            .unwrap_or_default();
        self.judge(status, code, &details(&errors))
    }

    fn judge(&self, status: StatusCode, code: &str, details: &str) -> Failure {
        let Tried {
            repository,
            verb,
            object,
            scopes,
        } = self;
        let host = repository.reference().endpoint();
        let scope = scopes.words().join(" ");
        match (status.as_u16(), code) {
            // What was sent did not arrive as it was meant; sending it again may help.
            (_, "DIGEST_INVALID" | "SIZE_INVALID" | "BLOB_UPLOAD_INVALID" | "BLOB_UPLOAD_UNKNOWN" | "RANGE_INVALID") => {
                Failure::unavailable(format!("{host} lost track of {verb} {object}{details}"))
            }
            (_, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN") if status != StatusCode::NOT_FOUND || *verb == "pushing" => {
                Failure::unavailable(format!("{host} misses parts of {object}{details}"))
                    .hint("run it again: what is missing is sent then")
            }
            (409 | 412, _) | (_, "TAG_INVALID") => {
                Failure::conflict(format!("{host} does not let {object} change{details}"))
                    .hint("the tag is immutable or protected there: promote under another tag")
            }
            (401, _) => match repository.login_origin() {
                Some(origin) => Failure::denied(format!(
                    "{host} refuses the login for {verb} {object} (scope {scope}){details}"
                ))
                .hint(format!(
                    "check the user and password for {} (from {origin})",
                    repository.reference().name()
                )),
                None => Failure::denied(format!("{host} wants a login for {verb} {object}{details}"))
                    .hint(no_credential(host)),
            },
            (403, _) => Failure::denied(format!(
                "{host} does not allow {verb} {object} (scope {scope}){details}"
            ))
            .hint(format!(
                "check what this login may do in {}, and whether a quota or a protected tag is in the way",
                repository.reference().name()
            )),
            (404, _) => Failure::not_found(format!("{host} does not have {object}{details}"))
                .hint("check registry, repository and tag or digest; some registries say this for lack of permission"),
            (405, _) | (_, "UNSUPPORTED") => {
                Failure::denied(format!("{host} does not support {verb} {object}{details}"))
            }
            (413, _) => Failure::denied(format!("{host} finds {object} too large{details}"))
                .hint("raise the limit of the registry, or of the proxy in front of it"),
            (429, _) => Failure::unavailable(format!("{host} limits our rate: {verb} {object}{details}"))
                .hint("wait a while, or lower --concurrency"),
            (400, _) => Failure::input(format!("{host} finds {object} malformed{details}")),
            (500..=599, _) => {
                Failure::unavailable(format!("{host} broke at {verb} {object} (status {status}){details}"))
            }
            _ => Failure::denied(format!(
                "{host} does not take {verb} {object} (status {status}){details}"
            )),
        }
    }
}

/// `: CODE: message (detail); CODE: message`, or nothing.
fn details(errors: &[Entry]) -> String {
    let shown: Vec<String> = errors
        .iter()
        .take(SHOWN_ERRORS)
        .map(|error| {
            let detail = match &error.detail {
                Value::String(detail) if !detail.is_empty() => format!(" ({detail})"),
                Value::Object(_) | Value::Array(_) => format!(" ({})", error.detail),
                _ => String::new(),
            };
            tidy(&format!("{}: {}{detail}", error.code, error.message))
        })
        .collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!(": {}", shown.join("; "))
    }
}

/// Words from outside, fit for one line of a log.
fn tidy(text: &str) -> String {
    let line: String = redact(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN_CHARACTERS)
        .collect();
    line.trim_end().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use crate::failure::Kind;
    use crate::oci::registry::auth::Access;
    use crate::oci::{Credentials, Registries, RegistrySettings};

    #[tokio::test]
    async fn status_and_code_decide() {
        let registries = Registries::new(
            RegistrySettings::default(),
            Credentials::default(),
            Deadline::after(std::time::Duration::from_secs(5)),
        )
        .unwrap();
        let repository = registries
            .repository(&"registry.example.com/team/app".parse().unwrap())
            .await
            .unwrap();
        let scopes = Scopes::of("team/app", Access::Push);
        let judged = |verb, status: u16, code: &str| {
            let tried = Tried {
                repository: &repository,
                verb,
                object: "the manifest team/app:1".to_owned(),
                scopes: &scopes,
            };
            tried.judge(StatusCode::from_u16(status).unwrap(), code, "")
        };
        for (status, code, kind) in [
            (401, "UNAUTHORIZED", Kind::Denied),
            (403, "DENIED", Kind::Denied),
            (404, "MANIFEST_UNKNOWN", Kind::NotFound),
            (404, "", Kind::NotFound),
            (404, "MANIFEST_BLOB_UNKNOWN", Kind::Unavailable),
            (400, "MANIFEST_BLOB_UNKNOWN", Kind::Unavailable),
            (400, "MANIFEST_INVALID", Kind::Input),
            (400, "TAG_INVALID", Kind::Conflict),
            (409, "", Kind::Conflict),
            (412, "PRECONDITION", Kind::Conflict),
            (400, "DIGEST_INVALID", Kind::Unavailable),
            (413, "", Kind::Denied),
            (429, "TOOMANYREQUESTS", Kind::Unavailable),
            (500, "UNKNOWN", Kind::Unavailable),
            (405, "UNSUPPORTED", Kind::Denied),
        ] {
            let failure = judged("pushing", status, code);
            assert_eq!(failure.kind(), kind, "{status} {code}");
            assert!(
                failure.message().contains("registry.example.com"),
                "{status} {code}"
            );
            assert!(failure.message().contains("team/app:1"), "{status} {code}");
        }
        assert_eq!(judged("reading", 404, "BLOB_UNKNOWN").kind(), Kind::NotFound);
        let denied = judged("pushing", 403, "DENIED");
        assert!(denied.message().contains("repository:team/app:pull,push"));
    }

    #[test]
    fn the_registrys_words_are_shown_on_one_line_without_secrets() {
        let _secret = crate::secret::Secret::new("canary-registry-error");
        let body: Body = serde_json::from_str(
            r#"{"errors": [{"code": "DENIED", "message": "no\ncanary-registry-error.", "detail": {"name": "app"}},
                {"code": "UNKNOWN"}]}"#,
        )
        .unwrap();
        assert_eq!(
            details(&body.errors),
            ": DENIED: no ****. ({\"name\":\"app\"}); UNKNOWN:"
        );
        assert_eq!(details(&[]), "");
    }
}
