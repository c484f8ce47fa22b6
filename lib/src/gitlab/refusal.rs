//! What GitLab's refusals mean, by status and by the kind of token that was refused.
//!
//! GitLab answers 404 to whoever may not know that a project exists, so a 404 to a job token or trigger token is
//! taken for missing permission, which is by far its most frequent cause; its hint names both.

use serde_json::Value;

use super::client::Token;
use super::project::Project;
use crate::failure::{Failure, Kind};
use crate::http::{Response, StatusCode};

/// How much of an error's body is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How much of it is shown, in characters.
const SHOWN_LIMIT: usize = 400;

/// Turns an answer that is no success into a failure; `object` names what was asked for.
pub(super) async fn refusal(response: Response, object: &str, project: &Project, token: &Token) -> Failure {
    let status = response.status();
    let said = message(&response.text(BODY_LIMIT).await);
    classify(status, &said, object, project, token)
}

fn classify(status: StatusCode, said: &str, object: &str, project: &Project, token: &Token) -> Failure {
    let kind = match status.as_u16() {
        401 | 403 => Kind::Denied,
        404 => match token {
            Token::Access(_) => Kind::NotFound,
            Token::Job(_) | Token::Trigger(_) => Kind::Denied,
        },
        409 => Kind::Conflict,
        // Only what asks for a document is followed elsewhere, and what stands before GitLab likes to ask for a login.
        300..=399 => Kind::Input,
        408 | 429 | 500..=599 => Kind::Unavailable,
        400..=499 => Kind::Input,
        _ => Kind::Internal,
    };
    let mut text = match kind {
        Kind::NotFound => format!("{object} is not there"),
        Kind::Input if status.is_redirection() => format!("{object} is answered with another address"),
        Kind::Unavailable if status == StatusCode::TOO_MANY_REQUESTS => {
            format!("GitLab's rate limit turned {object} away")
        }
        Kind::Unavailable => format!("GitLab cannot answer for {object}"),
        _ => format!("GitLab refuses {object}"),
    };
    text.push_str(&format!(" ({})", status.as_u16()));
    if !said.is_empty() {
        text.push_str(": ");
        text.push_str(said);
    }
    let failure = Failure::new(kind, text);
    match hint(status, project, token) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn hint(status: StatusCode, project: &Project, token: &Token) -> Option<String> {
    let hint = match (status.as_u16(), token) {
        (401, Token::Job(_)) => {
            "a job token is valid only while its job runs; is CI_JOB_TOKEN the token of this very job?"
                .to_owned()
        }
        (401, Token::Trigger(_)) => {
            format!("make a new trigger token in {project}, Settings > CI/CD > Pipeline trigger tokens")
        }
        (401, Token::Access(_)) => {
            "the access token is wrong, revoked or expired, or lacks the scope `api`; make a new one"
                .to_owned()
        }
        (403 | 404, Token::Job(_)) => format!(
            "add this job's project to the allowlist of {project} (Settings > CI/CD > Job token permissions), and \
             give the user who started this job at least the Developer role there; where the allowlist has fine-grained \
             permissions, grant Jobs: Read too; otherwise check the path"
        ),
        (403 | 404, Token::Trigger(_)) => format!(
            "is it a trigger token of {project}, and may its owner run pipelines there? Otherwise check the path"
        ),
        (403, Token::Access(_)) => format!(
            "the token needs the scope `api` and at least the Developer role in {project} (more, where the branch or \
             tag is protected)"
        ),
        (404, Token::Access(_)) => {
            format!(
                "check the path and the number; GitLab also answers so when the token may not see {project}"
            )
        }
        (429, _) => "wait a minute, or ask the administrator to raise the limit".to_owned(),
        (300..=399, _) => {
            "is --gitlab-url (CI_API_V4_URL) GitLab's own address, with https and /api/v4? A proxy that \
                           wants a login answers so too"
                .to_owned()
        }
        (408 | 500..=599, _) => "try again; if it stays so, look at GitLab's own status".to_owned(),
        _ => return None,
    };
    Some(hint)
}

/// What the body of an error says, in one line. GitLab puts it under `message` or `error`, as a string, an array or
/// a map from a field to either; limits of the application answer plain text; proxies answer HTML, which is dropped.
pub(super) fn message(body: &str) -> String {
    let text = match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(fields)) => ["message", "error", "error_description"]
            .iter()
            .filter_map(|name| fields.get(*name))
            .map(flatten)
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(": "),
        Ok(other) => flatten(&other),
        Err(_) if body.trim_start().starts_with('<') => String::new(),
        Err(_) => body.to_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_LIMIT)
        .collect();
    if line.chars().count() > SHOWN_LIMIT {
        shown.push_str("...");
    }
    shown.trim_end_matches('.').to_owned()
}

fn flatten(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(flatten).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match name.as_str() {
                // Rails' name for "the object as a whole".
                "base" => flatten(value),
                _ => format!("{name}: {}", flatten(value)),
            })
            .collect::<Vec<_>>()
            .join("; "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn every_shape_of_a_message_becomes_one_line() {
        for (body, line) in [
            (r#"{"message":"404 Project Not Found"}"#, "404 Project Not Found"),
            (
                r#"{"message":{"base":["Reference not found"]}}"#,
                "Reference not found",
            ),
            (
                r#"{"message":{"base":["a","b"],"ref":["is missing"]}}"#,
                "a, b; ref: is missing",
            ),
            (r#"{"message":["one","two"]}"#, "one, two"),
            (
                r#"{"error":"ref is missing, ref is empty"}"#,
                "ref is missing, ref is empty",
            ),
            (
                r#"{"error":"insufficient_scope","error_description":"The request requires higher privileges."}"#,
                "insufficient_scope: The request requires higher privileges",
            ),
            (r#"{"message":null}"#, ""),
            ("Retry later\n", "Retry later"),
            ("<html><body>502</body></html>", ""),
            ("", ""),
            ("\"bare\\u0007\"", "bare"),
        ] {
            assert_eq!(message(body), line, "{body}");
        }
        assert!(message(&"x".repeat(5000)).len() < 500);
    }

    #[test]
    fn statuses_map_to_kinds_by_the_kind_of_token() {
        let project: Project = "team/env".parse().unwrap();
        let job = Token::Job(Secret::new("job"));
        let access = Token::Access(Secret::new("access"));
        for (status, token, kind) in [
            (400, &job, Kind::Input),
            (401, &job, Kind::Denied),
            (403, &job, Kind::Denied),
            (404, &job, Kind::Denied),
            (404, &access, Kind::NotFound),
            (403, &access, Kind::Denied),
            (302, &job, Kind::Input),
            (409, &access, Kind::Conflict),
            (422, &access, Kind::Input),
            (429, &access, Kind::Unavailable),
            (500, &job, Kind::Unavailable),
            (503, &access, Kind::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = classify(status, "said", "pipeline 1 of team/env", &project, token);
            assert_eq!(failure.kind(), kind, "{status}");
            assert!(failure.message().contains("pipeline 1 of team/env"));
        }
        let refused = classify(StatusCode::FORBIDDEN, "", "a pipeline", &project, &job);
        assert!(refused.next_action().unwrap().contains("allowlist of team/env"));
    }
}
