//! One version of each dependency, and licences we may ship.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use towpath_tidy::repository;

/// Crates of which two versions are in the tree for a reason that is not ours to mend: name, and who holds on to the
/// other version. A line that is not needed any more fails the test too.
const TWICE: &[(&str, &str)] = &[
    ("base64", "oci-client holds on to 0.22"),
    ("getrandom", "ring holds on to 0.2"),
    ("hashbrown", "rowan, under yaml-edit, holds on to 0.14"),
    (
        "syn",
        "derive macros in use are of three generations; none of it is in a binary",
    ),
    ("synstructure", "rustify_derive, under vaultrs, holds on to 0.12"),
    ("thiserror", "rustify, under vaultrs, holds on to 1"),
    ("thiserror-impl", "comes with thiserror"),
];

/// Licences that go with Apache-2.0 in a binary that is handed out.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> Value {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is text in {value}"))
}

/// The packages that are built on Linux, by id.
fn used(metadata: &Value) -> Vec<&Value> {
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let ids: BTreeSet<&str> = nodes.iter().map(|node| text(node, "id")).collect();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .filter(|package| ids.contains(text(package, "id")))
        .collect()
}

#[test]
fn one_version_of_each_dependency() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in used(&metadata) {
        versions
            .entry(text(package, "name"))
            .or_default()
            .insert(text(package, "version"));
    }
    let twice: BTreeSet<&str> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, _)| *name)
        .collect();
    let known: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let new: Vec<String> = twice
        .difference(&known)
        .map(|name| format!("{name}: {:?}", versions[name]))
        .collect();
    assert!(
        new.is_empty(),
        "two versions of one crate (cargo tree -d tells why):\n{}",
        new.join("\n")
    );
    let gone: Vec<&&str> = known.difference(&twice).collect();
    assert!(
        gone.is_empty(),
        "these are there once again, take them off the list: {gone:?}"
    );
}

#[test]
fn licences_may_be_shipped() {
    let metadata = metadata();
    let mut refused = Vec::new();
    for package in used(&metadata) {
        let name = text(package, "name");
        let Some(licence) = package["license"].as_str() else {
            refused.push(format!("{name} names no licence"));
            continue;
        };
        if !acceptable(licence) {
            refused.push(format!("{name}: {licence}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn dependencies_come_from_the_registry_or_from_here() {
    let metadata = metadata();
    for package in used(&metadata) {
        let source = package["source"].as_str().unwrap_or("here");
        let fine = source == "here" || source.starts_with("registry+");
        assert!(fine, "{} comes from {source}", text(package, "name"));
    }
}

/// Judges an SPDX expression of names, AND, OR and one level of parentheses, which is all that crates use.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let whole = expression.trim();
    if LICENCES.contains(&whole) {
        return true;
    }
    let mut depth = 0;
    for operator in [" AND ", " OR "] {
        for (at, letter) in whole.char_indices() {
            match letter {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 && whole[at..].starts_with(operator) {
                let (left, right) = (
                    acceptable(&whole[..at]),
                    acceptable(&whole[at + operator.len()..]),
                );
                return if operator == " AND " {
                    left && right
                } else {
                    left || right
                };
            }
        }
    }
    whole
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .is_some_and(acceptable)
}

#[test]
fn licence_expressions_are_judged() {
    for fine in [
        "MIT",
        "MIT OR GPL-3.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "MIT/Apache-2.0",
    ] {
        assert!(acceptable(fine), "{fine}");
    }
    for wrong in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND SSPL-1.0",
        "",
    ] {
        assert!(!acceptable(wrong), "{wrong}");
    }
}
