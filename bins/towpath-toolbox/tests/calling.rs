//! Every tool is there by each way of calling it, and takes its arguments as its own program does.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use towpath_sandbox::towpath_binaries::NAMES;

const PROGRAM: &str = env!("CARGO_BIN_EXE_towpath");

fn run(program: &Path, words: &[&str]) -> Output {
    Command::new(program)
        .args(words)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap()
}

/// What was written to standard output, by a call that succeeded.
fn said(program: &Path, words: &[&str]) -> String {
    let output = run(program, words);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_holds_every_tool() {
    let listed = said(Path::new(PROGRAM), &["--list"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), NAMES);
    let help = said(Path::new(PROGRAM), &["--help"]);
    for name in NAMES {
        assert!(help.contains(&format!("  {name} ")), "{help}");
    }
}

#[test]
fn a_link_and_the_first_argument_call_the_same_tool_each_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let link = folder.path().join(name);
        symlink(PROGRAM, &link).unwrap();
        let version = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(said(&link, &["--version"]), version);
        assert_eq!(said(Path::new(PROGRAM), &[name, "--version"]), version);
        let own = said(&link, &["--help"]);
        let within = said(Path::new(PROGRAM), &[name, "--help"]);
        assert!(own.contains(&format!("Usage: {name} ")), "{own}");
        assert!(within.contains(&format!("Usage: towpath {name} ")), "{within}");
        // What stands above the usage and below it is the same.
        let around = |text: &str| {
            let (above, rest) = text.split_once("\n\nUsage: ").unwrap();
            let (_usage, below) = rest.split_once("\n\n").unwrap();
            format!("{above}{below}")
        };
        assert_eq!(around(&own), around(&within));
    }
}

#[test]
fn a_refusal_is_the_tools_own() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kustomize-bump");
    symlink(PROGRAM, &link).unwrap();
    let (own, within) = (
        run(&link, &["set", "--no-such-flag"]),
        run(Path::new(PROGRAM), &["kustomize-bump", "set", "--no-such-flag"]),
    );
    for (refused, usage) in [
        (own, "Usage: kustomize-bump set "),
        (within, "Usage: towpath kustomize-bump set "),
    ] {
        assert_eq!(refused.status.code(), Some(2));
        let complaint = String::from_utf8(refused.stderr).unwrap();
        assert!(complaint.contains("--no-such-flag"), "{complaint}");
        assert!(complaint.contains(usage), "{complaint}");
    }
}

#[test]
fn a_name_that_is_no_tools_is_refused_with_the_list() {
    for words in [&["kustomize"][..], &[], &[""], &["--verbose", "kustomize-bump"]] {
        let refused = run(Path::new(PROGRAM), words);
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        assert!(refused.stdout.is_empty());
        let complaint = String::from_utf8(refused.stderr).unwrap();
        assert!(complaint.contains(&NAMES.join(", ")), "{complaint}");
    }
}
