//! Which secret is read, and what is said when it cannot be.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use serde_json::json;
use world::{ACCESS_KEY, OLD_SECRET_KEY, Ran, SECRET_KEY, World, run};

/// Runs `env --format json`, whose output shows what was read.
async fn env(world: &World, flags: &[&str]) -> Ran {
    let mut command = world.tool();
    command.args(["env", "--format", "json"]).args(flags);
    run(command).await
}

async fn secret_key(world: &World, flags: &[&str]) -> String {
    let ran = env(world, flags).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()["SCW_SECRET_KEY"].as_str().unwrap().to_owned()
}

fn assert_refused(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert_eq!(ran.stdout, "");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_version_is_pinned_or_the_latest_is_named() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let latest = env(&world, &[]).await;
    assert_eq!(latest.json()["SCW_SECRET_KEY"], SECRET_KEY);
    assert!(
        latest.stderr.contains("version 2, the latest"),
        "{}",
        latest.stderr
    );
    assert_eq!(
        secret_key(&world, &["--secret-version", "1"]).await,
        OLD_SECRET_KEY
    );
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn missing_deleted_and_destroyed_are_told_apart() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    assert_refused(
        &env(&world, &["--secret", "secret/ci/none"]).await,
        5,
        &["there is no secret secret/ci/none"],
    );
    assert_refused(
        &env(&world, &["--secret-version", "7"]).await,
        5,
        &["there is no version 7"],
    );
    world
        .server
        .write("secret/delete/ci/scw", &json!({"versions": [1]}))
        .await
        .unwrap();
    assert_refused(
        &env(&world, &["--secret-version", "1"]).await,
        5,
        &["version 1 of secret/ci/scw was deleted at"],
    );
    world
        .server
        .write("secret/destroy/ci/scw", &json!({"versions": [1]}))
        .await
        .unwrap();
    assert_refused(
        &env(&world, &["--secret-version", "1"]).await,
        5,
        &["version 1 of secret/ci/scw was destroyed"],
    );
    assert_eq!(world.tokens().await, tokens, "a token is left after a failure");
    world.stop().await;
}

#[tokio::test]
async fn a_path_outside_the_policy_is_denied_with_the_rule_that_lacks() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    assert_refused(
        &env(&world, &["--secret", "secret/other/scw"]).await,
        4,
        &["secret/other/scw", "read secret/data/other/scw"],
    );
    assert_refused(
        &env(&world, &["--secret", "nowhere/ci/scw"]).await,
        4,
        &["nowhere/ci/scw", "no such mount"],
    );
    // As people write it who know the API. The policy happens to allow it, so that the 404 is reached.
    let policy = r#"path "secret/*" { capabilities = ["read"] }"#;
    world.server.write_policy("ci", policy).await.unwrap();
    assert_refused(
        &env(&world, &["--secret", "secret/data/ci/scw"]).await,
        5,
        &["leave `data/` out"],
    );
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn mounts_with_slashes_and_without_versions_are_found() {
    let world = World::start().await;
    world.server.enable_kv("team/a/kv").await.unwrap();
    let body = json!({"type": "kv", "options": {"version": "1"}});
    world.server.write("sys/mounts/team/plain", &body).await.unwrap();
    let data = json!({"ACCESS": ACCESS_KEY, "SECRET": SECRET_KEY});
    world
        .server
        .write_secret("team/a/kv", "deep/scw key", &data)
        .await
        .unwrap();
    world.server.write("team/plain/scw", &data).await.unwrap();
    let policy = r#"path "team/*" { capabilities = ["read"] }"#;
    world.server.write_policy("ci", policy).await.unwrap();
    let fields = ["--field", "access_key=ACCESS,secret_key=SECRET"];
    let read = async |secret: &str| secret_key(&world, &[&["--secret", secret], &fields[..]].concat()).await;
    assert_eq!(read("team/a/kv/deep/scw key").await, SECRET_KEY);
    assert_eq!(read("team/plain/scw").await, SECRET_KEY);
    assert_refused(
        &env(&world, &["--secret", "team/plain/scw", "--secret-version", "1"]).await,
        2,
        &["keeps no versions"],
    );
    world.stop().await;
}

#[tokio::test]
async fn fields_are_checked_without_being_shown() {
    let world = World::start().await;
    let data = json!({"access_key": ACCESS_KEY, "secret_key": "canary-that-is-no-uuid", "nested": {"a": 1}});
    world
        .server
        .write_secret("secret", "ci/bad", &data)
        .await
        .unwrap();
    let bad = env(&world, &["--secret", "secret/ci/bad"]).await;
    assert_refused(
        &bad,
        3,
        &["secret_key of secret/ci/bad (version 1) is not a UUID"],
    );
    bad.assert_discreet(&["canary-that-is-no-uuid"]);
    let missing = env(&world, &["--field", "secret_key=password"]).await;
    assert_refused(
        &missing,
        5,
        &[
            "no key \"password\"",
            "access_key, project_id, region, secret_key",
        ],
    );
    missing.assert_discreet(&[SECRET_KEY]);
    world.stop().await;
}
