//! What runs, and what does not.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_sandbox::argocd::{ArgoCd, Credentials};
use towpath_sandbox::base_image::BaseImage;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::Registry;

use crate::world::{Client, PATIENCE, Stream, World, digest, is_settled};

fn health(state: &Value) -> (&str, &str) {
    let health = &state["status"]["resources"][0]["health"];
    (
        health["status"].as_str().unwrap_or_default(),
        health["message"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_first_deployment_runs_its_digest() {
    let world = World::new().await;
    world.registry.push(&digest('c'));
    let commit = world.commit_digest(&digest('c')).await;
    let argocd = ArgoCd::start(world.settings()).await.unwrap();
    argocd
        .wait_until_running("web-prod", &digest('c'), PATIENCE)
        .await
        .unwrap();
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('c'))]);
    let (_, state) = Client::new(&argocd).get("/api/v1/applications/web-prod").await;
    assert_eq!(state["status"]["history"][0]["revision"], commit.as_str());
    assert_eq!(
        state["status"]["operationState"]["syncResult"]["resources"][0]["message"],
        "deployment.apps/web created"
    );
}

/// A world in which `c` runs and `d` is wanted but not in the registry.
async fn wanting(progress_deadline: Duration) -> (World, ArgoCd, Client, Stream) {
    let world = World::new().await;
    world.registry.push(&digest('c'));
    world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    settings.pace.progress_deadline = progress_deadline;
    let argocd = ArgoCd::start(settings).await.unwrap();
    argocd
        .wait_until_running("web-prod", &digest('c'), PATIENCE)
        .await
        .unwrap();
    let client = Client::new(&argocd);
    let mut stream = client.watch().await;
    stream.next().await;
    world.commit_digest(&digest('d')).await;
    client.refresh().await;
    (world, argocd, client, stream)
}

#[tokio::test]
async fn a_digest_that_the_registry_lacks_does_not_run_until_it_is_there() {
    let (world, argocd, client, mut stream) = wanting(PATIENCE).await;
    let states = stream
        .until(|state| health(state).1.contains("ImagePullBackOff"))
        .await;
    assert!(
        !states.iter().any(is_settled),
        "it was never well with a digest that is not there"
    );
    let stuck = states.last().unwrap();
    let (status, message) = health(stuck);
    assert_eq!(status, "Progressing");
    assert!(
        message.contains(&digest('d')) && message.ends_with("not found)"),
        "{message}"
    );
    assert_eq!(stuck["status"]["health"]["status"], "Progressing");
    assert_eq!(stuck["status"]["sync"]["status"], "Synced");
    let both = json!([world.image(&digest('c')), world.image(&digest('d'))]);
    assert_eq!(stuck["status"]["summary"]["images"], both);
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('c'))]);

    let (_, tree) = client.get("/api/v1/applications/web-prod/resource-tree").await;
    let pods: Vec<&Value> = tree["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["kind"] == "Pod")
        .collect();
    let stuck = pods
        .iter()
        .find(|pod| pod["images"][0] == world.image(&digest('d')))
        .unwrap();
    assert_eq!((pods.len(), &stuck["health"]["status"]), (2, &json!("Degraded")));
    assert_eq!(stuck["info"][0]["value"], "ImagePullBackOff");

    world.registry.push(&digest('d'));
    argocd
        .wait_until_running("web-prod", &digest('d'), PATIENCE)
        .await
        .unwrap();
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('d'))]);
}

#[tokio::test]
async fn a_deployment_is_degraded_after_its_deadline() {
    let (world, argocd, _client, mut stream) = wanting(Duration::ZERO).await;
    let states = stream
        .until(|state| state["status"]["health"]["status"] == "Degraded")
        .await;
    assert!(
        !states.iter().any(is_settled),
        "it was never well with a digest that is not there"
    );
    let (status, message) = health(states.last().unwrap());
    assert_eq!(status, "Degraded");
    assert!(
        message.starts_with("Deployment \"web\" exceeded its progress deadline"),
        "{message}"
    );
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('c'))]);
}

#[tokio::test]
async fn without_pull_credentials_nothing_runs() {
    let world = World::new().await;
    world.registry.push(&digest('c'));
    world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    settings.registries.clear();
    let argocd = ArgoCd::start(settings).await.unwrap();
    let stuck = |state: &Value| health(state).1.contains("ImagePullBackOff");
    let states = Client::new(&argocd).watch().await.until(stuck).await;
    let (status, message) = health(states.last().unwrap());
    assert_eq!(status, "Progressing");
    assert!(message.contains("authorization failed"), "{message}");
    assert_eq!(argocd.running_images("web-prod"), Vec::<String>::new());
}

#[tokio::test]
async fn a_newer_commit_takes_the_place_of_one_that_rolls_out() {
    // What is wanted here cannot finish, so the newer one is sure to find it rolling out.
    let (world, _argocd, client, mut stream) = wanting(PATIENCE).await;
    world.registry.push(&digest('e'));
    stream
        .until(|state| health(state).1.contains("ImagePullBackOff"))
        .await;
    let commit = world.commit_digest(&digest('e')).await;
    client.refresh().await;
    let states = stream.until(is_settled).await;
    let last = &states.last().unwrap()["status"];
    assert_eq!(last["sync"]["revision"], commit.as_str());
    assert_eq!(last["summary"]["images"], json!([world.image(&digest('e'))]));
}

#[tokio::test]
async fn a_commit_before_the_operation_ends_is_deployed_after_it() {
    let world = World::new().await;
    for digit in ['c', 'd'] {
        world.registry.push(&digest(digit));
    }
    world.commit_digest(&digest('c')).await;
    let mut settings = world.settings();
    settings.pace.step = Duration::from_millis(300);
    let argocd = ArgoCd::start(settings).await.unwrap();
    let client = Client::new(&argocd);
    let mut stream = client.watch().await;
    stream.until(|state| state.get("operation").is_some()).await;
    let commit = world.commit_digest(&digest('d')).await;
    client.refresh().await;
    argocd
        .wait_until_running("web-prod", &digest('d'), PATIENCE)
        .await
        .unwrap();
    let (_, state) = client.get("/api/v1/applications/web-prod").await;
    assert_eq!(
        state["status"]["operationState"]["syncResult"]["revision"],
        commit.as_str()
    );
}

#[tokio::test]
async fn what_is_removed_from_the_repository_is_pruned() {
    let world = World::new().await;
    let settings_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n";
    let cron = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: report}\nspec: {jobTemplate: {spec: {template: \
                {spec: {containers: [{image: registry.example.com/report}]}}}}}\n";
    world
        .commit(&[
            (
                "app/prod/kustomization.yaml",
                "resources: [map.yaml, cron.yaml]\n",
            ),
            ("app/prod/map.yaml", settings_map),
            ("app/prod/cron.yaml", cron),
        ])
        .await;
    let argocd = ArgoCd::start(world.settings()).await.unwrap();
    let client = Client::new(&argocd);
    let states = client.watch().await.until(is_settled).await;
    let status = &states.last().unwrap()["status"];
    assert_eq!(
        status["summary"],
        json!({}),
        "nothing runs until a CronJob's time has come"
    );
    assert_eq!(status["resources"].as_array().unwrap().len(), 2);

    let mut stream = client.watch().await;
    stream.next().await;
    world
        .commit(&[("app/prod/kustomization.yaml", "resources: [map.yaml]\n")])
        .await;
    let state = client.refresh().await;
    assert_eq!(state["status"]["resources"][1]["requiresPruning"], true);
    let states = stream.until(is_settled).await;
    let status = &states.last().unwrap()["status"];
    assert_eq!(status["resources"].as_array().unwrap().len(), 1);
    let results = &status["operationState"]["syncResult"]["resources"];
    assert_eq!(
        (&results[0]["message"], &results[1]["status"]),
        (&json!("configmap/settings unchanged"), &json!("Pruned"))
    );
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_a_condition() {
    let world = World::new().await;
    world.commit_digest(&digest('c')).await;
    let cases: [(&str, &str, bool, &str); 3] = [
        ("elsewhere", "main", true, "elsewhere: app path does not exist"),
        (
            "app/prod",
            "nowhere",
            true,
            "unable to resolve 'nowhere' to a commit SHA",
        ),
        ("app/prod", "main", false, "failed to list refs: "),
    ];
    for (path, revision, allowed, expected) in cases {
        let mut settings = world.settings();
        let source = &mut settings.applications[0].sources[0];
        source.path = path.to_owned();
        source.target_revision = revision.to_owned();
        if !allowed {
            settings.repositories.clear();
        }
        let argocd = ArgoCd::start(settings).await.unwrap();
        let state = Client::new(&argocd).refresh().await;
        let message = state["status"]["conditions"][0]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
        assert_eq!(state["status"]["sync"]["status"], "Unknown");
        let error = argocd
            .wait_until_running("web-prod", &digest('c'), Duration::ZERO)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_pruned_that_would_leave_nothing() {
    let world = World::new().await;
    world.registry.push(&digest('c'));
    world.commit_digest(&digest('c')).await;
    let argocd = ArgoCd::start(world.settings()).await.unwrap();
    argocd
        .wait_until_running("web-prod", &digest('c'), PATIENCE)
        .await
        .unwrap();
    let commit = world
        .commit(&[("app/prod/kustomization.yaml", "namespace: shop\n")])
        .await;
    let state = Client::new(&argocd).refresh().await;
    let condition = &state["status"]["conditions"][0];
    assert_eq!(condition["type"], "SyncError", "{state}");
    let message = format!("Skipping sync attempt to [{commit}]: auto-sync will wipe out all resources");
    assert_eq!(condition["message"], message);
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('c'))]);
}

#[tokio::test]
async fn a_real_registry_decides_what_runs() {
    let world = World::new().await;
    let guardian = Guardian::start().unwrap();
    let users = [("pull", "a-password-to-pull"), ("push", "a-password-to-push")];
    let registry = Registry::start(&guardian, &world.tools, "production", &users)
        .await
        .unwrap();
    let image = BaseImage::make(&world.tools).await.unwrap();
    let (user, password) = users[0];
    let credentials = Credentials {
        username: user.to_owned(),
        password: password.to_owned(),
    };
    let mut settings = world.settings();
    settings.registries = [(registry.host().to_owned(), credentials)].into();
    world.commit_image(registry.host(), image.digest()).await;
    let argocd = ArgoCd::start(settings).await.unwrap();
    let mut stream = Client::new(&argocd).watch().await;
    let states = stream
        .until(|state| health(state).1.contains("ImagePullBackOff"))
        .await;
    let (_, message) = health(states.last().unwrap());
    assert!(message.contains("not found"), "{message}");
    image
        .push(registry.host(), Some(users[1]), "web", "v1")
        .await
        .unwrap();
    argocd
        .wait_until_running("web-prod", image.digest(), PATIENCE)
        .await
        .unwrap();
    guardian.stop().await.unwrap();
}
