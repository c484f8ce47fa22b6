//! `exec` hands credentials to one command, behaves like it, and leaves nothing behind.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use world::{ACCESS_KEY, PROJECT, Ran, SECRET_KEY, STRAY_TOKEN, World, entries, run, wait_for_lines};

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// Signals the tool itself, as a runner would.
fn signal(child: &tokio::process::Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn the_command_gets_the_credentials_and_gives_its_code() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let before = world.audited().len();
    let seen = world.path("seen");
    let mut command = world.tool();
    command
        .env("TOWPATH_DRY_RUN", "true")
        .env("SCALEWAY_TOKEN", "older-key-of-somebody")
        .env("SCW_ACCESS_KEY", "SCWSTALE000000000000")
        .env("AWS_SESSION_TOKEN", "stale-session")
        .env("SEEN", &seen)
        .args(["exec", "--aws", "--tf-var", "scw_project=project_id", "--", "sh", "-c"])
        .arg("env > $SEEN/env; tr '\\0' ' ' < /proc/$$/cmdline > $SEEN/own; tr '\\0' ' ' < /proc/$PPID/cmdline > $SEEN/parent; echo out; echo err >&2; exit 42");
    std::fs::create_dir(&seen).unwrap();
    let ran = run(command).await;
    assert_eq!(ran.code, 42, "{ran:?}");
    assert_eq!(ran.stdout, "out\n");
    assert!(lines(&ran.stderr).contains(&"err"), "{ran:?}");
    ran.assert_discreet(&[SECRET_KEY, &world.jwt, STRAY_TOKEN]);

    let environment = std::fs::read_to_string(seen.join("env")).unwrap();
    let environment = lines(&environment);
    for expected in [
        format!("SCW_ACCESS_KEY={ACCESS_KEY}"),
        format!("SCW_SECRET_KEY={SECRET_KEY}"),
        format!("SCW_DEFAULT_PROJECT_ID={PROJECT}"),
        "SCW_DEFAULT_REGION=fr-par".to_owned(),
        // It is the command's, which is why it was run at all.
        "TOWPATH_DRY_RUN=true".to_owned(),
        format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
        format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
        format!("TF_VAR_scw_project={PROJECT}"),
    ] {
        assert!(
            environment.contains(&expected.as_str()),
            "{expected} is not in {environment:?}"
        );
    }
    for variable in [
        "VAULT_TOKEN=",
        "TOWPATH_JWT_FILE=",
        "SCALEWAY_TOKEN=",
        "AWS_SESSION_TOKEN=",
        "DOCKER_CONFIG=",
    ] {
        assert!(
            !environment.iter().any(|line| line.starts_with(variable)),
            "{variable}"
        );
    }
    for cmdline in ["own", "parent"] {
        let cmdline = std::fs::read_to_string(seen.join(cmdline)).unwrap();
        assert!(
            !cmdline.contains(SECRET_KEY) && !cmdline.contains(&world.jwt),
            "{cmdline}"
        );
    }

    // One request, which the server audits as two: no token is issued.
    assert_eq!(
        world.audited()[before..],
        ["update auth/kubernetes/login", "read secret/data/ci/scw"]
    );
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn with_a_token_four_requests_are_enough_and_it_is_gone_before_the_command() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let before = world.audited().len();
    let (marks, go) = (world.path("marks"), world.path("go"));
    let script = format!(
        "echo ready >> {}; while ! [ -e {} ]; do sleep 0.02; done; exit 7",
        marks.display(),
        go.display()
    );
    let mut command = world.tool();
    command
        .args(["exec", "--inline-auth", "never", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_lines(&marks, 1).await;
    let expected = [
        "update auth/kubernetes/login",
        "read sys/internal/ui/mounts/secret/ci/scw",
        "read secret/data/ci/scw",
        "update auth/token/revoke-self",
    ];
    assert_eq!(world.audited()[before..before + 4], expected);
    assert_eq!(world.tokens().await, tokens, "it is still alive");
    let asked = world.audited().len();
    std::fs::write(go, "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 7, "{ran:?}");
    assert_eq!(world.audited().len(), asked, "nothing is asked after the command");
    world.stop().await;
}

#[tokio::test]
async fn every_signal_is_the_commands_and_the_second_ends_nothing_early() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let said = world.path("said");
    // Not HUP: a shell cannot trap what was ignored when it started, as it is below nohup.
    let script = format!(
        "trap 'echo term >> {0}' TERM; trap 'echo usr1 >> {0}' USR1; trap 'echo winch >> {0}' WINCH
         trap 'echo alrm >> {0}' ALRM; trap 'echo usr2 >> {0}; exit 9' USR2
         echo ready >> {0}; while :; do sleep 0.02; done",
        said.display()
    );
    let mut command = world.tool();
    command
        .args([
            "exec",
            "--registry-login",
            "rg.fr-par.scw.cloud",
            "--",
            "sh",
            "-c",
            &script,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_lines(&said, 1).await;
    assert_eq!(
        world.tokens().await,
        tokens,
        "nothing that the command has needs the token, yet it is still alive"
    );
    assert_eq!(entries(&world.tmp()).len(), 1, "the docker configuration");
    for (sent, count) in [
        (Signal::TERM, 2),
        (Signal::TERM, 3),
        (Signal::USR1, 4),
        (Signal::WINCH, 5),
        (Signal::ALARM, 6),
        (Signal::USR2, 7),
    ] {
        signal(&child, sent);
        wait_for_lines(&said, count).await;
    }
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 9, "{ran:?}");
    let said = std::fs::read_to_string(&said).unwrap();
    assert_eq!(
        lines(&said),
        ["ready", "term", "term", "usr1", "winch", "alrm", "usr2"]
    );
    assert_eq!(entries(&world.tmp()), [""; 0], "the docker configuration is left");
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn a_command_that_fails_in_whatever_way_leaves_nothing() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let docker = ["--registry-login", "rg.fr-par.scw.cloud,127.0.0.1:5000"];
    assert_eq!(world.exec(&docker, "kill -KILL $$").await.code, 137);
    assert_eq!(world.exec(&docker, "kill -TERM $$").await.code, 143);
    assert_eq!(
        world.exec(&docker, "").await.code,
        0,
        "an empty word after -- is meant"
    );
    for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let mut command = world.tool();
        command.arg("exec").args(docker).args(["--", program]);
        let ran = run(command).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(
            ran.stderr.contains(program.rsplit('/').next().unwrap()),
            "{ran:?}"
        );
    }
    let late = world
        .exec(
            &["--timeout", "10s", docker[0], docker[1]],
            "trap '' HUP; sleep 1000",
        )
        .await;
    assert_eq!(late.code, 9, "{late:?}");
    assert_eq!(entries(&world.tmp()), [""; 0], "a docker configuration is left");
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn docker_finds_a_private_login() {
    let world = World::start().await;
    let copy = world.path("copy");
    let script = format!(
        "cp -a $DOCKER_CONFIG {} && env | grep -c '^DOCKER_AUTH_CONFIG=' ; stat -c %a $DOCKER_CONFIG $DOCKER_CONFIG/config.json",
        copy.display()
    );
    let mut command = world.tool();
    command.env("DOCKER_AUTH_CONFIG", "{}").args([
        "exec",
        "--registry-login",
        "rg.fr-par.scw.cloud",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let ran = run(command).await;
    assert_eq!(lines(&ran.stdout), ["0", "700", "600"], "{ran:?}");
    ran.assert_discreet(&[SECRET_KEY]);
    let config = std::fs::read_to_string(copy.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    // base64 of nologin:0badcafe-0000-4000-8000-00000000ca01
    let expected = "bm9sb2dpbjowYmFkY2FmZS0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMGNhMDE=";
    assert_eq!(config["auths"]["rg.fr-par.scw.cloud"]["auth"], expected);

    // Where artifacts are taken from, there is no place for it.
    let mut command = world.tool();
    command.env("CI_PROJECT_DIR", world.guardian.dir()).args([
        "exec",
        "--registry-login",
        "rg.fr-par.scw.cloud",
        "--",
        "true",
    ]);
    let ran = run(command).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(entries(&world.tmp()), [""; 0]);
    world.stop().await;
}

#[tokio::test]
async fn a_dry_run_names_the_variables_and_runs_nothing() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let mark = world.path("mark");
    let script = format!("touch {}", mark.display());
    let ran = world
        .exec(&["--dry-run", "--registry-login", "rg.fr-par.scw.cloud"], &script)
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = ran.json();
    assert_eq!(report["schema"], "towpath.vault-scw-creds/1");
    assert_eq!(report["secret"]["version"], 2);
    assert_eq!(report["secret"]["pinned"], false);
    assert_eq!(report["token"], "none");
    assert!(
        report["variables"]
            .as_array()
            .unwrap()
            .contains(&"DOCKER_CONFIG".into())
    );
    ran.assert_discreet(&[SECRET_KEY, &world.jwt]);
    assert!(!mark.exists());
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn a_signal_before_the_command_ends_the_run_without_it() {
    // A server that takes the login and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let jwt = folder.path().join("jwt");
    std::fs::write(&jwt, "e30.e30.c2ln").unwrap();
    let mark = folder.path().join("mark");
    let mut command = world::tool();
    command
        .args([
            "exec",
            "--role",
            "ci",
            "--secret",
            "secret/ci/scw",
            "--vault-addr",
        ])
        .arg(format!("http://{}", listener.local_addr().unwrap()))
        .arg("--jwt-file")
        .arg(&jwt)
        .arg("--")
        .arg("touch")
        .arg(&mark)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (_connection, _) = listener.accept().await.unwrap();
    signal(&child, Signal::TERM);
    signal(&child, Signal::INT);
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert!(matches!(ran.code, 143 | 130), "{ran:?}");
    assert!(ran.stderr.contains("interrupted while logging in"), "{ran:?}");
    assert!(!mark.exists());
}

#[tokio::test]
async fn an_approle_takes_four_requests_wherever_the_secret_is() {
    let world = World::start().await;
    let write = async |path: &str, body: serde_json::Value| world.server.write(path, &body).await.unwrap();
    write("sys/auth/approle", serde_json::json!({"type": "approle"})).await;
    let role = serde_json::json!({"token_policies": ["ci"], "token_ttl": "5m"});
    write("auth/approle/role/ci", role).await;
    let found = world.server.read("auth/approle/role/ci/role-id").await.unwrap();
    let made = write("auth/approle/role/ci/secret-id", serde_json::json!({})).await;
    for (name, text) in [
        ("role-id", &found["data"]["role_id"]),
        ("secret-id", &made["data"]["secret_id"]),
    ] {
        std::fs::write(world.path(name), text.as_str().unwrap()).unwrap();
    }
    world.server.enable_kv("team/kv").await.unwrap();
    let data = serde_json::json!({"access_key": ACCESS_KEY, "secret_key": SECRET_KEY});
    world
        .server
        .write_secret("team/kv", "ci/scw", &data)
        .await
        .unwrap();
    let policy = r#"path "team/kv/data/ci/*" { capabilities = ["read"] }
                    path "secret/data/ci/*" { capabilities = ["read"] }"#;
    world.server.write_policy("ci", policy).await.unwrap();
    for secret in ["team/kv/ci/scw", "secret/ci/scw"] {
        let before = world.audited().len();
        let mut command = world.tool();
        command
            .env("TOWPATH_VAULT_AUTH", "approle")
            .env("VAULT_ROLE_ID_FILE", world.path("role-id"))
            .env("VAULT_SECRET_ID_FILE", world.path("secret-id"))
            .args(["exec", "--secret", secret, "--", "true"]);
        let ran = run(command).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            world.audited().len() - before,
            4,
            "{:?}",
            &world.audited()[before..]
        );
    }
    world.stop().await;
}
