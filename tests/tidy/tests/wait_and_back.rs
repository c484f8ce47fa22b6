//! The script of `argocd-wait.yml`: which end of the wait takes an image back, and which does not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_norway::Value;
use towpath_tidy::read;

/// The job's script, as a runner runs it: one shell, which ends at the first line that fails.
fn script(on_failure: &str) -> String {
    let text = read("ci-templates/argocd-wait.yml").replace("$[[ inputs.on_failure ]]", on_failure);
    let (_, body) = text.split_once("\n---\n").expect("a header");
    let body: Value = serde_norway::from_str(body).expect("YAML");
    let (_, job) = body.as_mapping().expect("jobs").iter().next().expect("a job");
    let lines = job["script"].as_sequence().expect("a script");
    let lines: Vec<&str> = lines.iter().map(|line| line.as_str().expect("text")).collect();
    format!("set -e\n{}\n", lines.join("\n"))
}

/// A program that notes how it was called and ends with a code.
fn program(folder: &Path, name: &str, code: i32) {
    let path = folder.join(name);
    let text = format!("#!/bin/sh\necho {name} \"$@\" >> \"$NOTES\"\nexit {code}\n");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// Runs the script with a wait and a rollback that end like this. Gives back its code and what was called.
fn run(on_failure: &str, wait: i32, back: i32) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    program(folder.path(), "argocd-wait", wait);
    program(folder.path(), "kustomize-bump", back);
    let notes = folder.path().join("notes");
    let status = Command::new("/bin/sh")
        .args(["-c", &script(on_failure)])
        .env_clear()
        .env("PATH", folder.path())
        .env("NOTES", &notes)
        .env("IMAGE_DIGEST", "sha256:dddd")
        .env("ROLLBACK_ENVIRONMENT", "production")
        .status()
        .expect("sh runs");
    let notes = std::fs::read_to_string(notes).expect("the wait was called");
    (status.code(), notes)
}

#[test]
fn only_what_never_ran_is_taken_back() {
    // Ready, denied, gone, superseded, nobody answered, a person or more time is needed, cancelled.
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 9, 130, 143] {
        let (ended, called) = run("rollback", code, 0);
        assert_eq!(ended, Some(code), "{called}");
        assert_eq!(called, "argocd-wait\n", "{code} takes nothing back");
    }
    let (ended, called) = run("fail", 8, 0);
    assert_eq!((ended, called.as_str()), (Some(8), "argocd-wait\n"));
    let (ended, called) = run("rollback", 8, 0);
    assert_eq!(ended, Some(8), "the image did not run, whatever runs instead");
    assert!(
        called
            .contains("kustomize-bump rollback --yes --expect-current sha256:dddd --environment production"),
        "{called}"
    );
}

#[test]
fn a_way_back_that_fails_says_so() {
    for code in [4, 6, 7] {
        assert_eq!(
            run("rollback", 8, code).0,
            Some(code),
            "7 is tried again, as everywhere"
        );
    }
}
