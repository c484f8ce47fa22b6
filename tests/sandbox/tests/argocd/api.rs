//! Who may ask what, and the answers beside the application itself.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use towpath_sandbox::argocd::{Access, ArgoCd};

use crate::world::{Client, PATIENCE, World, digest, is_settled};

async fn running() -> (World, ArgoCd, Client) {
    let world = World::new().await;
    for digit in ['c', 'd'] {
        world.registry.push(&digest(digit));
    }
    world.commit_digest(&digest('c')).await;
    let argocd = ArgoCd::start(world.settings()).await.unwrap();
    argocd
        .wait_until_running("web-prod", &digest('c'), PATIENCE)
        .await
        .unwrap();
    let client = Client::new(&argocd);
    (world, argocd, client)
}

#[tokio::test]
async fn without_a_valid_token_everything_is_401() {
    let (_world, argocd, client) = running().await;
    let expired = argocd.mint_token("late", Access::Read, Duration::ZERO);
    let (_other_world, other, _) = running().await;
    let foreign = other.mint_token("ci", Access::Read, PATIENCE);
    let cases = [
        ("", "no session information"),
        (
            "garbage",
            "invalid session: token is malformed: token contains an invalid number of segments",
        ),
        (
            foreign.as_str(),
            "invalid session: token signature is invalid: signature is invalid",
        ),
        (
            expired.as_str(),
            "invalid session: token has invalid claims: token is expired",
        ),
    ];
    for (token, message) in cases {
        let client = client.with_token(token);
        for path in [
            "/api/v1/applications",
            "/api/v1/applications/web-prod",
            "/api/v1/applications/nothing",
            "/api/v1/applications/web-prod/resource-tree",
            "/api/v1/applications/web-prod/manifests",
            "/api/v1/stream/applications",
        ] {
            let expected = json!({"error": message, "code": 16, "message": message});
            assert_eq!(client.get(path).await, (401, expected), "{path}");
        }
        assert_eq!(
            client
                .post("/api/v1/applications/web-prod/sync", &json!({}))
                .await
                .0,
            401
        );
        assert_eq!(
            client.get("/api/version").await,
            (200, json!({"Version": "v3.2.11"}))
        );
    }
}

#[tokio::test]
async fn an_unknown_application_is_denied_unless_its_project_is_named() {
    let (_world, _argocd, client) = running().await;
    let denied = json!({"error": "permission denied", "code": 7, "message": "permission denied"});
    for path in [
        "nothing",
        "nothing?refresh=normal",
        "nothing/manifests",
        "web-prod?appNamespace=elsewhere",
    ] {
        assert_eq!(
            client.get(&format!("/api/v1/applications/{path}")).await,
            (403, denied.clone()),
            "{path}"
        );
    }
    for path in [
        "nothing?project=default",
        "web-prod?project=other",
        "web-prod?appNamespace=x&project=default",
    ] {
        let (status, body) = client.get(&format!("/api/v1/applications/{path}")).await;
        assert_eq!((status, &body["code"]), (404, &json!(5)), "{path}");
    }
    let (status, _) = client
        .get("/api/v1/applications/web-prod?appNamespace=argocd&project=default")
        .await;
    assert_eq!(status, 200);
    assert_eq!(client.get("/api/v1/nothing").await.0, 404);
}

#[tokio::test]
async fn a_list_leaves_out_the_resources_health() {
    let (_world, _argocd, client) = running().await;
    let (status, list) = client.get("/api/v1/applications").await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1));
    assert!(list["items"][0]["status"]["resources"][0].get("health").is_none());
    let (_, one) = client.get("/api/v1/applications/web-prod").await;
    assert_eq!(one["status"]["resources"][0]["health"]["status"], "Healthy");
    assert_eq!(list["items"][0]["metadata"], one["metadata"]);
    for query in ["name=other", "projects=other", "appNamespace=other"] {
        let (_, list) = client.get(&format!("/api/v1/applications?{query}")).await;
        assert_eq!(list["items"], json!([]), "{query}");
    }
}

#[tokio::test]
async fn manifests_are_those_of_the_revision_asked_for() {
    let (world, _argocd, client) = running().await;
    let commit = world.commit_digest(&digest('d')).await;
    let parent = {
        let (_, state) = client.get("/api/v1/applications/web-prod").await;
        state["status"]["sync"]["revision"].as_str().unwrap().to_owned()
    };
    for (query, expected) in [
        (format!("?revision={commit}"), 'd'),
        (format!("?revision={parent}"), 'c'),
        ("?revision=main".to_owned(), 'd'),
        (String::new(), 'd'),
    ] {
        let (status, answer) = client
            .get(&format!("/api/v1/applications/web-prod/manifests{query}"))
            .await;
        assert_eq!(status, 200, "{answer}");
        let manifest: Value = serde_json::from_str(answer["manifests"][0].as_str().unwrap()).unwrap();
        let image = &manifest["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, &json!(world.image(&digest(expected))), "{query}");
    }
    let (_, state) = client.get("/api/v1/applications/web-prod").await;
    assert_eq!(
        state["status"]["sync"]["revision"],
        parent.as_str(),
        "looking changes nothing"
    );
    let (status, body) = client
        .get("/api/v1/applications/web-prod/manifests?revision=nowhere")
        .await;
    assert_eq!((status, &body["code"]), (500, &json!(2)));
}

#[tokio::test]
async fn the_tree_leads_from_the_deployment_to_its_pod() {
    let (world, _argocd, client) = running().await;
    let (_, tree) = client.get("/api/v1/applications/web-prod/resource-tree").await;
    let nodes = tree["nodes"].as_array().unwrap();
    let kinds: Vec<&str> = nodes.iter().map(|node| node["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Deployment", "ReplicaSet", "Pod"]);
    assert_eq!(nodes[1]["parentRefs"][0]["uid"], nodes[0]["uid"]);
    assert_eq!(nodes[2]["parentRefs"][0]["uid"], nodes[1]["uid"]);
    assert_eq!(nodes[2]["images"], json!([world.image(&digest('c'))]));
    assert_eq!(nodes[2]["health"]["status"], "Healthy");
}

#[tokio::test]
async fn a_webhook_deploys_without_anyone_asking() {
    let world = World::new().await;
    for digit in ['c', 'd'] {
        world.registry.push(&digest(digit));
    }
    world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    settings.webhook_secret = Some("hook-secret".to_owned());
    let page = settings.applications[0].sources[0]
        .repo_url
        .trim_end_matches(".git")
        .to_owned();
    let argocd = ArgoCd::start(settings).await.unwrap();
    argocd
        .wait_until_running("web-prod", &digest('c'), PATIENCE)
        .await
        .unwrap();
    world.commit_digest(&digest('d')).await;

    let client = Client::new(&argocd).with_token("");
    let push = json!({
        "object_kind": "push",
        "ref": "refs/heads/main",
        "project": {"web_url": page, "default_branch": "main"},
    });
    let send = async |event: Option<&str>, secret: &str| {
        let mut request = client
            .request(Method::POST, "/api/webhook")
            .header("X-Gitlab-Token", secret)
            .json(&push);
        if let Some(event) = event {
            request = request.header("X-Gitlab-Event", event);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(None, "hook-secret").await, 400);
    assert_eq!(send(Some("Push Hook"), "wrong").await, 400);
    assert_eq!(send(Some("Issue Hook"), "hook-secret").await, 400);
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('c'))]);
    assert_eq!(send(Some("Push Hook"), "hook-secret").await, 200);
    argocd
        .wait_until_running("web-prod", &digest('d'), PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn without_auto_sync_a_commit_waits_for_a_sync() {
    let world = World::new().await;
    world.registry.push(&digest('c'));
    let commit = world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    settings.applications[0].automated = false;
    let argocd = ArgoCd::start(settings).await.unwrap();
    let client = Client::new(&argocd);
    let state = client.refresh().await;
    assert_eq!(state["status"]["sync"]["status"], "OutOfSync");
    assert_eq!(state["status"]["health"]["status"], "Missing");
    assert!(state.get("operation").is_none() && state["spec"].get("syncPolicy").is_none());

    let sync = "/api/v1/applications/web-prod/sync";
    let reader = client.with_token(&argocd.mint_token("reader", Access::Read, PATIENCE));
    let (status, body) = reader.post(sync, &json!({})).await;
    assert_eq!((status, &body["code"]), (403, &json!(7)));
    let message = body["message"].as_str().unwrap();
    assert!(
        message.starts_with("permission denied: applications, sync, default/web-prod, sub: reader"),
        "{message}"
    );
    assert_eq!(client.post(sync, &json!({"revision": "nowhere"})).await.0, 400);
    assert_eq!(
        client
            .post(sync, &json!({"resources": [{"kind": "Deployment"}]}))
            .await
            .0,
        501
    );
    assert_eq!(
        client
            .post("/api/v1/applications/nothing/sync", &json!({}))
            .await
            .0,
        403
    );

    let mut stream = client.watch().await;
    stream.next().await;
    assert_eq!(client.post(sync, &json!({"dryRun": true})).await.0, 200);
    let compared =
        |state: &Value| state.get("operation").is_none() && state["status"]["sync"]["status"] != "";
    stream.until(|state| state.get("operation").is_some()).await;
    let states = stream.until(compared).await;
    let operation = &states.last().unwrap()["status"]["operationState"];
    assert_eq!(operation["message"], "successfully synced (dry run)");
    assert_eq!(states.last().unwrap()["status"]["sync"]["status"], "OutOfSync");
    assert!(
        states.last().unwrap()["status"].get("history").is_none(),
        "a dry run is no deployment"
    );

    let (status, begun) = client.post(sync, &json!({"revision": "main"})).await;
    assert_eq!(
        (status, &begun["operation"]["sync"]["revision"]),
        (200, &json!(commit))
    );
    assert_eq!(begun["operation"]["initiatedBy"], json!({"username": "ci"}));
    stream.until(is_settled).await;
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('c'))]);
}

#[tokio::test]
async fn one_operation_runs_at_a_time() {
    let world = World::new().await;
    let commit = world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    settings.applications[0].automated = false;
    // The first operation never ends in this test's lifetime.
    settings.pace.step = Duration::from_secs(3600);
    let argocd = ArgoCd::start(settings).await.unwrap();
    let client = Client::new(&argocd);
    let sync = "/api/v1/applications/web-prod/sync";
    assert_eq!(client.post(sync, &json!({})).await.0, 200);
    let (status, body) = client.post(sync, &json!({})).await;
    assert_eq!((status, &body["code"]), (400, &json!(9)), "{body}");
    let state = client.refresh().await;
    assert_eq!(state["operation"]["sync"]["revision"], commit.as_str());
}

#[tokio::test]
async fn an_automated_application_syncs_to_its_target_alone() {
    let (_world, _argocd, client) = running().await;
    let sync = "/api/v1/applications/web-prod/sync";
    let (status, body) = client.post(sync, &json!({"revision": "other"})).await;
    assert_eq!((status, &body["code"]), (400, &json!(9)));
    assert_eq!(
        body["message"],
        "Cannot sync to other: auto-sync currently set to main"
    );
}

#[tokio::test]
async fn two_applications_of_one_name_are_refused() {
    let world = World::new().await;
    let mut settings = world.settings();
    settings.applications.push(settings.applications[0].clone());
    let error = ArgoCd::start(settings).await.err().unwrap();
    assert!(error.to_string().contains("web-prod"), "{error}");
}
