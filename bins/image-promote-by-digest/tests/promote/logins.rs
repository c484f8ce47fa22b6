//! Who may do what, and what is said when somebody may not. Every run also searches its output for the passwords.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use towpath_sandbox::servers::docker_config;

use crate::image::Image;
use crate::scripted::{Script, Scripted};
use crate::world::{PRODUCTION, STAGING, World, assert_holds, tagged, written};

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
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
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
async fn a_job_of_gitlab_is_logged_in_to_its_own_registry() {
    const JOB: (&str, &str) = ("gitlab-ci-token", "canary-of-the-job");
    let world = World::open().await;
    let registry = world.registry("registry", &[STAGING, JOB]).await;
    let host = registry.host();
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    for (tag, variables, origin) in [
        (
            "1",
            &[
                ("CI_REGISTRY_USER", STAGING.0),
                ("CI_REGISTRY_PASSWORD", STAGING.1),
                ("CI_JOB_TOKEN", "canary-not-needed"),
            ][..],
            "the variable CI_REGISTRY_PASSWORD",
        ),
        ("2", &[("CI_JOB_TOKEN", JOB.1)], "the variable CI_JOB_TOKEN"),
    ] {
        let mut command = world.command(&[&layout, &format!("{host}/team/app:{tag}")]);
        command.env("CI_REGISTRY", host).envs(variables.iter().copied());
        let run = world.run(command).await;
        assert!(run.log.contains(origin), "{}", run.log);
        run.succeeded();
        assert!(tagged(host, Some(STAGING), "team/app", tag).await.is_some());
    }
    let mut command = world.command(&[&layout, &format!("{host}/team/app:3")]);
    command.env("CI_REGISTRY", host).env("CI_JOB_TOKEN", "");
    let error = world.run(command).await.failed_with(2);
    assert!(error.contains("CI_JOB_TOKEN"), "{error}");
}

#[tokio::test]
async fn a_login_from_a_variable_counts_after_the_files() {
    let world = World::open().await;
    let registry = world.registry("registry", &[STAGING, PRODUCTION]).await;
    let host = registry.host();
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let run = async |tag: &str, (user, password): (&str, &str)| {
        let mut command = world.command(&[&layout, &format!("{host}/team/app:{tag}")]);
        let document = docker_config(&[(host, user, password)]).to_string();
        command.env("DOCKER_AUTH_CONFIG", document);
        world.run(command).await
    };
    let by_variable = run("1", STAGING).await;
    assert!(
        by_variable.log.contains("the variable DOCKER_AUTH_CONFIG, entry"),
        "{}",
        by_variable.log
    );
    by_variable.succeeded();
    let refused = run("2", (STAGING.0, "canary-of-another-job"))
        .await
        .failed_with(4);
    assert!(refused.contains("DOCKER_AUTH_CONFIG"), "{refused}");

    world.log_in(&[(host, PRODUCTION.0, PRODUCTION.1)]);
    let by_file = run("2", (STAGING.0, "canary-of-another-job")).await;
    assert!(by_file.log.contains("config.json, entry"), "{}", by_file.log);
    by_file.succeeded();

    fs::remove_file(world.path("docker/config.json")).unwrap();
    for (document, code) in [("", 2), ("{\"auths\": \"canary-no-map\"}", 3)] {
        let mut command = world.command(&[&layout, &format!("{host}/team/app:3")]);
        command.env("DOCKER_AUTH_CONFIG", document);
        let error = world.run(command).await.failed_with(code);
        assert!(error.contains("DOCKER_AUTH_CONFIG"), "{error}");
    }
}

#[tokio::test]
async fn helpers_on_the_path_know_logins() {
    let world = World::open().await;
    let registry = world.registry("registry", &[STAGING, PRODUCTION]).await;
    let host = registry.host();
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let programs = world.path("programs");
    fs::create_dir(&programs).unwrap();
    for (name, (user, password)) in [("own", STAGING), ("store", PRODUCTION)] {
        let program = programs.join(format!("docker-credential-{name}"));
        let answer = serde_json::json!({"ServerURL": host, "Username": user, "Secret": password});
        let script =
            format!("#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {host}' ] && echo '{answer}'\n");
        written(&program, &script);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (tag, config, helper) in [
        (
            "1",
            serde_json::json!({"credsStore": "store", "auths": {host: {}}}),
            "docker-credential-store",
        ),
        (
            "2",
            serde_json::json!({"credsStore": "store", "credHelpers": {host: "own"}}),
            "docker-credential-own",
        ),
    ] {
        written(&world.path("docker/config.json"), &config.to_string());
        let mut command = world.command(&[&layout, &format!("{host}/team/app:{tag}")]);
        command.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
        let run = world.run(command).await;
        assert!(run.log.contains(helper), "{}", run.log);
        run.succeeded();
    }
    let error = world
        .promote(&[&layout, &format!("{host}/team/app:3")])
        .await
        .failed_with(2);
    assert!(error.contains("docker-credential-own"), "{error}");
}

#[tokio::test]
async fn what_platforms_give_goes_to_no_host_but_theirs() {
    let world = World::open().await;
    let registry = Scripted::start(Script {
        bearer: true,
        ..Script::default()
    })
    .await;
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let mut command = world.command(&[&layout, &format!("{}/app:1", registry.host)]);
    command
        .env("CI_REGISTRY", "registry.example.com")
        .env("CI_REGISTRY_USER", "ci")
        .env("CI_REGISTRY_PASSWORD", "canary-gitlab")
        .env("CI_JOB_TOKEN", "canary-gitlab")
        .env("SCW_SECRET_KEY", "canary-scaleway")
        .env("CLOUDSDK_AUTH_ACCESS_TOKEN", "canary-google")
        // Another tool's: nothing here is Google's.
        .env("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json");
    let error = world.run(command).await.failed_with(4);
    assert!(error.contains("no login"), "{error}");
    let log = registry.log();
    assert!(
        log.len() >= 2 && log.iter().all(|line| !line.authorized),
        "{log:?}"
    );
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

#[tokio::test]
async fn a_login_in_a_reference_is_refused_and_not_repeated() {
    let world = World::open().await;
    let bad = "robot:canary-in-a-reference@registry.example.com/app:1";
    let good = "registry.example.com/app:2";
    let batch = written(&world.path("batch"), &format!("{good} {bad}\n"));
    for arguments in [&[bad, good][..], &[good, bad], &["verify", good, bad]] {
        let output = world.command(arguments).output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{error}"
        );
        assert!(
            error.contains("****@registry.example.com/app:1") && !error.contains("canary"),
            "{error}"
        );
    }
    // What it says is searched for canaries.
    let error = world.promote(&["--batch", &batch]).await.failed_with(3);
    assert!(error.contains("****@registry.example.com/app:1"), "{error}");
}
