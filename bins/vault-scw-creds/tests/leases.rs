//! Credentials with a lease last as long as the command, and are gone from the server when it has ended, however it ended.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;
use towpath_sandbox::servers::{Fault, KubernetesRole, Point, Proxy, Rule, Way};
use world::engine::{CREDS, Engine, LEASED_ACCESS_KEY};
use world::{Ran, World, entries, make_it_panic, run, wait_for_end, wait_for_lines};

const HOUR: u64 = 3600;

/// `exec --dynamic` with a shell script, below a shell's usual signals, whatever whoever runs the tests ignores.
fn exec(world: &World, engine: &Engine, flags: &[&str], script: &str) -> Command {
    let settings = world.tool();
    let mut command = Command::new("env");
    command.env_clear();
    for (name, value) in settings.as_std().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .env("VAULT_ADDR", &engine.address)
        .env("MARKS", world.path("marks"))
        .arg("--default-signal=HUP,INT,QUIT,TERM")
        .arg(env!("CARGO_BIN_EXE_vault-scw-creds"))
        .args(["exec", "--dynamic", CREDS])
        .args(flags)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn nothing_is_left(world: &World, engine: &Engine, tokens: &[String]) {
    // The leases of a token that was ended, the server ends one after the other, not before it answers.
    for _ in 0..12000 {
        if world.leases().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.leases().await, [""; 0], "a lease is left");
    assert_eq!(world.tokens().await, tokens, "a token is left");
    let (made, removed) = engine.users();
    assert_eq!(made, removed, "the engine has users left");
}

#[tokio::test]
async fn a_lease_is_gone_after_success_failure_and_a_killed_command() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let tokens = world.tokens().await;
    let before = world.audited().len();
    let script = "echo $SCW_ACCESS_KEY $SCW_DEFAULT_REGION; env | grep -c VAULT_TOKEN; exit 0";
    let ran = run(exec(&world, &engine, &[], script)).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, format!("{LEASED_ACCESS_KEY} fr-par\n0\n"));
    // With the policy `default` alone, the lease may not be revoked by itself.
    assert!(ran.stderr.contains("revoked with its token"), "{ran:?}");
    assert_eq!(
        world.audited()[before..],
        [
            "update auth/kubernetes/login",
            "read scaleway/creds/deploy",
            "update sys/leases/revoke",
            "update auth/token/revoke-self",
        ]
    );
    nothing_is_left(&world, &engine, &tokens).await;

    for (script, code) in [("exit 3", 3), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)] {
        let ran = run(exec(&world, &engine, &[], script)).await;
        assert_eq!(ran.code, code, "{ran:?}");
        nothing_is_left(&world, &engine, &tokens).await;
    }
    let late = run(exec(&world, &engine, &["--timeout", "10s"], "sleep 1000")).await;
    assert_eq!(late.code, 9, "{late:?}");
    nothing_is_left(&world, &engine, &tokens).await;
    let refused = run(exec(&world, &engine, &["--tf-var", "a=nothing"], "exit 0")).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    nothing_is_left(&world, &engine, &tokens).await;
    let dry = run(exec(&world, &engine, &["--dry-run"], "exit 0")).await;
    assert_eq!(dry.code, 0, "{dry:?}");
    assert_eq!(
        (&dry.json()["lease"], &dry.json()["token"]),
        (&"revoked".into(), &"revoked".into())
    );
    dry.assert_discreet(&[&engine.secret_key]);
    nothing_is_left(&world, &engine, &tokens).await;
    assert_eq!(engine.users().0, 7);
    world.stop().await;
}

#[tokio::test]
async fn a_lease_is_gone_after_term_int_and_hup() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    // Where the policy allows it, the lease is ended by itself.
    engine
        .allow(
            &world,
            r#"path "sys/leases/revoke" { capabilities = ["update"] }"#,
        )
        .await;
    let tokens = world.tokens().await;
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let marks = world.path("marks");
        let _ = std::fs::remove_file(&marks);
        let child = exec(&world, &engine, &[], "echo ready >> $MARKS; exec sleep 1000")
            .spawn()
            .unwrap();
        wait_for_lines(&marks, 1).await;
        assert_eq!(world.leases().await.len(), 1, "it lives while the command runs");
        assert_eq!(world.tokens().await.len(), tokens.len() + 1);
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        let ran: Ran = child.wait_with_output().await.unwrap().into();
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(!ran.stderr.contains("revoked with its token"), "{ran:?}");
        ran.assert_discreet(&[&engine.secret_key]);
        nothing_is_left(&world, &engine, &tokens).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_lease_is_gone_after_a_panic_of_ours() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let tokens = world.tokens().await;
    let (marks, go) = (world.path("marks"), world.path("go"));
    let script = format!(
        "echo $$ >> $MARKS; while ! [ -e {} ]; do sleep 0.05; done; echo something; exec sleep 1000",
        go.display()
    );
    let flags = ["--registry-login", "rg.fr-par.scw.cloud"];
    let child = exec(&world, &engine, &flags, &script).spawn().unwrap();
    let command = wait_for_lines(&marks, 1).await;
    assert_eq!(world.leases().await.len(), 1);
    assert_eq!(
        entries(&world.tmp()).len(),
        1,
        "the private login is there meanwhile"
    );
    make_it_panic(child.id().unwrap());
    std::fs::write(go, "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains(" panic ") && ran.stderr.contains("a defect of this program"),
        "{ran:?}"
    );
    ran.assert_discreet(&[&engine.secret_key]);
    nothing_is_left(&world, &engine, &tokens).await;
    assert_eq!(entries(&world.tmp()), [""; 0], "the private login is left");
    wait_for_end(&command).await;
    world.stop().await;
}

#[tokio::test]
async fn a_lease_is_renewed_until_it_may_live_no_longer_and_the_command_goes_on() {
    let world = World::start().await;
    let engine = Engine::mount(&world, 15, 22).await;
    let tokens = world.tokens().await;
    let (marks, go) = (world.path("marks"), world.path("go"));
    let script = format!(
        "echo ready >> $MARKS; while ! [ -e {} ]; do sleep 0.05; done; exit 6",
        go.display()
    );
    let child = exec(&world, &engine, &[], &script).spawn().unwrap();
    wait_for_lines(&marks, 1).await;
    // At two thirds of its time, with seconds to spare: no more than the machine may be busy for.
    for _ in 0..12000 {
        if world.lease().await["last_renewal"] != Value::Null {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(
        world.lease().await["last_renewal"],
        Value::Null,
        "it is not renewed"
    );
    // In the end the server takes it back, and the command does not notice.
    for _ in 0..12000 {
        if world.leases().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::write(go, "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.stderr.contains("and the command goes on what=lease"),
        "{ran:?}"
    );
    nothing_is_left(&world, &engine, &tokens).await;
    world.stop().await;
}

#[tokio::test]
async fn the_token_is_renewed_so_that_the_lease_does_not_end_with_it() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let role = KubernetesRole {
        service_accounts: vec!["deployer".to_owned()],
        namespaces: vec!["gitlab-ci".to_owned()],
        audience: Some("vault".to_owned()),
        policies: vec!["ci".to_owned()],
        ttl: "15s".to_owned(),
    };
    world
        .server
        .write_kubernetes_role("kubernetes", "ci", &role)
        .await
        .unwrap();
    let tokens = world.tokens().await;
    let (marks, go) = (world.path("marks"), world.path("go"));
    let script = format!(
        "echo ready >> $MARKS; while ! [ -e {} ]; do sleep 0.05; done; exit 6",
        go.display()
    );
    let child = exec(&world, &engine, &[], &script).spawn().unwrap();
    wait_for_lines(&marks, 1).await;
    let renewals = || {
        let audited = world.audited();
        audited
            .iter()
            .filter(|line| *line == "update auth/token/renew-self")
            .count()
    };
    // Each comes when at least 7/12 of the time are over, so that after two it would have ended.
    for _ in 0..12000 {
        if renewals() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(renewals() >= 2, "the token is not renewed");
    assert_eq!(
        world.leases().await.len(),
        1,
        "the lease has ended with the token"
    );
    std::fs::write(go, "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 6, "{ran:?}");
    nothing_is_left(&world, &engine, &tokens).await;
    world.stop().await;
}

#[tokio::test]
async fn what_gives_no_lease_or_cannot_see_to_its_end_is_refused() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let more = r#"path "secret/*" { capabilities = ["read"] }"#;
    engine.allow(&world, more).await;
    let tokens = world.tokens().await;
    for (flags, code, words) in [
        (["--dynamic", "secret/data/ci/scw"], 2, "gives no lease"),
        (
            ["--dynamic", "scaleway/creds/nobody"],
            2,
            "the engine does not make credentials at",
        ),
        (
            ["--dynamic", "scaleway/nothing"],
            4,
            "may not read scaleway/nothing",
        ),
    ] {
        let mut command = world.tool();
        command.arg("exec").args(flags).args(["--", "true"]);
        let ran = run(command).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
    for subcommand in [&["env"][..], &["write", "--scw-config", "/tmp/never"]] {
        let mut command = world.tool();
        command.args(subcommand).args(["--dynamic", CREDS]);
        let ran = run(command).await;
        assert_eq!(ran.code, 2, "{ran:?}");
    }
    nothing_is_left(&world, &engine, &tokens).await;
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_is_gone_or_does_not_answer_in_the_end_keeps_nobody_and_is_told_of() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    for fault in [
        Fault::Break(Point::Arrival, Way::Reset),
        Fault::Hold(Point::Arrival),
    ] {
        let proxy = Proxy::start(engine.address.trim_start_matches("http://"))
            .await
            .unwrap();
        proxy.add(Rule::on("POST", "/revoke", fault));
        let mut command = exec(&world, &engine, &[], "exit 9");
        command.env("VAULT_ADDR", format!("http://{}", proxy.host()));
        let ran = run(command).await;
        assert_eq!(ran.code, 9, "{ran:?}");
        assert!(
            ran.stderr
                .contains(&format!("the lease {CREDS} lives on until it ends")),
            "{ran:?}"
        );
        assert!(ran.stderr.contains("the token lives on"), "{ran:?}");
        ran.assert_discreet(&[&engine.secret_key]);
    }
    world.stop().await;
}
