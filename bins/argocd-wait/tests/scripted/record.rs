//! The deployment in GitLab, and the handoff.

use serde_json::{Value, json};

use crate::support::{Ends as _, GITLAB, OURS, Scripted, ok, recorded, status};

const MADE: &str = "POST /api/v4/projects/shop%2Fenv/deployments";
const ENDED: &str = "PUT /api/v4/projects/shop%2Fenv/deployments/42";

async fn recording(state: &str) -> (Scripted, Scripted) {
    let state = recorded(state);
    let argocd = Scripted::showing(&state, &[]).await;
    let gitlab = Scripted::start().await;
    gitlab
        .on(MADE, [status(201, json!({"id": 42, "iid": 7}))])
        .on(ENDED, [ok(json!({"id": 42, "iid": 7}))]);
    (argocd, gitlab)
}

async fn run(argocd: &Scripted, gitlab: &Scripted, arguments: &[&str]) -> towpath_sandbox::tool_run::Ran {
    argocd
        .tool(arguments)
        .env("TOWPATH_RECORD", "production")
        .env("CI_API_V4_URL", &format!("{}/api/v4", gitlab.url))
        .env("CI_PROJECT_PATH", "shop/env")
        .env("TOWPATH_GITLAB_TOKEN", GITLAB)
        .run()
        .await
}

#[tokio::test]
async fn what_came_of_it_is_recorded() {
    for (state, code, verdict, outcome) in [
        ("deploy-5", 0, "ready", "success"),
        ("deploy-3", 9, "deadline", "failed"),
    ] {
        let (argocd, gitlab) = recording(state).await;
        let folder = tempfile::tempdir().unwrap();
        let handoff = folder.path().join("handoff.env");
        let ran = run(
            &argocd,
            &gitlab,
            &["--timeout", "2s", "--handoff", handoff.to_str().unwrap()],
        )
        .await;
        ran.ends(code, verdict, &[]);
        assert_eq!(
            ran.report().unwrap()["deployment"],
            json!({"id": 42, "iid": 7, "environment": "production", "status": outcome})
        );
        let made = gitlab.asked_for(MADE);
        assert_eq!(
            made[0].body,
            json!({"environment": "production", "sha": OURS, "ref": "main", "tag": false, "status": "running"})
        );
        assert_eq!(gitlab.asked_for(ENDED)[0].body, json!({"status": outcome}));
        let left = std::fs::read_to_string(&handoff).unwrap();
        assert!(left.contains(&format!("ENV_COMMIT={OURS}\n")), "{left}");
        assert!(left.contains(&format!("ENV_VERDICT={verdict}\n")), "{left}");
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_told() {
    let (argocd, gitlab) = recording("deploy-5").await;
    gitlab.on(MADE, [status(403, json!({"message": "403 Forbidden"}))]);
    let refused = run(&argocd, &gitlab, &[]).await;
    assert_eq!(refused.code, 4, "{refused}");
    assert!(gitlab.asked_for(ENDED).is_empty());
    let (argocd, gitlab) = recording("deploy-5").await;
    gitlab.on(ENDED, [status(400, json!({"message": "no"}))]);
    let left = run(&argocd, &gitlab, &[]).await;
    assert_ne!(left.code, 0, "{left}");
    assert_eq!(left.report().unwrap()["deployment"]["status"], "running");
    let without = argocd.tool(&["--record", "production"]).run().await;
    assert_eq!(
        (without.code, without.stdout.parse::<Value>().is_ok()),
        (2, false),
        "{without}"
    );
}
