//! The rules of the inputs, as GitLab applies them, and the examples of the page. What the tools make of the same texts is in
//! `scripts.rs`.

use std::collections::BTreeMap;

use serde_norway::Value;
use towpath_sandbox::gitlab::{PipelineRequest, ProjectSettings};

use crate::gitlab_world::World;
use crate::platform::{checkout, files_below, platform, variable};

struct Template {
    name: String,
    inputs: BTreeMap<String, Value>,
    text: String,
}

fn templates() -> Vec<Template> {
    let files = files_below("templates");
    assert_eq!(files.len(), 11);
    files
        .into_iter()
        .map(|(file, text)| {
            let (header, _) = text.split_once("\n---\n").unwrap();
            let header: Value = serde_norway::from_str(header).unwrap();
            Template {
                name: file.split('/').nth(1).unwrap().to_owned(),
                inputs: serde_norway::from_value(header["spec"]["inputs"].clone()).unwrap(),
                text,
            }
        })
        .collect()
}

/// When a pipeline is made with an input, before any job is.
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
        // The last two are letters and digits alone, so that nothing but their length is wrong.
        let (letters, digits) = ("a".repeat(9000), "1".repeat(9000));
        for value in ["a\nb", "$(id)", "a'b", "a\"b", "-a b", "", &letters, &digits] {
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
        let others = template
            .inputs
            .iter()
            .filter(|(_, spec)| spec["type"] != "string");
        for wrong in others.collect::<Vec<_>>().chunks(AT_ONCE) {
            let names = wrong.iter().map(|(name, _)| name.as_str());
            let error = refusal(&world, id, names, "$(id)").await;
            for (name, spec) in wrong {
                let kind = spec["type"].as_str().unwrap();
                let article = if kind == "array" { "an" } else { "a" };
                let said = format!("`{name}` input: provided value is not {article} {kind}");
                assert!(error.contains(&said), "{}: {name}: {error}", template.name);
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
        let on = if takes_inputs || block.contains("rollback") || block.contains("default-branch") {
            "main"
        } else {
            "v1.0.0"
        };
        let made = world.gitlab.run_pipeline(id, world.maintainer, on, request).await;
        made.unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    assert!(examples >= 5, "{examples} examples are on the page");
}
