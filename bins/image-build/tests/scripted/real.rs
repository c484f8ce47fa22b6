//! The real executor in trouble that takes more than a Dockerfile: a registry that refuses or goes away, a full disk, TERM.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use towpath_sandbox::servers::{Canned, Fault, Point, Proxy, Rule, Way, docker_config};

use crate::job::executor;
use crate::workshop::{PASSWORD, Ran, USER, Workshop};

/// image-build with the real executor, in a private root.
pub(crate) fn command(workshop: &Workshop, arguments: &[&str]) -> Option<tokio::process::Command> {
    let mut command = workshop.command(arguments);
    command
        .env("TOWPATH_KANIKO", executor()?)
        .env("TOWPATH_ISOLATION", "chroot");
    Some(command)
}

/// Our own look is by HEAD, the executor's by GET: what holds for the one does not show the other.
#[tokio::test]
async fn a_registry_refuses_the_executor_alone() {
    let workshop = Workshop::open().await;
    let proxy = Proxy::start(workshop.registry.host()).await.unwrap();
    let logins = docker_config(&[
        (proxy.host(), USER, PASSWORD),
        (workshop.registry.host(), USER, PASSWORD),
    ]);
    std::fs::write(workshop.docker_config.join("config.json"), logins.to_string()).unwrap();
    workshop.dockerfile(&format!("FROM {}/base/busybox:1\nRUN true\n", proxy.host()));
    for (fault, word) in [
        (Fault::Answer(Canned::error(401, "UNAUTHORIZED")), "UNAUTHORIZED"),
        (Fault::Break(Point::Arrival, Way::Close), "error building image"),
    ] {
        proxy.clear();
        proxy.add(Rule::on("GET", "manifests", fault));
        let Some(mut command) = command(&workshop, &["--tag", "test"]) else {
            return;
        };
        let ran = Ran::of(command.output().await.unwrap());
        let last = ran.failed(8);
        assert!(
            last.contains("kaniko ended with code 1") && last.contains(word),
            "{last}"
        );
    }
    workshop.close().await;
}

/// The cache is the one thing that the executor pushes for us, and the registry wants another login for that.
#[tokio::test]
async fn the_executor_may_not_push_the_cache() {
    let workshop = Workshop::open().await;
    let proxy = Proxy::start(workshop.registry.host()).await.unwrap();
    let logins = docker_config(&[
        (proxy.host(), USER, "canary-of-another-time"),
        (workshop.registry.host(), USER, PASSWORD),
    ]);
    std::fs::write(workshop.docker_config.join("config.json"), logins.to_string()).unwrap();
    let cache = format!("{}/shop/cache", proxy.host());
    let Some(mut command) = command(&workshop, &["--tag", "test", "--cache-repo", &cache]) else {
        return;
    };
    let ran = Ran::of(command.output().await.unwrap());
    let last = ran.failed(8);
    for word in [
        "kaniko ended with code 1".to_owned(),
        format!("error checking push permissions: checking push permission for \\\"{cache}"),
        "UNAUTHORIZED: authentication required".to_owned(),
    ] {
        assert!(last.contains(&word), "{word} is missing in {last}");
    }
    assert!(
        !ran.log.contains("Building stage"),
        "it is asked before the build: {}",
        ran.log
    );
    workshop.close().await;
}

/// What a step writes fits, and the layout with it does not. Everything is on a small disk of the build's own, which ends with it.
#[tokio::test]
async fn the_disk_is_full_when_the_layout_is_written() {
    let workshop = Workshop::open().await;
    workshop.dockerfile(
        "FROM REGISTRY/base/busybox:1\nRUN dd if=/dev/urandom of=/filling bs=1M count=40 2>/dev/null\n",
    );
    let Some(command) = command(&workshop, &["--tag", "test"]) else {
        return;
    };
    let disk = workshop.guardian.dir().join("tmp");
    let executor = std::fs::metadata(executor().unwrap()).unwrap().len() / (1 << 20);
    let mut small = workshop.guardian.command("unshare");
    small
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o size=\"$1\"m tmpfs \"$2\" && shift 2 && exec \"$@\"")
        .arg("small")
        .arg((executor + 105).to_string())
        .arg(&disk)
        .arg(command.as_std().get_program())
        .args(command.as_std().get_args())
        .env_clear()
        .envs(
            command
                .as_std()
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(&workshop.project);
    let ran = Ran::of(small.output().await.unwrap());
    let last = ran.failed(8);
    assert!(
        last.contains("kaniko ended with code 1") && last.contains("no space left on device"),
        "{last}"
    );
    workshop.close().await;
}

/// The second build finds the first one's step, though nothing of that build is left but what it pushed.
#[tokio::test]
async fn a_finished_step_is_kept_for_the_next_build() {
    let workshop = Workshop::open().await;
    workshop.dockerfile("FROM REGISTRY/base/busybox:1\nRUN echo a-long-step > /made\n");
    let cache = format!("{}/shop/cache", workshop.registry.host());
    let arguments = [
        "--tag",
        "test",
        "--rebuild",
        "--cache-repo",
        &cache,
        "--cache-ttl",
        "24h",
    ];
    let mut logs = Vec::new();
    for _ in 0..2 {
        let Some(mut command) = command(&workshop, &arguments) else {
            return;
        };
        let ran = Ran::of(command.output().await.unwrap());
        ran.done();
        logs.push(ran.log);
    }
    let found = "Using caching version of cmd: RUN echo a-long-step";
    assert!(logs[1].contains(found) && !logs[0].contains(found), "{}", logs[1]);
    workshop.close().await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_takes_the_executor_along() {
    let workshop = Workshop::open().await;
    workshop.dockerfile("FROM REGISTRY/base/busybox:1\nRUN echo the-step-runs && sleep 1000\n");
    let Some(mut command) = command(&workshop, &["--tag", "test"]) else {
        return;
    };
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut begun = false;
    while let Some(line) = lines.next_line().await.unwrap() {
        // The step's own words, and not the line that announces it.
        if line.contains("the-step-runs") && !line.contains("echo") {
            begun = true;
            let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
    }
    assert!(begun, "the step ran");
    assert_eq!(child.wait().await.unwrap().code(), Some(143));
    assert_eq!(workshop.tagged("test"), None);
    workshop.close().await;
}
