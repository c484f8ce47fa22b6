//! Targets that ask for tokens, ignore mounts, keep tags, or are written to by somebody else.

use std::time::Duration;

use towpath::deadline::Deadline;
use towpath::oci::{Credentials, Digest, Registries, RegistrySettings};

use crate::image::Image;
use crate::scripted::{LOGIN, Script, Scripted};
use crate::world::World;

fn bearer() -> Script {
    Script {
        bearer: true,
        ..Script::default()
    }
}

#[tokio::test]
async fn one_token_serves_source_and_target_of_a_registry() {
    let world = World::open().await;
    let registry = Scripted::start(bearer()).await;
    world.log_in(&[(&registry.host, LOGIN.0, LOGIN.1)]);
    let image = Image::of_three_platforms("1");
    registry.hold("dev/app", "1", &image);
    let source = format!("{}/dev/app:1", registry.host);
    let report = world
        .promote(&[&source, &format!("{}/prod/app", registry.host)])
        .await
        .succeeded();
    assert_eq!(report["targets"][0]["mounted"], 13);
    assert!(registry.has_all("prod/app", &image));
    let tokens: Vec<String> = registry
        .log()
        .into_iter()
        .map(|line| line.uri)
        .filter(|uri| uri.starts_with("/token"))
        .collect();
    assert_eq!(
        tokens,
        [
            "/token?service=scripted&scope=repository%3Adev%2Fapp%3Apull&scope=repository%3Aprod%2Fapp%3Apull%2Cpush"
        ]
    );
    // The 401 that asked for it, the token, the look for what refers to the image, and what it takes without.
    assert_eq!(report["requests"], 24 + 2 + 2);
}

#[tokio::test]
async fn a_token_that_runs_out_is_asked_for_again() {
    let world = World::open().await;
    let registry = Scripted::start(bearer()).await;
    world.log_in(&[(&registry.host, LOGIN.0, LOGIN.1)]);
    let image = Image::of_three_platforms("1");
    registry.rewrite(Script {
        token_uses: Some(7),
        ..bearer()
    });
    let target = format!("{}/prod/app:1", registry.host);
    let mut command = world.command(&[&world.layout(&image), &target, "--concurrency", "1"]);
    command.env("TOWPATH_TIMEOUT", "60s");
    world.run(command).await.succeeded();
    assert!(registry.has_all("prod/app", &image));
    assert_eq!(registry.tagged("prod/app", "1"), Some(image.root));
}

#[tokio::test]
async fn a_token_server_that_refuses_is_a_refusal() {
    let world = World::open().await;
    let registry = Scripted::start(bearer()).await;
    let target = format!("{}/prod/app:1", registry.host);
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    world.log_in(&[(&registry.host, LOGIN.0, "canary-wrong-password")]);
    let error = world.promote(&[&layout, &target]).await.failed_with(4);
    assert!(error.contains("repository:prod/app:pull,push"), "{error}");
    world.log_in(&[]);
    let error = world.promote(&[&layout, &target]).await.failed_with(4);
    assert!(error.contains("docker login"), "{error}");
}

#[tokio::test]
async fn a_registry_that_keeps_its_tags_makes_a_conflict() {
    let world = World::open().await;
    let image = Image::of_one_layer(b"layer");
    let layout = world.layout(&image);
    for (status, code, expected) in [
        (400, "TAG_INVALID", 6),
        (409, "CONFLICT", 6),
        (412, "PRECONDITION", 6),
        (403, "DENIED", 4),
    ] {
        let registry = Scripted::start(Script {
            refuses_tags: Some((status, code)),
            ..Script::default()
        })
        .await;
        let target = format!("{}/app:1", registry.host);
        let error = world.promote(&[&layout, &target]).await.failed_with(expected);
        assert!(error.contains(code) && error.contains("app:1"), "{error}");
        assert_eq!(registry.tagged("app", "1"), None);
    }
}

#[tokio::test]
async fn a_tag_that_somebody_else_writes_meanwhile_is_left_to_them() {
    let world = World::open().await;
    let thief = Digest::of(b"somebody else's image").to_string();
    let registry = Scripted::start(Script {
        thief: Some(thief.clone()),
        ..Script::default()
    })
    .await;
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let error = world
        .promote(&[&layout, &format!("{}/app:1", registry.host)])
        .await
        .failed_with(6);
    assert!(error.contains(&thief), "{error}");
    assert_eq!(registry.tagged("app", "1"), Some(thief));
    let puts_of_the_tag = registry
        .log()
        .iter()
        .filter(|line| line.method == "PUT" && line.uri.ends_with("/manifests/1"))
        .count();
    assert_eq!(puts_of_the_tag, 0);
}

#[tokio::test]
async fn where_mounts_are_ignored_blobs_are_sent_but_large_ones_only_when_they_lack() {
    let world = World::open().await;
    let registry = Scripted::start(Script {
        ignores_mounts: true,
        ..Script::default()
    })
    .await;
    let image = Image::of_one_layer(&vec![7; 2 * 1024 * 1024]);
    let layout = world.layout(&image);
    let target = format!("{}/app", registry.host);
    let first = world
        .promote(&[&layout, &format!("{target}:1")])
        .await
        .succeeded();
    assert_eq!(first["bytes"], image.bytes());
    let second = world
        .promote(&[&layout, &format!("{target}:2")])
        .await
        .succeeded();
    assert_eq!(
        (&second["targets"][0]["copied"], &second["targets"][0]["skipped"]),
        (&1.into(), &1.into())
    );
}

#[tokio::test]
async fn where_mounts_from_beside_are_ignored_large_blobs_that_are_there_are_not_sent_again() {
    let world = World::open().await;
    let registry = Scripted::start(Script {
        ignores_mounts: true,
        ..Script::default()
    })
    .await;
    let image = Image::of_one_layer(&vec![7; 2 * 1024 * 1024]);
    registry.hold("dev/app", "1", &image);
    let source = format!("{}/dev/app:1", registry.host);
    for (tag, copied, skipped) in [("1", 2, 0), ("2", 1, 1)] {
        let report = world
            .promote(&[&source, &format!("{}/prod/app:{tag}", registry.host)])
            .await
            .succeeded();
        let target = &report["targets"][0];
        assert_eq!(
            (&target["copied"], &target["skipped"]),
            (&copied.into(), &skipped.into()),
            "{tag}"
        );
        // What was begun for nothing is given back.
        assert_eq!(registry.open_uploads(), 0);
    }
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let registry = Scripted::start(Script::default()).await;
    let image = Image::of_one_layer(b"layer");
    for tag in ["1", "2", "3", "4", "5"] {
        registry.hold("app", tag, &image);
    }
    let deadline = Deadline::after(Duration::from_secs(30));
    let registries = Registries::new(RegistrySettings::default(), Credentials::default(), deadline).unwrap();
    let reference = format!("{}/app", registry.host).parse().unwrap();
    let repository = registries.repository(&reference).await.unwrap();
    let tags: Vec<String> = repository
        .tags()
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(tags, ["1", "2", "3", "4", "5"]);
}
