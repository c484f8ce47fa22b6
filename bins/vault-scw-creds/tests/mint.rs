//! `exec --mint`: a key for one command, gone from IAM when the command has ended, however it ended.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::Command;
use towpath_sandbox::scaleway::{ApiKey, Iam, Settings};
use towpath_sandbox::servers::{Fault, Point, Proxy, Rule, Way};
use world::{Ran, World, make_it_panic, run, wait_for_lines};

/// A world with an IAM beside it that takes its time, and a key in the secret that may manage keys.
struct Minting {
    world: World,
    iam: Iam,
    manager: ApiKey,
}

impl Minting {
    async fn start() -> Self {
        let world = World::start().await;
        let iam = Iam::start(Settings {
            settles_after: 9,
            seed: 5,
            ..Settings::default()
        })
        .await
        .unwrap();
        let application = iam.create_application(true, true);
        let manager = iam.create_key(&application, "made by hand");
        let data = json!({
            "access_key": manager.access_key, "secret_key": manager.secret_key, "project_id": world::PROJECT,
        });
        world
            .server
            .write_secret("secret", "ci/scw", &data)
            .await
            .unwrap();
        Minting { world, iam, manager }
    }

    fn exec(&self, flags: &[&str], script: &str) -> Command {
        let mut command = self.world.tool();
        command
            .env("SCW_API_URL", self.iam.url())
            .env("TOWPATH_PROOF_PAUSE", "5ms")
            .env("MARKS", self.world.path("marks"))
            .args(["exec", "--mint"])
            .args(flags)
            .args(["--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The keys besides the one in the secret.
    fn others(&self) -> Vec<ApiKey> {
        let mut keys = self.iam.keys();
        keys.retain(|key| key.access_key != self.manager.access_key);
        keys
    }
}

#[tokio::test]
async fn a_command_gets_a_key_of_its_own_which_is_deleted_when_it_ends() {
    let minting = Minting::start().await;
    let marks = minting.world.path("marks");
    let script = "echo $SCW_ACCESS_KEY $SCW_SECRET_KEY $TF_VAR_key $SCW_DEFAULT_PROJECT_ID >> $MARKS; exit 3";
    let ran = run(minting.exec(&["--tf-var", "key=secret_key"], script)).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    let given = std::fs::read_to_string(&marks).unwrap();
    let given: Vec<&str> = given.split_whitespace().collect();
    assert_ne!(given[0], minting.manager.access_key);
    assert_eq!(given[1], given[2], "the secret's own key is nowhere");
    assert_eq!(given[3], world::PROJECT);
    ran.assert_discreet(&[given[1], &minting.manager.secret_key]);
    assert_eq!(minting.others(), []);
    assert!(!minting.iam.is_good(given[1]) && minting.iam.is_good(&minting.manager.secret_key));

    for (flags, script, code) in [
        (&[][..], "kill -KILL $$", 137),
        (
            &[
                "--timeout",
                "20s",
                "--prove-within",
                "100ms",
                "--proof-path",
                "nothing/there",
            ],
            "exit 0",
            8,
        ),
        (&["--tf-var", "a=nothing"], "exit 0", 5),
        (&["--dry-run"], "exit 0", 0),
    ] {
        let ran = run(minting.exec(flags, script)).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(minting.others(), [], "a key is left");
    }
    minting.world.stop().await;
}

#[tokio::test]
async fn a_key_has_an_end_while_the_command_runs_and_a_signal_deletes_it() {
    let minting = Minting::start().await;
    let marks = minting.world.path("marks");
    let child = minting
        .exec(&["--mint-for", "10m"], "echo ready >> $MARKS; exec sleep 1000")
        .spawn()
        .unwrap();
    wait_for_lines(&marks, 1).await;
    let others = minting.others();
    assert_eq!(others.len(), 1);
    assert!(others[0].expires_at.is_some(), "nothing would end it after KILL");
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 143, "{ran:?}");
    assert_eq!(minting.others(), [], "a key is left");
    minting.world.stop().await;
}

#[tokio::test]
async fn a_key_may_be_another_applications() {
    let minting = Minting::start().await;
    let reader = minting.iam.create_application(false, true);
    let marks = minting.world.path("marks");
    let child = minting
        .exec(
            &["--mint-application", &reader],
            "echo ready >> $MARKS; while ! [ -e $MARKS.go ]; do sleep 0.02; done",
        )
        .spawn()
        .unwrap();
    wait_for_lines(&marks, 1).await;
    assert_eq!(minting.others()[0].application_id, reader);
    std::fs::write(minting.world.path("marks.go"), "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(minting.others(), []);
    minting.world.stop().await;
}

#[tokio::test]
async fn a_key_whose_making_was_not_told_is_deleted() {
    let minting = Minting::start().await;
    let api = Proxy::start(minting.iam.url().trim_start_matches("http://"))
        .await
        .unwrap();
    for fault in [Fault::Break(Point::Answered, Way::Reset), Fault::WrongBytes] {
        api.clear();
        api.add(Rule::on("POST", "/api-keys", fault).times(1));
        let mut command = minting.exec(&[], "exit 0");
        command.env("SCW_API_URL", format!("http://{}", api.host()));
        let ran = run(command).await;
        assert!(matches!(ran.code, 3 | 7), "{ran:?}");
        assert_eq!(minting.others(), [], "a key is left: {ran:?}");
    }
    minting.world.stop().await;
}

#[tokio::test]
async fn the_secret_with_the_managing_key_has_field_names_of_its_own() {
    let minting = Minting::start().await;
    let write = async |path: &str, data: serde_json::Value| {
        let server = &minting.world.server;
        server.write_secret("secret", path, &data).await.unwrap();
    };
    let (access_key, secret_key) = (&minting.manager.access_key, &minting.manager.secret_key);
    write("ci/odd", json!({"id": access_key, "token": secret_key})).await;
    let flags = [
        "--secret",
        "secret/ci/odd",
        "--field",
        "access_key=id,secret_key=token",
        "--iam-secret",
        "secret/ci/scw",
    ];
    let ran = run(minting.exec(&flags, "exit 6")).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    write("ci/maker", json!({"who": access_key, "what": secret_key})).await;
    let flags = [
        "--iam-secret",
        "secret/ci/maker",
        "--iam-field",
        "access_key=who,secret_key=what",
    ];
    let ran = run(minting.exec(&flags, "exit 7")).await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert_eq!(minting.others().len(), 0);
    minting.world.stop().await;
}

#[tokio::test]
async fn a_key_is_deleted_after_a_panic_of_ours() {
    let minting = Minting::start().await;
    let (marks, go) = (minting.world.path("marks"), minting.world.path("go"));
    let script = format!(
        "echo ready >> $MARKS; while ! [ -e {} ]; do sleep 0.05; done; echo something; exec sleep 1000",
        go.display()
    );
    let child = minting.exec(&[], &script).spawn().unwrap();
    wait_for_lines(&marks, 1).await;
    let keys = minting.others();
    assert_eq!(keys.len(), 1, "it is there meanwhile");
    make_it_panic(child.id().unwrap());
    std::fs::write(go, "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(" panic "), "{ran:?}");
    assert_eq!(minting.others(), [], "a key is left");
    ran.assert_discreet(&[&keys[0].secret_key, &minting.manager.secret_key]);
    minting.world.stop().await;
}
