//! The stand-in's applications of several sources look as a real Argo CD's were recorded to.

use serde_json::Value;
use towpath_sandbox::argocd::{ArgoCd, Declaration};

use crate::recorded::{condition, recorded, structures};
use crate::world::{Client, World, digest, is_settled};

/// A Deployment of this name and image, in this folder.
fn deployment(world: &World, folder: &str, name: &str, digit: char) -> [(String, String); 2] {
    let resource = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    spec: {{containers: [{{name: web, image: \"{}\"}}]}}\n",
        world.image(&digest(digit))
    );
    [
        (format!("{folder}/web.yaml"), resource),
        (
            format!("{folder}/kustomization.yaml"),
            "resources: [web.yaml]\n".to_owned(),
        ),
    ]
}

/// Commits both folders of the environment's repository.
async fn commit(world: &World, web: char, second: &str, worker: char) -> String {
    let files = [
        deployment(world, "app/several", "web", web),
        deployment(world, "app/more", second, worker),
    ]
    .concat();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    world.commit(&files).await
}

/// A world in which the digest of `c` runs already, from three sources, and the commits of the first two.
async fn deployed() -> (World, ArgoCd, Client, [String; 2]) {
    let world = World::new().await;
    for digit in ['c', 'd'] {
        world.registry.push(&digest(digit));
    }
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {level: \"1\"}\n";
    let elsewhere = world
        .commit_elsewhere(&[
            ("settings/settings.yaml", settings),
            ("settings/kustomization.yaml", "resources: [settings.yaml]\n"),
        ])
        .await;
    let ours = commit(&world, 'c', "worker", 'c').await;
    let mut declared = world.settings();
    declared.applications = vec![Declaration {
        name: "web-prod".to_owned(),
        sources: vec![
            world.source_elsewhere("settings"),
            world.source("app/several"),
            world.source("app/more"),
        ],
        namespace: "several".to_owned(),
        automated: true,
    }];
    let argocd = ArgoCd::start(declared).await.unwrap();
    let client = Client::new(&argocd);
    client.watch().await.until(is_settled).await;
    (world, argocd, client, [elsewhere, ours])
}

/// All but the resources' health, which a real Argo CD takes from another place, and at another time.
#[track_caller]
fn assert_alike(name: &str, found: &Value) {
    let (expected, found) = (recorded(name), found.clone());
    let [expected, found] = [expected, found].map(|mut state| {
        let resources = state["status"]["resources"].as_array_mut().unwrap();
        for resource in resources {
            resource.as_object_mut().unwrap().remove("health");
        }
        state
    });
    let (missing, invented) = structures(&expected, &found);
    assert!(
        missing.is_empty() && invented.is_empty(),
        "{name}: missing {missing:#?}, invented {invented:#?}"
    );
    for pointer in [
        "/status/sync/status",
        "/status/health/status",
        "/status/operationState/phase",
        "/status/operationState/message",
        "/status/sourceTypes",
        "/status/sync/comparedTo/source",
    ] {
        assert_eq!(
            found.pointer(pointer),
            expected.pointer(pointer),
            "{name}: {pointer}"
        );
    }
}

#[tokio::test]
async fn a_deployment_of_several_sources_goes_through_the_recorded_states() {
    let (world, _argocd, client, [elsewhere, _]) = deployed().await;
    let mut stream = client.watch().await;
    stream.next().await;
    let ours = commit(&world, 'd', "worker", 'd').await;
    client.refresh().await;
    let states = stream.until(is_settled).await;
    let names = ["sources-1", "sources-2", "sources-3", "sources-4", "sources-5"];
    // Two rollouts are two steps here.
    let [first, second, third, .., last] = states.as_slice() else {
        panic!("{states:#?}");
    };
    for (name, state) in [
        (names[0], first),
        (names[1], second),
        (names[2], third),
        (names[4], last),
    ] {
        assert_alike(name, state);
        let revisions = &state["status"]["sync"]["revisions"];
        assert_eq!(*revisions, serde_json::json!([elsewhere, ours, ours]), "{name}");
    }
    let before_last = &states[states.len() - 2];
    assert_alike(names[3], before_last);
}

#[tokio::test]
async fn a_source_that_cannot_be_rendered_leaves_no_revisions() {
    let (world, _argocd, client, _) = deployed().await;
    world
        .commit(&[(
            "app/more/kustomization.yaml",
            "resources: [web.yaml, ../nothere]\n",
        )])
        .await;
    let state = client.refresh().await;
    let expected = recorded("sources-broken-1");
    assert!(expected["status"]["sync"]["revisions"].is_null());
    assert!(state["status"]["sync"]["revisions"].is_null());
    assert_eq!(
        state["status"]["sync"]["status"],
        expected["status"]["sync"]["status"]
    );
    let (kind, said) = condition(&state);
    let (recorded_kind, recorded_said) = condition(&expected);
    assert_eq!(kind, recorded_kind);
    let beginning = |text: &Value| {
        text.as_str()
            .unwrap()
            .split_once("failed exit status")
            .unwrap()
            .0
            .to_owned()
    };
    assert_eq!(beginning(&said), beginning(&recorded_said));
}

#[tokio::test]
async fn the_later_of_two_sources_of_one_resource_runs() {
    let (world, argocd, client, _) = deployed().await;
    commit(&world, 'c', "web", 'd').await;
    let mut stream = client.watch().await;
    client.refresh().await;
    let runs_d = |state: &Value| is_settled(state) && state["status"]["conditions"].is_array();
    let states = stream.until(runs_d).await;
    assert_alike("sources-repeated-1", states.last().unwrap());
    let expected = condition(&recorded("sources-repeated-1"));
    assert_eq!(condition(states.last().unwrap()), expected);
    assert_eq!(argocd.running_images("web-prod"), [world.image(&digest('d'))]);
}

#[tokio::test]
async fn the_manifests_are_those_of_the_positions_asked_for() {
    let (world, _argocd, client, [elsewhere, ours]) = deployed().await;
    commit(&world, 'd', "worker", 'd').await;
    let images = async |query: &str| {
        let (status, answer) = client
            .get(&format!("/api/v1/applications/web-prod/manifests{query}"))
            .await;
        assert_eq!(status, 200, "{answer}");
        let text = answer["manifests"].to_string();
        ['c', 'd'].map(|digit| text.matches(&digest(digit)).count())
    };
    assert_eq!(images("").await, [0, 2]);
    assert_eq!(
        images(&format!("?revision={ours}")).await,
        [0, 2],
        "it is of one source"
    );
    let third = format!("?revisions={ours}&sourcePositions=3");
    assert_eq!(images(&third).await, [1, 1]);
    let all = format!(
        "?revisions={elsewhere}&sourcePositions=1&revisions={ours}&sourcePositions=2&revisions={ours}&sourcePositions=3"
    );
    assert_eq!(images(&all).await, [2, 0]);
    let (status, answer) = client
        .get(&format!(
            "/api/v1/applications/web-prod/manifests?revisions={ours}&sourcePositions=4"
        ))
        .await;
    assert_eq!(status, 500, "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("source position is out of range")
    );
}
