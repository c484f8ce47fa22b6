//! `POST /api/webhook`: GitLab says that something was pushed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::oneshot;
use url::Url;

use super::Server;
use super::controller::Request;
use super::settings::Source;

/// Refreshes every application that the pushed reference is the target of. As in the real one the answer does not wait
/// for that, and a push that concerns no application is no error.
pub(super) async fn receive(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let refuse = |reason: &str| {
        (
            StatusCode::BAD_REQUEST,
            format!("Webhook processing failed: {reason}\n"),
        )
    };
    let Some(event) = header("x-gitlab-event") else {
        return (StatusCode::BAD_REQUEST, "Unknown webhook event\n".to_owned());
    };
    if server
        .webhook_secret
        .as_deref()
        .is_some_and(|secret| header("x-gitlab-token") != Some(secret))
    {
        return refuse("X-Gitlab-Token validation failed");
    }
    let Ok(payload) = serde_json::from_slice::<Value>(&body) else {
        return refuse("The payload is either too large or corrupted");
    };
    match event {
        "Push Hook" | "Tag Push Hook" => {}
        "System Hook" if matches!(payload["event_name"].as_str(), Some("push" | "tag_push")) => {}
        _ => return refuse("event not defined to be parsed"),
    }
    for entry in server.store.all() {
        let snapshot = entry.snapshot();
        let mut sources = snapshot.application.spec.all_sources().iter();
        if sources.any(|source| concerns(&payload, source)) {
            let (answer, _) = oneshot::channel();
            // A controller that has ended refreshes nothing any more.
            let _ = entry.requests.send(Request::Refresh { hard: false, answer });
        }
    }
    (StatusCode::OK, String::new())
}

/// Whether the push is to this source: the same repository, and the reference it follows.
fn concerns(payload: &Value, source: &Source) -> bool {
    let project = &payload["project"];
    let pushed = short_reference(payload["ref"].as_str().unwrap_or_default());
    let follows = match short_reference(&source.target_revision) {
        "" | "HEAD" => project["default_branch"] == pushed,
        target => target == pushed,
    };
    follows
        && project["web_url"]
            .as_str()
            .is_some_and(|web_url| same_repository(web_url, &source.repo_url))
}

/// `refs/heads/main` as people say it.
fn short_reference(reference: &str) -> &str {
    reference
        .strip_prefix("refs/heads/")
        .or_else(|| reference.strip_prefix("refs/tags/"))
        .unwrap_or(reference)
}

/// Whether a project's page and a clone address name one repository. The port is left out, as the real one does.
fn same_repository(web_url: &str, repo_url: &str) -> bool {
    let identity = |text: &str| {
        let url = Url::parse(text).ok()?;
        let path = url.path().trim_matches('/').to_lowercase();
        Some((
            url.host_str()?.to_lowercase(),
            path.strip_suffix(".git").unwrap_or(&path).to_owned(),
        ))
    };
    identity(web_url).is_some_and(|pushed| identity(repo_url) == Some(pushed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concerned(reference: &str, web_url: &str, target_revision: &str) -> bool {
        let project = serde_json::json!({"web_url": web_url, "default_branch": "main"});
        let payload = serde_json::json!({"ref": reference, "project": project});
        let repo_url = "http://127.0.0.1:8080/shop/env.git".to_owned();
        concerns(
            &payload,
            &Source {
                repo_url,
                target_revision: target_revision.to_owned(),
                ..Source::default()
            },
        )
    }

    #[test]
    fn a_push_concerns_who_follows_its_reference() {
        let page = "http://127.0.0.1:9090/Shop/env";
        assert!(concerned("refs/heads/main", page, "main"));
        assert!(concerned("refs/heads/main", page, "HEAD"));
        assert!(concerned("refs/heads/main", page, ""));
        assert!(concerned("refs/tags/v1", page, "v1"));
        assert!(concerned("refs/heads/main", page, "refs/heads/main"));
        assert!(!concerned("refs/heads/other", page, "main"));
        assert!(!concerned("refs/heads/other", page, "HEAD"));
        assert!(!concerned(
            "refs/heads/main",
            "http://127.0.0.1:9090/shop/environment",
            "main"
        ));
        assert!(!concerned("refs/heads/main", "http://localhost/shop/env", "main"));
        assert!(!concerned("refs/heads/main", "", "main"));
    }
}
