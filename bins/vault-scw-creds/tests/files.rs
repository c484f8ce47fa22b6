//! `env`, `write` and `revoke`: credentials that outlive a command, and their end.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use world::{ACCESS_KEY, OLD_SECRET_KEY, SECRET_KEY, World, entries, run};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_shell_evaluates_what_env_prints() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let data =
        json!({"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "note": "it's $(touch x) `y`\n\"z\""});
    world
        .server
        .write_secret("secret", "ci/odd", &data)
        .await
        .unwrap();
    let tool = env!("CARGO_BIN_EXE_vault-scw-creds");
    let settings = world.tool();
    let mut command = tokio::process::Command::new("sh");
    command.env_clear();
    for (name, value) in settings.as_std().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let script = format!(
        "eval \"$({tool} env --secret secret/ci/odd --tf-var note=note)\" && printf '%s|%s|%s' \"$SCW_SECRET_KEY\" \"$TF_VAR_note\" \"${{SCALEWAY_TOKEN-unset}}\""
    );
    let output = command
        .env("SCALEWAY_TOKEN", "older-key")
        .args(["-c", &script])
        .output()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{SECRET_KEY}|it's $(touch x) `y`\n\"z\"|unset")
    );
    assert!(!String::from_utf8(output.stderr).unwrap().contains(SECRET_KEY));
    assert_eq!(world.tokens().await, tokens);

    let mut command = world.tool();
    command.args(["env", "--format", "dotenv", "--aws"]);
    let ran = run(command).await;
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], format!("SCW_ACCESS_KEY={ACCESS_KEY}"), "{ran:?}");
    assert!(lines.contains(&format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}").as_str()));
    world.stop().await;
}

/// Values of all that shells, editors and formats stumble over, always the same ones.
fn hostile_values(count: usize) -> Vec<String> {
    const PIECES: [&str; 24] = [
        "'",
        "\"",
        "`",
        "$",
        "$(",
        ")",
        "${HOME}",
        "\\",
        "\\n",
        "\n",
        "\r",
        "\t",
        " ",
        "!",
        "#",
        ";",
        "&",
        "|",
        "*",
        "~",
        "=",
        "é",
        "\u{1b}[31m",
        "--",
    ];
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut roll = |sides: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        usize::try_from(dice % sides as u64).unwrap()
    };
    (0..count)
        .map(|_| {
            let length = 1 + roll(12);
            let pieces: String = (0..length).map(|_| PIECES[roll(PIECES.len())]).collect();
            format!("{pieces}x")
        })
        .collect()
}

#[tokio::test]
async fn a_shell_gets_every_value_as_it_is() {
    let world = World::start().await;
    let values = hostile_values(200);
    let mut data = json!({"access_key": ACCESS_KEY, "secret_key": SECRET_KEY});
    let mut pairs = Vec::new();
    for (number, value) in values.iter().enumerate() {
        data[format!("v{number}")] = value.as_str().into();
        pairs.push(format!("v{number}=v{number}"));
    }
    world
        .server
        .write_secret("secret", "ci/hostile", &data)
        .await
        .unwrap();
    let print = async |format: &str, tf_vars: &str| {
        let mut command = world.tool();
        command.args(["env", "--secret", "secret/ci/hostile", "--format", format]);
        command.args(["--tf-var", tf_vars]);
        run(command).await
    };
    let all = pairs.join(",");
    let shell = print("shell", &all).await;
    assert_eq!(shell.code, 0, "{}", shell.stderr);
    let folder = world.path("empty");
    std::fs::create_dir(&folder).unwrap();
    let names: Vec<String> = (0..values.len())
        .map(|number| format!("\"$TF_VAR_v{number}\""))
        .collect();
    let script = format!("eval \"$1\"; printf '%s\\0' {}", names.join(" "));
    let output = tokio::process::Command::new("sh")
        .args(["-c", &script, "sh", &shell.stdout])
        .current_dir(&folder)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let got: Vec<&str> = said.split_terminator('\0').collect();
    assert_eq!(got, values);
    assert_eq!(entries(&folder), [""; 0], "a value was run as a command");

    let document = print("json", &all).await.json();
    for (number, value) in values.iter().enumerate() {
        assert_eq!(document[format!("TF_VAR_v{number}")], json!(value));
    }
    // What readers of dotenv files would take for more, or less, is refused; the rest is there as it is.
    for (number, value) in values.iter().enumerate().take(12) {
        let ran = print("dotenv", &pairs[number]).await;
        let line = format!("TF_VAR_v{number}={value}");
        let is_plain = ran.code == 0 && ran.stdout.lines().any(|there| there == line);
        assert!(
            is_plain || ran.code == 3 && ran.stdout.is_empty(),
            "{value:?}: {ran:?}"
        );
    }
    data["v0"] = "a\u{0}b".into();
    world
        .server
        .write_secret("secret", "ci/hostile", &data)
        .await
        .unwrap();
    assert_eq!(print("shell", &pairs[0]).await.code, 3);
    world.stop().await;
}

#[tokio::test]
async fn what_write_writes_revoke_removes() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let home = world.path("home");
    std::fs::create_dir(&home).unwrap();
    let (scw, docker, pull) = (
        home.join(".config/scw/config.yaml"),
        home.join("docker"),
        home.join("pull.yaml"),
    );
    let files = |command: &mut tokio::process::Command| {
        command
            .arg("--scw-config")
            .arg(&scw)
            .arg("--docker-config")
            .arg(&docker);
        command.arg("--pull-secret").arg(&pull);
    };
    let write = async |flags: &[&str]| {
        let mut command = world.tool();
        command
            .args(["write", "--registry-login", "rg.fr-par.scw.cloud"])
            .args(flags);
        files(&mut command);
        run(command).await
    };

    let ran = write(&["--dry-run"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(entries(&home), [""; 0]);
    let ran = write(&[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.assert_discreet(&[SECRET_KEY, &world.jwt]);
    let report = ran.json();
    assert_eq!(
        (&report["changed"], &report["token"]),
        (&json!(true), &json!("none"))
    );
    for file in [&scw, &docker.join("config.json"), &pull] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert!(std::fs::read_to_string(&scw).unwrap().contains(SECRET_KEY));
    let again = write(&[]).await.json();
    assert_eq!(again["changed"], false, "{again}");
    // Another version of the secret takes the place of what was written before.
    let other = write(&["--secret-version", "1"]).await;
    assert_eq!(other.json()["files"][0]["outcome"], "changed", "{other:?}");
    let text = std::fs::read_to_string(&scw).unwrap();
    assert!(
        text.contains(OLD_SECRET_KEY) && !text.contains(SECRET_KEY),
        "{text}"
    );

    let revoke = async || {
        let mut command = world::tool();
        command.arg("revoke");
        files(&mut command);
        run(command).await
    };
    let ran = revoke().await;
    assert_eq!((ran.code, &ran.json()["changed"]), (0, &json!(true)), "{ran:?}");
    assert_eq!(entries(&home), [""; 0], "a file or a folder that was new is left");
    let ran = revoke().await;
    assert_eq!((ran.code, &ran.json()["changed"]), (0, &json!(false)), "{ran:?}");
    std::fs::create_dir_all(scw.parent().unwrap()).unwrap();
    std::fs::write(&scw, "access_key: SCWPERSON00000000000\n").unwrap();
    let ran = revoke().await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(scw.exists(), "a person's file is gone");
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn what_others_wrote_stays_as_it_is() {
    let world = World::start().await;
    let home = world.path("home");
    std::fs::create_dir_all(home.join("docker")).unwrap();
    let scw = home.join("config.yaml");
    let docker = home.join("docker/config.json");
    let persons_scw = "# mine\naccess_key: SCWPERSON00000000000\nprofiles:\n    prod: # careful\n        send_telemetry: \"no\"\nactive_profile: prod";
    let persons_docker = "{\n\t\"auths\": {\n\t\t\"ghcr.io\": {\n\t\t\t\"auth\": \"bWU6eW91\"\n\t\t}\n\t},\n\t\"credHelpers\": {\n\t\t\"ecr.example\": \"ecr-login\"\n\t},\n\t\"future\": 7\n}";
    std::fs::write(&scw, persons_scw).unwrap();
    std::fs::write(&docker, persons_docker).unwrap();
    let tool = async |flags: &[&str]| {
        let mut command = world.tool();
        command
            .args(flags)
            .arg("--scw-config")
            .arg(&scw)
            .arg("--docker-config")
            .arg(docker.parent().unwrap());
        run(command).await
    };
    let write = [
        "write",
        "--scw-profile",
        "ci",
        "--registry-login",
        "rg.fr-par.scw.cloud",
    ];
    for version in ["1", "2", "2"] {
        let ran = tool(&[&write[..], &["--secret-version", version]].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let config = std::fs::read_to_string(&scw).unwrap();
        assert!(
            config.contains("active_profile: prod") && config.contains("    \"ci\":\n"),
            "{config}"
        );
        assert_eq!(mode(&scw), 0o600);
        let logins = std::fs::read_to_string(&docker).unwrap();
        assert!(
            logins.contains("rg.fr-par.scw.cloud") && logins.contains("bWU6eW91"),
            "{logins}"
        );
    }
    let foretold = tool(&["revoke", "--dry-run"]).await.json();
    assert_eq!(foretold["files"][0]["outcome"], "take out", "{foretold}");
    let ran = tool(&["revoke"]).await;
    assert_eq!((ran.code, &ran.json()["changed"]), (0, &json!(true)), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&scw).unwrap(), persons_scw);
    assert_eq!(std::fs::read_to_string(&docker).unwrap(), persons_docker);
    let left = entries(&home).len() + entries(docker.parent().unwrap()).len();
    assert_eq!(left, 3, "something is left beside the files");

    for (text, code) in [
        ("a: [\n", 3),
        ("profiles:\n  ci:\n    access_key: SCWPERSON00000000000\n", 6),
    ] {
        std::fs::write(&scw, text).unwrap();
        let ran = tool(&write).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(std::fs::read_to_string(&scw).unwrap(), text);
    }
    std::fs::write(&scw, "").unwrap();
    std::fs::write(&docker, "{\"auths\":").unwrap();
    let ran = tool(&write).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(std::fs::read_to_string(&docker).unwrap(), "{\"auths\":");
    world.stop().await;
}

#[tokio::test]
async fn a_dotenv_file_is_private_and_goes_again() {
    let world = World::start().await;
    let file = world.path("scw.env");
    let tool = async |flags: &[&str]| {
        let mut command = world.tool();
        command.args(flags).arg("--dotenv").arg(&file);
        run(command).await
    };
    let ran = tool(&["write", "--aws"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.assert_discreet(&[SECRET_KEY]);
    assert_eq!(mode(&file), 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains(&format!("\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n")),
        "{text}"
    );
    let ran = tool(&["revoke"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!file.exists());
    // A folder that is not there cannot be made below a file.
    std::fs::write(&file, "").unwrap();
    let mut command = world.tool();
    command.args(["write", "--dotenv"]).arg(file.join("below"));
    let ran = run(command).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_written_where_artifacts_are_taken_from() {
    let world = World::start().await;
    let project = world.path("project");
    std::fs::create_dir(&project).unwrap();
    let before = world.audited().len();
    let write = async |flags: &[&str]| {
        let mut command = world.tool();
        command
            .env("CI_PROJECT_DIR", &project)
            .args(["write", "--scw-config", "scw.yaml", "--scw-profile", "ci"])
            .args(flags)
            .current_dir(&project);
        run(command).await
    };
    let ran = write(&[]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("--force"), "{ran:?}");
    assert_eq!(world.audited().len(), before, "it was refused after a login");
    let ran = write(&["--force"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        std::fs::read_to_string(project.join("scw.yaml"))
            .unwrap()
            .contains("active_profile: \"ci\"")
    );
    world.stop().await;
}

#[tokio::test]
async fn a_token_from_a_file_is_revoked_once() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let body = json!({"policies": ["ci"], "ttl": "10m"});
    let created = world.server.write("auth/token/create", &body).await.unwrap();
    let token = created["auth"]["client_token"].as_str().unwrap();
    let file = world.path("token");
    std::fs::write(&file, token).unwrap();
    assert_ne!(world.tokens().await, tokens);
    let revoke = async || {
        let mut command = world.tool();
        command.env("TOWPATH_REVOKE_TOKEN_FILE", &file).arg("revoke");
        run(command).await
    };
    let ran = revoke().await;
    assert_eq!(
        (ran.code, &ran.json()["token"]),
        (0, &json!("revoked")),
        "{ran:?}"
    );
    ran.assert_discreet(&[token]);
    assert_eq!(world.tokens().await, tokens);
    let ran = revoke().await;
    assert_eq!((ran.code, &ran.json()["token"]), (0, &json!("gone")), "{ran:?}");

    // Valid, but not allowed to revoke itself: the same 403, told apart.
    let body = json!({"policies": ["ci"], "ttl": "10m", "no_default_policy": true});
    world
        .server
        .write_policy(
            "ci",
            r#"path "auth/token/lookup-self" { capabilities = ["read"] }"#,
        )
        .await
        .unwrap();
    let created = world.server.write("auth/token/create", &body).await.unwrap();
    std::fs::write(&file, created["auth"]["client_token"].as_str().unwrap()).unwrap();
    let ran = revoke().await;
    assert_eq!(
        (ran.code, &ran.json()["token"]),
        (4, &json!("unknown")),
        "{ran:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn the_pull_secret_is_the_one_that_kubectl_makes() {
    use towpath_sandbox::tools::{Progress, Tools};
    let world = World::start().await;
    let kubectl = Tools::find_or_install(&Progress::silent()).await.unwrap().kubectl;
    let home = world.path("cluster");
    std::fs::create_dir(&home).unwrap();
    let manifest = home.join("pull.yaml");
    let host = "rg.fr-par.scw.cloud";
    let mut command = world.tool();
    command
        .args([
            "write",
            "--registry-login",
            host,
            "--pull-secret-name",
            "team.pull",
        ])
        .arg("--pull-secret")
        .arg(&manifest);
    assert_eq!(run(command).await.code, 0);
    let template = "go-template={{.apiVersion}} {{.kind}} {{.type}} {{.metadata.name}}\n{{index .data \".dockerconfigjson\" | base64decode}}";
    let by_kubectl = async |arguments: &[&str]| -> (String, serde_json::Value) {
        let output = tokio::process::Command::new(&kubectl)
            .args(arguments)
            .args(["-o", template])
            .env("HOME", &home)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let (object, config) = said.split_once('\n').unwrap();
        (object.to_owned(), serde_json::from_str(config).unwrap())
    };
    // It reads ours, typed as a secret, and makes its own; neither asks a cluster.
    let file = manifest.to_str().unwrap();
    let (ours, our_config) = by_kubectl(&["label", "--local", "-f", file, "seen=yes"]).await;
    let password = format!("--docker-password={SECRET_KEY}");
    let server = format!("--docker-server={host}");
    let (theirs, their_config) = by_kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "team.pull",
        "--dry-run=client",
        "--docker-username=nologin",
        &password,
        &server,
    ])
    .await;
    assert_eq!(ours, "v1 Secret kubernetes.io/dockerconfigjson team.pull");
    assert_eq!(ours, theirs);
    assert!(our_config["auths"][host]["auth"].is_string());
    assert_eq!(
        our_config["auths"][host]["auth"],
        their_config["auths"][host]["auth"]
    );
    world.stop().await;
}
