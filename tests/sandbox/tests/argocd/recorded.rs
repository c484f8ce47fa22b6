//! The stand-in answers as a real Argo CD was recorded to: the same states in the same order, the same fields in each.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use towpath_sandbox::argocd::ArgoCd;

use crate::world::{Client, World, digest, is_settled};

/// What a state is about, with commits and digests reduced to what they are in the story.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    sync: String,
    phase: String,
    health: String,
    operation: bool,
    images: Vec<char>,
    /// Whether the compared revision is the newest commit, and not a branch's name or an older commit.
    compares_newest: bool,
    /// Whether the latest operation applied the newest commit.
    applied_newest: Option<bool>,
}

fn facts(state: &Value, newest: &str) -> Facts {
    let status = &state["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let images = status["summary"]["images"].as_array().unwrap().iter();
    Facts {
        sync: text(&status["sync"]["status"]),
        phase: text(&status["operationState"]["phase"]),
        health: text(&status["health"]["status"]),
        operation: state.get("operation").is_some(),
        images: images
            .map(|image| image.as_str().unwrap().chars().next_back().unwrap())
            .collect(),
        compares_newest: status["sync"]["revision"] == newest,
        applied_newest: status["operationState"]["syncResult"]["revision"]
            .as_str()
            .map(|found| found == newest),
    }
}

pub(crate) fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../bins/argocd-wait/tests/recorded/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every path of the document with the type of what is there; all elements of a list count as one.
fn structure(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    found.insert(format!("{path}: {kind}"));
    match value {
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| structure(element, &format!("{path}[]"), found)),
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(name, field)| structure(field, &format!("{path}.{name}"), found));
        }
        _ => {}
    }
}

/// What is in one document alone, and in the other.
pub(crate) fn structures(expected: &Value, found: &Value) -> (Vec<String>, Vec<String>) {
    let (mut wanted, mut seen) = (BTreeSet::new(), BTreeSet::new());
    structure(expected, "", &mut wanted);
    structure(found, "", &mut seen);
    let missing = wanted.difference(&seen).cloned().collect();
    (missing, seen.difference(&wanted).cloned().collect())
}

/// The type and the words of the first condition.
pub(crate) fn condition(state: &Value) -> (Value, Value) {
    let condition = &state["status"]["conditions"][0];
    (condition["type"].clone(), condition["message"].clone())
}

#[track_caller]
fn assert_same_structure(name: &str, found: &Value) {
    let (missing, invented) = structures(&recorded(name), found);
    assert!(
        missing.is_empty() && invented.is_empty(),
        "{name}: missing {missing:#?}, invented {invented:#?}"
    );
}

/// Every time of a document, with its path.
fn times<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    const NAMES: [&str; 8] = [
        "creationTimestamp",
        "lastTransitionTime",
        "reconciledAt",
        "startedAt",
        "finishedAt",
        "deployedAt",
        "deployStartedAt",
        "createdAt",
    ];
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| times(element, found)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if NAMES.contains(&name.as_str()) => found.push(text),
                    _ => times(field, found),
                }
            }
        }
        _ => {}
    }
}

/// A world in which the digest of `c` runs already.
async fn deployed() -> (World, ArgoCd, Client) {
    let world = World::new().await;
    for digit in ['c', 'd'] {
        world.registry.push(&digest(digit));
    }
    world.commit_digest(&digest('c')).await;
    let argocd = ArgoCd::start(world.settings()).await.unwrap();
    let client = Client::new(&argocd);
    client.watch().await.until(is_settled).await;
    (world, argocd, client)
}

#[tokio::test]
async fn a_deployment_goes_through_the_recorded_states() {
    let (world, _argocd, client) = deployed().await;
    let mut stream = client.watch().await;
    let (kind, _) = stream.next().await;
    assert_eq!(kind, "ADDED");
    let commit = world.commit_digest(&digest('d')).await;
    let answer = client.refresh().await;
    let states = stream.until(is_settled).await;

    let names = ["deploy-1", "deploy-2", "deploy-3", "deploy-4", "deploy-5"];
    let newest = recorded(names[0])["status"]["sync"]["revision"]
        .as_str()
        .unwrap()
        .to_owned();
    let expected: Vec<Facts> = names.iter().map(|name| facts(&recorded(name), &newest)).collect();
    let found: Vec<Facts> = states.iter().map(|state| facts(state, &commit)).collect();
    assert_eq!(found, expected);
    assert_eq!(answer, states[0], "the refresh answers with what it began");
    for (name, state) in names.iter().zip(&states) {
        assert_same_structure(name, state);
    }

    let messages = |state: &Value| {
        let status = &state["status"];
        (
            status["operationState"]["message"].clone(),
            status["operationState"]["syncResult"]["resources"][0]["message"].clone(),
            status["resources"][0]["health"].clone(),
        )
    };
    for (name, state) in names.iter().zip(&states) {
        assert_eq!(messages(state), messages(&recorded(name)), "{name}");
    }
}

#[tokio::test]
async fn versions_grow_and_times_are_whole_seconds_in_utc() {
    let (world, _argocd, client) = deployed().await;
    let mut stream = client.watch().await;
    stream.next().await;
    world.commit_digest(&digest('d')).await;
    client.refresh().await;
    let states = stream.until(is_settled).await;
    let versions: Vec<(u64, u64)> = states
        .iter()
        .map(|state| {
            let metadata = &state["metadata"];
            let version = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
            (version, metadata["generation"].as_u64().unwrap())
        })
        .collect();
    assert!(
        versions
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1),
        "{versions:?}"
    );
    let mut found = Vec::new();
    times(&states[4], &mut found);
    assert!(found.len() >= 9, "{found:?}");
    for time in found {
        time.parse::<jiff::Timestamp>().unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), (20, true), "{time}");
    }
    let history = &states[4]["status"]["history"];
    assert_eq!(
        (&history[0]["id"], &history[1]["id"]),
        (&Value::from(0), &Value::from(1))
    );
}

#[tokio::test]
async fn a_broken_commit_and_its_mending_look_as_recorded() {
    let (world, _argocd, client) = deployed().await;
    let mut stream = client.watch().await;
    stream.next().await;
    world.commit_digest(&digest('d')).await;
    client.refresh().await;
    stream.until(is_settled).await;

    let broken = world
        .commit(&[("app/prod/kustomization.yaml", "resources: [../nothere]\n")])
        .await;
    let state = client.refresh().await;
    assert_same_structure("broken-1", &state);
    assert_eq!(
        facts(&state, &broken),
        facts(&recorded("broken-1"), "the broken commit")
    );
    assert_eq!(state["status"]["sync"]["revision"], "main");
    assert_eq!(condition(&state), condition(&recorded("broken-1")));
    assert_eq!(
        state["status"]["resources"][0],
        recorded("broken-1")["status"]["resources"][0]
    );

    let image = world.image(&digest('d'));
    let name = image.split('@').next().unwrap();
    let same = format!(
        "# The same, said differently.\nresources: [../base]\nimages: [{{name: \"{name}\", digest: \"{}\"}}]\n",
        digest('d')
    );
    let mended = world.commit(&[("app/prod/kustomization.yaml", &same)]).await;
    let state = client.refresh().await;
    assert_same_structure("mended-1", &state);
    let newest = recorded("mended-1")["status"]["sync"]["revision"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(facts(&state, &mended), facts(&recorded("mended-1"), &newest));
    assert_eq!(
        state["status"]["history"].as_array().unwrap().len(),
        2,
        "no operation ran"
    );
}

#[tokio::test]
async fn a_sync_that_fails_is_tried_again_as_recorded() {
    let (world, _argocd, client) = deployed().await;
    let mut stream = client.watch().await;
    stream.next().await;
    let web = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: other}}}}\n  \
         template:\n    spec: {{containers: [{{name: web, image: \"{}\"}}]}}\n",
        world.image(&digest('d'))
    );
    let commit = world
        .commit(&[
            ("app/prod/web.yaml", &web),
            ("app/prod/kustomization.yaml", "resources: [web.yaml]\n"),
        ])
        .await;
    client.refresh().await;
    let failed_again = |state: &Value| state["status"]["operationState"]["retryCount"] == 2;
    let states = stream.until(failed_again).await;
    let find = |attempt: u64, between: bool| {
        let fits = |state: &&Value| {
            let operation = &state["status"]["operationState"];
            operation["retryCount"] == attempt && operation["finishedAt"].is_string() == between
        };
        states.iter().find(fits).unwrap()
    };
    let newest = recorded("failed-1")["status"]["sync"]["revision"].clone();
    // After the first attempt, while the second one runs, and after that.
    for (name, attempt, between) in [
        ("failed-1", 1, true),
        ("failed-2", 1, false),
        ("failed-3", 2, true),
    ] {
        let (state, expected) = (find(attempt, between), recorded(name));
        assert_same_structure(name, state);
        assert_eq!(
            facts(state, &commit),
            facts(&expected, newest.as_str().unwrap()),
            "{name}"
        );
        // All but a file's name and the time of day.
        let message = |state: &Value| {
            let text = state["status"]["operationState"]["message"].as_str().unwrap();
            let file = text.find("/dev/shm/").map(|at| &text[at..at + 19]);
            let text = file.map_or_else(|| text.to_owned(), |file| text.replace(file, "FILE"));
            let time = text.rfind(" at ").filter(|_| between);
            text[..time.unwrap_or(text.len())].to_owned()
        };
        assert_eq!(message(state), message(&expected), "{name}");
    }
}
