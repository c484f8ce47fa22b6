//! A registry's refusal, read and understood.
//!
//! Sources: OCI Distribution Specification, "Error Codes", and for what it leaves open the registries themselves, named
//! beside each rule. Status and code decide. A registry's words are read in two cases alone, where some give the same
//! status and code to different things: a tag that is kept from changing, and a quota. They are shown in any case.

use serde_json::Value;

use crate::http::Response;
use crate::secret::redact;

/// How much of an error's body is read, and of a message in it shown.
const BODY_LIMIT: usize = 64 * 1024;
const SHOWN_ERRORS: usize = 3;
const SHOWN_CHARACTERS: usize = 240;

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What was sent did not arrive as it was meant.
    Lost,
    /// Something that a manifest names is not there yet.
    Incomplete,
    /// The tag is kept from changing.
    TagKept,
    /// Something else is there.
    Conflict,
    NoLogin,
    Quota,
    Forbidden,
    /// A rule of the registry keeps it from being read.
    Policy,
    NoRepository,
    Absent,
    Unsupported,
    TooLarge,
    Busy,
    Malformed,
    Broken,
    Odd,
}

/// A refusal, as it came.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    errors: Vec<Entry>,
    /// Whether it was a tag that was written.
    of_tag: bool,
    /// Whether it was a manifest that was written.
    of_manifest: bool,
}

/// One error of an answer's body.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    code: String,
    message: String,
    detail: String,
}

impl Refusal {
    /// Reads the answer to a request that may have written a manifest.
    pub(super) async fn read(response: Response, is_write: bool) -> Self {
        let name = response
            .url()
            .path()
            .rsplit_once("/manifests/")
            .map(|(_, name)| name.to_owned());
        Refusal {
            status: response.status().as_u16(),
            of_tag: is_write && name.as_ref().is_some_and(|name| !name.contains(':')),
            of_manifest: is_write && name.is_some(),
            errors: entries(response).await,
        }
    }

    /// What it says besides, for messages: `: CODE: message (detail); CODE: message`, or nothing.
    pub(super) fn details(&self) -> String {
        details(&self.errors)
    }

    fn code(&self) -> &str {
        self.errors.first().map_or("", |error| error.code.as_str())
    }

    /// Whether a registry says one of these words, which are in lower case, in any error.
    fn says(&self, words: &[&str]) -> bool {
        self.errors.iter().any(|error| {
            let said = format!("{} {}", error.message, error.detail).to_lowercase();
            words.iter().any(|word| said.contains(word))
        })
    }

    /// What it means.
    pub(super) fn meaning(&self) -> Meaning {
        let code = self.code();
        if self.keeps_tag() {
            return Meaning::TagKept;
        }
        match (self.status, code) {
            (429, _) | (_, "TOOMANYREQUESTS") => Meaning::Busy,
            (
                _,
                "DIGEST_INVALID"
                | "SIZE_INVALID"
                | "BLOB_UPLOAD_INVALID"
                | "BLOB_UPLOAD_UNKNOWN"
                | "RANGE_INVALID",
            ) => Meaning::Lost,
            (_, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN")
                if self.of_manifest || self.status != 404 =>
            {
                Meaning::Incomplete
            }
            (401, _) => Meaning::NoLogin,
            (402 | 507, _) => Meaning::Quota,
            // Harbor: DENIED with 403 and "adding 1.0 MiB of storage resource, which when updated to current usage of ...
            // will exceed the configured upper limit" (goharbor/harbor#11527, #17390). GitLab: DENIED and "the namespace
            // storage limit has been reached", from its token server (EE's ContainerRegistryAuthenticationService).
            (400 | 403 | 412 | 413, _)
                if self.says(&["quota", "storage limit", "configured upper limit"]) =>
            {
                Meaning::Quota
            }
            // Harbor: "prevent vulnerable images from running" and content trust answer a pull so.
            (412, "PROJECTPOLICYVIOLATION") => Meaning::Policy,
            (412, _) if !self.of_manifest => Meaning::Policy,
            (409 | 412, _) => Meaning::Conflict,
            // Azure: a locked repository or registry (Azure/acr-cli#70).
            (403, _) | (405, "REGISTRY_DISALLOWED_OPERATION") => Meaning::Forbidden,
            (404, "NAME_UNKNOWN") => Meaning::NoRepository,
            (404, _) => Meaning::Absent,
            (405 | 501, _) | (_, "UNSUPPORTED") => Meaning::Unsupported,
            (413, _) => Meaning::TooLarge,
            (400 | 415 | 422, _) => Meaning::Malformed,
            (408 | 425 | 500..=599, _) => Meaning::Broken,
            _ => Meaning::Odd,
        }
    }

    /// Whether it was a tag that may not change. Some say so even when it would not: ECR refuses an immutable tag that
    /// names the same digest already (aws/containers-roadmap#2380).
    fn keeps_tag(&self) -> bool {
        if !self.of_tag {
            return false;
        }
        match (self.status, self.code()) {
            // ECR: "The image tag '1' already exists in the 'app' repository and cannot be overwritten because the
            // repository is immutable" (moby/buildkit#3776). Its API calls the same ImageTagAlreadyExistsException.
            (_, "TAG_INVALID" | "ImageTagAlreadyExistsException") => true,
            // Azure, for a locked tag or image (Azure/acr-cli#70).
            (405, "REGISTRY_DISALLOWED_OPERATION") => true,
            // A code of its own that says as much, as GitLab's registry has one for each (ErrorCodeProtectedTag and
            // ErrorCodeImmutableTag, registry/handlers/manifests.go), whatever status goes with it.
            (_, code) if code.contains("IMMUTABLE") || code.contains("PROTECTED") => true,
            // Harbor: PRECONDITION, "configured as immutable" (src/server/middleware/immutable), where quotas and
            // policies may have the same status. Where a tag is written, 409 can mean nothing else.
            (412, code) if code != "PROJECTPOLICYVIOLATION" => !self.says(&["quota", "upper limit"]),
            (409, _) => true,
            // Quay: UNKNOWN, "tag is immutable and cannot be overwritten" (PROJQUAY-10859). Docker Hub: 403 (docker/
            // hub-feedback#2466). Google: FAILED_PRECONDITION, which becomes 400. GitLab: `tag "1" is protected` in the
            // detail. What they say is all there is to go by.
            (400 | 401 | 403 | 405, _) => self.says(&["immutable", "cannot be overwritten", "is protected"]),
            _ => false,
        }
    }
}

/// What an answer says beside its status, for messages: `: CODE: message (detail); CODE: message`, or nothing.
pub(super) async fn said(response: Response) -> String {
    details(&entries(response).await)
}

/// The errors in an answer's body.
async fn entries(response: Response) -> Vec<Entry> {
    match response.bytes(BODY_LIMIT).await {
        Ok(bytes) => read_entries(&bytes),
        Err(_) => Vec::new(),
    }
}

/// Reads the specification's `errors`, and the forms that token servers and proxies have instead.
fn read_entries(bytes: &[u8]) -> Vec<Entry> {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        return Vec::new();
    };
    if let Some(errors) = body["errors"].as_array() {
        let entry = |error: &Value| Entry {
            code: text(&error["code"]),
            message: text(&error["message"]),
            detail: text(&error["detail"]),
        };
        return errors.iter().map(entry).collect();
    }
    // Docker Hub says `details`, Quay `error`, OAuth2 `error` and `error_description` (RFC 6749, section 5.2).
    let message = ["error_description", "message", "details", "detail"]
        .into_iter()
        .map(|name| text(&body[name]))
        .find(|message| !message.is_empty())
        .unwrap_or_default();
    let code = text(&body["error"]);
    if code.is_empty() && message.is_empty() {
        return Vec::new();
    }
    vec![Entry {
        code,
        message,
        detail: String::new(),
    }]
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

fn details(errors: &[Entry]) -> String {
    let shown: Vec<String> = errors
        .iter()
        .take(SHOWN_ERRORS)
        .map(|error| {
            let mut shown: Vec<&str> = vec![&error.code, &error.message];
            shown.retain(|part| !part.is_empty());
            let detail = if error.detail.is_empty() {
                String::new()
            } else {
                format!(" ({})", error.detail)
            };
            tidy(&format!("{}{detail}", shown.join(": ")))
        })
        .collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!(": {}", shown.join("; "))
    }
}

/// Words from outside, fit for one line of a log.
pub(super) fn tidy(text: &str) -> String {
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

    impl Refusal {
        pub(in crate::oci::registry) fn of_a_tag(status: u16, body: &str) -> Self {
            refusal("tag", status, body)
        }
    }

    fn refusal(of: &str, status: u16, body: &str) -> Refusal {
        Refusal {
            status,
            errors: read_entries(body.as_bytes()),
            of_tag: of == "tag",
            of_manifest: of == "tag" || of == "manifest",
        }
    }

    fn meaning(of: &str, status: u16, code: &str) -> Meaning {
        refusal(of, status, &format!(r#"{{"errors": [{{"code": "{code}"}}]}}"#)).meaning()
    }

    #[test]
    fn status_and_code_decide() {
        for (of, status, code, expected) in [
            ("tag", 401, "UNAUTHORIZED", Meaning::NoLogin),
            ("tag", 403, "DENIED", Meaning::Forbidden),
            ("read", 404, "MANIFEST_UNKNOWN", Meaning::Absent),
            ("read", 404, "BLOB_UNKNOWN", Meaning::Absent),
            ("read", 404, "", Meaning::Absent),
            ("blob", 404, "NAME_UNKNOWN", Meaning::NoRepository),
            ("manifest", 404, "MANIFEST_BLOB_UNKNOWN", Meaning::Incomplete),
            ("manifest", 400, "MANIFEST_BLOB_UNKNOWN", Meaning::Incomplete),
            ("manifest", 404, "MANIFEST_UNKNOWN", Meaning::Incomplete),
            ("manifest", 400, "MANIFEST_INVALID", Meaning::Malformed),
            ("blob", 400, "DIGEST_INVALID", Meaning::Lost),
            ("blob", 416, "RANGE_INVALID", Meaning::Lost),
            ("tag", 400, "TAG_INVALID", Meaning::TagKept),
            ("manifest", 400, "TAG_INVALID", Meaning::Malformed),
            ("tag", 409, "", Meaning::TagKept),
            ("manifest", 409, "", Meaning::Conflict),
            ("tag", 412, "PRECONDITION", Meaning::TagKept),
            ("read", 412, "PROJECTPOLICYVIOLATION", Meaning::Policy),
            ("tag", 405, "REGISTRY_DISALLOWED_OPERATION", Meaning::TagKept),
            ("blob", 405, "REGISTRY_DISALLOWED_OPERATION", Meaning::Forbidden),
            ("tag", 401, "TAG_PROTECTED", Meaning::TagKept),
            ("tag", 409, "TAG_IMMUTABLE", Meaning::TagKept),
            ("read", 401, "TAG_PROTECTED", Meaning::NoLogin),
            ("blob", 413, "", Meaning::TooLarge),
            ("blob", 507, "", Meaning::Quota),
            ("read", 429, "", Meaning::Busy),
            ("read", 403, "TOOMANYREQUESTS", Meaning::Busy),
            ("read", 500, "UNKNOWN", Meaning::Broken),
            ("read", 408, "", Meaning::Broken),
            ("blob", 405, "UNSUPPORTED", Meaning::Unsupported),
            ("blob", 501, "", Meaning::Unsupported),
            ("read", 451, "", Meaning::Odd),
        ] {
            assert_eq!(meaning(of, status, code), expected, "{of} {status} {code}");
        }
    }

    #[test]
    fn registries_that_keep_a_tag_are_understood_in_their_own_words() {
        for (status, code, message, detail) in [
            // ECR
            (
                400,
                "TAG_INVALID",
                "The image tag '1' already exists in the 'app' repository and cannot be overwritten because the repository is immutable.",
                "",
            ),
            // Harbor
            (
                412,
                "PRECONDITION",
                "Failed to process request due to 'app:1' configured as immutable.",
                "",
            ),
            // GitLab's detail, with a code that says nothing
            (
                401,
                "DENIED",
                "requested access to the resource is denied",
                "tag \"1\" is protected",
            ),
            (
                403,
                "DENIED",
                "requested access to the resource is denied",
                "tag \"1\" is immutable",
            ),
            // Azure
            (
                405,
                "REGISTRY_DISALLOWED_OPERATION",
                "The operation is disallowed on this registry, repository or image.",
                "",
            ),
            // Quay
            (400, "UNKNOWN", "tag is immutable and cannot be overwritten", ""),
            (403, "DENIED", "Tag is Immutable", ""),
        ] {
            let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": detail}]});
            let body = body.to_string();
            assert_eq!(
                refusal("tag", status, &body).meaning(),
                Meaning::TagKept,
                "{body}"
            );
            // The same words about something else are about something else.
            assert_ne!(
                refusal("blob", status, &body).meaning(),
                Meaning::TagKept,
                "{body}"
            );
        }
    }

    #[test]
    fn a_quota_is_told_apart_from_missing_rights() {
        let harbor = r#"{"errors": [{"code": "DENIED", "message": "adding 29.0 MiB of storage resource, which when updated to current usage of 152.4 MiB will exceed the configured upper limit of 10.0 MiB."}]}"#;
        let gitlab = r#"{"errors": [{"code": "DENIED", "message": "Your action has been rejected because the namespace storage limit has been reached."}]}"#;
        for (of, status, body) in [
            ("blob", 403, harbor),
            ("tag", 412, harbor),
            ("tag", 403, harbor),
            ("blob", 403, gitlab),
        ] {
            assert_eq!(
                refusal(of, status, body).meaning(),
                Meaning::Quota,
                "{of} {status}"
            );
        }
    }

    #[test]
    fn the_registrys_words_are_shown_on_one_line_without_secrets() {
        let _secret = crate::secret::Secret::new("canary-registry-error");
        let shown = |body: &str| details(&read_entries(body.as_bytes()));
        for (body, expected) in [
            (
                r#"{"errors": [{"code": "DENIED", "message": "no\ncanary-registry-error.", "detail": {"name": "app"}},
                    {"code": "UNKNOWN"}, {"message": 7}]}"#,
                ": DENIED: no ****. ({\"name\":\"app\"}); UNKNOWN; 7",
            ),
            (
                r#"{"details": "incorrect username or password"}"#,
                ": incorrect username or password",
            ),
            (
                r#"{"error": "invalid_grant", "error_description": "expired"}"#,
                ": invalid_grant: expired",
            ),
            (r#"{"errors": []}"#, ""),
            (r#"{"errors": "none"}"#, ""),
            ("[]", ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(shown(body), expected, "{body}");
        }
        let long = "x".repeat(1000);
        assert!(shown(&format!("{{\"message\": \"{long}\"}}")).len() < 300);
    }
}
