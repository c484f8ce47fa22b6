//! Flags and variables together: what stands on the command line wins over what is set for a job as a whole.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use world::engine::{CREDS, Engine, LEASED_ACCESS_KEY};
use world::{ACCESS_KEY, OLD_SECRET_KEY, Ran, SECRET_KEY, World, run};

const HOUR: u64 = 3600;

/// Runs the tool with these variables and words.
async fn ran(world: &World, variables: &[(&str, &str)], words: &[&str]) -> Ran {
    let mut command = world.tool();
    command.envs(variables.iter().copied()).args(words);
    run(command).await
}

fn refused(ran: &Ran, names: &[&str]) {
    assert_eq!(ran.code, 2, "{ran:?}");
    for name in names {
        assert!(ran.stderr.contains(name), "{name} is not named: {ran:?}");
    }
}

#[tokio::test]
async fn the_flag_decides_between_a_secret_and_an_engine() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let more = r#"path "secret/data/ci/*" { capabilities = ["read"] }"#;
    engine.allow(&world, more).await;
    let at = ("VAULT_ADDR", engine.address.as_str());
    let dynamic = ("TOWPATH_DYNAMIC", CREDS);
    let secret = ["--secret", "secret/ci/scw"];
    let show = ["--", "sh", "-c", "echo $SCW_ACCESS_KEY"];
    let exec = |flags: &[&'static str]| [&["exec"], flags, &show].concat();

    let ended = ran(&world, &[at, dynamic], &exec(&secret)).await;
    assert_eq!(ended.stdout, format!("{ACCESS_KEY}\n"), "{ended:?}");
    let ended = ran(&world, &[at], &exec(&["--dynamic", CREDS])).await;
    assert_eq!(ended.stdout, format!("{LEASED_ACCESS_KEY}\n"), "{ended:?}");
    let both = ["TOWPATH_SECRET", "TOWPATH_DYNAMIC"];
    refused(&ran(&world, &[at, dynamic], &exec(&[])).await, &both);
    let flags = [&secret[..], &["--dynamic", CREDS]].concat();
    refused(&ran(&world, &[at], &exec(&flags)).await, &both);

    // What is set for exec does not concern the others.
    let printed = ran(&world, &[at, dynamic], &["env"]).await;
    assert!(printed.stdout.contains(ACCESS_KEY), "{printed:?}");
    let versioned = [at, ("TOWPATH_SECRET_VERSION", "1")];
    let ended = ran(&world, &versioned, &exec(&["--dynamic", CREDS])).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let told = [at, ("TOWPATH_KV_VERSION", "1"), ("TOWPATH_KV_MOUNT", "team/kv")];
    let ended = ran(&world, &told, &exec(&["--dynamic", CREDS])).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    for name in ["--kv-version", "--kv-mount"] {
        let flags = exec(&["--dynamic", CREDS, name, "1"]);
        refused(&ran(&world, &[at], &flags).await, &[name, "--dynamic"]);
    }
    let flags = ["--dynamic", CREDS, "--version", "1"];
    refused(
        &ran(&world, &[at], &exec(&flags)).await,
        &["--version", "--dynamic"],
    );
    assert_eq!(world.leases().await, [""; 0]);
    world.stop().await;
}

#[tokio::test]
async fn what_is_set_for_a_minted_key_does_not_concern_a_command_without_one() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let more = r#"path "secret/data/ci/*" { capabilities = ["read"] }"#;
    engine.allow(&world, more).await;
    let at = ("VAULT_ADDR", engine.address.as_str());
    let done = ["--", "true"];
    let exec = |flags: &[&'static str]| [&["exec"], flags, &done].concat();
    let dynamic = exec(&["--dynamic", CREDS]);
    let ended = ran(&world, &[at, ("TOWPATH_MINT", "false")], &dynamic).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = ran(&world, &[at, ("TOWPATH_MINT", "true")], &dynamic).await;
    assert_eq!(ended.code, 0, "the flag is nearer: {ended:?}");
    refused(
        &ran(&world, &[at], &exec(&["--dynamic", CREDS, "--mint"])).await,
        &["TOWPATH_MINT", "TOWPATH_DYNAMIC"],
    );
    let job = [("TOWPATH_MINT_APPLICATION", "6170"), ("TOWPATH_MINT_FOR", "1h")];
    let ended = ran(&world, &job, &exec(&[])).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let alone = exec(&["--mint-application", "6170"]);
    refused(&ran(&world, &[], &alone).await, &["--mint-application", "--mint"]);

    let file = world.path("file.env");
    let write = ["write", "--dotenv", file.to_str().unwrap()];
    let profile = [("TOWPATH_SCW_PROFILE", "ci")];
    let ended = ran(&world, &profile, &write).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let flags = [&write[..], &["--scw-profile", "ci"]].concat();
    refused(
        &ran(&world, &[], &flags).await,
        &["--scw-profile", "--scw-config"],
    );
    world.stop().await;
}

#[tokio::test]
async fn a_version_is_pinned_and_the_tools_own_is_told() {
    let world = World::start().await;
    for flag in ["--version", "--secret-version"] {
        let printed = ran(&world, &[], &["env", "--format", "json", flag, "1"]).await;
        assert!(printed.stdout.contains(OLD_SECRET_KEY), "{printed:?}");
    }
    let printed = ran(&world, &[], &["--version"]).await;
    assert_eq!(
        printed.stdout,
        format!("vault-scw-creds {}\n", env!("CARGO_PKG_VERSION"))
    );
    let twice = ["env", "--field", "region=a", "--field", "region=b"];
    refused(&ran(&world, &[], &twice).await, &["--field", "region"]);
    world.stop().await;
}

#[tokio::test]
async fn the_log_stays_out_of_what_a_shell_is_to_run() {
    let world = World::start().await;
    let printed = ran(&world, &[("TOWPATH_LOG_TARGET", "stdout")], &["env"]).await;
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(
        printed
            .stdout
            .lines()
            .all(|line| line.starts_with("unset ") || line.starts_with("export ")),
        "{printed:?}"
    );
    assert!(printed.stdout.contains(SECRET_KEY) && printed.stderr.contains("secret/ci/scw"));
    let flag = ["env", "--log-target", "stdout"];
    refused(
        &ran(&world, &[], &flag).await,
        &["--log-target", "TOWPATH_LOG_TARGET"],
    );
    world.stop().await;
}

#[tokio::test]
async fn a_setting_that_has_no_effect_is_told_of() {
    let world = World::start().await;
    let ended = ran(&world, &[("VAULT_SKIP_VERIFY", "true")], &["exec", "--", "true"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    for word in ["VAULT_SKIP_VERIFY", "VAULT_CACERT"] {
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
    let ended = ran(&world, &[("VAULT_SKIP_VERIFY", "0")], &["exec", "--", "true"]).await;
    assert!(!ended.stderr.contains("VAULT_SKIP_VERIFY"), "{ended:?}");
    world.stop().await;
}
