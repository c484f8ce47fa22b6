//! Rules about source files and about what may be said in the repository.

use towpath_tidy::{files, read};

/// Past this a file is split by noun.
const LINES: usize = 600;

fn sources() -> Vec<String> {
    files().into_iter().filter(|file| file.ends_with(".rs")).collect()
}

#[test]
fn files_stay_short_enough_to_read() {
    let long: Vec<String> = sources()
        .into_iter()
        .map(|file| (read(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > LINES)
        .map(|(lines, file)| format!("{file}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "split these by noun:\n{}", long.join("\n"));
}

#[test]
fn names_say_what_is_inside() {
    let vague = ["utils", "util", "common", "helpers", "helper", "misc"];
    let named: Vec<String> = files()
        .into_iter()
        .filter(|file| {
            file.split('/')
                .any(|part| vague.contains(&part.split('.').next().unwrap_or(part)))
        })
        .collect();
    assert!(named.is_empty(), "find a noun for: {named:?}");
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here so that this file does not find itself.
    let marks = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["FIX", "ME"],
        ["#[ig", "nore]"],
    ]
    .map(|mark| mark.concat());
    for file in sources() {
        let text = read(&file);
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{file} holds {mark}");
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|file| !read(file).starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "these begin without a module doc: {silent:?}");
}

#[test]
fn no_host_of_a_package_registry_is_named() {
    let hosts = [
        ["index.cra", "tes.io"],
        ["static.cra", "tes.io"],
        ["python", "hosted.org"],
        ["registry.np", "mjs.org"],
        ["deb.deb", "ian.org"],
        ["proxy.go", "lang.org"],
    ]
    .map(|host| host.concat());
    for file in files().into_iter().filter(|file| file != "Cargo.lock") {
        let Ok(text) = std::fs::read_to_string(towpath_tidy::repository().join(&file)) else {
            continue;
        };
        for host in &hosts {
            assert!(
                !text.contains(host.as_str()),
                "{file} names {host}: leave that to the clients' configuration"
            );
        }
    }
}

/// The systems that lib speaks to. Each one's client must be usable without the others.
const SYSTEMS: [&str; 9] = [
    "oci",
    "vault",
    "scaleway",
    "gitlab",
    "git",
    "kustomize",
    "kaniko",
    "argocd",
    "kubernetes",
];

/// Pure types that may be shared between systems: a path below `crate::`.
const SHARED: [&str; 10] = [
    "argocd::application",
    "argocd::tree",
    "oci::reference",
    "oci::digest",
    "oci::platform",
    "oci::credentials::render",
    "git::commit",
    "git::files",
    "git::landing",
    "git::revision",
];

#[test]
fn no_client_imports_another() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.starts_with("lib/src/")) {
        let Some(own) = SYSTEMS
            .into_iter()
            .find(|system| file.starts_with(&format!("lib/src/{system}/")))
        else {
            continue;
        };
        for (number, line) in read(file).lines().enumerate() {
            for other in SYSTEMS.into_iter().filter(|other| *other != own) {
                let is_code = !line.trim_start().starts_with("//");
                let imported = ["crate::", "super::"].into_iter().flat_map(|from| {
                    line.match_indices(&format!("{from}{other}::"))
                        .map(move |(at, _)| &line[at + from.len()..])
                        .collect::<Vec<_>>()
                });
                // A list in braces could hide one.
                let hidden = line.contains("crate::{");
                let named = imported
                    .into_iter()
                    .any(|import| !SHARED.iter().any(|pure| import.starts_with(pure)));
                if is_code && (named || hidden) {
                    wrong.push(format!("{file}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a client of one system imports another's:\n{}",
        wrong.join("\n")
    );
}

/// What one module of the library does for all others, by the words that give it away.
const KEPT_TO_ONE: [(&str, &str); 5] = [
    ("env::var", "lib/src/cli/"),
    ("env::args", "lib/src/cli/"),
    ("reqwest::", "lib/src/http/"),
    ("process::Command::new", "lib/src/process/"),
    ("unsafe {", "lib/src/process/"),
];

#[test]
fn what_one_module_is_for_no_other_does() {
    for file in sources().iter().filter(|file| file.starts_with("lib/src/")) {
        for (number, line) in read(file).lines().enumerate() {
            for (word, module) in KEPT_TO_ONE {
                assert!(
                    file.starts_with(module) || line.trim_start().starts_with("//") || !line.contains(word),
                    "{file}:{}: {word} belongs into {module}",
                    number + 1
                );
            }
        }
    }
}
