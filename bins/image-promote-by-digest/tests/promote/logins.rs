//! Who may do what, and what is said when somebody may not. Every run also searches its output for the passwords.

use crate::image::Image;
use crate::world::{PRODUCTION, STAGING, World, assert_holds, written};

#[tokio::test]
async fn a_wrong_password_and_none_are_told_apart_from_nothing_there() {
    let world = World::open().await;
    let staging = world.registry("staging", &[STAGING]).await;
    let host = staging.host();
    let image = Image::of_one_layer(b"layer");
    let layout = world.layout(&image);
    let target = format!("{host}/dev/app:1");

    let nobody = world.promote(&[&layout, &target]).await.failed_with(4);
    assert!(
        nobody.contains("no login") && nobody.contains("docker login"),
        "{nobody}"
    );

    world.log_in(&[(host, STAGING.0, "canary-wrong-password")]);
    let wrong = world.promote(&[&layout, &target]).await.failed_with(4);
    assert!(wrong.contains("repository:dev/app"), "{wrong}");

    world.log_in(&[(host, STAGING.0, STAGING.1)]);
    world.promote(&[&layout, &target]).await.succeeded();
    for absent in [
        format!("{host}/dev/app:2"),
        format!("{host}/dev/none@{}", image.root),
    ] {
        let error = world
            .promote(&[&absent, &format!("{host}/prod/app:2")])
            .await
            .failed_with(5);
        assert!(
            error.contains("MANIFEST_UNKNOWN") || error.contains("NAME_UNKNOWN"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_unavailable() {
    let world = World::open().await;
    // Bound and never listened on: nobody else can get the port meanwhile, and nobody answers.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let error = world
        .promote(&[&layout, &format!("{address}/app:1")])
        .await
        .failed_with(7);
    assert!(error.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn logins_can_be_given_for_each_side() {
    let world = World::open().await;
    let staging = world.registry("staging", &[STAGING]).await;
    let production = world.registry("production", &[PRODUCTION]).await;
    let image = Image::of_one_layer(b"layer");
    let source = format!("{}/dev/app:1", staging.host());
    let target = format!("{}/app", production.host());
    let staging_password = written(&world.path("staging-password"), &format!("{}\n", STAGING.1));
    world
        .promote(&[
            &world.layout(&image),
            &source,
            "--target-user",
            STAGING.0,
            "--target-password-file",
            &staging_password,
        ])
        .await
        .succeeded();
    let mut command = world.command(&[
        &source,
        &target,
        "--source-user",
        STAGING.0,
        "--target-user",
        PRODUCTION.0,
    ]);
    command
        .env("TOWPATH_SOURCE_PASSWORD_FILE", &staging_password)
        .env("TOWPATH_TARGET_PASSWORD", PRODUCTION.1);
    world.run(command).await.succeeded();
    assert_holds(production.host(), Some(PRODUCTION), "app", &image).await;

    let error = world
        .promote(&[&source, &target, "--source-user", STAGING.0])
        .await
        .failed_with(2);
    assert!(error.contains("TOWPATH_SOURCE_PASSWORD"), "{error}");
}

#[tokio::test]
async fn two_logins_for_two_repositories_of_one_registry() {
    let world = World::open().await;
    let registry = world.registry("registry", &[STAGING, PRODUCTION]).await;
    let host = registry.host();
    let (dev, prod) = (format!("{host}/dev"), format!("{host}/prod/app"));
    world.log_in(&[(&dev, STAGING.0, STAGING.1), (&prod, PRODUCTION.0, PRODUCTION.1)]);
    let image = Image::of_three_platforms("1");
    let source = format!("{host}/dev/app:1");
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let report = world
        .promote(&[&source, &format!("{host}/prod/app")])
        .await
        .succeeded();
    assert_eq!(report["targets"][0]["mounted"], 13);
    let elsewhere = world
        .promote(&[&source, &format!("{host}/prod/other")])
        .await
        .failed_with(4);
    assert!(elsewhere.contains("no login"), "{elsewhere}");
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_before_anything_is_sent() {
    let world = World::open().await;
    let config = world.path("docker/config.json");
    for (arguments, code, word) in [
        (
            &["example.com/app", "example.com/prod:1"][..],
            2,
            "neither tag nor digest",
        ),
        (&["app:1", "example.com/prod:1"], 2, "names no registry"),
        (&["example.com/app:1"], 2, "TARGET"),
        (&["example.com/app:1", ""], 2, "empty"),
        (
            &["example.com/app:1", "example.com/b", "example.com/b"],
            2,
            "twice",
        ),
        (
            &["example.com/app:1", "example.com/b", "--concurrency", "0"],
            2,
            "concurrency",
        ),
        (
            &[
                "example.com/app:1",
                "example.com/b",
                "--registry-auth-file",
                "absent",
            ],
            2,
            "absent",
        ),
        (&["oci:absent", "example.com/b"], 5, "oci-layout"),
        (&["oci:.", "example.com/b", "--source-user", "x"], 5, "oci-layout"),
    ] {
        let mut command = world.command(arguments);
        command.env("TOWPATH_SOURCE_PASSWORD", "canary-for-nothing");
        let run = world.run(command).await;
        assert!(
            run.code == code || (code == 5 && run.code == 2),
            "{arguments:?}: {run:?}"
        );
        assert!(
            run.log.contains(word) || run.code != code,
            "{arguments:?}: {run:?}"
        );
    }
    written(
        &config,
        "{\"auths\": {\"example.com\": {\"auth\": \"canary-no-base64\"}}}",
    );
    let error = world
        .promote(&["example.com/app:1", "example.com/b"])
        .await
        .failed_with(3);
    assert!(error.contains("config.json"), "{error}");
}
