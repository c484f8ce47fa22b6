//! Tools are found or installed once.

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

/// Runs with the environment that the test below gives it.
#[tokio::test(flavor = "current_thread")]
#[ignore = "run by the test below"]
async fn look_that_fails() {
    println!(
        "{:#}",
        Tools::find_or_install(&Progress::lines()).await.unwrap_err()
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
            .args(["--ignored", "--exact", "look_that_fails", "--nocapture"])
            .env("TOWPATH_CACHE", cache.path())
            .env("TOWPATH_KANIKO", value)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(complaint), "{said}");
    }
}
