//! `doctor`: what it can tell with and without a server.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use serde_json::json;
use towpath_sandbox::scaleway::{Iam, Settings};
use towpath_sandbox::servers::{Canned, Fault, Proxy, Rule};
use world::engine::{CREDS, Engine};
use world::{Ran, SECRET_KEY, World, run};

fn outcomes(ran: &Ran) -> Vec<(String, String)> {
    ran.json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| {
            let text = |name: &str| check[name].as_str().unwrap().to_owned();
            (text("check"), text("outcome"))
        })
        .collect()
}

fn outcome(ran: &Ran, check: &str) -> String {
    outcomes(ran)
        .into_iter()
        .find(|(name, _)| name == check)
        .unwrap_or_else(|| panic!("no check {check}: {ran:?}"))
        .1
}

#[tokio::test]
async fn without_a_server_it_tells_what_it_can() {
    let world = World::start().await;
    let doctor = async |variables: &[(&str, &str)]| {
        let mut command = world.tool();
        command
            .env("VAULT_ADDR", "https://vault.invalid")
            .envs(variables.iter().copied())
            .args(["doctor", "--offline"]);
        run(command).await
    };
    let before = world.audited().len();
    let ran = doctor(&[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let names: Vec<String> = outcomes(&ran).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "address", "login", "server", "token", "mount", "policy", "secret", "fields"
        ]
    );
    assert_eq!(
        (outcome(&ran, "login"), outcome(&ran, "server")),
        ("ok".to_owned(), "skipped".to_owned())
    );

    let none = world.path("none.pem");
    let none = none.to_str().unwrap();
    let ran = doctor(&[("VAULT_CACERT", none)]).await;
    assert_eq!((ran.code, outcome(&ran, "address")), (2, "failed".to_owned()));
    assert_eq!(outcome(&ran, "login"), "ok");

    let ended = world
        .cluster
        .mint_expired_service_account_token("gitlab-ci", "deployer", &["vault"])
        .unwrap();
    let file = world.path("ended");
    std::fs::write(&file, &ended).unwrap();
    let ran = doctor(&[("TOWPATH_JWT_FILE", file.to_str().unwrap())]).await;
    assert_eq!((ran.code, outcome(&ran, "login")), (4, "failed".to_owned()));
    ran.assert_discreet(&[&ended]);
    assert_eq!(world.audited().len(), before);
    world.stop().await;
}

#[tokio::test]
async fn rights_that_are_missing_or_too_many_are_told() {
    let world = World::start().await;
    let doctor = async || {
        let mut command = world.tool();
        command.arg("doctor");
        run(command).await
    };
    assert_eq!(outcome(&doctor().await, "policy"), "ok");
    let much = r#"path "secret/data/ci/*" { capabilities = ["read", "delete"] }"#;
    world.server.write_policy("ci", much).await.unwrap();
    let ran = doctor().await;
    assert_eq!((ran.code, outcome(&ran, "policy")), (0, "warning".to_owned()));
    let little = r#"path "secret/metadata/ci/*" { capabilities = ["read"] }
                    path "secret/data/ci/*" { capabilities = ["list"] }"#;
    world.server.write_policy("ci", little).await.unwrap();
    let ran = doctor().await;
    assert_eq!(
        (ran.code, outcome(&ran, "policy"), outcome(&ran, "fields")),
        (4, "failed".to_owned(), "skipped".to_owned())
    );
    world.stop().await;
}

#[tokio::test]
async fn what_rotation_needs_is_checked_on_request() {
    let world = World::start().await;
    let iam = Iam::start(Settings::default()).await.unwrap();
    let key = iam.create_key(&iam.create_application(true, true), "by hand");
    let data = json!({"access_key": key.access_key, "secret_key": key.secret_key});
    world
        .server
        .write_secret("secret", "ci/rotated", &data)
        .await
        .unwrap();
    let doctor = async || {
        let mut command = world.tool();
        command
            .env("SCW_API_URL", iam.url())
            .args(["doctor", "--rotation", "--secret", "secret/ci/rotated"]);
        let ran = run(command).await;
        ran.assert_discreet(&[&key.secret_key]);
        ran
    };
    let ran = doctor().await;
    assert_eq!(
        (ran.code, outcome(&ran, "rotation"), outcome(&ran, "key")),
        (4, "failed".to_owned(), "ok".to_owned()),
        "{ran:?}"
    );
    let policy = r#"
        path "secret/data/ci/*" { capabilities = ["read", "update"] }
        path "secret/metadata/ci/*" { capabilities = ["read", "update"] }"#;
    world.server.write_policy("ci", policy).await.unwrap();
    iam.age(&key.access_key, 100 * 86_400);
    let ran = doctor().await;
    assert_eq!(
        (ran.code, outcome(&ran, "rotation"), outcome(&ran, "key")),
        (0, "ok".to_owned(), "warning".to_owned()),
        "{ran:?}"
    );
    iam.forget(&key.access_key);
    let ran = doctor().await;
    assert_eq!(
        (ran.code, outcome(&ran, "key")),
        (4, "failed".to_owned()),
        "{ran:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn an_engine_is_looked_at_without_having_it_make_anything() {
    let world = World::start().await;
    let engine = Engine::mount(&world, 3600, 3600).await;
    let doctor = async |path: &str| {
        let mut command = world.tool();
        command
            .env("VAULT_ADDR", &engine.address)
            .args(["doctor", "--dynamic", path]);
        run(command).await
    };
    let names = ["address", "login", "server", "token", "engine", "policy", "lease"];
    // Reading is all that the policy allows.
    let ran = doctor(CREDS).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let found: Vec<String> = outcomes(&ran).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, names);
    assert_eq!(outcome(&ran, "policy"), "ok");
    assert_eq!(outcome(&ran, "lease"), "warning");
    assert!(ran.stdout.contains("sys/leases/revoke"), "{ran:?}");
    engine
        .allow(
            &world,
            r#"path "sys/leases/revoke" { capabilities = ["update"] }"#,
        )
        .await;
    let ran = doctor(CREDS).await;
    assert!(
        outcomes(&ran).iter().all(|(_, outcome)| outcome == "ok"),
        "{ran:?}"
    );
    let ran = doctor("scaleway/roles/deploy").await;
    assert_eq!(
        (ran.code, outcome(&ran, "policy")),
        (4, "failed".to_owned()),
        "{ran:?}"
    );
    let ran = doctor("elsewhere/creds/deploy").await;
    assert_eq!(
        (ran.code, outcome(&ran, "engine")),
        (4, "failed".to_owned()),
        "{ran:?}"
    );
    assert_eq!(outcome(&ran, "lease"), "skipped");
    let more = r#"path "secret/data/ci/*" { capabilities = ["read"] }"#;
    engine.allow(&world, more).await;
    let ran = doctor("secret/ci/scw").await;
    assert_eq!(
        (ran.code, outcome(&ran, "engine")),
        (2, "failed".to_owned()),
        "{ran:?}"
    );
    assert_eq!(engine.users().0, 0, "something was made");
    assert_eq!(world.leases().await, [""; 0]);
    world.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_off_and_a_sealed_server_are_told() {
    let world = World::start().await;
    let now = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap();
    for (sealed, time, code, words) in [
        (false, now, 0, "clocks agree"),
        (false, now - 300, 7, "s away from ours"),
        (false, now + 300, 7, "s away from ours"),
        (true, now, 7, "is sealed"),
    ] {
        let health = json!({
            "initialized": true, "sealed": sealed, "standby": false, "version": "2.7.2", "server_time_utc": time,
        });
        let proxy = Proxy::start(world.server.address().trim_start_matches("http://"))
            .await
            .unwrap();
        let answer = Canned {
            status: 200,
            body: health.to_string(),
            ..Canned::default()
        };
        proxy.add(Rule::on("GET", "/v1/sys/health", Fault::Answer(answer)));
        let mut command = world.tool();
        command
            .env("VAULT_ADDR", format!("http://{}", proxy.host()))
            .arg("doctor");
        let ran = run(command).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stdout.contains(words), "{ran:?}");
        ran.assert_discreet(&[SECRET_KEY, &world.jwt]);
    }
    world.stop().await;
}
