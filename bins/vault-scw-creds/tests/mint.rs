//! `exec --mint`: a key of IAM for one command, and none afterwards.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use towpath_sandbox::scaleway::{Iam, Settings};
use world::{Ran, World, run, wait_for_lines};

struct Minting {
    world: World,
    iam: Iam,
    /// The secret half of the key that makes keys.
    manager: String,
    worker: String,
}

impl Minting {
    async fn start(settings: Settings) -> Self {
        let world = World::start().await;
        let iam = Iam::start(settings).await.unwrap();
        let key = iam.create_key(&iam.create_application(true, true), "makes keys");
        let worker = iam.create_application(false, true);
        let data = json!({"access_key": key.access_key, "secret_key": key.secret_key, "region": "fr-par"});
        world
            .server
            .write_secret("secret", "ci/manager", &data)
            .await
            .unwrap();
        Minting {
            world,
            iam,
            manager: key.secret_key,
            worker,
        }
    }

    fn command(&self, flags: &[&str], script: &str) -> tokio::process::Command {
        let mut command = self.world.tool();
        command
            .env("SCW_API_URL", self.iam.url())
            .env("TOWPATH_SECRET", "secret/ci/manager")
            .env("TOWPATH_PROOF_PAUSE", "5ms")
            .env("STRAY", &self.manager)
            .args(["exec", "--mint", &format!("application:{}", self.worker)])
            .args(flags)
            .args(["--", "sh", "-c", script]);
        command
    }

    fn workers_keys(&self) -> usize {
        self.iam
            .keys()
            .iter()
            .filter(|key| key.application_id == self.worker)
            .count()
    }
}

#[tokio::test]
async fn a_command_has_a_key_of_its_own_until_it_ends() {
    let settings = Settings {
        settles_after: 8,
        seed: 2,
        longest: Some(2 * 3600),
        ..Settings::default()
    };
    let minting = Minting::start(settings).await;
    let tokens = minting.world.tokens().await;
    let file = minting.world.path("environ");
    let script = format!("env > {}; echo $SCW_SECRET_KEY; exit 7", file.display());
    let ran = run(minting.command(&["--timeout", "1h"], &script)).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "****\n"), "{ran:?}");
    let environ = std::fs::read_to_string(&file).unwrap();
    assert!(
        !environ.contains(&minting.manager),
        "the command has the manager's key"
    );
    assert!(environ.contains("SCW_SECRET_KEY=") && environ.contains("SCW_DEFAULT_REGION=fr-par"));
    assert_eq!(minting.workers_keys(), 0, "{ran:?}");
    assert_eq!(minting.world.tokens().await, tokens);

    let ran = run(minting.command(&["--dry-run"], "true")).await;
    assert_eq!((ran.code, minting.workers_keys()), (0, 0), "{ran:?}");
    let ran = run(minting.command(&["--tf-var", "key=secret_key"], "true")).await;
    assert_eq!((ran.code, minting.workers_keys()), (2, 0), "{ran:?}");
    let ran = run(minting.command(&["--mint-for", "3h"], "true")).await;
    assert_eq!((ran.code, minting.workers_keys()), (2, 0), "{ran:?}");
    assert!(ran.stderr.contains("--mint-for"), "{ran:?}");
    let ran = run(minting.command(&["--proof-path", "/nowhere", "--prove-within", "200ms"], "true")).await;
    assert_eq!((ran.code, minting.workers_keys()), (8, 0), "{ran:?}");
    minting.world.stop().await;
}

#[tokio::test]
async fn a_signal_ends_the_key_and_kill_leaves_it_an_end() {
    let settings = Settings {
        longest: Some(2 * 3600),
        ..Settings::default()
    };
    let minting = Minting::start(settings).await;
    let start = async |name: &str| {
        let file = minting.world.path(name);
        let script = format!("echo begun > {}; exec sleep 60", file.display());
        let child = minting
            .command(&["--timeout", "1h"], &script)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_lines(&file, 1).await;
        assert_eq!(minting.workers_keys(), 1);
        child
    };
    let child = start("term").await;
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!((ran.code, minting.workers_keys()), (128 + 15, 0), "{ran:?}");

    let mut child = start("kill").await;
    child.kill().await.unwrap();
    let left = minting.iam.keys();
    let left = left
        .iter()
        .find(|key| key.application_id == minting.worker)
        .unwrap();
    assert!(left.expires_at.is_some());
    minting.world.stop().await;
}
