//! Other hosts, passwords, and tokens that run out.

use towpath_sandbox::servers::{Fault, Point, Proxy, Rule, Way};

use crate::behind::{each_kind, once, status};
use crate::image::Image;
use crate::world::{PRODUCTION, World, assert_holds, tagged};

#[tokio::test]
async fn blobs_that_are_at_another_host_come_from_there_without_our_token() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    for source in each_kind(&world, "source").await {
        source.hold(&world, "app:1", &layout).await;
        let storage = Proxy::start(source.direct()).await.unwrap();
        source.proxy.ask_for_tokens(u32::MAX);
        source.proxy.add(Rule::on(
            "GET",
            "/blobs/",
            Fault::Redirect(storage.host().to_owned()),
        ));
        let repository = if source.is_docker() { "a" } else { "b" };
        let target = format!("{}/{repository}:1", production.host());
        world
            .promote(&[&source.reference("app:1"), &target])
            .await
            .succeeded();
        assert_holds(production.host(), None, repository, &image).await;
        assert_eq!(storage.answered("GET", "/blobs/", 200), 13);
        let told = |proxy: &Proxy| proxy.exchanges().iter().filter(|seen| seen.authorized).count();
        assert_eq!(told(&storage), 0, "{:#?}", storage.exchanges());
        assert!(told(&source.proxy) >= 13);
    }
}

#[tokio::test]
async fn uploads_that_are_sent_to_another_host_go_there_without_our_token() {
    let world = World::open().await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    for target in each_kind(&world, "target").await {
        let storage = Proxy::start(target.direct()).await.unwrap();
        target.proxy.ask_for_tokens(u32::MAX);
        target.proxy.add(Rule::on(
            "POST",
            "/blobs/uploads/",
            Fault::Location(storage.host().to_owned()),
        ));
        world
            .promote(&[&layout, &target.reference("app:1")])
            .await
            .succeeded();
        assert_holds(target.direct(), None, "app", &image).await;
        assert_eq!(storage.answered("PUT", "/blobs/uploads/", 201), 13);
        assert!(storage.exchanges().iter().all(|seen| !seen.authorized));
    }
}

#[tokio::test]
async fn a_token_that_runs_out_on_either_side_is_asked_for_again() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    for registry in each_kind(&world, "registry").await {
        registry.proxy.ask_for_tokens(6);
        let staged = registry.reference("dev/app:1");
        let narrow = ["--concurrency", "2"];
        let pushed = [&narrow[..], &[&layout, &staged]].concat();
        world.promote(&pushed).await.succeeded();
        assert_holds(registry.direct(), None, "dev/app", &image).await;
        assert!(registry.proxy.answered("GET", "/token", 200) > 2);

        let repository = if registry.is_docker() { "a" } else { "b" };
        let target = format!("{}/{repository}:1", production.host());
        let pulled = [&narrow[..], &[&staged, &target]].concat();
        world.promote(&pulled).await.succeeded();
        assert_holds(production.host(), None, repository, &image).await;
        assert_eq!(
            tagged(production.host(), None, repository, "1").await.as_ref(),
            Some(&image.root)
        );
    }
}

#[tokio::test]
async fn tokens_that_are_never_good_are_no_endless_loop() {
    let world = World::open().await;
    let image = Image::of_one_layer(b"layer");
    for target in each_kind(&world, "target").await {
        target.proxy.ask_for_tokens(0);
        let run = world
            .promote(&[&world.layout(&image), &target.reference("app:1")])
            .await;
        run.failed_with(4);
        assert_eq!(tagged(target.direct(), None, "app", "1").await, None);
        assert!(target.proxy.exchanges().len() < 20);
    }
}

#[tokio::test]
async fn a_registry_with_a_password_may_break_like_any_other() {
    let world = World::open().await;
    let guarded = world.registry("guarded", &[PRODUCTION]).await;
    let proxy = Proxy::start(guarded.host()).await.unwrap();
    world.log_in(&[(proxy.host(), PRODUCTION.0, PRODUCTION.1)]);
    let image = Image::of_three_platforms("1");
    let lost = || Fault::Break(Point::Answered, Way::Reset);
    for rule in [
        once("POST", "/blobs/uploads/", status(503)),
        once("PUT", "/blobs/uploads/", lost()),
        once("PUT", "/manifests/", lost()),
        once("GET", "/blobs/", lost()),
        once("GET", "/manifests/", lost()),
    ] {
        proxy.add(rule);
    }
    let staged = format!("{}/dev/app:1", proxy.host());
    let target = format!("{}/prod/app:1", proxy.host());
    world.promote(&[&world.layout(&image), &staged]).await.succeeded();
    world.promote(&[&staged, &target]).await.succeeded();
    for repository in ["dev/app", "prod/app"] {
        assert_holds(guarded.host(), Some(PRODUCTION), repository, &image).await;
        let named = tagged(guarded.host(), Some(PRODUCTION), repository, "1").await;
        assert_eq!(named.as_ref(), Some(&image.root));
    }
}
