//! A tag that names another image is not moved by accident.

use std::fs;

use serde_json::Value;
use towpath::oci::Digest;

use crate::gate::{Gate, Refused, Rules};
use crate::image::Image;
use crate::world::{World, get, open_uploads, tagged};

#[tokio::test]
async fn another_image_stays_where_it_is_unless_it_is_the_one_expected() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let (old, new) = (Image::of_one_layer(b"old"), Image::of_one_layer(b"new"));
    let target = format!("{}/app:stable", production.host());
    let free = format!("{}/other:stable", production.host());
    let source = format!("{}/app:2", staging.host());
    world.promote(&[&world.layout(&old), &target]).await.succeeded();
    world.promote(&[&world.layout(&new), &source]).await.succeeded();
    let named = async || tagged(production.host(), None, "app", "stable").await.unwrap();

    let wrong = Digest::of(b"wrong").to_string();
    for allowed in ["never", &wrong] {
        let arguments = [
            "--journal",
            "journal.jsonl",
            "--move-tag-from",
            allowed,
            &source,
            &free,
            &target,
        ];
        let error = world.promote(&arguments).await.failed_with(6);
        for part in [target.as_str(), &old.root] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(named().await, old.root);
        // The guards of all targets are looked at before anything is written to any.
        assert_eq!(tagged(production.host(), None, "other", "stable").await, None);
        let layer = new.blobs.keys().next().unwrap();
        assert_eq!(
            get(production.host(), None, &format!("other/blobs/{layer}"))
                .await
                .0,
            404
        );
        assert_eq!(open_uploads(&production, "app"), 0);
        assert!(!world.path("journal.jsonl").exists());
    }

    let plan = world
        .promote(&["--dry-run", "--move-tag-from", "any", &source, &target])
        .await
        .succeeded();
    assert_eq!(plan["targets"][0]["before"], old.root.as_str());
    assert_eq!(named().await, old.root);

    let arguments = [
        "--journal",
        "journal.jsonl",
        "--move-tag-from",
        &old.root,
        &source,
        &target,
    ];
    let report = world.promote(&arguments).await.succeeded();
    assert_eq!(report["targets"][0]["before"], old.root.as_str());
    assert_eq!(named().await, new.root);
    let journal = fs::read_to_string(world.path("journal.jsonl")).unwrap();
    let entry: Value = serde_json::from_str(&journal).unwrap();
    assert_eq!(
        (&entry["before"], &entry["after"]),
        (&old.root.clone().into(), &new.root.clone().into())
    );
    assert_eq!(
        (&entry["tag"], &entry["repository"]),
        (&"stable".into(), &format!("{}/app", production.host()).into())
    );

    // Running again after it moved is no conflict.
    assert_eq!(world.promote(&arguments).await.succeeded()["changed"], false);
}

#[tokio::test]
async fn a_digest_in_the_target_must_be_the_sources() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let image = Image::of_one_layer(b"layer");
    let source = world.layout(&image);
    let expecting = |digest: &str| format!("{}/app:1@{digest}", registry.host());
    let other = Digest::of(b"other").to_string();
    world.promote(&[&source, &expecting(&other)]).await.failed_with(6);
    assert_eq!(tagged(registry.host(), None, "app", "1").await, None);
    world
        .promote(&[&source, &expecting(&image.root)])
        .await
        .succeeded();
}

/// What registries say of a tag that they keep as it is.
const REFUSALS: [(u16, &str, &str); 5] = [
    (
        400,
        "TAG_INVALID",
        "The image tag '1' already exists in the 'app' repository and cannot be overwritten because the repository is immutable.",
    ),
    (
        412,
        "PRECONDITION",
        "Failed to process request due to 'app:1' configured as immutable.",
    ),
    (
        405,
        "REGISTRY_DISALLOWED_OPERATION",
        "The operation is disallowed on this registry, repository or image.",
    ),
    (403, "DENIED", "tag \"1\" is protected"),
    (409, "UNKNOWN", "no"),
];

fn keeping((status, code, message): (u16, &'static str, &'static str), too_late: bool) -> Rules {
    Rules {
        is_open: true,
        keeps_tags: Some(Refused {
            status,
            code,
            message,
            too_late,
        }),
        ..Rules::default()
    }
}

#[tokio::test]
async fn a_registry_that_keeps_a_tag_makes_the_same_conflict_whatever_it_says() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    for refusal in REFUSALS {
        let gate = Gate::start(registry.host(), &[], keeping(refusal, false)).await;
        let target = format!("{}/app:1", gate.host);
        let error = world.promote(&[&layout, &target]).await.failed_with(6);
        for part in [
            "does not let",
            "app:1 change",
            refusal.1,
            "promote under another tag",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(tagged(registry.host(), None, "app", "1").await, None);
    }
}

#[tokio::test]
async fn a_tag_that_another_job_made_right_meanwhile_is_right_even_where_its_registry_refuses_it() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    // The last one is a refusal that does not even say what for.
    for (number, refusal) in REFUSALS.into_iter().chain([(403, "DENIED", "no")]).enumerate() {
        let gate = Gate::start(registry.host(), &[], keeping(refusal, true)).await;
        let repository = format!("app-{number}");
        let target = format!("{}/{repository}:1", gate.host);
        let report = world.promote(&[&layout, &target]).await.succeeded();
        assert_eq!(report["targets"][0]["changed"], false, "{report}");
        assert_eq!(
            tagged(registry.host(), None, &repository, "1").await,
            Some(image.root.clone())
        );
    }
}

#[tokio::test]
async fn what_a_registry_says_besides_is_told_once() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let gate = Gate::start(
        registry.host(),
        &[],
        Rules {
            is_open: true,
            headers: vec![
                ("warning", "299 - \"moves to another host in May\""),
                ("ratelimit-remaining", "76;w=21600"),
            ],
            ..Rules::default()
        },
    )
    .await;
    let layout = world.layout(&Image::of_three_platforms("1"));
    let target = format!("{}/app:1", gate.host);
    let run = world.promote(&["--log-level", "debug", &layout, &target]).await;
    let count = |words: &str| run.log.matches(words).count();
    assert_eq!(count("moves to another host in May"), 1, "{}", run.log);
    assert!(count("76;w=21600") >= 1, "{}", run.log);
    run.succeeded();
}
