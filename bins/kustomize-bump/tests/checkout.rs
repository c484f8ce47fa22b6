//! Files edited in a folder, and commits in a work tree.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use world::{A, B, Ended, files, scrubbed};

/// Runs the binary in a folder, as the person `Ada`.
async fn bump(folder: &Path, arguments: &[&str]) -> Ended {
    let mut environment = scrubbed(folder);
    environment.insert("TOWPATH_GIT_AUTHOR".into(), "Ada".into());
    environment.insert("TOWPATH_GIT_AUTHOR_EMAIL".into(), "ada@example.com".into());
    world::run(arguments, &environment, folder).await
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Bob", "-c", "user.email=bob@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with `prod/kustomization.yaml` at digest A, then at B.
fn work_tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("prod")).unwrap();
    git(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
    for digest in [A, B] {
        let text = format!("images:\n- name: app\n  digest: {digest}\n");
        std::fs::write(folder.path().join("prod/kustomization.yaml"), text).unwrap();
        git(folder.path(), &["add", "--all"]);
        git(folder.path(), &["commit", "--quiet", "--message", "By hand"]);
    }
    folder
}

#[tokio::test]
async fn committing_is_left_to_the_person_unless_asked_for() {
    let folder = work_tree();
    std::fs::write(folder.path().join("mine"), "not to be committed").unwrap();
    git(folder.path(), &["add", "mine"]);
    let image = format!("app@{A}");
    let report = bump(folder.path(), &["set", &image, "--path", "prod"])
        .await
        .report();
    assert_eq!(report["commit"], Value::Null);
    assert_eq!(
        git(folder.path(), &["status", "--short"]),
        "A  mine\n M prod/kustomization.yaml"
    );
    git(folder.path(), &["checkout", "--quiet", "prod"]);

    let hook = folder.path().join(".git/hooks/pre-commit");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = bump(folder.path(), &["set", &image, "--path", "prod", "--commit"])
        .await
        .report();
    assert_eq!(report["commit"], git(folder.path(), &["rev-parse", "HEAD"]));
    assert_eq!(git(folder.path(), &["log", "-1", "--format=%an"]), "Ada");
    assert_eq!(
        git(folder.path(), &["show", "--name-only", "--format=", "HEAD"]),
        "prod/kustomization.yaml"
    );
    assert_eq!(git(folder.path(), &["status", "--short"]), "A  mine");
}

#[tokio::test]
async fn a_rollback_works_on_a_checkout_from_any_folder_in_it() {
    let folder = work_tree();
    let below = folder.path().join("prod");
    let rollback = ["rollback", "--image", "app", "--path", ".", "--yes"];
    let report = bump(&below, &rollback).await.report();
    assert_eq!(
        (&report["images"][0]["path"], &report["images"][0]["to"]["digest"]),
        (&"prod".into(), &A.into())
    );
    assert!(folder.path().join(".towpath/holds/prod/app.json").is_file());
    // Nothing is committed yet, and still the second run has nothing to do.
    assert_eq!(bump(&below, &rollback).await.report()["changed"], false);
    bump(&below, &["set", &format!("app@{B}"), "--path", "."])
        .await
        .refused(4, "is held at");
    let release = ["release", "--image", "app", "--path", ".", "--commit"];
    let report = bump(&below, &release).await.report();
    assert_eq!(report["changed"], true);
    assert!(!folder.path().join(".towpath/holds/prod/app.json").exists());
}

#[tokio::test]
async fn a_folder_without_a_repository_can_be_edited_and_has_no_history() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Kustomization"), "images:\n- name: app\n").unwrap();
    let image = format!("app@{A}");
    bump(folder.path(), &["set", &image, "--path", "."])
        .await
        .report();
    bump(folder.path(), &["set", &image, "--path", "."])
        .await
        .report();
    let rollback = ["rollback", "--image", "app", "--path", ".", "--yes"];
    bump(folder.path(), &rollback)
        .await
        .refused(2, "is not in a git repository");
    bump(
        folder.path(),
        &["set", &image, "--path", ".", "--checkout", "none"],
    )
    .await
    .refused(5, "no folder none");
}

#[tokio::test]
async fn links_that_lead_elsewhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let text = "images:\n- name: app\n";
    std::fs::write(outside.path().join("kustomization.yaml"), text).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("away")).unwrap();
    std::fs::create_dir(folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink(
        outside.path().join("kustomization.yaml"),
        folder.path().join("link/kustomization.yaml"),
    )
    .unwrap();
    let image = format!("app@{A}");
    bump(folder.path(), &["set", &image, "--path", "away"])
        .await
        .refused(3, "away/kustomization.yaml leads through the symbolic link away");
    bump(folder.path(), &["set", &image, "--path", "link"])
        .await
        .refused(3, "is a symbolic link");
    assert_eq!(
        std::fs::read_to_string(outside.path().join("kustomization.yaml")).unwrap(),
        text
    );
}

#[tokio::test]
async fn only_a_commit_needs_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kustomization.yaml");
    std::fs::write(&file, "images:\n- name: app\n  newTag: v1\n").unwrap();
    let nobody = scrubbed(folder.path());
    let digest = format!("app@{A}");
    let set = ["set", "--checkout", ".", "--path", ".", &digest];
    let ended = world::run(&[&set[..], &["--commit"]].concat(), &nobody, folder.path()).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    let ended = world::run(&set, &nobody, folder.path()).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(std::fs::read_to_string(&file).unwrap().contains(A));
}

#[tokio::test]
async fn a_hold_is_not_gone_round_by_another_path_to_the_file() {
    let folder = work_tree();
    let root = folder.path();
    let outside = tempfile::tempdir().unwrap();
    let hold = ["hold", "--image", "app", "--path", "prod", "--reason", "sale"];
    // A hold is not written out of the checkout.
    std::os::unix::fs::symlink(outside.path(), root.join(".towpath")).unwrap();
    bump(root, &hold)
        .await
        .refused(3, "leads through the symbolic link .towpath");
    assert!(files(outside.path()).is_empty());
    std::fs::remove_file(root.join(".towpath")).unwrap();
    bump(root, &hold).await.report();

    let before = files(&root.join("prod"));
    let image = format!("app@{A}");
    std::os::unix::fs::symlink("prod", root.join("alias")).unwrap();
    bump(root, &["set", &image, "--path", "alias"]).await.refused(
        3,
        "alias/kustomization.yaml leads through the symbolic link alias",
    );
    // A repository that git refuses to look into is not taken for none, which would have no holds.
    let mut environment = scrubbed(root);
    environment.insert("GIT_TEST_ASSUME_DIFFERENT_OWNER".into(), "1".into());
    let set = ["set", &image, "--path", "."];
    world::run(&set, &environment, &root.join("prod"))
        .await
        .refused(2, "git does not work in");
    world::run(&set, &scrubbed(root), &root.join("prod"))
        .await
        .refused(4, "sale");
    assert_eq!(files(&root.join("prod")), before);
}

#[tokio::test]
async fn two_names_of_one_entry_are_not_two_images() {
    let folder = tempfile::tempdir().unwrap();
    let text = "images:\n- name: app\n  newName: team/app\n";
    std::fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
    let (one, other) = (format!("app@{A}"), format!("team/app@{B}"));
    bump(folder.path(), &["set", &one, &other, "--path", "."])
        .await
        .refused(2, "mean the entry app in kustomization.yaml");
    let left = std::fs::read_to_string(folder.path().join("kustomization.yaml")).unwrap();
    assert_eq!(left, text);
}
