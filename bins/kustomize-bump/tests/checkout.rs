//! Files edited in a folder: golden folders judged by kustomize itself, and commits in a work tree.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use towpath::kustomize::{ImageSpec, Kustomization, Pin};
use world::{A, B, Ended, Numbers, scrubbed};

/// Runs the binary in a folder, as the person `Ada`.
async fn bump(folder: &Path, arguments: &[&str]) -> Ended {
    let mut environment = scrubbed(folder);
    environment.insert("TOWPATH_GIT_AUTHOR".into(), "Ada".into());
    environment.insert("TOWPATH_GIT_AUTHOR_EMAIL".into(), "ada@example.com".into());
    world::run(arguments, &environment, folder).await
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (name, content) in files(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// What kustomize makes of a folder.
fn build(folder: &Path) -> String {
    let output = Command::new(world::kubectl())
        .arg("kustomize")
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Each case is a folder with `original/`, `expected/`, `arguments` (one a line; `{A}` and `{B}` are digests) and
/// `images` (what the build has to name, one a line); or with `refusal`, its words, in the place of the last two.
#[tokio::test]
async fn golden_folders_change_as_expected_and_still_build() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (mut seen, mut refused) = (0, 0);
    for entry in std::fs::read_dir(&cases).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let filled = |file: &str| {
            let text = std::fs::read_to_string(case.join(file)).unwrap();
            text.replace("{A}", A).replace("{B}", B)
        };
        let folder = tempfile::tempdir().unwrap();
        copy(&case.join("original"), folder.path());
        let arguments = filled("arguments");
        let arguments: Vec<&str> = arguments.lines().collect();
        let ended = bump(folder.path(), &arguments).await;
        if case.join("refusal").exists() {
            ended.refused(3, filled("refusal").trim());
            assert_eq!(files(folder.path()), files(&case.join("original")), "{name}");
            refused += 1;
            continue;
        }
        let report = ended.report();
        assert_eq!(
            (&report["changed"], &report["commit"]),
            (&true.into(), &Value::Null),
            "{name}"
        );
        let expected = files(&case.join("expected"));
        let actual = files(folder.path());
        assert_eq!(
            actual.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (file, content) in expected {
            let actual = String::from_utf8_lossy(&actual[&file]).into_owned();
            assert_eq!(
                actual,
                String::from_utf8_lossy(&content),
                "{name}: {}",
                file.display()
            );
        }
        let built = build(&folder.path().join("prod"));
        for image in filled("images").lines() {
            assert!(
                built.contains(&format!("image: {image}\n")),
                "{name}: {image} is not in\n{built}"
            );
        }
        assert_eq!(
            bump(folder.path(), &arguments).await.report()["changed"],
            false,
            "{name}: a second run"
        );
        seen += 1;
    }
    assert!(
        seen >= 30 && refused >= 7,
        "only {seen} and {refused} cases were found"
    );
}

/// Random files of many styles: what kustomize builds after an edit is what was asked for, and what it built before of
/// all others. What is refused stays as it is.
#[test]
fn kustomize_builds_what_random_edits_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let containers: String = ["app", "api", "web"]
        .iter()
        .map(|name| format!("  - name: {name}\n    image: {name}:v0\n"))
        .collect();
    let pod =
        format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: all\nspec:\n  containers:\n{containers}");
    std::fs::write(folder.path().join("pod.yaml"), pod).unwrap();
    let file = folder.path().join("kustomization.yaml");
    let named = |built: &str, image: &str| {
        let container = built
            .split("  - image: ")
            .find(|part| part.contains(&format!("name: {image}\n")));
        container.unwrap().lines().next().unwrap().to_owned()
    };
    for seed in 0..48 {
        let mut numbers = Numbers(seed);
        let text = styled(&mut numbers);
        std::fs::write(&file, &text).unwrap();
        let before = build(folder.path());
        let tags = ["v2", "1.10", "0x1f", "1e3", "20240131", "on", "1_000", "08"];
        let (tag, pin) = (numbers.pick(&tags), numbers.below(3));
        let pin = [Pin::Digest, Pin::Tag, Pin::Both][pin];
        let spec: ImageSpec = format!("app=host:5000/team/app:{tag}@{B}").parse().unwrap();
        let parsed = Kustomization::parse("kustomization.yaml", text.as_bytes()).unwrap();
        let edit = parsed.set(&spec, pin, true).unwrap();
        std::fs::write(&file, &edit.text).unwrap();
        let after = build(folder.path());
        let wanted = match pin {
            Pin::Tag => format!("host:5000/team/app:{tag}"),
            // The tag that stands beside a digest is part of the name that is built.
            Pin::Digest | Pin::Both => match &edit.new.tag {
                Some(tag) => format!("host:5000/team/app:{tag}@{B}"),
                None => format!("host:5000/team/app@{B}"),
            },
        };
        assert_eq!(
            named(&after, "app"),
            wanted,
            "seed {seed}:\n{text}\n{}",
            edit.text
        );
        for other in ["api", "web"] {
            assert_eq!(
                named(&after, other),
                named(&before, other),
                "seed {seed}:\n{}",
                edit.text
            );
        }
    }
}

/// A kustomization with entries in the styles that people write.
fn styled(numbers: &mut Numbers) -> String {
    let mut text = String::from("# shop\nresources: [pod.yaml]\n\nimages:");
    let flow = numbers.below(4) == 0;
    let indent = ["", "  "][numbers.below(2)];
    text.push_str(if flow { " [\n" } else { " # front\n" });
    let names: &[&str] = [&["app", "api"][..], &["api", "app", "web"], &["web", "api"]][numbers.below(3)];
    for name in names {
        let quote = ["", "'", "\""][numbers.below(3)];
        let mut fields = vec![format!("name: {quote}{name}{quote}")];
        if numbers.below(3) == 0 {
            fields.push(format!("newName: {quote}mirror/{name}{quote}"));
        }
        if numbers.below(2) == 0 {
            fields.push(format!("newTag: {}", ["v1", "'1.9'", "\"on\""][numbers.below(3)]));
        }
        if numbers.below(2) == 0 {
            fields.push(format!("digest: {quote}{A}{quote}"));
        }
        let middle = 1 + numbers.below(fields.len());
        if flow {
            text.push_str(&format!("  {{{}}}, # {name}\n", fields.join(", ")));
            continue;
        }
        for (number, field) in fields.iter().enumerate() {
            let lead = if number == 0 { "- " } else { "  " };
            let comment = if number + 1 == middle { " # kept" } else { "" };
            text.push_str(&format!("{indent}{lead}{field}{comment}\n"));
        }
    }
    text.push_str(if flow { "]\n" } else { "" });
    text.push_str(["", "namePrefix: eu-\n", "\n# the end"][numbers.below(3)]);
    match numbers.below(3) {
        0 => text.replace('\n', "\r\n"),
        _ => text,
    }
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
