//! The include templates: valid for GitLab, safe to interpolate into, and true to the tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_norway::Value;
use towpath_sandbox::tools::{Progress, Tools};
use towpath_sandbox::towpath_binaries;
use towpath_tidy::{files, read, repository, schema};

mod keywords;

/// A template, taken apart.
struct Template {
    file: String,
    /// Input name to its definition.
    inputs: BTreeMap<String, Value>,
    /// What follows the `---`, as text.
    body: String,
}

fn templates() -> Vec<Template> {
    let templates: Vec<Template> = files()
        .into_iter()
        .filter(|file| {
            file.starts_with("ci-templates/") && file.matches('/').count() == 1 && file.ends_with(".yml")
        })
        .map(|file| {
            let text = read(&file);
            let (header, body) = text
                .split_once("\n---\n")
                .unwrap_or_else(|| panic!("{file} has no spec header"));
            let header: Value =
                serde_norway::from_str(header).unwrap_or_else(|error| panic!("{file}: {error}"));
            let inputs: BTreeMap<String, Value> = serde_norway::from_value(header["spec"]["inputs"].clone())
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            Template {
                file,
                inputs,
                body: body.to_owned(),
            }
        })
        .collect();
    assert!(
        templates.len() >= 10,
        "five tools, the push after gates, and four chains"
    );
    templates
}

/// The files of a user's repositories, each with its text.
fn examples() -> Vec<(String, String)> {
    let examples: Vec<(String, String)> = files()
        .into_iter()
        .filter(|file| file.starts_with("ci-templates/examples/") && file.ends_with(".gitlab-ci.yml"))
        .map(|file| (file.clone(), read(&file)))
        .collect();
    assert!(examples.len() >= 3, "one for each repository");
    examples
}

fn interpolated(text: &str) -> BTreeSet<&str> {
    text.match_indices("$[[ inputs.")
        .map(|(at, start)| {
            let rest = &text[at + start.len()..];
            rest.split([' ', ']', '|']).next().unwrap_or_default()
        })
        .collect()
}

#[test]
fn every_tool_has_a_template_and_a_page() {
    let names: BTreeSet<String> = templates().into_iter().map(|template| template.file).collect();
    for tool in towpath_binaries::NAMES {
        assert!(
            names.contains(&format!("ci-templates/{tool}.yml")),
            "{tool} has no template"
        );
        assert!(
            !read(&format!("bins/{tool}/README.md")).is_empty(),
            "{tool} has no page"
        );
    }
}

#[test]
fn inputs_are_declared_described_and_bounded() {
    for Template { file, inputs, body } in templates() {
        let used = interpolated(&body);
        for name in &used {
            assert!(
                inputs.contains_key(*name),
                "{file} uses the input {name}, which it does not declare"
            );
        }
        for (name, definition) in &inputs {
            assert!(
                used.contains(name.as_str()),
                "{file} declares the input {name} and does not use it"
            );
            assert!(
                definition["description"].is_string(),
                "{file}: input {name} has no description"
            );
            let kind = definition["type"].as_str().unwrap_or_default();
            let regex = definition["regex"].as_str();
            assert!(
                ["number", "boolean", "array"].contains(&kind)
                    || regex.is_some()
                    || definition["options"].is_sequence(),
                "{file}: input {name} takes any text; give it regex, options or another type"
            );
            if let Some(regex) = regex {
                assert!(
                    regex.starts_with('^') && regex.ends_with('$'),
                    "{file}: the regex of {name} is not anchored"
                );
                let compiled =
                    regex::Regex::new(regex).unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
                if let Some(default) = definition["default"].as_str() {
                    assert!(
                        compiled.is_match(default),
                        "{file}: the default of {name} does not match its regex"
                    );
                }
                for hostile in hostile_values() {
                    assert!(
                        !compiled.is_match(&hostile),
                        "{file}: the regex of {name} lets {:.80?} through",
                        hostile
                    );
                }
                assert!(
                    !compiled.is_match("") || definition["default"] == "",
                    "{file}: the regex of {name} lets nothing at all through, though it has another default"
                );
            }
        }
    }
}

/// What no input may be: text that a shell, YAML or an argument parser would take for something else, and far too much.
fn hostile_values() -> Vec<String> {
    let mut hostile: Vec<String> = [
        "a\nb", "a\n", "\na", "a\rb", "a\tb", "$(id)", "a$(id)", "$HOME", "${HOME}", "`id`", "a'b", "a\"b",
        "a;b", "a b", " a", "a ", "a|b", "a&b", "a\\b", "a>b", "a<b", "a#b", "!a", "&a", "%a", "-a", "--a",
        "-", "a\u{0}b", "\u{e9}", "[[a",
    ]
    .map(str::to_owned)
    .to_vec();
    for unit in [
        "a", "1", "a/", "/a", "a,", "a=a,", "a/a,", "a:a,", "a.", "sha256:",
    ] {
        let long = unit.repeat(9000 / unit.len());
        hostile.push(long.trim_end_matches([',', '/']).to_owned());
        hostile.push(format!("{long}a"));
    }
    hostile
}

/// A chain hands inputs on to its parts. GitLab checks them there too, but the message would name a file that the user
/// never wrote; and in the view that includes nothing any more, the chain's own bounds are all there is.
#[test]
fn what_is_handed_on_is_bounded_the_same() {
    let templates: BTreeMap<String, Template> = templates()
        .into_iter()
        .map(|template| (template.file.clone(), template))
        .collect();
    let mut handed_on = 0;
    for Template { file, inputs, body } in templates.values() {
        let body: Value = serde_norway::from_str(body).unwrap_or_else(|error| panic!("{file}: {error}"));
        for include in body["include"].as_sequence().into_iter().flatten() {
            let local = include["local"].as_str().expect("chains include local files");
            let part = &templates[local.trim_start_matches('/')];
            for (name, value) in include["inputs"].as_mapping().expect("inputs") {
                let (name, value) = (name.as_str().expect("a name"), value.as_str().expect("text"));
                let of_part = &part.inputs[name];
                let Some(outer) = interpolated(value).into_iter().next() else {
                    continue;
                };
                let options = |of: &Value| of["options"].as_sequence().cloned().unwrap_or_default();
                let (ours, theirs) = (options(&inputs[outer]), options(of_part));
                assert!(
                    ours.is_empty() == theirs.is_empty() && ours.iter().all(|option| theirs.contains(option)),
                    "{file}: {outer} has options that {name} in {local} does not have"
                );
                for key in ["type", "regex"] {
                    assert_eq!(
                        inputs[outer].get(key),
                        of_part.get(key),
                        "{file}: the {key} of {outer} is not that of {name} in {local}"
                    );
                }
                handed_on += 1;
            }
            for (name, definition) in &part.inputs {
                assert!(
                    definition.get("default").is_some() || include["inputs"].get(name.as_str()).is_some(),
                    "{file}: {local} is included without {name}"
                );
            }
        }
    }
    assert!(
        handed_on > 60,
        "image.yml and env.yml hand on most of what they take"
    );
}

/// Whoever may start a pipeline chooses the inputs of the file that includes a template, and GitLab fills them in
/// before it reads the YAML: what is not bounded there could add jobs of its own.
#[test]
fn the_examples_bound_their_inputs_too() {
    let mut bounded = 0;
    for (file, text) in examples() {
        let Some((header, body)) = text.split_once("\n---\n") else {
            continue;
        };
        let header: Value = serde_norway::from_str(header).unwrap_or_else(|error| panic!("{file}: {error}"));
        for name in interpolated(body) {
            let regex = header["spec"]["inputs"][name]["regex"]
                .as_str()
                .unwrap_or_else(|| panic!("{file}: the input {name} takes any text"));
            let regex = regex::Regex::new(regex).unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
            for hostile in hostile_values() {
                assert!(
                    !regex.is_match(&hostile),
                    "{file}: {name} lets {:.80?} through",
                    hostile
                );
            }
            bounded += 1;
        }
    }
    assert!(bounded >= 12, "env and infra take six inputs each");
}

/// GitLab fills inputs in before it reads the YAML. Out of quotes, an empty one would be null and a version a number.
#[test]
fn what_is_text_stays_text() {
    let bodies = templates()
        .into_iter()
        .map(|template| (template.file, template.body))
        .chain(examples().into_iter().map(|(file, text)| {
            let body = text.split_once("\n---\n").map_or("", |(_, body)| body).to_owned();
            (file, body)
        }));
    for (file, body) in bodies {
        // Lists are no text: they stand without quotes, which would make texts of them.
        let body = LISTS.iter().fold(body, |body, list| {
            assert!(!body.contains(&format!("\"{list}\"")), "{file}: {list} in quotes");
            body.replace(list, "a-list")
        });
        for value in ["", "1.10", "010", "no", "2026-11-21"] {
            let mut filled = body.clone();
            for name in interpolated(&body) {
                filled = filled.replace(&format!("$[[ inputs.{name} ]]"), value);
            }
            let parse = |text: &str| {
                serde_norway::from_str::<Value>(text).unwrap_or_else(|error| panic!("{file}: {error}"))
            };
            compare(&file, &parse(&body), &parse(&filled), value);
        }
    }
}

const LISTS: [&str; 2] = ["$[[ inputs.rules ]]", "$[[ inputs.needs ]]"];

/// Every text with an input in it has to be the same text with the value in its place.
fn compare(file: &str, template: &Value, filled: &Value, value: &str) {
    match (template, filled) {
        (Value::String(text), _) if text.contains("$[[") => {
            let mut expected = text.clone();
            for name in interpolated(text) {
                expected = expected.replace(&format!("$[[ inputs.{name} ]]"), value);
            }
            assert_eq!(
                filled.as_str().map(str::trim),
                Some(expected.trim()),
                "{file}: {text} with {value:?} is not text; put it in quotes"
            );
        }
        (Value::Sequence(template), Value::Sequence(filled)) => {
            for (template, filled) in template.iter().zip(filled) {
                compare(file, template, filled, value);
            }
        }
        (Value::Mapping(template), Value::Mapping(filled)) => {
            // Keys may hold inputs too; the order is the same.
            for ((_, template), (_, filled)) in template.iter().zip(filled) {
                compare(file, template, filled, value);
            }
        }
        _ => {}
    }
}

#[test]
fn only_choices_reach_a_shell() {
    for Template { file, inputs, body } in templates() {
        let jobs: BTreeMap<String, Value> =
            serde_norway::from_str(&body).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (job, definition) in &jobs {
            for line in script(definition) {
                for name in interpolated(&line) {
                    assert!(
                        inputs[name]["options"].is_sequence() || inputs[name]["type"] == "boolean",
                        "{file}: {job} writes the input {name} into a script; pass it as a variable"
                    );
                }
            }
        }
    }
}

/// The tools refuse a variable that is set but empty, and that is what an input becomes that was not given.
#[test]
fn what_may_be_absent_is_not_passed_on_empty() {
    let mut optional = 0;
    for Template { file, inputs, body } in templates() {
        let jobs: BTreeMap<String, Value> =
            serde_norway::from_str(&body).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (job, definition) in &jobs {
            let script = script(definition).join("\n");
            let rules = serde_norway::to_string(&definition["rules"]).expect("rules are YAML");
            let runs_a_tool = towpath_binaries::NAMES.iter().any(|tool| script.contains(tool));
            let is_a_tools = |name: &str| {
                let handed_over = ["IMAGE_REPOSITORY", "IMAGE_TAG", "IMAGE_DIGEST", "TRACEPARENT"];
                handed_over.contains(&name)
                    || ["TOWPATH_", "VAULT_", "SOURCE_"]
                        .iter()
                        .any(|start| name.starts_with(start))
            };
            for (name, value) in definition["variables"].as_mapping().into_iter().flatten() {
                let (name, value) = (
                    name.as_str().unwrap_or_default(),
                    value.as_str().unwrap_or_default(),
                );
                let may_be_empty = interpolated(value).into_iter().any(|input| {
                    inputs[input]["default"] == "" && !rules.contains(&format!("inputs.{input} "))
                });
                if runs_a_tool && is_a_tools(name) && may_be_empty {
                    let guard = format!("if [ -z \"${name}\" ]; then unset {name}");
                    assert!(script.contains(&guard), "{file}: {job} may pass {name} on empty");
                    optional += 1;
                }
            }
        }
    }
    assert!(optional >= 5, "kustomize-bump has five of them");
}

fn script(job: &Value) -> Vec<String> {
    ["before_script", "script", "after_script"]
        .into_iter()
        .filter_map(|key| job.get(key)?.as_sequence().cloned())
        .flatten()
        .map(|line| line.as_str().expect("script lines are text").to_owned())
        .collect()
}

#[test]
fn flags_and_variables_are_the_tools_own() {
    let bin = towpath_binaries::build().expect("the binaries build");
    let help: BTreeMap<&str, String> = towpath_binaries::NAMES
        .into_iter()
        .map(|tool| (tool, whole_help(&bin, tool)))
        .collect();
    let all_help: String = help.values().cloned().collect();
    for Template { file, body, .. } in templates() {
        let jobs: BTreeMap<String, Value> =
            serde_norway::from_str(&body).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (job, definition) in &jobs {
            for variable in definition["variables"].as_mapping().into_iter().flatten() {
                let name = variable.0.as_str().expect("variables have names");
                if name.starts_with("TOWPATH_") || name.starts_with("VAULT_") {
                    assert!(
                        all_help.contains(name),
                        "{file}: {job} sets {name}, which no tool's help names"
                    );
                }
            }
            for line in script(definition) {
                let mut tool = None;
                for word in line.split_whitespace() {
                    if let Some((name, text)) = help.get_key_value(word) {
                        tool = Some((*name, text));
                    }
                    if let (Some((name, text)), true) = (tool, word.starts_with("--") && word.len() > 2) {
                        let flag = word.split('=').next().unwrap_or(word);
                        assert!(
                            text.contains(flag),
                            "{file}: {job} passes {flag}, which {name} does not know"
                        );
                    }
                }
            }
        }
    }
}

/// The help of a tool and of each of its subcommands.
fn whole_help(bin: &Path, tool: &str) -> String {
    let help = |arguments: &[&str]| {
        let output = Command::new(bin.join(tool))
            .args(arguments)
            .arg("--help")
            .output()
            .expect("the tool runs");
        assert!(output.status.success(), "{tool} --help fails");
        String::from_utf8(output.stdout).expect("help is text")
    };
    let top = help(&[]);
    let subcommands: Vec<String> = top
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        // Names stand two blanks in; descriptions that wrap stand further in.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    subcommands
        .iter()
        .map(|name| help(&[name]))
        .fold(top, |all, one| all + &one)
}

#[tokio::test]
async fn gitlabs_schema_accepts_them() {
    let tools = Tools::find_or_install(&Progress::lines())
        .await
        .expect("the tools are there");
    let folder = tempfile::tempdir().expect("a folder");
    let mut documents = Vec::new();
    for Template { file, inputs, body } in templates() {
        // As GitLab does it: an item that is a list gives way to that list's items.
        let mut filled = body
            .replace("    - $[[ inputs.rules ]]", "    - {if: $X, when: never}")
            .replace("$[[ inputs.rules ]]", "[{if: $X, when: never}]")
            .replace("$[[ inputs.needs ]]", "[some-job]");
        for (name, definition) in &inputs {
            let value = match (&definition["default"], &definition["options"]) {
                (Value::String(text), _) if !text.is_empty() => text.clone(),
                (_, Value::Sequence(options)) => options[0].as_str().unwrap_or("1").to_owned(),
                _ => "a/b".to_owned(),
            };
            filled = filled.replace(&format!("$[[ inputs.{name} ]]"), &value);
        }
        let header = read(&file).split_once("\n---\n").expect("a header").0.to_owned();
        for (part, text) in [("header", header), ("body", filled)] {
            let path = folder
                .path()
                .join(format!("{}.{part}.yml", file.replace('/', "-")));
            std::fs::write(&path, text).expect("written");
            documents.push(path);
        }
    }
    documents.extend(
        files()
            .into_iter()
            .filter(|file| file.starts_with("ci-templates/examples/") && file.ends_with(".gitlab-ci.yml"))
            .map(|file| repository().join(file)),
    );
    let validate = |documents: &[std::path::PathBuf]| {
        schema::check(
            &tools.node,
            &tools.gitlab_ci_local,
            &tools.gitlab_ci_schema,
            documents,
        )
    };
    validate(&documents).unwrap_or_else(|complaints| panic!("{complaints}"));
    // The judge must be able to say no.
    let wrong = folder.path().join("wrong.yml");
    std::fs::write(
        &wrong,
        "job: {script: [true], retry: {max: 99}, when: sometimes}\n",
    )
    .expect("written");
    let complaints = validate(&[wrong]).expect_err("three errors");
    assert!(complaints.contains("/job/retry"), "{complaints}");
}
