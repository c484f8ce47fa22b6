//! `write` and `revoke` when several of them work on one file, or one on several, and some do not come to their end.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use world::{Ran, SECRET_KEY, World, entries, run};

const SCW: &str = "# mine\naccess_key: SCWPERSON00000000000\nprofiles: # all\n    prod:\n        send_telemetry: \"no\"\nactive_profile: prod";
const DOCKER: &str = "{\r\n   \"auths\": {\r\n      \"ghcr.io\": {\"auth\": \"bWU6eW91\"}\r\n   },\r\n   \"n\": [1.10, 1e5, 12345678901234567890123],\r\n   \"n\": 1\r\n}\r\n";

/// A folder with files of a person.
struct Home {
    folder: PathBuf,
}

impl Home {
    fn new(world: &World, name: &str) -> Self {
        let home = Home {
            folder: world.path(name),
        };
        std::fs::create_dir_all(home.docker()).unwrap();
        std::fs::write(home.scw(), SCW).unwrap();
        std::fs::write(home.docker().join("config.json"), DOCKER).unwrap();
        home
    }

    fn scw(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    fn docker(&self) -> PathBuf {
        self.folder.join("docker")
    }

    fn texts(&self) -> [String; 2] {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        [read(&self.scw()), read(&self.docker().join("config.json"))]
    }

    fn command(&self, world: &World, action: &str, number: Option<usize>) -> tokio::process::Command {
        let mut command = world.tool();
        command
            .arg(action)
            .arg("--scw-config")
            .arg(self.scw())
            .arg("--docker-config")
            .arg(self.docker())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        if let Some(number) = number {
            command
                .args(["--scw-profile", &format!("ci-{number}")])
                .args(["--registry-login", &format!("registry-{number}.example")]);
        }
        command
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.texts(), [SCW, DOCKER], "{what}");
        let mut left = entries(&self.folder);
        left.sort();
        assert_eq!(left, ["config.yaml", "docker"], "{what}");
        assert_eq!(entries(&self.docker()), ["config.json"], "{what}");
    }
}

async fn together(commands: Vec<tokio::process::Command>) -> Vec<Ran> {
    let children: Vec<_> = commands
        .into_iter()
        .map(|command| tokio::spawn(run(command)))
        .collect();
    let mut ran = Vec::new();
    for child in children {
        ran.push(child.await.unwrap());
    }
    ran
}

#[tokio::test]
async fn many_runs_write_to_one_file_and_each_takes_its_own_out() {
    let world = World::start().await;
    let home = Home::new(&world, "crowded");
    let writes = (0..24).map(|number| home.command(&world, "write", Some(number)));
    for ran in together(writes.collect()).await {
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.assert_discreet(&[SECRET_KEY]);
    }
    let [scw, docker] = home.texts();
    assert_eq!(scw.matches(SECRET_KEY).count(), 24, "{scw}");
    for number in 0..24 {
        assert!(scw.contains(&format!("    \"ci-{number}\":\n")), "{scw}");
        assert!(
            docker.contains(&format!("\"registry-{number}.example\"")),
            "{docker}"
        );
    }
    // Some take their own out while others come.
    let others = (0..12)
        .map(|number| home.command(&world, "revoke", Some(number)))
        .chain((24..32).map(|number| home.command(&world, "write", Some(number))));
    for ran in together(others.collect()).await {
        assert_eq!((ran.code, &ran.json()["changed"]), (0, &json!(true)), "{ran:?}");
    }
    let [scw, docker] = home.texts();
    assert_eq!(scw.matches(SECRET_KEY).count(), 20, "{scw}");
    assert_eq!(docker.matches("registry-").count(), 20, "{docker}");
    let last = (12..32).map(|number| home.command(&world, "revoke", Some(number)));
    for ran in together(last.collect()).await {
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    home.assert_untouched("each took out its own");

    let writes = (0..4).map(|number| home.command(&world, "write", Some(number)));
    together(writes.collect()).await;
    let revokes = (0..4).map(|_| home.command(&world, "revoke", None));
    // Whoever comes second finds nothing of ours.
    for ran in together(revokes.collect()).await {
        assert!(matches!(ran.code, 0 | 4), "{ran:?}");
    }
    home.assert_untouched("all was taken out at once");
    world.stop().await;
}

#[tokio::test]
async fn all_files_are_written_or_none() {
    let world = World::start().await;
    let home = Home::new(&world, "several");
    let pull = home.folder.join("pull.yaml");
    // Docker's file cannot be written under its other name, which nobody sees before.
    let in_the_way = home.docker().join("config.json.vault-scw-creds.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let mut command = home.command(&world, "write", Some(1));
    command.arg("--pull-secret").arg(&pull);
    let ran = run(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = ran.json();
    let outcomes: Vec<_> = (0..3)
        .map(|index| report["files"][index]["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["taken back", "failed", "skipped"], "{ran:?}");
    assert_eq!(report["changed"], false);
    std::fs::remove_dir(&in_the_way).unwrap();
    home.assert_untouched("docker's file could not be written");

    // What can be seen before is told before anything is written.
    let broken = DOCKER.replace("\"n\": 1\r\n", "\"n\": \r\n");
    std::fs::write(home.docker().join("config.json"), &broken).unwrap();
    let ran = run(home.command(&world, "write", Some(1))).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.stderr.contains("config.json") && ran.stderr.contains("line 7, column 1"),
        "{ran:?}"
    );
    assert_eq!(home.texts(), [SCW, &broken]);
    let ran = run({
        let mut command = home.command(&world, "write", Some(1));
        command.arg("--dry-run");
        command
    })
    .await;
    assert_eq!(ran.code, 3, "{ran:?}");

    let mut command = world.tool();
    command
        .arg("write")
        .arg("--dotenv")
        .arg(&pull)
        .arg("--scw-config")
        .arg(&pull);
    let ran = run(command).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!pull.exists());
    world.stop().await;
}

#[tokio::test]
async fn whoever_is_killed_leaves_nothing_that_revoke_does_not_find() {
    let world = World::start().await;
    let home = Home::new(&world, "killed");
    for round in 0..25 {
        let mut first = home.command(&world, "write", Some(round)).spawn().unwrap();
        let mut second = home.command(&world, "write", Some(round + 100)).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(2 * round as u64)).await;
        first.kill().await.unwrap();
        second.kill().await.unwrap();
        let ran = run(home.command(&world, "revoke", None)).await;
        assert!(matches!(ran.code, 0 | 4), "{round}: {ran:?}");
        home.assert_untouched(&format!("killed in round {round}"));
    }
    // Where nothing was before, nothing stays.
    let new = world.path("new");
    for round in 0..25 {
        let command = |action: &str| {
            let mut command = world.tool();
            command
                .arg(action)
                .arg("--scw-config")
                .arg(new.join("scw/config.yaml"))
                .arg("--docker-config")
                .arg(new.join("docker"))
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            if action == "write" {
                command.args(["--registry-login", "registry.example"]);
            }
            command
        };
        std::fs::create_dir(&new).unwrap();
        let mut writing = command("write").spawn().unwrap();
        // Not before it has begun with the files, if it comes to that at all.
        while entries(&new).is_empty() && writing.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_micros(400 * round)).await;
        writing.kill().await.unwrap();
        let ran = run(command("revoke")).await;
        assert_eq!(ran.code, 0, "{round}: {ran:?}");
        let files = std::process::Command::new("find")
            .arg(&new)
            .args(["-type", "f"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(files.stdout).unwrap(), "", "{round}: {ran:?}");
        std::fs::remove_dir_all(&new).unwrap();
    }
    world.stop().await;
}
