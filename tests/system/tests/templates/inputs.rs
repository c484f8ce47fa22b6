//! Every text that an input may be, tried on both who check it: the rule in the template, and the tool that gets it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_norway::Value;
use towpath_sandbox::gitlab::{PipelineRequest, ProjectSettings};
use towpath_sandbox::towpath_binaries;

use crate::gitlab_world::World;
use crate::platform::{checkout, files_below, platform, variable};

/// A template's inputs, and the variables of its jobs that are one input and nothing else.
struct Template {
    name: String,
    inputs: BTreeMap<String, Value>,
    variables: Vec<(String, String)>,
    text: String,
}

fn templates() -> Vec<Template> {
    let files = files_below("templates");
    assert_eq!(files.len(), 11);
    let single = regex::Regex::new(r#"(?m)^    ([A-Z_]+): "\$\[\[ inputs\.([a-z_]+) \]\]"$"#).unwrap();
    files
        .into_iter()
        .map(|(file, text)| {
            let (header, body) = text.split_once("\n---\n").unwrap();
            let header: Value = serde_norway::from_str(header).unwrap();
            let variables = single.captures_iter(body);
            Template {
                name: file.split('/').nth(1).unwrap().to_owned(),
                inputs: serde_norway::from_value(header["spec"]["inputs"].clone()).unwrap(),
                variables: variables
                    .map(|found| (found[1].to_owned(), found[2].to_owned()))
                    .collect(),
                text,
            }
        })
        .collect()
}

/// A command that gets as far as asking a server, which is not there.
fn command(bin: &Path, folder: &Path, tool: &str) -> Command {
    let digest = format!("sha256:{}", "a".repeat(64));
    let (arguments, variables): (Vec<String>, Vec<(&str, &str)>) = match tool {
        "vault-scw-creds" => (
            vec!["exec".into(), "--".into(), "true".into()],
            vec![
                ("VAULT_ADDR", "http://127.0.0.1:9"),
                ("TOWPATH_VAULT_ROLE", "image"),
                ("TOWPATH_JWT_FILE", "jwt"),
                ("TOWPATH_SECRET", "scaleway/registry"),
            ],
        ),
        "image-build" => (
            vec!["push".into(), "image".into()],
            vec![
                ("TOWPATH_REPOSITORY", "127.0.0.1:9/shop/web"),
                ("CI_COMMIT_TAG", "v1.0.0"),
            ],
        ),
        "image-promote-by-digest" => (
            vec![
                format!("127.0.0.1:9/shop/web@{digest}"),
                "127.0.0.1:9/shop/web:1".into(),
            ],
            vec![],
        ),
        "env-trigger" => (
            vec![],
            vec![
                ("CI_API_V4_URL", "http://127.0.0.1:9/api/v4"),
                ("TOWPATH_PROJECT", "shop/env"),
                ("TOWPATH_GITLAB_TOKEN", "glpat-none"),
            ],
        ),
        "argocd-wait" => (
            vec![
                format!("--image=127.0.0.1:9/shop/web@{digest}"),
                format!("--revision={}", "c".repeat(40)),
            ],
            vec![
                ("ARGOCD_SERVER", "http://127.0.0.1:9"),
                ("ARGOCD_AUTH_TOKEN", "none"),
                ("TOWPATH_APPLICATION", "web"),
            ],
        ),
        _ => (
            vec!["set".into()],
            vec![
                ("TOWPATH_REPO", "http://127.0.0.1:9/shop/env.git"),
                ("TOWPATH_PATH", "apps/web"),
                ("TOWPATH_IMAGE", "web"),
                ("IMAGE_DIGEST", &digest),
                ("TOWPATH_GIT_TOKEN", "none"),
            ],
        ),
    };
    let mut command = Command::new(bin.join(tool));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("TOWPATH_TIMEOUT", "5s")
        .envs(variables)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// What no tool takes for any of them.
const REFUSED_BY_ALL: [&str; 3] = ["", "a\nb", "\t"];
/// What only names that may hold such signs are taken with: they go on as data, never to a shell.
const REFUSED_BY_MOST: [&str; 4] = ["$(id)", "`id`", "a'b", "a\"b"];
/// Those names: references of git, folders, entries of a kustomization, keys in files, and what Vault looks up.
const NAMES: [&str; 9] = [
    "TOWPATH_REF",
    "TOWPATH_PATH",
    "TOWPATH_IMAGE",
    "TOWPATH_SIGNING_KEY",
    "SOURCE_PROJECT",
    "SOURCE_COMMIT",
    "TOWPATH_VAULT_ROLE",
    "TOWPATH_VAULT_AUTH_MOUNT",
    "VAULT_NAMESPACE",
];

#[test]
fn what_the_rules_refuse_the_tools_refuse_too() {
    const USAGE: i32 = 2;
    let bin = towpath_binaries::build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jwt"), "a.b.c").unwrap();
    let help = |tool: &str, subcommands: &[&str]| {
        let texts = subcommands.iter().map(|subcommand| {
            let words = subcommand.split_whitespace().chain(["--help"]);
            let output = Command::new(bin.join(tool))
                .args(words)
                .env_clear()
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        texts.collect::<String>()
    };
    let tools = [
        ("vault-scw-creds", help("vault-scw-creds", &["exec"])),
        ("image-build", help("image-build", &["push"])),
        ("image-promote-by-digest", help("image-promote-by-digest", &[""])),
        ("env-trigger", help("env-trigger", &[""])),
        ("argocd-wait", help("argocd-wait", &[""])),
        ("kustomize-bump", help("kustomize-bump", &["set"])),
    ];
    for (tool, _) in &tools {
        let output = command(&bin, folder.path(), tool).output().unwrap();
        let code = output.status.code();
        assert!(
            code != Some(USAGE) && code != Some(0),
            "{tool}: {output:?} should get as far as a server"
        );
    }
    let mut tried = 0;
    let mut seen = std::collections::BTreeSet::new();
    for template in templates() {
        for (variable, input) in &template.variables {
            let spec = &template.inputs[input];
            for (tool, help) in &tools {
                let is_its_own = help.contains(&format!("env: {variable}]"));
                if !is_its_own || !seen.insert((*tool, variable.clone())) {
                    continue;
                }
                let most = if NAMES.contains(&variable.as_str()) {
                    &[][..]
                } else {
                    &REFUSED_BY_MOST
                };
                for value in REFUSED_BY_ALL.iter().chain(most) {
                    if let Some(rule) = spec["regex"].as_str() {
                        let rule = regex::Regex::new(rule).unwrap();
                        let may_be_left_out = value.is_empty() && spec["default"] == "";
                        assert!(
                            may_be_left_out || !rule.is_match(value),
                            "{}: {input} takes {value:?}",
                            template.name
                        );
                    }
                    let output = command(&bin, folder.path(), tool)
                        .env(variable, value)
                        .output()
                        .unwrap();
                    assert_eq!(
                        output.status.code(),
                        Some(USAGE),
                        "{tool} with {variable}={value:?}: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 200, "{tried} values were tried");
}

/// The rules again, as GitLab applies them: when a pipeline is made with an input, before any job is.
#[tokio::test]
async fn no_pipeline_is_made_with_a_wrong_input() {
    /// As many inputs as GitLab takes for one pipeline.
    const AT_ONCE: usize = 20;
    let world = platform(&[], |settings| settings.limits.pipelines_per_minute = 100_000).await;
    let id = world.project("group/app", ProjectSettings::default()).await;
    for template in templates() {
        // The component is the pipeline's own file here, so that its inputs are the pipeline's: all of them are tried.
        world
            .push(
                "group/app",
                "main",
                &[(".gitlab-ci.yml", &template.text)],
                &["-o", "ci.skip"],
            )
            .await;
        let texts: Vec<(&String, &Value)> = template
            .inputs
            .iter()
            .filter(|(_, spec)| spec["type"] == "string")
            .collect();
        for value in ["a\nb", "$(id)", "a'b", "a\"b", "-a b", &"x ".repeat(3000), ""] {
            let wrong = texts
                .iter()
                .filter(|(_, spec)| !(value.is_empty() && spec["default"] == ""));
            // Many inputs get it at once, since a refusal names each one that is wrong.
            for wrong in wrong.collect::<Vec<_>>().chunks(AT_ONCE) {
                let error = refusal(&world, id, wrong.iter().map(|(name, _)| name.as_str()), value).await;
                for (name, spec) in wrong {
                    let said = if spec.get("options").is_some() {
                        format!("`{name}` input: `{value}` cannot be used because it is not in the list")
                    } else {
                        format!("`{name}` input: provided value does not match required RegEx pattern")
                    };
                    assert!(
                        error.contains(&said),
                        "{}: {name}={value:.60?}: {error:.4000}",
                        template.name
                    );
                }
            }
        }
    }
}

async fn refusal(world: &World, project: u64, names: impl Iterator<Item = &str>, value: &str) -> String {
    let request = PipelineRequest {
        inputs: names.map(|name| (name.to_owned(), value.into())).collect(),
        ..PipelineRequest::default()
    };
    let made = world
        .gitlab
        .run_pipeline(project, world.maintainer, "main", request)
        .await;
    made.expect_err("a wrong input").to_string()
}

/// What stands on the page to be copied is taken by GitLab as it stands there.
#[tokio::test]
async fn the_examples_of_the_page_make_pipelines() {
    let world = platform(&[], |settings| {
        // Nothing of what they start is meant to run.
        settings.variables.push(variable("PATH", "/nowhere"));
    })
    .await;
    let page = std::fs::read_to_string(checkout().join("ci-templates/README.md")).unwrap();
    let example =
        std::fs::read_to_string(checkout().join("ci-templates/examples/env/.gitlab-ci.yml")).unwrap();
    let (header, _) = example.split_once("\n---\n").unwrap();
    let mut examples = 0;
    for block in page.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let takes_inputs = block.contains("$[[ inputs.");
        let text = if takes_inputs {
            format!("{header}\n---\n{block}")
        } else {
            block.to_owned()
        };
        let text = text.replace("https://gitlab.example.com", world.gitlab.url());
        examples += 1;
        let path = format!("group/example-{examples}");
        let id = world.project(&path, ProjectSettings::default()).await;
        world
            .push(&path, "main", &[(".gitlab-ci.yml", &text)], &["-o", "ci.skip"])
            .await;
        let clone = world.clone_of(&path, "main").await;
        world.git(&clone, &["tag", "v1.0.0"]).await.unwrap();
        world
            .git(&clone, &["push", "--quiet", "-o", "ci.skip", "origin", "v1.0.0"])
            .await
            .unwrap();
        let digest = format!("sha256:{}", "1".repeat(64));
        let request = PipelineRequest {
            inputs: takes_inputs
                .then(|| ("image_digest".to_owned(), digest.into()))
                .into_iter()
                .collect(),
            ..PipelineRequest::default()
        };
        let on = if takes_inputs || block.contains("rollback") {
            "main"
        } else {
            "v1.0.0"
        };
        let made = world.gitlab.run_pipeline(id, world.maintainer, on, request).await;
        made.unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    assert!(examples >= 5, "{examples} examples are on the page");
}
