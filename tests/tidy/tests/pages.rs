//! The pages say what the tools and templates say: help texts, inputs, exit codes, links.
//!
//! `TOWPATH_UPDATE=1 cargo test -p towpath-tidy --test pages` writes the help texts and the inputs into the pages.

use std::path::Path;
use std::process::Command;

use towpath_sandbox::towpath_binaries;
use towpath_tidy::{files, read, repository};

const OPEN: &str = "<!-- help: ";
const CLOSE: &str = "<!-- /help -->";

/// The help of a tool or subcommand as it is printed where no terminal is.
fn help(bin: &Path, words: &str) -> String {
    let mut words = words.split_whitespace();
    let tool = words.next().expect("a tool's name");
    let output = Command::new(bin.join(tool))
        .args(words)
        .arg("--help")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(
        output.status.success(),
        "{tool} --help: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("help is text");
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// The page with its help texts as they should be, and how many it holds.
fn filled(bin: &Path, page: &str) -> (String, usize) {
    let mut text = String::new();
    let mut rest = page;
    let mut blocks = 0;
    while let Some(at) = rest.find(OPEN) {
        let (before, after) = rest.split_at(at);
        let (words, after) = after[OPEN.len()..].split_once(" -->").expect("the comment ends");
        let (_old, after) = after
            .split_once(CLOSE)
            .unwrap_or_else(|| panic!("no {CLOSE} after {words}"));
        text.push_str(before);
        text.push_str(&format!(
            "{OPEN}{words} -->\n```text\n{}```\n{CLOSE}",
            help(bin, words)
        ));
        rest = after;
        blocks += 1;
    }
    text.push_str(rest);
    (text, blocks)
}

#[test]
fn help_texts_are_the_tools_own() {
    let bin = towpath_binaries::build().expect("the binaries build");
    let update = std::env::var_os("TOWPATH_UPDATE").is_some();
    for package in towpath_binaries::NAMES.into_iter().chain(["towpath-toolbox"]) {
        let file = format!("bins/{package}/README.md");
        let page = read(&file);
        let (expected, blocks) = filled(&bin, &page);
        assert!(blocks > 0, "{file} shows no help text");
        if update {
            std::fs::write(repository().join(&file), &expected).expect("the page is written");
        } else {
            assert!(
                page == expected,
                "{file} shows an old help text; run this test with TOWPATH_UPDATE=1"
            );
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_library() {
    let architecture = read("ARCHITECTURE.md");
    for (code, meaning) in towpath::failure::EXIT_CODES {
        let row = format!("| {code} | {meaning} |");
        assert!(architecture.contains(&row), "ARCHITECTURE.md lacks the row {row}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for file in files().into_iter().filter(|file| file.ends_with(".md")) {
        let text = read(&file);
        let folder = Path::new(&file)
            .parent()
            .expect("a file is in a folder")
            .to_owned();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(
                repository().join(&folder).join(path).exists(),
                "{file} links to {path}, which is not there"
            );
        }
    }
}

/// The page of the templates, with the inputs of each as they are in its file.
#[test]
fn inputs_are_those_of_the_templates() {
    const PAGE: &str = "ci-templates/README.md";
    let page = read(PAGE);
    let (mut expected, mut shown) = (String::new(), Vec::new());
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("<!-- inputs: ") {
        let (name, after) = after.split_once(" -->").expect("the comment ends");
        let (_old, after) = after
            .split_once("<!-- /inputs -->")
            .unwrap_or_else(|| panic!("{PAGE}: the inputs of {name} have no end"));
        expected.push_str(&format!(
            "{before}<!-- inputs: {name} -->\n{}<!-- /inputs -->",
            table(name)
        ));
        shown.push(name.to_owned());
        rest = after;
    }
    expected.push_str(rest);
    if std::env::var_os("TOWPATH_UPDATE").is_some() {
        std::fs::write(repository().join(PAGE), &expected).expect("the page is written");
    } else {
        assert!(
            page == expected,
            "{PAGE} shows old inputs; run this test with TOWPATH_UPDATE=1"
        );
    }
    let mut templates: Vec<String> = files()
        .iter()
        .filter_map(|file| file.strip_prefix("ci-templates/"))
        .filter(|name| name.ends_with(".yml") && !name.contains('/'))
        .map(str::to_owned)
        .collect();
    templates.sort();
    shown.sort();
    assert_eq!(shown, templates, "each template has its inputs on {PAGE}, once");
}

/// The inputs of one template: those that have to be given first, then the others, each in the order of the file.
fn table(name: &str) -> String {
    let text = read(&format!("ci-templates/{name}"));
    let header: serde_norway::Value =
        serde_norway::from_str(text.split("\n---\n").next().unwrap_or_default()).expect("a header");
    let inputs = header["spec"]["inputs"].as_mapping().expect("inputs");
    let plain = |value: &serde_norway::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_sequence() => serde_json::to_string(value).expect("JSON").replace('"', ""),
        None => serde_norway::to_string(value).expect("YAML").trim().to_owned(),
    };
    let row = |name: &str, spec: &serde_norway::Value| {
        let default = match spec.get("default") {
            None => "**required**".to_owned(),
            Some(value) if value == "" => "empty".to_owned(),
            Some(value) => format!("`{}`", plain(value)),
        };
        let options = spec["options"].as_sequence().map(|options| {
            let named = options.iter().map(plain).filter(|option| !option.is_empty());
            let named: Vec<String> = named.map(|option| format!("`{option}`")).collect();
            format!(" ({})", named.join(", "))
        });
        let kind = spec["type"].as_str().filter(|kind| *kind != "string");
        let kind = kind.map_or_else(String::new, |kind| format!(" ({kind})"));
        let what = spec["description"].as_str().expect("a description");
        format!(
            "| `{name}` | {what}{kind}{} | {default} |\n",
            options.unwrap_or_default()
        )
    };
    let rows = |required: bool| -> String {
        inputs
            .iter()
            .filter(|(_, spec)| spec.get("default").is_none() == required)
            .map(|(name, spec)| row(name.as_str().expect("a name"), spec))
            .collect()
    };
    format!(
        "\n| input | what | default |\n|---|---|---|\n{}{}\n",
        rows(true),
        rows(false)
    )
}
