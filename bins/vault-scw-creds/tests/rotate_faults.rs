//! `rotate` where it takes long, answers are lost or cannot be read, signals come, and clocks differ.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use towpath_sandbox::scaleway::Settings;
use towpath_sandbox::servers::{Canned, Fault, Point, Proxy, Rule, Way};
use world::rotating::{DAY, Kept, Rotating, steps};
use world::{Ran, run};

async fn before_iam(rotating: &Rotating) -> Proxy {
    let host = rotating.iam.url().trim_start_matches("http://").to_owned();
    Proxy::start(&host).await.unwrap()
}

fn through(rotating: &Rotating, api: &Proxy, kept: &Kept, flags: &[&str]) -> tokio::process::Command {
    let mut command = rotating.command(kept, flags);
    command
        .env("SCW_API_URL", format!("http://{}", api.host()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn signal(child: &tokio::process::Child) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

/// Lets the role's tokens live for so many seconds, and no longer whatever is asked for.
async fn limit_tokens(rotating: &Rotating, seconds: u32, most: u32) {
    let role = json!({
        "bound_service_account_names": ["deployer"], "bound_service_account_namespaces": ["gitlab-ci"],
        "audience": "vault", "token_policies": ["ci"], "token_ttl": seconds, "token_max_ttl": most,
    });
    rotating
        .world
        .server
        .write("auth/kubernetes/role/ci", &role)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_that_is_shorter_than_the_proof_is_renewed_or_got_anew() {
    let rotating = Rotating::start(Settings::default()).await;
    let tokens = rotating.world.tokens().await;
    for (name, most, logins) in [("renewed", 60, 1), ("anew", 9, 2)] {
        limit_tokens(&rotating, 9, most).await;
        let kept = rotating.keep(name, 31).await;
        let before = rotating.world.audited().len();
        let ran = rotating
            .rotate(&kept, &["--proofs", "7", "--proof-pause", "2s"])
            .await;
        assert_eq!(steps(&ran), ["rotated", "noted", "retired"], "{ran:?}");
        let audited = rotating.world.audited().split_off(before);
        let count = |path: &str| audited.iter().filter(|entry| entry.ends_with(path)).count();
        if logins == 1 {
            assert_eq!(count("auth/kubernetes/login"), 1, "{audited:?}");
            assert!(count("auth/token/renew-self") > 0, "{audited:?}");
        } else {
            assert!(count("auth/kubernetes/login") > 1, "{audited:?}");
        }
        assert_eq!(rotating.others(&kept).await.len(), 1);
    }
    assert_eq!(rotating.world.tokens().await, tokens);
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_key_whose_answer_is_lost_is_found_and_deleted() {
    let settings = Settings {
        settles_after: 6,
        seed: 7,
        ..Settings::default()
    };
    let rotating = Rotating::start(settings).await;
    let api = before_iam(&rotating).await;
    for (name, fault, code) in [
        ("reset", Fault::Break(Point::Answered, Way::Reset), 7),
        ("cut", Fault::Break(Point::Receiving(20), Way::Close), 7),
        ("bytes", Fault::WrongBytes, 3),
    ] {
        let kept = rotating.keep(name, 31).await;
        let other = rotating
            .iam
            .create_key(&kept.application, "vault-scw-creds rotate: by hand");
        api.clear();
        api.add(Rule::on("POST", "/api-keys", fault).times(1));
        let ran = run(through(&rotating, &api, &kept, &[])).await;
        assert_eq!(ran.code, code, "{name}: {ran:?}");
        assert!(ran.stderr.contains("is deleted"), "{name}: {ran:?}");
        assert_eq!(rotating.others(&kept).await, [other], "{name}: {ran:?}");
        api.clear();
        let ran = rotating.rotate(&kept, &[]).await;
        // Some servers still list it.
        let mut steps = steps(&ran);
        steps.retain(|step| step != "deleted");
        assert_eq!(steps, ["rotated", "noted", "retired"], "{name}");
    }
    // It surely made none.
    let kept = rotating.keep("refused", 31).await;
    api.add(Rule::on("POST", "/api-keys", Fault::Answer(Canned::status(400))));
    let ran = run(through(&rotating, &api, &kept, &[])).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!ran.stderr.contains("may have made"), "{ran:?}");
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_version_whose_answer_cannot_be_read_keeps_its_key() {
    let rotating = Rotating::start(Settings::default()).await;
    let host = rotating
        .world
        .server
        .address()
        .trim_start_matches("http://")
        .to_owned();
    let vault = Proxy::start(&host).await.unwrap();
    for (name, fault) in [
        ("bytes", Fault::WrongBytes),
        ("reset", Fault::Break(Point::Answered, Way::Reset)),
        ("cut", Fault::Break(Point::Receiving(20), Way::Close)),
    ] {
        let kept = rotating.keep(&format!("written-{name}"), 31).await;
        vault.clear();
        vault.add(Rule::on("POST", "/v1/secret/data/", fault).times(1));
        let mut command = rotating.command(&kept, &[]);
        command.env("VAULT_ADDR", format!("http://{}", vault.host()));
        let ran = run(command).await;
        assert_eq!(steps(&ran), ["rotated", "noted", "retired"], "{name}");
        // It sees that the key in the secret is good.
        let others = rotating.others(&kept).await;
        assert_eq!(others.len(), 1, "{name}: {others:?}");
    }
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_key_of_a_run_that_is_over_is_deleted_by_a_later_one() {
    let rotating = Rotating::start(Settings::default()).await;
    let api = before_iam(&rotating).await;
    let kept = rotating.keep("orphan", 1).await;
    api.add(Rule::on("POST", "/api-keys", Fault::Hold(Point::Answered)));
    let mut child = through(&rotating, &api, &kept, &["--now", "--timeout", "60s"])
        .spawn()
        .unwrap();
    api.until(|exchanges| exchanges.iter().any(|exchange| exchange.held))
        .await
        .unwrap();
    child.kill().await.unwrap();
    // As long as that run could go on, its key is left alone.
    assert_eq!(rotating.others(&kept).await.len(), 1);
    let ran = rotating.rotate(&kept, &[]).await;
    assert_eq!(steps(&ran), [""; 0]);
    assert_eq!(rotating.others(&kept).await.len(), 1);
    rotating.iam.set_clock(15 * 60);
    let ran = rotating.rotate(&kept, &[]).await;
    assert_eq!(steps(&ran), ["deleted"]);
    assert_eq!(rotating.others(&kept).await, []);
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_signal_ends_every_wait_and_the_next_run_goes_on() {
    let rotating = Rotating::start(Settings::default()).await;
    let api = before_iam(&rotating).await;
    let host = rotating
        .world
        .server
        .address()
        .trim_start_matches("http://")
        .to_owned();
    let vault = Proxy::start(&host).await.unwrap();
    // What is held is never answered, so only the signal can end it.
    let waits = [
        (&api, "GET", "/api-keys/", Point::Arrival),
        (&api, "POST", "/api-keys", Point::Arrival),
        (&api, "POST", "/api-keys", Point::Answered),
        (&vault, "POST", "/v1/secret/data/", Point::Answered),
        (&vault, "POST", "/v1/secret/metadata/", Point::Arrival),
        (&api, "PATCH", "/api-keys/", Point::Arrival),
    ];
    for (number, (proxy, method, path, point)) in waits.into_iter().enumerate() {
        let what = format!("{method} {path} {point:?}");
        let kept = rotating.keep(&format!("signal-{number}"), 31).await;
        api.clear();
        vault.clear();
        proxy.add(Rule::on(method, path, Fault::Hold(point)));
        let mut command = through(&rotating, &api, &kept, &[]);
        command.env("VAULT_ADDR", format!("http://{}", vault.host()));
        let child = command.spawn().unwrap();
        proxy
            .until(|exchanges| exchanges.iter().any(|exchange| exchange.held))
            .await
            .unwrap();
        signal(&child);
        let ran: Ran = child.wait_with_output().await.unwrap().into();
        assert_eq!(ran.code, 128 + 15, "{what}: {ran:?}");
        api.clear();
        vault.clear();
        let ran = rotating.rotate(&kept, &[]).await;
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        let others = rotating.others(&kept).await;
        assert_eq!(others.len(), 1, "{what}: {others:?}");
        assert_eq!(others[0].access_key, kept.first.access_key, "{what}");
        assert!(others[0].expires_at.is_some(), "{what}");
    }
    rotating.world.stop().await;
}

#[tokio::test]
async fn the_clock_that_counts_is_that_of_iam() {
    for clock in [-40 * DAY, 40 * DAY] {
        let rotating = Rotating::start(Settings {
            clock,
            ..Settings::default()
        })
        .await;
        let kept = rotating.keep("clock", 29).await;
        assert_eq!(steps(&rotating.rotate(&kept, &[]).await), [""; 0], "{clock}");
        rotating.iam.age(&kept.first.access_key, 2 * DAY);
        let flags = ["--key-lifetime", "60d"];
        let ran = rotating.rotate(&kept, &flags).await;
        assert_eq!(steps(&ran), ["rotated", "noted", "retired"], "{clock}");
        assert!(
            rotating.iam.is_good(&kept.first.secret_key),
            "{clock}: its grace is over"
        );
        assert_eq!(steps(&rotating.rotate(&kept, &flags).await), [""; 0], "{clock}");
        rotating.iam.age(&kept.first.access_key, 2 * DAY);
        assert_eq!(
            steps(&rotating.rotate(&kept, &flags).await),
            ["deleted"],
            "{clock}"
        );
        rotating.world.stop().await;
    }
}

#[tokio::test]
async fn a_quota_is_told_for_what_it_is() {
    let rotating = Rotating::start(Settings {
        quota: Some(1),
        ..Settings::default()
    })
    .await;
    let kept = rotating.keep("quota", 31).await;
    let ran = rotating.rotate(&kept, &[]).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("quota"), "{ran:?}");
    assert!(!ran.stderr.contains("IAMApplicationManager"), "{ran:?}");
    assert_eq!(rotating.others(&kept).await, []);
    rotating.world.stop().await;
}
