//! Images arrive whole, byte for byte, and are not sent twice.

use std::fs;

use serde_json::Value;

use crate::image::Image;
use crate::world::{PRODUCTION, STAGING, World, assert_holds, get, open_uploads, tagged};

#[tokio::test]
async fn from_a_layout_to_staging_to_production_each_with_its_own_password() {
    let world = World::open().await;
    let staging = world.registry("staging", &[STAGING]).await;
    let production = world.registry("production", &[PRODUCTION]).await;
    world.log_in(&[
        (staging.host(), STAGING.0, STAGING.1),
        (production.host(), PRODUCTION.0, PRODUCTION.1),
    ]);
    let image = Image::of_three_platforms("1");
    let built = format!("{}/dev/app:1.4.0", staging.host());
    let pushed = world.promote(&[&world.layout(&image), &built]).await.succeeded();
    assert_eq!(pushed["digest"], image.root.as_str());
    assert_holds(staging.host(), Some(STAGING), "dev/app", &image).await;

    let handoff = world.path("handoff.env");
    fs::write(&handoff, "SOURCE_COMMIT=0123\nIMAGE_REF=old\n").unwrap();
    let source = format!("{}/dev/app@{}", staging.host(), image.root);
    let target = format!("{}/shop/app:1.4.0", production.host());
    let arguments = [
        &source,
        &target,
        "--handoff",
        "handoff.env",
        "--journal",
        "journal.jsonl",
        "--traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    let report = world.promote(&arguments).await.succeeded();
    assert_eq!(report["schema"], "towpath.image-promote-by-digest/1");
    assert_eq!(report["source"], source);
    assert_eq!(report["digest"], image.root.as_str());
    assert_eq!(report["changed"], true);
    assert_eq!(report["bytes"], image.bytes());
    let to = &report["targets"][0];
    assert_eq!(
        to["reference"],
        format!("{}/shop/app@{}", production.host(), image.root)
    );
    assert_eq!(
        (&to["tag"], &to["before"], &to["changed"]),
        (&Value::from("1.4.0"), &Value::Null, &Value::from(true))
    );
    assert_eq!(
        (&to["copied"], &to["mounted"], &to["skipped"]),
        (&13.into(), &0.into(), &0.into())
    );
    assert_holds(production.host(), Some(PRODUCTION), "shop/app", &image).await;
    assert_eq!(
        tagged(production.host(), Some(PRODUCTION), "shop/app", "1.4.0")
            .await
            .as_deref(),
        Some(image.root.as_str())
    );
    assert_eq!(open_uploads(&production, "shop/app"), 0);
    assert_eq!(
        fs::read_to_string(&handoff).unwrap(),
        format!(
            "IMAGE_DIGEST={digest}\nIMAGE_REF={name}@{digest}\nIMAGE_REPOSITORY={name}\nIMAGE_TAG=1.4.0\nSOURCE_COMMIT=0123\n\
             TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
            digest = image.root,
            name = format_args!("{}/shop/app", production.host()),
        )
    );
    let entry: Value =
        serde_json::from_str(&fs::read_to_string(world.path("journal.jsonl")).unwrap()).unwrap();
    assert_eq!(entry["schema"], "towpath.promotion-journal/1");
    assert_eq!(
        (&entry["before"], &entry["after"]),
        (&Value::Null, &Value::from(image.root.as_str()))
    );
    assert_eq!(entry["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");

    // Again: nothing is written, not even when the source has lost the image.
    drop(staging);
    let again = world.promote(&arguments).await.succeeded();
    assert_eq!(
        (&again["changed"], &again["bytes"]),
        (&Value::from(false), &0.into())
    );
    assert_eq!(again["targets"][0]["before"], image.root.as_str());
    assert_eq!(
        fs::read_to_string(world.path("journal.jsonl"))
            .unwrap()
            .lines()
            .count(),
        1
    );
}

#[tokio::test]
async fn within_a_registry_blobs_are_mounted_and_within_a_repository_only_the_tag_is_written() {
    let world = World::open().await;
    let registry = world.registry("registry", &[STAGING]).await;
    let host = registry.host();
    world.log_in(&[(host, STAGING.0, STAGING.1)]);
    let image = Image::of_three_platforms("1");
    let built = format!("{host}/dev/app:1");
    world.promote(&[&world.layout(&image), &built]).await.succeeded();

    let report = world
        .promote(&[&built, &format!("{host}/prod/app")])
        .await
        .succeeded();
    let to = &report["targets"][0];
    assert_eq!(
        (&to["tag"], &to["mounted"], &to["copied"]),
        (&"1".into(), &13.into(), &0.into())
    );
    assert_eq!(
        (&report["bytes"], &to["mounted_bytes"]),
        (&0.into(), &image.bytes().into())
    );
    assert_holds(host, Some(STAGING), "prod/app", &image).await;

    let report = world
        .promote(&[&built, &format!("{host}/dev/app:stable")])
        .await
        .succeeded();
    assert_eq!(
        (&report["changed"], &report["requests"]),
        (&true.into(), &6.into())
    );
    assert_eq!(
        tagged(host, Some(STAGING), "dev/app", "stable").await,
        Some(image.root.clone())
    );
}

#[tokio::test]
async fn what_a_target_has_already_is_not_sent_and_what_it_lacks_is() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let (one, two) = (Image::of_three_platforms("1"), Image::of_three_platforms("2"));
    let source = format!("{}/app:2", staging.host());
    world.promote(&[&world.layout(&two), &source]).await.succeeded();
    let target = format!("{}/app", production.host());
    world
        .promote(&[&world.layout(&one), &format!("{target}:1")])
        .await
        .succeeded();

    // The plan first, which changes nothing.
    let plan = world.promote(&["--dry-run", &source, &target]).await.succeeded();
    assert_eq!(
        (&plan["dry_run"], &plan["changed"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        (&plan["targets"][0]["copied"], &plan["targets"][0]["skipped"]),
        (&12.into(), &1.into())
    );
    assert_eq!(tagged(production.host(), None, "app", "2").await, None);
    assert_eq!(open_uploads(&production, "app"), 0);

    let report = world.promote(&[&source, &target]).await.succeeded();
    for field in ["copied", "skipped", "bytes", "skipped_bytes", "before"] {
        assert_eq!(report["targets"][0][field], plan["targets"][0][field], "{field}");
    }
    assert_holds(production.host(), None, "app", &two).await;
    assert_holds(production.host(), None, "app", &one).await;
}

#[tokio::test]
async fn several_targets_get_it_and_the_second_at_a_registry_takes_over_from_the_first() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_three_platforms("1");
    let source = format!("{}/app:1", staging.host());
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let targets = ["a/app", "b/app:blue"].map(|name| format!("{}/{name}", production.host()));
    let mut command = world.command(&[]);
    command
        .env("TOWPATH_SOURCE", &source)
        .env("TOWPATH_TARGET", targets.join(","));
    let report = world.run(command).await.succeeded();
    assert_eq!(report["targets"][0]["copied"], 13);
    assert_eq!(report["targets"][1]["mounted"], 13);
    assert_eq!(report["bytes"], image.bytes());
    for (repository, tag) in [("a/app", "1"), ("b/app", "blue")] {
        assert_holds(production.host(), None, repository, &image).await;
        assert_eq!(
            tagged(production.host(), None, repository, tag).await,
            Some(image.root.clone())
        );
    }
}

#[tokio::test]
async fn by_digest_alone_no_tag_is_written() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let image = Image::of_one_layer(b"layer");
    let target = format!("{}/app", registry.host());
    let source = world.layout(&image);
    let report = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(
        (&report["targets"][0]["tag"], &report["changed"]),
        (&Value::Null, &true.into())
    );
    assert_holds(registry.host(), None, "app", &image).await;
    let (_, _, tags) = get(registry.host(), None, "app/tags/list").await;
    assert!(!String::from_utf8(tags).unwrap().contains("latest"));
    let again = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(again["changed"], false);
}

#[tokio::test]
async fn large_blobs_stream_and_are_not_sent_twice() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let large: Vec<u8> = (0..3 * 1024 * 1024_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let image = Image::of_one_layer(&large);
    let source = format!("{}/app:1", staging.host());
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let target = format!("{}/app", production.host());
    let report = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(report["bytes"], image.bytes());
    assert_holds(production.host(), None, "app", &image).await;
    let other_tag = world
        .promote(&[&source, &format!("{target}:2")])
        .await
        .succeeded();
    assert_eq!(
        (&other_tag["bytes"], &other_tag["targets"][0]["skipped"]),
        (&0.into(), &2.into())
    );
}

#[tokio::test]
async fn a_handoff_that_cannot_be_written_is_known_before_a_tag_is() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let layout = world.layout(&Image::of_one_layer(b"app"));
    let target = format!("{}/app:1", production.host());
    for (arguments, code) in [
        (
            ["--handoff", "absent/handoff.env", "--source-project", "team/app"],
            2,
        ),
        (["--handoff", "handoff.env", "--source-project", "$HOME"], 3),
    ] {
        let arguments = [&arguments[..], &[&layout, &target]].concat();
        world.promote(&arguments).await.failed_with(code);
        assert_eq!(tagged(production.host(), None, "app", "1").await, None);
    }
}

#[tokio::test]
async fn a_handoff_names_what_is_at_the_first_target_and_nothing_else() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_one_layer(b"app");
    let layout = world.layout(&image);
    let handoff = world.path("handoff.env");
    fs::write(&handoff, "IMAGE_TAG=of-the-build\n").unwrap();
    let name = format!("{}/app", production.host());

    let to_a_folder = ["--handoff", "handoff.env", &layout, "oci:kept", &name];
    let error = world.promote(&to_a_folder).await.failed_with(2);
    assert!(
        error.contains("oci:kept") && error.contains("TOWPATH_HANDOFF"),
        "{error}"
    );
    assert!(!world.path("kept").exists());
    assert_eq!(fs::read_to_string(&handoff).unwrap(), "IMAGE_TAG=of-the-build\n");

    let by_digest = format!("{layout}@{}", image.root);
    let by_digest = ["--handoff", "handoff.env", &by_digest, &name, "oci:kept"];
    world.promote(&by_digest).await.succeeded();
    let handed_over = fs::read_to_string(&handoff).unwrap();
    assert!(
        handed_over.contains(&format!("IMAGE_REF={name}@{}\n", image.root)),
        "{handed_over}"
    );
    assert!(!handed_over.contains("IMAGE_TAG="), "{handed_over}");
}
