//! What is made of the states that Argo CD shows.

use serde_json::json;

use crate::support::{
    Ends as _, LATER, LOOK, OLD, OURS, REFRESH, STREAM, SYNC, Scripted, TREE, WINDOWS, authorization, image,
    ok, recorded, status, stream,
};

#[tokio::test]
async fn a_deployment_is_followed_to_its_end() {
    let states = ["deploy-1", "deploy-2", "deploy-3", "deploy-4", "deploy-5"].map(recorded);
    let server = Scripted::showing(&states[0], &states).await;
    let ran = server.tool(&[]).run().await;
    ran.ends(0, "ready", &["Progressing"]);
    let report = ran.report().unwrap();
    assert_eq!(report["applications"][0]["proof"], "pods");
    assert_eq!(report["applications"][0]["running"], json!([image('d')]));
    assert_eq!(report["changed"], false);
    assert_eq!(server.asked_for(REFRESH).len(), 1, "a refresh is asked for once");
    assert!(authorization(&server.asked_for(REFRESH)[0]).starts_with("Bearer "));
}

#[tokio::test]
async fn a_broken_commit_fails_at_once() {
    let server = Scripted::showing(&recorded("broken-1"), &[]).await;
    let ran = server.tool(&[]).env("ENV_COMMIT", LATER).run().await;
    ran.ends(
        8,
        "comparison_error",
        &["ComparisonError", "no such file or directory"],
    );
}

#[tokio::test]
async fn a_commit_that_changes_nothing_is_ready() {
    let server = Scripted::showing(&recorded("mended-1"), &[]).await;
    let ran = server.tool(&[]).env("ENV_COMMIT", LATER).run().await;
    ran.ends(0, "ready", &[]);
}

#[tokio::test]
async fn a_revision_that_moves_under_the_wait_is_told() {
    let mut moved = recorded("mended-1");
    moved["status"]["summary"]["images"] = json!([image('e')]);
    let server = Scripted::showing(&recorded("deploy-3"), &[recorded("deploy-3"), moved]).await;
    let manifests = format!("GET /api/v1/applications/web-prod/manifests?revision={LATER}");
    let manifest = json!({"kind": "Pod", "spec": {"containers": [{"image": image('e')}]}});
    server.on(&manifests, [ok(json!({"manifests": [manifest.to_string()]}))]);
    let ran = server.tool(&[]).run().await;
    ran.ends(6, "superseded", &["superseded by f016fa7b4f92", &image('e')]);
}

#[tokio::test]
async fn an_application_that_is_deleted_under_the_wait_is_told() {
    let before = recorded("deploy-3");
    let server = Scripted::showing(&before, &[]).await;
    let gone = json!({"result": {"type": "DELETED", "application": before}});
    server.on(STREAM, [crate::support::lines([gone])]);
    let ran = server.tool(&[]).run().await;
    ran.ends(5, "deleted", &["was deleted"]);
}

#[tokio::test]
async fn what_is_degraded_tells_its_pods() {
    let mut degraded = recorded("deploy-4");
    degraded["status"]["health"]["status"] = json!("Degraded");
    let server = Scripted::showing(&degraded, std::slice::from_ref(&degraded)).await;
    let tree = json!({"nodes": [
        {"kind": "Deployment", "name": "web", "health": {"status": "Degraded", "message": "exceeded its progress deadline"}},
        {"kind": "Pod", "name": "web-1", "health": {"status": "Degraded", "message": "Back-off pulling image"},
         "info": [{"name": "Status Reason", "value": "ImagePullBackOff"}]}]});
    server.on(TREE, [ok(&tree)]);
    let ran = server.tool(&[]).run().await;
    ran.ends(
        8,
        "degraded",
        &["exceeded its progress deadline", "ImagePullBackOff"],
    );
    let resources = &ran.report().unwrap()["applications"][0]["resources"];
    assert_eq!(resources[1]["reason"], "ImagePullBackOff");
}

#[tokio::test]
async fn what_never_becomes_healthy_fails_after_its_time() {
    let progressing = recorded("deploy-4");
    let server = Scripted::showing(&progressing, std::slice::from_ref(&progressing)).await;
    server.on(TREE, [status(500, json!({"message": "no tree"}))]);
    let ran = server.tool(&["--healthy-within", "1s"]).run().await;
    ran.ends(
        8,
        "not_healthy",
        &["did not become healthy", "cannot be looked at"],
    );
}

/// Compared to our commit, different from it, and nothing has begun.
fn idle() -> serde_json::Value {
    let mut idle = recorded("deploy-2");
    for pointer in ["/operation/sync/revision", "/syncResult/revision"] {
        let state = &mut idle["status"]["operationState"];
        *state.pointer_mut(pointer).unwrap() = json!(OLD);
    }
    idle
}

#[tokio::test]
async fn a_window_and_auto_sync_that_is_off_need_somebody() {
    let server = Scripted::showing(&idle(), &[]).await;
    let window = json!({"kind": "deny", "schedule": "0 22 * * *", "duration": "2h"});
    server.on(
        WINDOWS,
        [ok(
            json!({"activeWindows": [window], "assignedWindows": [window]}),
        )],
    );
    let ran = server.tool(&[]).run().await;
    ran.ends(9, "sync_window", &["deny", "0 22 * * *"]);

    let mut off = idle();
    off["spec"].as_object_mut().unwrap().remove("syncPolicy");
    let server = Scripted::showing(&off, &[]).await;
    let ran = server.tool(&[]).run().await;
    ran.ends(9, "auto_sync_off", &["its auto-sync is off", "--sync"]);
}

#[tokio::test]
async fn a_sync_is_started_once_where_it_may_be() {
    let mut off = idle();
    off["spec"].as_object_mut().unwrap().remove("syncPolicy");
    let server = Scripted::showing(&off, &[]).await;
    let mut done = recorded("deploy-5");
    done["spec"].as_object_mut().unwrap().remove("syncPolicy");
    server
        .on(SYNC, [ok(json!({}))])
        .on(
            STREAM,
            [
                stream(std::slice::from_ref(&off)),
                stream(std::slice::from_ref(&done)),
            ],
        )
        .on(LOOK, [ok(&off), ok(&off), ok(&done)]);
    let running = server.tool(&["--sync"]).spawn();
    let ran = running.ended().await.unwrap();
    ran.ends(0, "ready", &["started"]);
    assert_eq!(ran.report().unwrap()["changed"], true);
    let asked = server.asked_for(SYNC);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body["revision"], OURS);

    // A token that may not, and a window that forbids it, look alike at first.
    let denied = status(
        403,
        json!({"code": 7, "message": "permission denied: applications, sync"}),
    );
    let server = Scripted::showing(&off, &[]).await;
    server.on(SYNC, [denied.clone()]);
    let ran = server.tool(&["--sync"]).run().await;
    ran.ends(4, "denied", &["a sync of application web-prod"]);
    let window = json!({"kind": "deny", "schedule": "* * * * *", "duration": "1h"});
    server.on(WINDOWS, [ok(json!({"activeWindows": [window]}))]);
    let ran = server.tool(&["--sync"]).run().await;
    ran.ends(9, "sync_window", &["deny"]);
}

#[tokio::test]
async fn a_dry_run_asks_for_nothing() {
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    let ran = server.tool(&["--dry-run"]).run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.report().unwrap()["applications"][0]["health"], "Progressing");
    assert!(server.asked_for(REFRESH).is_empty() && server.asked_for(STREAM).is_empty());
}

#[tokio::test]
async fn of_several_the_first_that_fails_ends_the_wait() {
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    let other = "GET /api/v1/applications/other?appNamespace=team&project=shop";
    server
        .on(other, [ok(recorded("broken-1"))])
        .on(
            "GET /api/v1/applications/other?appNamespace=team&project=shop&refresh=normal",
            [ok(recorded("broken-1"))],
        )
        .on(
            "GET /api/v1/applications/web-prod?project=shop",
            [ok(recorded("deploy-3"))],
        );
    let ran = server
        .tool(&["--project", "shop"])
        .env("TOWPATH_APPLICATION", "web-prod,team/other")
        .run()
        .await;
    ran.ends(8, "comparison_error", &["application team/other"]);
    let report = ran.report().unwrap();
    assert_eq!(report["applications"][0]["verdict"], "waiting");
    assert_eq!(report["applications"][1]["verdict"], "comparison_error");
}

/// Our sync after its attempt of this number failed, as Argo CD 3.2 shows it until the next.
fn retrying(attempt: u64, phase: &str) -> serde_json::Value {
    let mut failed = recorded("deploy-1");
    let version: u64 = 307 + attempt;
    failed["metadata"]["resourceVersion"] = json!(version.to_string());
    let state = &mut failed["status"]["operationState"];
    state["phase"] = json!(phase);
    state["retryCount"] = json!(attempt);
    state["finishedAt"] = json!("2026-11-21T10:03:30Z");
    state["message"] = json!(format!(
        "one or more objects failed to apply. Retrying attempt #{attempt} at 10:03AM."
    ));
    state["syncResult"] = json!({"revision": OURS, "resources": [{"kind": "Deployment", "namespace": "web", "name": "web",
        "status": "SyncFailed", "message": "Deployment.apps \"web\" is invalid: field is immutable"}]});
    if phase != "Running" {
        failed.as_object_mut().unwrap().remove("operation");
    }
    failed
}

#[tokio::test]
async fn a_sync_that_is_tried_again_is_told_and_ends_with_its_last_attempt() {
    let words = [
        "failed in attempt 1 of 6",
        "Deployment web",
        "field is immutable",
        "Retrying attempt #2",
        "failed in 2 attempts",
    ];
    let attempts = [retrying(1, "Running"), retrying(2, "Running")];
    let server = Scripted::showing(&recorded("deploy-1"), &attempts).await;
    let ran = server.tool(&["--timeout", "3s"]).run().await;
    ran.ends(9, "deadline", &words);
    let message = ran.report().unwrap()["applications"][0]["message"].to_string();
    for word in ["attempt 2 of 6", "field is immutable", "failed in 2 attempts"] {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
    // What fails again and again has no more time than what does not become healthy.
    let server = Scripted::showing(&recorded("deploy-1"), &attempts).await;
    let ran = server.tool(&["--healthy-within", "1s"]).run().await;
    ran.ends(8, "sync_failed", &words);

    let all = [attempts.as_slice(), &[retrying(5, "Failed")]].concat();
    let server = Scripted::showing(&recorded("deploy-1"), &all).await;
    let ran = server.tool(&[]).run().await;
    ran.ends(
        8,
        "sync_failed",
        &["failed in attempt 1 of 6", "field is immutable"],
    );
}
