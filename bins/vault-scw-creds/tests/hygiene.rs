//! Where secrets must not be: in the environment and arguments of anybody but the command, and in core dumps.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use world::engine::{CREDS, Engine, unique_secret_key};
use world::{SECRET_KEY, STRAY_TOKEN, World, entries, wait_for_lines};

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The processes whose `file` below /proc holds a text. Those that end meanwhile have none.
fn processes_with(file: &str, text: &str) -> Vec<u32> {
    entries(std::path::Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|pid| std::fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| holds(&bytes, text)))
        .collect()
}

fn core_limit(pid: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    line.split_whitespace().nth(4).unwrap().to_owned()
}

#[tokio::test]
async fn only_the_command_has_the_key_in_its_environment_and_nobody_in_an_argument() {
    let world = World::start().await;
    let engine = Engine::mount(&world, 3600, 3600).await;
    let own = core_limit(std::process::id());
    let more = r#"path "secret/data/ci/*" { capabilities = ["read"] }"#;
    engine.allow(&world, more).await;
    // The tests beside this one give their commands the key of every world, which would be found as well.
    let port = world.server.address().rsplit_once(':').unwrap().1;
    let stored = unique_secret_key(port.parse().unwrap());
    let data = serde_json::json!({"access_key": world::ACCESS_KEY, "secret_key": stored});
    world
        .server
        .write_secret("secret", "ci/scw", &data)
        .await
        .unwrap();
    let leased = &engine.secret_key;
    for (flags, canary) in [(&["--dynamic", CREDS][..], leased), (&[], &stored)] {
        let (marks, go) = (world.path("marks"), world.path("go"));
        let _ = std::fs::remove_file(&marks);
        let _ = std::fs::remove_file(&go);
        let script = format!(
            "echo $$ >> {}; while ! [ -e {} ]; do sleep 0.02; done",
            marks.display(),
            go.display()
        );
        let mut command = world.tool();
        command
            .env("VAULT_ADDR", &engine.address)
            .env("ANOTHER_NAME_FOR_IT", &world.jwt)
            .env("VAULT_ID_TOKEN", &world.jwt)
            .env("VAULT_SECRET_ID", "canary-secret-id-of-somebody")
            .args(["exec", "--aws"])
            .args(flags)
            .args(["--", "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let shell: u32 = wait_for_lines(&marks, 1).await.trim().parse().unwrap();
        let tool = child.id().unwrap();
        let session = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .and_then(|(_, rest)| rest.split(' ').nth(2)?.parse::<u32>().ok())
        };
        let with_key = processes_with("environ", canary);
        assert!(with_key.contains(&shell), "{with_key:?}");
        for pid in with_key {
            // Its group is the command's: the shell, and what it runs.
            assert!(session(pid).is_none_or(|group| group == shell), "{pid} has it");
        }
        for secret in [canary, STRAY_TOKEN, &world.jwt] {
            assert_eq!(processes_with("cmdline", secret), [0; 0]);
        }
        let environment = std::fs::read(format!("/proc/{shell}/environ")).unwrap();
        for secret in [STRAY_TOKEN, "canary-secret-id-of-somebody", &world.jwt] {
            assert!(!holds(&environment, secret), "{secret}");
        }
        assert!(!holds(&environment, "VAULT_ID_TOKEN"));
        assert_eq!(
            core_limit(tool),
            "0",
            "a crash of the tool would write its memory to a file"
        );
        assert_eq!(
            core_limit(shell),
            own,
            "the command's limit is not ours to change"
        );
        std::fs::write(go, "").unwrap();
        assert!(child.wait().await.unwrap().success());
    }
    world.stop().await;
}

/// The files below a folder that hold a text.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for name in entries(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.is_file() && std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, text)) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn the_key_is_in_no_file_but_the_private_login_and_in_none_afterwards() {
    /// base64 of `nologin:` and the secret key.
    const LOGIN: &str = "bm9sb2dpbjowYmFkY2FmZS0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMGNhMDE";
    let world = World::start().await;
    for (number, ending) in ["exit 0", "exit 3", "kill -KILL $$", "kill -TERM $PPID; sleep 20"]
        .into_iter()
        .enumerate()
    {
        let folder = world.path("folder");
        let script = format!(
            "echo $DOCKER_CONFIG > {}; cp -r $DOCKER_CONFIG {}; {ending}",
            folder.display(),
            world.path("copy").display()
        );
        let ran = world
            .exec(&["--registry-login", "rg.fr-par.scw.cloud", "--aws"], &script)
            .await;
        assert_eq!(ran.code, [0, 3, 137, 143][number], "{ran:?}");
        // What the command itself wrote shows that such a file would be found.
        let copy = world.path("copy/config.json");
        let found = [LOGIN, SECRET_KEY].map(|text| files_with(world.guardian.dir(), text));
        assert_eq!(found, [vec![copy], Vec::new()], "{ending}");
        std::fs::remove_dir_all(world.path("copy")).unwrap();
        let private = std::fs::read_to_string(&folder).unwrap();
        assert!(
            private.trim().starts_with(world.tmp().to_str().unwrap()),
            "{private}"
        );
        assert_eq!(entries(&world.tmp()), [""; 0], "{ending}");
    }
    world.stop().await;
}

/// What a crash would write is looked for by letting one happen: the code of the tool is overwritten while it runs, which
/// takes a superuser, or nobody who could read its memory either.
#[tokio::test]
async fn a_crash_of_ours_leaves_no_core_dump() {
    let world = World::start().await;
    let dumps = world.path("dumps");
    std::fs::create_dir(&dumps).unwrap();
    let limited = |script: &str| {
        let mut shell = world.tool().as_std().get_envs().fold(
            tokio::process::Command::new("sh"),
            |mut shell, (name, value)| {
                shell.env(name, value.unwrap());
                shell
            },
        );
        shell
            .current_dir(&dumps)
            .args(["-c", &format!("ulimit -c unlimited && {script}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        shell
    };
    let (marks, go) = (world.path("marks"), world.path("go"));
    let command = format!(
        "exec {} exec -- sh -c 'echo $$ >> {}; while ! [ -e {} ]; do sleep 0.02; done'",
        env!("CARGO_BIN_EXE_vault-scw-creds"),
        marks.display(),
        go.display()
    );
    let mut child = limited(&command).spawn().unwrap();
    wait_for_lines(&marks, 1).await;
    let pid = child.id().unwrap();
    let overwritten = overwrite_code(pid);
    if overwritten.is_ok() {
        std::fs::write(&go, "").unwrap();
    } else {
        // It keeps its memory from others of the same user as well.
        assert!(!rustix::process::geteuid().is_root(), "{overwritten:?}");
        child.start_kill().unwrap();
    }
    let status = child.wait().await.unwrap();
    assert!(!status.success(), "{status:?}");
    assert!(overwritten.is_err() || !status.core_dumped(), "{status:?}");
    assert_eq!(entries(&dumps), [""; 0]);
    // Here a crash does write one, where the machine is set up to put it beside the program.
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let status = limited("kill -SEGV $$").spawn().unwrap().wait().await.unwrap();
    if pattern.trim() == "core" && status.core_dumped() {
        assert_ne!(entries(&dumps), [""; 0]);
    }
    world.stop().await;
}

/// Overwrites all code of a process with an instruction that there is not.
fn overwrite_code(pid: u32) -> std::io::Result<()> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.contains('x') || !words.any(|word| word.starts_with('/')) {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        match memory.write_all_at(&vec![0; usize::try_from(end - start).unwrap()], start) {
            // It has run into what is overwritten already, and has no memory any more.
            Err(error) if error.kind() == std::io::ErrorKind::WriteZero => break,
            written => written?,
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_kept_from_the_command_under_whatever_name() {
    let world = World::start().await;
    let body = serde_json::json!({"policies": ["ci"], "ttl": "10m", "no_parent": true});
    let created = world.server.write("auth/token/create", &body).await.unwrap();
    let token = created["auth"]["client_token"].as_str().unwrap();
    let mut command = world.tool();
    command
        .env("VAULT_TOKEN", token)
        .env("SOMEBODYS_TOKEN", token)
        .env("HEADER", format!("X-Vault-Token: {token}"))
        .args(["exec", "--auth", "token", "--no-mask", "--", "env"]);
    let ran = world::run(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("SCW_SECRET_KEY="), "{ran:?}");
    assert!(!ran.stdout.contains(token), "{ran:?}");
    assert!(!ran.stdout.contains("SOMEBODYS_TOKEN"), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn what_an_approle_logs_in_with_is_kept_from_the_command_under_whatever_name() {
    let world = World::start().await;
    let approle = serde_json::json!({"type": "approle"});
    world.server.write("sys/auth/approle", &approle).await.unwrap();
    let role = serde_json::json!({"token_policies": ["ci"], "token_ttl": "5m"});
    world.server.write("auth/approle/role/ci", &role).await.unwrap();
    let found = world.server.read("auth/approle/role/ci/role-id").await.unwrap();
    let role_id = found["data"]["role_id"].as_str().unwrap();
    let secret_id = async || {
        let nothing = serde_json::json!({});
        let made = world
            .server
            .write("auth/approle/role/ci/secret-id", &nothing)
            .await
            .unwrap();
        made["data"]["secret_id"].as_str().unwrap().to_owned()
    };
    let (used, stray) = (secret_id().await, secret_id().await);
    let file = |name: &str, text: &str| {
        std::fs::write(world.path(name), text).unwrap();
        world.path(name)
    };
    let body = serde_json::json!({"policies": ["ci"], "ttl": "10m", "no_parent": true});
    let created = world.server.write("auth/token/create", &body).await.unwrap();
    let token = created["auth"]["client_token"].as_str().unwrap();
    let (marks, go) = (world.path("marks"), world.path("go"));
    let script = format!(
        "echo $$ >> {}; while ! [ -e {} ]; do sleep 0.02; done",
        marks.display(),
        go.display()
    );
    let secret_id_file = file("secret-id", &format!("{used}\n"));
    let link = world.path("link");
    std::os::unix::fs::symlink(&secret_id_file, &link).unwrap();
    std::fs::hard_link(&secret_id_file, world.path("other-name")).unwrap();
    let mut command = world.tool();
    command
        .env("TOWPATH_VAULT_AUTH", "approle")
        .env("VAULT_ROLE_ID_FILE", file("role-id", role_id))
        .env("VAULT_SECRET_ID_FILE", &secret_id_file)
        .env("VAULT_SECRET_ID", &stray)
        .env("OF_THE_ROLE", format!("{used}\n"))
        .env("OF_THE_VARIABLE", &stray)
        .env("WHERE_IT_IS", world.path("secret-id"))
        .env("WHERE_ELSE", world.path("somewhere"))
        .env("ROUND_ABOUT", world.path("tmp/../secret-id"))
        .env("BY_A_LINK", &link)
        .env("BY_ITS_NAME", "secret-id")
        .env("BY_ANOTHER_NAME", "other-name")
        .current_dir(world.guardian.dir())
        .env("WHO", role_id)
        .env("MY_TOKEN", token)
        .env("MINE", "stays")
        .args(["exec", "--log-format", "json", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let shell = wait_for_lines(&marks, 1).await;
    let environment = std::fs::read(format!("/proc/{}/environ", shell.trim())).unwrap();
    std::fs::write(go, "").unwrap();
    let ran: world::Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 0, "{ran:?}");
    for secret in [&used, &stray, role_id, token] {
        assert!(!holds(&environment, secret), "{secret}");
    }
    assert!(holds(&environment, "MINE=stays") && holds(&environment, "WHERE_ELSE="));
    for name in [
        "OF_THE_ROLE",
        "OF_THE_VARIABLE",
        "WHERE_IT_IS",
        "WHO",
        "MY_TOKEN",
        "ROUND_ABOUT",
        "BY_A_LINK",
        "BY_ITS_NAME",
        "BY_ANOTHER_NAME",
    ] {
        assert!(!holds(&environment, &format!("{name}=")), "{name}");
        assert!(
            ran.stderr.contains(&format!("\"{name}\"")),
            "{name} is not told of: {ran:?}"
        );
    }
    ran.assert_discreet(&[&used, &stray, token]);
    world.stop().await;
}
