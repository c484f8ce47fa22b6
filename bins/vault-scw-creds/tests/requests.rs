//! How many requests a secret takes, by where it is and what is told of that.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use serde_json::json;
use towpath_sandbox::servers::{Canned, Fault, Proxy, Rule};
use world::{ACCESS_KEY, Ran, SECRET_KEY, World, run};

/// In engines of both versions, with and without a slash in their names.
const PLACES: [&str; 4] = [
    "secret/ci/scw",
    "plain/ci/scw",
    "team/kv/ci/scw",
    "team/plain/ci/scw",
];

async fn world() -> World {
    let world = World::start().await;
    world.server.enable_kv("team/kv").await.unwrap();
    let data = json!({"access_key": ACCESS_KEY, "secret_key": SECRET_KEY});
    world
        .server
        .write_secret("team/kv", "ci/scw", &data)
        .await
        .unwrap();
    let plain = json!({"type": "kv", "options": {"version": "1"}});
    for mount in ["plain", "team/plain"] {
        world
            .server
            .write(&format!("sys/mounts/{mount}"), &plain)
            .await
            .unwrap();
        world
            .server
            .write(&format!("{mount}/ci/scw"), &data)
            .await
            .unwrap();
    }
    // Rights as they should be: no more than the secrets.
    let rules = [
        "secret/data/ci/scw",
        "plain/ci/scw",
        "team/kv/data/ci/scw",
        "team/plain/ci/scw",
    ]
    .map(|path| format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n"));
    world.server.write_policy("ci", &rules.concat()).await.unwrap();
    world
}

/// What is to be told of a place, so that it is found at once.
fn told(place: &str) -> Vec<&'static str> {
    match place {
        "plain/ci/scw" | "team/plain/ci/scw" => vec!["--kv-version", "1"],
        "team/kv/ci/scw" => vec!["--kv-mount", "team/kv/"],
        _ => Vec::new(),
    }
}

/// Runs `env` with a secret and flags, and gives back how many requests that took.
async fn asked(world: &World, rules: &[Rule], secret: &str, flags: &[&str]) -> (Ran, usize) {
    let proxy = Proxy::start(world.server.address().trim_start_matches("http://"))
        .await
        .unwrap();
    rules.iter().for_each(|rule| proxy.add(rule.clone()));
    let mut command = world.tool();
    command
        .env("VAULT_ADDR", format!("http://{}", proxy.host()))
        .args(["env", "--format", "json", "--secret", secret])
        .args(flags);
    let ran = run(command).await;
    (ran, proxy.exchanges().len())
}

#[tokio::test]
async fn a_place_that_is_told_takes_one_request_or_three_and_any_other_four_at_most_by_a_login() {
    let world = world().await;
    let tokens = world.tokens().await;
    for place in PLACES {
        let told = told(place);
        let never = ["--inline-auth", "never"];
        let (ran, requests) = asked(&world, &[], place, &told).await;
        assert_eq!(requests, 1, "{place}: {ran:?}");
        assert_eq!(ran.json()["SCW_SECRET_KEY"], SECRET_KEY);
        assert!(ran.stderr.contains("without a token"), "{ran:?}");
        let (ran, requests) = asked(&world, &[], place, &[&told[..], &never].concat()).await;
        assert_eq!(ran.json()["SCW_SECRET_KEY"], SECRET_KEY);
        assert_eq!(requests, if told.is_empty() { 4 } else { 3 }, "{place}: {ran:?}");
        let (ran, requests) = asked(&world, &[], place, &never).await;
        assert_eq!(ran.json()["SCW_SECRET_KEY"], SECRET_KEY);
        assert_eq!(requests, 4, "{place}: {ran:?}");
    }
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn a_server_without_inline_authentication_takes_four_where_the_place_is_told() {
    let world = world().await;
    let tokens = world.tokens().await;
    // As Vault answers a request without a token.
    let denied = Fault::Answer(Canned {
        status: 403,
        body: r#"{"errors":["permission denied"]}"#.to_owned(),
        ..Canned::default()
    });
    let rules = [Rule::on("GET", "/v1/", denied).times(1)];
    for place in PLACES {
        let (ran, requests) = asked(&world, &rules, place, &told(place)).await;
        assert_eq!(ran.json()["SCW_SECRET_KEY"], SECRET_KEY);
        assert_eq!(requests, 4, "{place}: {ran:?}");
    }
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn a_role_takes_four_or_three_and_a_given_token_one_less() {
    let world = world().await;
    let role = world.server.make_approle("approle", "ci", &["ci"]).await.unwrap();
    let body = json!({"policies": ["ci"], "ttl": "10m", "no_parent": true});
    let created = world.server.write("auth/token/create", &body).await.unwrap();
    let token = created["auth"]["client_token"].as_str().unwrap();
    let tokens = world.tokens().await;
    let file = |name: &str, text: &str| {
        std::fs::write(world.path(name), text).unwrap();
        world.path(name).to_str().unwrap().to_owned()
    };
    let (role_id, secret_id, token) = (
        file("role-id", &role.role_id),
        file("secret-id", &role.secret_id),
        file("token", token),
    );
    let approle = [
        "--auth",
        "approle",
        "--role-id-file",
        &role_id,
        "--secret-id-file",
        &secret_id,
    ];
    let given = ["--auth", "token", "--token-file", &token];
    for place in PLACES {
        let told = match place {
            "secret/ci/scw" => vec!["--kv-version", "2"],
            _ => told(place),
        };
        // At a path without versions, an engine could make what a token that stays does not end.
        let is_plain = place.contains("plain");
        for (login, untold, at_once) in [(&approle[..], 4, 3), (&given, 3, if is_plain { 3 } else { 2 })] {
            let (ran, requests) = asked(&world, &[], place, login).await;
            assert_eq!((ran.code, requests), (0, untold), "{place}: {ran:?}");
            let (ran, requests) = asked(&world, &[], place, &[login, &told].concat()).await;
            assert_eq!((ran.code, requests), (0, at_once), "{place}: {ran:?}");
        }
    }
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_told_or_wrongly_is_found_and_told_of() {
    let world = world().await;
    for (place, flags, hint) in [
        ("plain/ci/scw", &[][..], "--kv-version 1"),
        ("team/kv/ci/scw", &[], "--kv-mount team/kv"),
        ("team/kv/ci/scw", &["--kv-version", "1"], "--kv-mount team/kv"),
        (
            "team/plain/ci/scw",
            &["--kv-mount", "team/plain"],
            "--kv-version 1",
        ),
    ] {
        let (ran, requests) = asked(&world, &[], place, flags).await;
        assert_eq!(ran.json()["SCW_SECRET_KEY"], SECRET_KEY);
        assert_eq!(requests, 6, "{place}: {ran:?}");
        assert!(ran.stderr.contains(hint), "{ran:?}");
    }
    // The server has said that there is nothing, so it is not asked for the same once more.
    let (ran, requests) = asked(&world, &[], "secret/ci/scw", &["--version", "7"]).await;
    assert_eq!((ran.code, requests), (5, 5), "{ran:?}");
    let (ran, requests) = asked(&world, &[], "secret/ci/scw", &["--kv-mount", "team/kv"]).await;
    assert_eq!((ran.code, requests), (2, 0), "{ran:?}");
    assert!(ran.stderr.contains("is not below --kv-mount"), "{ran:?}");
    // Set for a job, it is for the secrets that it fits.
    let mut command = world.tool();
    command
        .env("TOWPATH_KV_MOUNT", "team/kv")
        .args(["env", "--format", "json"]);
    let ran = run(command).await;
    assert_eq!(ran.json()["SCW_SECRET_KEY"], SECRET_KEY);
    world.stop().await;
}

#[tokio::test]
async fn doctor_says_where_the_secret_is() {
    let world = world().await;
    for (place, flags, outcome) in [
        ("team/kv/ci/scw", &[][..], "ok"),
        ("team/kv/ci/scw", &["--kv-mount", "team/kv"], "ok"),
        ("team/kv/ci/scw", &["--kv-version", "1"], "warning"),
    ] {
        let mut command = world.tool();
        command.args(["doctor", "--secret", place]).args(flags);
        let ran = run(command).await;
        let report = ran.json();
        let checks = report["checks"].as_array().unwrap();
        let mount = checks.iter().find(|check| check["check"] == "mount").unwrap();
        assert_eq!(mount["outcome"], outcome, "{ran:?}");
        let is_hinted = mount
            .to_string()
            .contains("--kv-mount team/kv (TOWPATH_KV_MOUNT)");
        assert_eq!(is_hinted, flags != ["--kv-mount", "team/kv"], "{ran:?}");
    }
    world.stop().await;
}
