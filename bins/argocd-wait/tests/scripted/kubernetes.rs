//! The same by the cluster's own API.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_sandbox::scripted::Reply;
use towpath_sandbox::tool_run::Ran;

use crate::support::{
    ACCOUNT, Ends as _, OURS, Scripted, Wait, authorization, image, lines, ok, recorded, status,
};

const ONE: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/web-prod";
const WATCH: &str = "GET /apis/argoproj.io/v1alpha1/namespaces/argocd/applications?watch=1&fieldSelector=\
                     metadata.name%3Dweb-prod&resourceVersion=345&allowWatchBookmarks=true&timeoutSeconds=290";

fn versioned(name: &str) -> Value {
    let mut state = recorded(name);
    state["metadata"]["resourceVersion"] = json!("345");
    state
}

fn get() -> String {
    format!("GET {ONE}")
}

async fn run(server: &Scripted, arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, ACCOUNT).unwrap();
    tool(server, &token, arguments).run().await
}

fn tool(server: &Scripted, token: &std::path::Path, arguments: &[&str]) -> Wait {
    Wait::bare(arguments)
        .env("TOWPATH_KUBERNETES_URL", &server.url)
        .env("TOWPATH_KUBERNETES_TOKEN_FILE", token.to_str().unwrap())
}

fn watched(states: &[(&str, Value)]) -> Reply {
    lines(
        states
            .iter()
            .map(|(kind, object)| json!({"type": kind, "object": object})),
    )
}

#[tokio::test]
async fn a_watch_is_followed_over_what_it_has_forgotten() {
    let server = Scripted::start().await;
    let forgotten = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
    server
        .on(&get(), [ok(versioned("deploy-3"))])
        .on(&format!("PATCH {ONE}"), [ok(json!({}))])
        .on(
            WATCH,
            [
                watched(&[("BOOKMARK", json!({"metadata": {}})), ("ERROR", forgotten)]),
                watched(&[("MODIFIED", versioned("deploy-5"))]),
            ],
        );
    let ran = run(&server, &["--via", "kubernetes"]).await;
    ran.ends(0, "ready", &[]);
    assert_eq!(ran.report().unwrap()["via"], "kubernetes");
    let patch = server.asked_for(&format!("PATCH {ONE}"));
    assert_eq!(
        patch[0].body["metadata"]["annotations"]["argocd.argoproj.io/refresh"],
        "normal"
    );
    assert_eq!(authorization(&patch[0]), format!("Bearer {ACCOUNT}"));
}

#[tokio::test]
async fn whoever_may_not_ask_for_a_refresh_waits_for_it() {
    let server = Scripted::start().await;
    server
        .on(&get(), [ok(versioned("deploy-3"))])
        .on(
            &format!("PATCH {ONE}"),
            [status(403, json!({"code": 403, "message": "forbidden"}))],
        )
        .on(
            WATCH,
            [watched(&[("MODIFIED", versioned("deploy-5"))]).after(Duration::from_secs(1))],
        );
    let ran = run(&server, &[]).await;
    ran.ends(
        0,
        "ready",
        &["may not patch", "looks at the repository when it likes"],
    );
}

#[tokio::test]
async fn pods_tell_why_where_they_may_be_listed() {
    let mut degraded = versioned("deploy-4");
    degraded["status"]["health"]["status"] = json!("Degraded");
    let server = Scripted::start().await;
    let pods = "GET /api/v1/namespaces/default/pods?limit=500";
    server
        .on(&get(), [ok(&degraded)])
        .on(&format!("PATCH {ONE}"), [ok(json!({}))])
        .on(WATCH, [watched(&[])]);
    let denied = run(&server, &[]).await;
    denied.ends(8, "degraded", &["resources cannot be looked at"]);
    let pod = json!({"metadata": {"name": "web-1"}, "spec": {"containers": [{"image": image('d')}]},
        "status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}});
    server.on(pods, [ok(json!({"items": [pod]}))]);
    let told = run(&server, &[]).await;
    told.ends(8, "degraded", &["Pod web-1: ImagePullBackOff"]);
}

#[tokio::test]
async fn refusals_and_deletion_are_told() {
    let server = Scripted::start().await;
    for (code, exit) in [(401, 4), (403, 4), (404, 5)] {
        server.on(&get(), [status(code, json!({"message": "said"}))]);
        let ran = run(&server, &["--via", "kubernetes"]).await;
        assert_eq!(ran.code, exit, "{code}: {ran}");
    }
    server
        .on(&get(), [ok(versioned("deploy-3"))])
        .on(&format!("PATCH {ONE}"), [ok(json!({}))])
        .on(WATCH, [watched(&[("DELETED", versioned("deploy-3"))])]);
    run(&server, &[]).await.ends(5, "deleted", &["was deleted"]);
}

#[tokio::test]
async fn auto_falls_back_where_argocd_cannot_be_reached() {
    let server = Scripted::start().await;
    server
        .on(&get(), [ok(versioned("deploy-5"))])
        .on(&format!("PATCH {ONE}"), [ok(json!({}))])
        .on(WATCH, [watched(&[])]);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, ACCOUNT).unwrap();
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ran = tool(&server, &token, &[])
        .env("ARGOCD_SERVER", &format!("http://{free}"))
        .env("ARGOCD_AUTH_TOKEN", crate::support::ARGOCD)
        .run()
        .await;
    ran.ends(0, "ready", &["since Argo CD cannot be reached"]);
    assert_eq!(ran.report().unwrap()["revision"], OURS);
}
