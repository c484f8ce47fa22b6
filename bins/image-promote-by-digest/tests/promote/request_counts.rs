//! The requests a promotion takes, as the binary counts them and as the registries logged them.

use crate::image::Image;
use crate::world::{STAGING, World, logged};

/// What the design aims at, for three platforms with 13 blobs and 4 manifests.
const SAME_REGISTRY: u64 = 24;
const ACROSS: u64 = 50;
const NOTHING_TO_DO: u64 = 2;
/// What it may cost to find out that nothing refers to the image, where the registry has no referrers API.
const LOOKING: u64 = 3;

#[tokio::test]
async fn three_platforms_take_as_few_requests_as_the_design_says() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let source = format!("{}/dev/app:1", staging.host());
    let image = Image::of_three_platforms("1");
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let count = || logged(&staging, " /v2/") + logged(&production, " /v2/");

    let by_digest = format!("{}/dev/app@{}", staging.host(), image.root);
    let across = format!("{}/prod/app:1", production.host());
    let within = format!("{}/prod/app:1", staging.host());
    for (source, target, limit) in [
        (&source, &within, SAME_REGISTRY),
        (&source, &within, NOTHING_TO_DO),
        (&by_digest, &within, NOTHING_TO_DO),
        (&source, &across, ACROSS),
        (&source, &across, NOTHING_TO_DO),
        (&by_digest, &across, NOTHING_TO_DO),
    ] {
        let before = count();
        let report = world
            .promote(&[source, target, "--referrers", "none"])
            .await
            .succeeded();
        let requests = report["requests"].as_u64().unwrap();
        assert!(
            requests <= limit,
            "{source} to {target}: {requests} requests, not {limit}"
        );
        // The question to the source is dropped, maybe before it arrives, when the target has all of it.
        let dropped = u64::from(limit == NOTHING_TO_DO && source == &by_digest);
        let arrived = count() - before;
        assert!(
            (requests - dropped..=requests).contains(&arrived),
            "{source} to {target}: {arrived} of {requests}"
        );
    }
}

#[tokio::test]
async fn looking_for_what_refers_to_the_image_costs_three_requests_at_most() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let source = format!("{}/dev/app:1", staging.host());
    let image = Image::of_three_platforms("1");
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let across = format!("{}/prod/app:1", production.host());
    let within = format!("{}/prod/app:1", staging.host());
    for (target, limit) in [
        (&within, SAME_REGISTRY),
        (&within, NOTHING_TO_DO),
        (&across, ACROSS),
        (&across, NOTHING_TO_DO),
    ] {
        let report = world.promote(&[&source, target]).await.succeeded();
        let requests = report["requests"].as_u64().unwrap();
        assert!(requests <= limit + LOOKING, "{target}: {requests} requests");
    }
}

#[tokio::test]
async fn a_password_costs_one_request_more_for_each_registry() {
    let world = World::open().await;
    let staging = world.registry("staging", &[STAGING]).await;
    world.log_in(&[(staging.host(), STAGING.0, STAGING.1)]);
    let source = format!("{}/dev/app:1", staging.host());
    let image = Image::of_three_platforms("1");
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let target = format!("{}/prod/app:1", staging.host());
    let report = world
        .promote(&[&source, &target, "--referrers", "none"])
        .await
        .succeeded();
    assert_eq!(report["requests"], SAME_REGISTRY + 1);
    let by_digest = format!("{}/dev/app@{}", staging.host(), image.root);
    let again = world
        .promote(&[&by_digest, &target, "--referrers", "none"])
        .await
        .succeeded();
    assert_eq!(again["requests"], NOTHING_TO_DO);
}
