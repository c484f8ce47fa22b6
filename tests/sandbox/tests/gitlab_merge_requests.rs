//! The REST API: merge requests and deployments.

mod gitlab_world;

use gitlab_world::{LIMIT, World};
use serde_json::json;
use towpath_sandbox::gitlab::ProjectSettings;

#[tokio::test]
async fn merge_requests_merge_when_their_pipeline_succeeds() {
    let world = World::start().await;
    let config = "job: {script: [\"test -e go\"], rules: [{if: '$CI_COMMIT_BRANCH != \"main\"'}]}\n";
    let id = world
        .project_with(
            "group/env",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", config)],
        )
        .await;
    let sha = world.push("group/env", "bump", &[("go", "1")], &[]).await;
    let waits = world
        .gitlab
        .wait_for_pipeline("group/env", |found| found.sha == sha, LIMIT)
        .await
        .unwrap();
    let requests = format!("/projects/{id}/merge_requests");
    let body = json!({ "source_branch": "bump", "target_branch": "main", "title": "Bump", "remove_source_branch": true });
    let (status, request) = world.post(&requests, body.clone()).await;
    assert_eq!(status, 201, "{request}");
    let (status, twice) = world.post(&requests, body).await;
    let text = "Another open merge request already exists for this source branch: !1";
    assert_eq!((status.as_u16(), twice), (409, json!({ "message": [text] })));
    let merge = format!("{requests}/1/merge");
    let (status, refused) = world.put(&merge, json!({ "sha": "0".repeat(40) })).await;
    assert_eq!(status, 409, "{refused}");
    // Asked for before GitLab has looked at it, the merge is refused.
    assert_eq!(world.put(&merge, json!({ "auto_merge": true })).await.0, 405);
    let (_, shown) = world.put(&merge, json!({ "auto_merge": true, "sha": sha })).await;
    assert!(
        shown["merge_when_pipeline_succeeds"] == true || waits.status.is_finished(),
        "{shown}"
    );
    let mut changes = world.gitlab.changes();
    let merged = async {
        loop {
            let (_, shown) = world.get(&format!("{requests}/1")).await;
            if shown["state"] == "merged" {
                return shown;
            }
            changes.changed().await.unwrap();
        }
    };
    let shown = tokio::time::timeout(LIMIT, merged).await.unwrap();
    assert_eq!(shown["detailed_merge_status"], "not_open");
    let merge_commit = shown["merge_commit_sha"].as_str().unwrap();
    let clone = world.clone_of("group/env", "main").await;
    assert_eq!(
        world.git(&clone, &["rev-parse", "HEAD"]).await.unwrap(),
        merge_commit
    );
    assert!(clone.join("go").exists());

    world
        .push("group/env", "left", &[("go", "2")], &["-o", "ci.skip"])
        .await;
    world
        .push("group/env", "main", &[("go", "3")], &["-o", "ci.skip"])
        .await;
    let body = json!({ "source_branch": "left", "target_branch": "main", "title": "Left" });
    let (_, request) = world.post(&requests, body).await;
    let request = format!("{requests}/{}", request["iid"]);
    assert_eq!(world.get(&request).await.1["detailed_merge_status"], "checking");
    let (_, shown) = world.get(&request).await;
    assert_eq!(shown["detailed_merge_status"], "conflict");
    let (status, _) = world.put(&format!("{request}/merge"), json!({})).await;
    assert_eq!(status, 422);
    let (_, closed) = world.put(&request, json!({ "state_event": "close" })).await;
    assert_eq!(closed["state"], "closed");
    assert_eq!(world.put(&format!("{request}/merge"), json!({})).await.0, 405);
}

#[tokio::test]
async fn deployments_can_be_recorded_and_found() {
    let world = World::start().await;
    let id = world
        .project_with("group/env", ProjectSettings::default(), &[("a", "1")])
        .await;
    let sha = world.push("group/env", "main", &[("a", "2")], &[]).await;
    let deployments = format!("/projects/{id}/deployments");
    let body = json!({ "environment": "prod", "sha": sha, "ref": "main", "tag": false, "status": "running" });
    let (status, made) = world.post(&deployments, body).await;
    assert_eq!(status, 201, "{made}");
    assert!(made["finished_at"].is_null() && made["deployable"].is_null());
    let one = format!("{deployments}/{}", made["id"]);
    assert_eq!(
        world.put(&one, json!({ "status": "success" })).await.1["status"],
        "success"
    );
    assert_eq!(world.put(&one, json!({ "status": "failed" })).await.0, 400);
    let newest = format!("{deployments}?environment=prod&status=success&order_by=finished_at&sort=desc");
    let (_, found) = world.get(&newest).await;
    assert_eq!(found[0]["sha"], sha);
    assert_eq!(found[0]["environment"]["name"], "prod");
    assert_eq!(
        world.get(&format!("{deployments}?order_by=finished_at")).await.0,
        400
    );
    let (_, environments) = world.get(&format!("/projects/{id}/environments?name=prod")).await;
    assert_eq!(environments[0]["tier"], "production");
    let stop = format!("/projects/{id}/environments/{}/stop", environments[0]["id"]);
    assert_eq!(world.post(&stop, json!({})).await.1["state"], "stopped");
}
