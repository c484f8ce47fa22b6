//! What the command prints goes through with its secrets masked, and is otherwise what the command printed.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use world::{SECRET_KEY, World, wait_for_lines};

/// base64 of `nologin:` and the secret key, as it stands in docker's configuration.
const LOGIN: &str = "bm9sb2dpbjowYmFkY2FmZS0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMGNhMDE=";

#[tokio::test]
async fn secrets_are_masked_in_every_form_and_on_both_streams() {
    let world = World::start().await;
    let script = r#"
        echo "raw $SCW_SECRET_KEY $SCW_SECRET_KEY."
        echo "err $SCW_SECRET_KEY" >&2
        printf %s "$SCW_SECRET_KEY" | base64 -w0 | sed 's/^/base64 /'; echo
        printf %s "$SCW_SECRET_KEY" | base64 -w0 | tr -d = | sed 's/^/unpadded /'; echo
        printf 'nologin:%s' "$SCW_SECRET_KEY" | base64 -w0 | sed 's/^/login /'; echo
        printf 'me:%s@host' "$SCW_SECRET_KEY" | base64 -w0 | sed 's/^/other /'; echo
        printf 'motto %s' "$TF_VAR_motto"; echo
        echo "motto $(printf %s "$TF_VAR_motto" | sed 's/ /%20/g; s/é/%C3%A9/')"
        printf 'split %s' "${SCW_SECRET_KEY%????????????}"; sleep 0.2; echo "${SCW_SECRET_KEY#????????????????????????}"
        cat $DOCKER_CONFIG/config.json
        echo; echo "project $TF_VAR_project"
    "#;
    let data = serde_json::json!({
        "access_key": world::ACCESS_KEY, "secret_key": SECRET_KEY, "project_id": world::PROJECT,
        "motto": "canary café of the test",
    });
    world
        .server
        .write_secret("secret", "ci/scw", &data)
        .await
        .unwrap();
    let flags = [
        "--tf-var",
        "motto=motto,project=project_id",
        "--registry-login",
        "rg.fr-par.scw.cloud",
    ];
    let ran = world.exec(&flags, script).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "raw **** ****.",
            "base64 ****",
            "unpadded ****",
            "login ****",
            lines[4]
        ],
        "{ran:?}"
    );
    // The user and the host around it are still there, in the letters that are theirs alone.
    assert!(
        lines[4].starts_with("other bWU6") && lines[4].contains("****"),
        "{ran:?}"
    );
    assert_eq!(lines[5..8], ["motto ****", "motto ****", "split ****"], "{ran:?}");
    assert!(
        lines[8].contains(r#"{"auth":"****"}"#) || lines[8] == "****",
        "{ran:?}"
    );
    let last = format!("project {}", world::PROJECT);
    assert_eq!(lines.last(), Some(&last.as_str()), "{ran:?}");
    assert!(ran.stderr.lines().any(|line| line == "err ****"), "{ran:?}");
    ran.assert_discreet(&[SECRET_KEY, LOGIN, "canary café"]);
    world.stop().await;
}

#[tokio::test]
async fn secrets_are_masked_in_what_kubectl_python_and_base64_make_of_them() {
    let world = World::start().await;
    let data = serde_json::json!({
        "access_key": world::ACCESS_KEY, "secret_key": SECRET_KEY, "password": "canary/of+the @test!",
    });
    world
        .server
        .write_secret("secret", "ci/scw", &data)
        .await
        .unwrap();
    // No registry was asked for: the command logs in by itself. A pull secret has the login in base64 in base64, and base64
    // breaks it into lines, of which no width is safe.
    let script = r#"
        login=$(printf 'nologin:%s' "$SCW_SECRET_KEY" | base64 -w0)
        config='{"auths":{"rg.fr-par.scw.cloud":{"username":"nologin","password":"'$SCW_SECRET_KEY'","auth":"'$login'"}}}'
        for width in 0 4 5 40 61 64 76; do
            for prefix in '' ' ' '  '; do
                printf '%s%s' "$prefix" "$config" | base64 -w$width | sed 's/^/      /'
                echo; echo --
            done
        done
        for pad in '' 'some '; do printf %s%s "$pad" "$SCW_SECRET_KEY" | od -An -v -tx1 | tr -d ' '; done | sed 's/^/  /'
        echo --
        echo "url canary/of%2Bthe%20%40test%21 canary%2Fof%2Bthe+%40test%21 canary%2Fof%2Bthe%20%40test!"
    "#;
    let flags = ["--tf-var", "password=password"];
    let ran = world.exec(&flags, script).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.ends_with("\nurl **** **** ****\n"), "{ran:?}");
    let plain = world.exec(&[&flags[..], &["--no-mask"]].concat(), script).await;
    let letters = |block: &str| block.split_whitespace().collect::<String>();
    let blocks = |ran: &world::Ran| ran.stdout.split("--").map(letters).collect::<Vec<String>>();
    let (masked, plain) = (blocks(&ran), blocks(&plain));
    assert_eq!(masked.len(), 3 * 7 + 2, "{ran:?}");
    assert_eq!(masked[3 * 7], "****736f6d6520****", "{ran:?}");
    for (masked, plain) in masked.iter().zip(&plain).take(3 * 7) {
        let parts: Vec<&str> = masked.split("****").collect();
        let [first, between, last] = parts[..] else {
            panic!("{masked}");
        };
        assert!(
            plain.starts_with(first) && plain.contains(between) && plain.ends_with(last),
            "{masked}"
        );
        // The letters that are the key's alone, and those that are the login's.
        let gone = plain.len() - first.len() - between.len() - last.len();
        assert!(
            gone >= SECRET_KEY.len() * 8 / 6 - 1 + LOGIN.len() * 8 / 6 - 1,
            "{masked}"
        );
    }
    world.stop().await;
}

/// A made-up key: what is between the marks is no key.
const PEM: &str = "-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCcanary0line0one0of0the0test/+AAB
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCcanary0line0two0of0the0test/+AAB
Y2FuYXJ5IGxhc3Q=
-----END PRIVATE KEY-----
";

#[tokio::test]
async fn the_lines_of_a_value_are_masked_wherever_they_stand() {
    let world = World::start().await;
    let kubeconfig =
        "apiVersion: v1\nkind: Config\nusers:\n- name: ci\n  user:\n    token: canary-of-the-kubeconfig\n";
    let data = serde_json::json!({
        "access_key": world::ACCESS_KEY, "secret_key": SECRET_KEY, "pem": PEM, "config": kubeconfig,
    });
    world
        .server
        .write_secret("secret", "ci/scw", &data)
        .await
        .unwrap();
    let script = r#"
        printf '%s\n' "$TF_VAR_pem" | sed 's/^/  | /'
        printf '%s\n' "$TF_VAR_pem" | sed 's/$/\r/'
        printf '%s\n' "$TF_VAR_pem" | sed 's/^/key: /' >&2
        printf '%s\n' "$TF_VAR_pem" | tr '\n' ','; echo
        printf '%s' "$TF_VAR_pem" | base64 | sed 's/^/    /'
        printf '%s' "$TF_VAR_pem" | base64 -w64 | sed 's/^/    /'
        echo "$TF_VAR_config" | sed 's/^/  /'
        echo "kind: Config"
    "#;
    let ran = world.exec(&["--tf-var", "pem=pem,config=config"], script).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.assert_discreet(&[
        "canary0line0one",
        "canary0line0two",
        "Y2FuYXJ5IGxhc3Q",
        "canary-of-the-kubeconfig",
        // Of the base64 of it all.
        "TUlJRXZRSUJBREFOQmdrcWhraUc5dzBCQVFFRkFBU0Nj",
    ]);
    assert!(
        ran.stdout
            .starts_with("  | -----BEGIN PRIVATE KEY-----\n  | ****\n  | ****\n"),
        "{ran:?}"
    );
    // What all documents of that kind have in common is still there.
    assert!(
        ran.stdout.contains("  apiVersion: v1\n  kind: Config\n"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("    token: ****\n"), "{ran:?}");
    assert!(ran.stdout.ends_with("\nkind: Config\n"), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn without_masking_secrets_pass() {
    let world = World::start().await;
    let ran = world.exec(&["--no-mask"], "echo $SCW_SECRET_KEY").await;
    assert_eq!(ran.stdout, format!("{SECRET_KEY}\n"));
    world.stop().await;
}

#[tokio::test]
async fn other_bytes_come_through_untouched_and_in_order() {
    let world = World::start().await;
    let copy = world.path("copy");
    let both = world.path("both");
    let script = "head -c 3000000 /dev/urandom | tee $COPY";
    let mut command = world.tool();
    command
        .env("COPY", &copy)
        .args(["exec", "--", "sh", "-c", script])
        .stderr(Stdio::null());
    let output = command.output().await.unwrap();
    assert!(
        output.stdout == std::fs::read(&copy).unwrap(),
        "bytes were changed"
    );

    // Where both streams go to one place, the order between them stays.
    let file = std::fs::File::create(&both).unwrap();
    let mut command = world.tool();
    command
        .args(["exec", "--log-level", "error", "--", "sh", "-c"])
        .arg("for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done")
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    assert!(command.status().await.unwrap().success());
    let expected: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(std::fs::read_to_string(&both).unwrap(), expected);
    world.stop().await;
}

#[tokio::test]
async fn a_prompt_is_seen_even_when_it_may_be_the_beginning_of_a_secret() {
    let world = World::start().await;
    let go = world.path("go");
    let mut command = world.tool();
    command
        .env("GO", &go)
        .args(["exec", "--", "sh", "-c"])
        // The secret begins with these two letters.
        .arg("printf 'continue? 0b'; while ! [ -e $GO ]; do sleep 0.02; done; echo \"${SCW_SECRET_KEY#0b}\"")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = vec![0; "continue? 0b".len()];
    stdout.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, b"continue? 0b");
    std::fs::write(&go, "").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "****\n", "what is left of a secret is masked");
    assert!(child.wait().await.unwrap().success());
    world.stop().await;
}

#[tokio::test]
async fn what_a_command_leaves_running_does_not_keep_us() {
    let world = World::start().await;
    let marks = world.path("marks");
    let script = format!("sleep 1000 & echo $! > {}; echo done", marks.display());
    // It holds the pipe that we read from; nothing but its end would close it.
    let ran = world.exec(&[], &script).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "done\n"), "{ran:?}");
    let pid = wait_for_lines(&marks, 1).await;
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).expect("it still runs");
    world.stop().await;
}

#[tokio::test]
async fn a_command_whose_output_nobody_takes_is_told_as_without_us() {
    let world = World::start().await;
    let mut command = world.tool();
    command
        .args(["exec", "--", "sh", "-c", "while :; do echo more; done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut some = [0; 100];
    stdout.read_exact(&mut some).await.unwrap();
    drop(stdout);
    let status = child.wait().await.unwrap();
    // The shell ends by PIPE, or by its own complaint where that is ignored.
    assert!(matches!(status.code(), Some(141 | 1 | 2)), "{status:?}");
    world.stop().await;
}

/// `script` gives the tool a terminal of its own, and writes down what is shown there.
#[tokio::test]
async fn on_a_terminal_the_command_has_it_unmasked() {
    let world = World::start().await;
    let shown = world.path("shown");
    let settings = world.tool();
    let mut command = tokio::process::Command::new("script");
    command.env_clear();
    for (name, value) in settings.as_std().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let inner = format!(
        "{} exec -- sh -c 'test -t 1 && test -t 2 && echo $SCW_SECRET_KEY'",
        env!("CARGO_BIN_EXE_vault-scw-creds")
    );
    let status = command
        .env("SHELL", "/bin/sh")
        .args(["-qec", &inner])
        .arg(&shown)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await
        .expect("script, of util-linux, is there");
    assert!(status.success(), "the command has no terminal: {status:?}");
    let shown = String::from_utf8_lossy(&std::fs::read(shown).unwrap()).into_owned();
    assert!(shown.contains(SECRET_KEY), "{shown}");
    world.stop().await;
}
