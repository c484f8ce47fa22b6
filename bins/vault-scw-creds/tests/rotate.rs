//! `rotate`: a new key in the secret, an end for the old one, and nobody's key left, whatever happens in between.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use serde_json::json;
use towpath_sandbox::scaleway::{Busy, Settings};
use towpath_sandbox::servers::{Fault, Point, Proxy, Rule};
use world::rotating::{DAY, Kept, POLICY, Rotating, steps};
use world::{Ran, run};

#[tokio::test]
async fn a_key_is_replaced_retired_and_deleted() {
    let settings = Settings {
        settles_after: 9,
        seed: 3,
        ..Settings::default()
    };
    let rotating = Rotating::start(settings).await;
    let kept = rotating.keep("whole", 31).await;
    let tokens = rotating.world.tokens().await;

    let foretold = rotating.rotate(&kept, &["--dry-run"]).await;
    assert_eq!(steps(&foretold), ["rotate"]);
    assert_eq!(
        rotating.others(&kept).await,
        [],
        "a dry run made or changed a key"
    );

    // A version that is pinned for the other commands of a job is not what is replaced.
    let data = &rotating.stored(&kept).await["data"];
    let path = kept.path.as_str();
    let server = &rotating.world.server;
    server.write_secret("secret", path, data).await.unwrap();
    let mut command = rotating.command(&kept, &[]);
    command.env("TOWPATH_SECRET_VERSION", "1");
    let ran = run(command).await;
    assert_eq!(steps(&ran), ["rotated", "noted", "retired"]);
    assert!(ran.stderr.contains("TOWPATH_SECRET_VERSION"), "{ran:?}");
    let stored = rotating.stored(&kept).await;
    assert_eq!(stored["metadata"]["version"], 3);
    assert_eq!(
        (&stored["data"]["note"], &stored["data"]["region"]),
        (&json!({"kept": [1, true, null]}), &json!("fr-par"))
    );
    let custom = rotating.custom(&kept).await;
    assert_eq!(
        custom["towpath_previous_access_key"],
        json!(kept.first.access_key)
    );
    assert_eq!(custom["towpath_access_key"], stored["data"]["access_key"]);
    let others = rotating.others(&kept).await;
    assert_eq!(others.len(), 1);
    assert_eq!(others[0].access_key, kept.first.access_key);
    assert!(others[0].expires_at.is_some() && rotating.iam.is_good(&kept.first.secret_key));

    let again = rotating.rotate(&kept, &[]).await;
    assert_eq!(steps(&again), [""; 0]);
    assert_eq!(again.json()["changed"], false);
    rotating.iam.age(&kept.first.access_key, 2 * DAY);
    let later = rotating.rotate(&kept, &[]).await;
    assert_eq!(steps(&later), ["deleted"]);
    assert_eq!(rotating.others(&kept).await, []);
    assert_eq!(rotating.world.tokens().await, tokens);
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_run_that_is_killed_anywhere_is_taken_up_by_the_next() {
    let settings = Settings {
        settles_after: 6,
        seed: 11,
        ..Settings::default()
    };
    let rotating = Rotating::start(settings).await;
    let vault = Proxy::start(rotating.world.server.address().trim_start_matches("http://"))
        .await
        .unwrap();
    let api = Proxy::start(rotating.iam.url().trim_start_matches("http://"))
        .await
        .unwrap();
    let through = |kept: &Kept| {
        let mut command = rotating.command(kept, &[]);
        command
            .env("VAULT_ADDR", format!("http://{}", vault.host()))
            .env("SCW_API_URL", format!("http://{}", api.host()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    };
    let mut killed = 0;
    for (proxy, method) in [
        (&vault, "GET"),
        (&vault, "POST"),
        (&api, "GET"),
        (&api, "POST"),
        (&api, "PATCH"),
    ] {
        for point in [Point::Arrival, Point::Answered] {
            for number in 0.. {
                let what = format!("{method} {number} {point:?}, {}", proxy.host() == api.host());
                rotating.iam.settle();
                let kept = rotating.keep(&format!("killed-{killed}"), 31).await;
                vault.clear();
                api.clear();
                proxy.add(Rule::on(method, "/", Fault::Hold(point)).after(number));
                let mut child = through(&kept).spawn().unwrap();
                let held = proxy.until(|exchanges| exchanges.iter().any(|exchange| exchange.held));
                let ended = tokio::select! {
                    held = held => { held.unwrap(); None }
                    ended = child.wait() => Some(ended.unwrap()),
                };
                if let Some(ended) = ended {
                    assert!(ended.success(), "{what}");
                    break;
                }
                child.start_kill().unwrap();
                child.wait().await.unwrap();
                killed += 1;
                vault.clear();
                api.clear();
                let ran = rotating.rotate(&kept, &[]).await;
                assert_eq!(ran.code, 0, "{what}: {ran:?}");
                // What no server told that it knew of is found later.
                rotating.others(&kept).await;
                rotating.iam.settle();
                let last = rotating.rotate(&kept, &[]).await;
                assert_eq!(last.code, 0, "{what}: {last:?}");
                let others = rotating.others(&kept).await;
                assert_eq!(others.len(), 1, "{what}: {others:?} {ran:?}");
                assert_eq!(others[0].access_key, kept.first.access_key, "{what}");
                assert!(others[0].expires_at.is_some(), "{what}: {ran:?}");
                let custom = rotating.custom(&kept).await;
                assert_eq!(
                    custom["towpath_previous_access_key"],
                    json!(kept.first.access_key),
                    "{what}"
                );
            }
        }
    }
    assert!(killed > 30, "only {killed} places to kill at");
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_lost_race_leaves_no_key() {
    let rotating = Rotating::start(Settings::default()).await;
    let kept = rotating.keep("race", 31).await;
    let vault = Proxy::start(rotating.world.server.address().trim_start_matches("http://"))
        .await
        .unwrap();
    vault.add(Rule::on("POST", "/v1/secret/data/", Fault::Hold(Point::Arrival)));
    let mut slow = rotating.command(&kept, &[]);
    slow.env("VAULT_ADDR", format!("http://{}", vault.host()));
    let slow = tokio::spawn(run(slow));
    vault
        .until(|exchanges| exchanges.iter().any(|exchange| exchange.held))
        .await
        .unwrap();
    // The other one wins, deletes what cannot come any more, and leaves alone what may.
    let ran = rotating.rotate(&kept, &[]).await;
    assert_eq!(steps(&ran), ["rotated", "noted", "deleted", "retired"]);
    let winner = rotating.stored(&kept).await["data"].clone();
    vault.clear();
    let lost = slow.await.unwrap();
    assert_eq!(lost.code, 6, "{lost:?}");
    assert!(lost.stderr.contains("resource_group"), "{lost:?}");
    assert_eq!(rotating.stored(&kept).await["data"], winner);
    let others = rotating.others(&kept).await;
    assert_eq!(others.len(), 1, "{others:?}");
    assert_eq!(others[0].access_key, kept.first.access_key);
    rotating.world.stop().await;
}

#[tokio::test]
async fn nobodys_key_is_found_among_many() {
    let rotating = Rotating::start(Settings::default()).await;
    let kept = rotating.keep("many", 31).await;
    for number in 0..120 {
        rotating
            .iam
            .create_key(&kept.application, &format!("of somebody {number}"));
    }
    let api = Proxy::start(rotating.iam.url().trim_start_matches("http://"))
        .await
        .unwrap();
    api.add(Rule::on("POST", "/api-keys", Fault::Hold(Point::Answered)));
    let mut child = rotating
        .command(&kept, &[])
        .env("SCW_API_URL", format!("http://{}", api.host()))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    api.until(|exchanges| exchanges.iter().any(|exchange| exchange.held))
        .await
        .unwrap();
    child.kill().await.unwrap();
    assert_eq!(rotating.others(&kept).await.len(), 121);
    let ran = rotating.rotate(&kept, &[]).await;
    assert_eq!(steps(&ran), ["rotated", "noted", "deleted", "retired"]);
    let others = rotating.others(&kept).await;
    assert_eq!(others.len(), 121, "{ran:?}");
    assert!(
        others
            .iter()
            .all(|key| key.description.starts_with("of somebody") || key.access_key == kept.first.access_key)
    );
    rotating.world.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_is_looked_for() {
    let rotating = Rotating::start(Settings::default()).await;
    let kept = rotating.keep("lost", 31).await;
    let vault = Proxy::start(rotating.world.server.address().trim_start_matches("http://"))
        .await
        .unwrap();
    let cut = Fault::Break(Point::Answered, towpath_sandbox::servers::Way::Reset);
    vault.add(Rule::on("POST", "/v1/secret/data/", cut).times(1));
    let mut command = rotating.command(&kept, &[]);
    command.env("VAULT_ADDR", format!("http://{}", vault.host()));
    let ran = run(command).await;
    assert_eq!(steps(&ran), ["rotated", "noted", "retired"]);
    assert_eq!(rotating.others(&kept).await.len(), 1);
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_key_that_is_not_good_in_time_is_taken_back() {
    let settings = Settings {
        settles_after: 100_000,
        seed: 5,
        ..Settings::default()
    };
    let rotating = Rotating::start(settings).await;
    let kept = rotating.keep("unproven", 31).await;
    let flags = ["--proofs", "60", "--prove-within", "300ms"];
    let ran = rotating.rotate(&kept, &flags).await;
    assert_eq!(ran.code, 8, "{ran:?}");
    assert_eq!(rotating.others(&kept).await, []);
    assert_eq!(rotating.stored(&kept).await["metadata"]["version"], 1);

    // The same when somebody stops the job.
    let mut command = rotating.command(&kept, &["--proofs", "60"]);
    let api = Proxy::start(rotating.iam.url().trim_start_matches("http://"))
        .await
        .unwrap();
    command
        .env("SCW_API_URL", format!("http://{}", api.host()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    api.until(|exchanges| {
        exchanges
            .iter()
            .filter(|each| each.is("GET", "/api-keys/"))
            .count()
            > 5
    })
    .await
    .unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 128 + 15, "{ran:?}");
    assert_eq!(rotating.others(&kept).await, []);
    rotating.world.stop().await;
}

#[tokio::test]
async fn a_signal_ends_it_while_it_looks() {
    let rotating = Rotating::start(Settings::default()).await;
    let kept = rotating.keep("looked-at", 31).await;
    let api = Proxy::start(rotating.iam.url().trim_start_matches("http://"))
        .await
        .unwrap();
    api.add(Rule::on("GET", "/api-keys", Fault::Hold(Point::Arrival)));
    let child = rotating
        .command(&kept, &[])
        .env("SCW_API_URL", format!("http://{}", api.host()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    api.until(|exchanges| exchanges.iter().any(|exchange| exchange.held))
        .await
        .unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 128 + 15, "{ran:?}");
    assert_eq!(rotating.others(&kept).await, []);
    rotating.world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_before_anything_is_made() {
    let settings = Settings {
        longest: Some(3600),
        ..Settings::default()
    };
    let rotating = Rotating::start(settings).await;
    let kept = rotating.keep("refused", 100).await;
    let refused = async |flags: &[&str], code: i32, words: &str| {
        let ran = rotating.rotate(&kept, flags).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.contains(words), "{words:?} is not in {}", ran.stderr);
        assert_eq!(rotating.others(&kept).await, []);
        ran
    };
    // The organization wants every key to end, within an hour.
    let ran = refused(&[], 2, "--key-lifetime").await;
    assert!(
        ran.stderr.contains("older than --max-age"),
        "a key of 100 days is not warned of: {ran:?}"
    );
    let often = ["--every", "30m", "--grace", "10m", "--key-lifetime", "2h"];
    refused(&often, 2, "the organization").await;
    // A rhythm in which keys would end in use, or be replaced without end.
    for lifetime in ["24h", "30d", "31d", "33d"] {
        refused(&["--key-lifetime", lifetime], 2, "--key-lifetime").await;
    }
    refused(&["--every", "1ms"], 2, "--every").await;
    refused(&["--every", "15m", "--prove-within", "20m"], 2, "--every").await;
    refused(&["--grace", "5s"], 2, "--grace").await;
    let ran = refused(&["--secret-version", "1"], 2, "--version").await;
    assert!(ran.stderr.contains("TOWPATH_SECRET_VERSION"), "{ran:?}");
    let reader = rotating.iam.create_application(false, true);
    let key = rotating.iam.create_key(&reader, "may only read");
    let data = json!({"access_key": key.access_key, "secret_key": key.secret_key});
    rotating
        .world
        .server
        .write_secret("secret", "ci/reader", &data)
        .await
        .unwrap();
    refused(&["--iam-secret", "secret/ci/reader"], 4, "IAMApplicationManager").await;
    rotating.iam.refuse_next(Busy::RateLimited, 2);
    let ran = rotating.rotate(&kept, &["--dry-run"]).await;
    assert_eq!(steps(&ran), ["rotate"]);
    assert_eq!(ran.json()["rotation"]["too_old"], true);

    let policy = r#"path "secret/*" { capabilities = ["read"] }"#;
    rotating.world.server.write_policy("ci", policy).await.unwrap();
    refused(&[], 4, "may not update secret/data/ci/refused").await;
    rotating.world.server.write_policy("ci", POLICY).await.unwrap();

    let manager = rotating.keep("manager", 0).await;
    let iam_secret = format!("secret/{}", manager.path);
    rotating.iam.forget(&kept.first.access_key);
    let ran = rotating.rotate(&kept, &["--iam-secret", &iam_secret]).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("IAM does not know"), "{ran:?}");
    rotating.world.stop().await;
}
