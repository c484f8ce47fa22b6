//! `templates/`: the include templates as CI/CD components, each a file that includes nothing.
//!
//! `TOWPATH_UPDATE=1 cargo test -p towpath-tidy --test components` makes it from `ci-templates/`, where changes belong.
//!
//! GitLab looks for components there. The files are also what `include: remote` takes: a file from an address has no
//! project around it that `include: local` could mean. So a chain is written out: the parts that it includes stand in it,
//! with the inputs that it gives them in their places, and the defaults of the others.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Captures, Regex};
use serde_norway::Value;
use towpath_tidy::{files, read, repository};

const SOURCE: &str = "ci-templates";
const VIEW: &str = "templates";

/// A template as text: the comment at its top, its header and what follows the `---`.
struct Template {
    comment: String,
    header: String,
    body: String,
}

fn template(name: &str) -> Template {
    let file = format!("{SOURCE}/{name}.yml");
    let text = read(&file);
    let (head, body) = text
        .split_once("\n---\n")
        .unwrap_or_else(|| panic!("{file} has no spec header"));
    let at = head
        .find("spec:\n")
        .unwrap_or_else(|| panic!("{file} has no spec"));
    Template {
        comment: head[..at].to_owned(),
        header: head[at..].to_owned(),
        body: body.to_owned(),
    }
}

/// The names of the templates.
fn names() -> BTreeSet<String> {
    let names: BTreeSet<String> = files()
        .iter()
        .filter_map(|file| file.strip_prefix(&format!("{SOURCE}/"))?.strip_suffix(".yml"))
        .filter(|name| !name.contains('/'))
        .map(str::to_owned)
        .collect();
    assert!(names.contains("image"), "the templates are in {SOURCE}");
    names
}

/// The body of a template with these values for its inputs, and the parts that it includes written out.
fn written_out(name: &str, values: &BTreeMap<String, String>) -> String {
    let Template { header, body, .. } = template(name);
    let spec: Value = serde_norway::from_str(&header).unwrap_or_else(|error| panic!("{name}: {error}"));
    let filled = Regex::new(r"\$\[\[ inputs\.([a-z_]+) \]\]")
        .expect("a good pattern")
        .replace_all(&body, |found: &Captures<'_>| {
            let input = &found[1];
            let default = &spec["spec"]["inputs"][input]["default"];
            let default = || default.as_str().map_or_else(|| plain(default), str::to_owned);
            values.get(input).cloned().unwrap_or_else(default)
        })
        .into_owned();
    let parsed: Value = serde_norway::from_str(&filled).unwrap_or_else(|error| panic!("{name}: {error}"));
    let Some(includes) = parsed["include"].as_sequence() else {
        return filled;
    };
    assert_eq!(
        parsed.as_mapping().map(serde_norway::Mapping::len),
        Some(1),
        "{name}: a chain holds includes alone"
    );
    let parts = includes.iter().map(|include| {
        let local = include["local"].as_str().expect("a chain includes local files");
        let part = local
            .strip_prefix(&format!("/{SOURCE}/"))
            .and_then(|file| file.strip_suffix(".yml"))
            .unwrap_or_else(|| panic!("{name} includes {local}"));
        let given = include["inputs"].as_mapping().into_iter().flatten();
        let given = given.map(|(key, value)| {
            let key = key.as_str().expect("inputs have names");
            (
                key.to_owned(),
                value.as_str().map_or_else(|| plain(value), str::to_owned),
            )
        });
        written_out(part, &given.collect())
    });
    parts.collect::<Vec<_>>().join("\n")
}

fn plain(value: &Value) -> String {
    serde_norway::to_string(value).expect("YAML").trim().to_owned()
}

/// The inputs of a template, each standing for itself.
fn own_inputs(name: &str) -> BTreeMap<String, String> {
    let spec: Value = serde_norway::from_str(&template(name).header).expect("a header");
    let inputs = spec["spec"]["inputs"].as_mapping().expect("inputs");
    let keys = inputs.keys().filter_map(Value::as_str);
    keys.map(|key| (key.to_owned(), format!("$[[ inputs.{key} ]]")))
        .collect()
}

fn component(name: &str) -> String {
    let Template { comment, header, .. } = template(name);
    format!(
        "# Made from {SOURCE}/{name}.yml, where changes belong: TOWPATH_UPDATE=1 cargo test -p towpath-tidy --test components\n#\n{comment}{header}\n---\n{}",
        written_out(name, &own_inputs(name))
    )
}

#[test]
fn the_view_is_made_from_the_templates() {
    let update = std::env::var_os("TOWPATH_UPDATE").is_some();
    let mut expected = BTreeSet::new();
    for name in names() {
        let file = format!("{VIEW}/{name}/template.yml");
        let text = component(&name);
        if update {
            let path = repository().join(&file);
            std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
            std::fs::write(path, text).expect("the component is written");
        } else {
            let there = std::fs::read_to_string(repository().join(&file)).unwrap_or_default();
            assert!(
                there == text,
                "{file} is old; run this test with TOWPATH_UPDATE=1"
            );
        }
        expected.insert(file);
    }
    let there: BTreeSet<String> = files()
        .into_iter()
        .filter(|file| file.starts_with(&format!("{VIEW}/")))
        .collect();
    let left: Vec<&String> = there.difference(&expected).collect();
    assert!(left.is_empty(), "{left:?} is made from no template");
}

#[test]
fn a_component_stands_alone() {
    for name in names() {
        let text = component(&name);
        let (header, body) = text.split_once("\n---\n").expect("a header");
        let header: Value = serde_norway::from_str(header).unwrap_or_else(|error| panic!("{name}: {error}"));
        let body_read: Value = serde_norway::from_str(body).unwrap_or_else(|error| panic!("{name}: {error}"));
        let keys = body_read.as_mapping().expect("jobs").keys();
        for key in keys.filter_map(Value::as_str) {
            // GitLab's rules for components: no global keywords. And no include, which is what makes it stand alone.
            assert!(
                ![
                    "include",
                    "default",
                    "variables",
                    "stages",
                    "workflow",
                    "image",
                    "services",
                    "cache",
                    "before_script",
                    "after_script"
                ]
                .contains(&key),
                "{name} has the global keyword {key}"
            );
        }
        let declared = header["spec"]["inputs"].as_mapping().expect("inputs");
        for (at, start) in body.match_indices("$[[ inputs.") {
            let rest = &body[at + start.len()..];
            let input = rest.split(' ').next().unwrap_or_default();
            assert!(
                declared.contains_key(input),
                "{name} uses {input}, which it does not declare"
            );
        }
        for input in declared.keys().filter_map(Value::as_str) {
            assert!(
                body.contains(&format!("$[[ inputs.{input} ]]")),
                "{name} declares {input} and does not use it"
            );
        }
    }
}
