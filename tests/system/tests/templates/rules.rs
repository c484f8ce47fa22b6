//! `rules` from outside: which pipelines a job is in, and what it stays held to.

use serde_json::json;
use towpath_sandbox::gitlab::{PipelineRequest, PipelineSnapshot, ProjectSettings, Status};

use crate::gitlab_world::World;
use crate::platform::{TAG, TEMPLATES, platform, variable};

/// A project's pipeline that includes `env.yml` with these inputs, on a branch; with an image or without. None where it
/// would have had no job.
async fn jobs(
    world: &World,
    project: u64,
    inputs: &str,
    branch: &str,
    image: bool,
) -> Option<PipelineSnapshot> {
    let text = format!(
        "# With an image: {image}\nspec:\n  inputs:\n    image_digest:\n      default: ''\n---\ninclude:\n  - project: {TEMPLATES}\n    ref: {TAG}\n    file: /ci-templates/env.yml\n    inputs:\n      path: apps/web\n      image: web\n      application: web\n      infra_project: shop/infra\n      image_digest: \"$[[ inputs.image_digest ]]\"\n{inputs}"
    );
    world
        .push(
            "shop/env",
            branch,
            &[(".gitlab-ci.yml", &text)],
            &["-o", "ci.skip"],
        )
        .await;
    let digest = format!("sha256:{}", "1".repeat(64));
    let given = image.then(|| ("image_digest".to_owned(), json!(digest)));
    let request = PipelineRequest {
        inputs: given.into_iter().collect(),
        ..PipelineRequest::default()
    };
    let made = world
        .gitlab
        .run_pipeline(project, world.maintainer, branch, request)
        .await;
    match made {
        Ok(id) => Some(world.gitlab.pipeline(id).unwrap()),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("would have been empty"), "{error}");
            None
        }
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_decides_and_the_guard_is_before_all() {
    let world = platform(&[], |settings| {
        // Nothing of what they start is meant to run.
        settings.variables.push(variable("PATH", "/nowhere"));
    })
    .await;
    let project = world.project("shop/env", ProjectSettings::default()).await;
    let main = "      rules: [{if: $CI_COMMIT_BRANCH == \"main\"}]\n";
    let any = "      rules: [{if: $CI_COMMIT_BRANCH}]\n";
    let none = "      rules: [{when: never}]\n";
    let at_once = "      rules: [{when: on_success}]\n";
    let open = "      protected_only: false\n";
    let manual = "      start: manual\n";
    for (inputs, branch, image, runs) in [
        (String::new(), "main", false, false),
        (String::new(), "main", true, true),
        (main.to_owned(), "main", false, true),
        (any.to_owned(), "main", false, true),
        // The guard comes first.
        (any.to_owned(), "topic", true, false),
        (format!("{any}{open}"), "topic", false, true),
        (format!("{main}{open}"), "topic", false, false),
        // What comes before the template's own rule has the word.
        (none.to_owned(), "main", true, false),
        (at_once.to_owned(), "main", false, true),
    ] {
        let made = jobs(&world, project, &inputs, branch, image).await;
        let names: Vec<String> = made
            .iter()
            .flat_map(|made| &made.jobs)
            .map(|job| job.name.clone())
            .collect();
        let expected: &[&str] = if runs {
            &["kustomize-bump", "argocd-wait", "infra-trigger"]
        } else {
            &[]
        };
        assert_eq!(names, expected, "{branch}, image {image}:\n{inputs}");
    }
    // A person has to press it whatever rule it is there by, and the pipeline waits for that.
    for (rules, status) in [("", Status::Manual), (main, Status::Manual)] {
        let made = jobs(&world, project, &format!("{manual}{rules}"), "main", true)
            .await
            .unwrap();
        let bump = made.job("kustomize-bump").unwrap();
        assert_eq!((bump.status, bump.allow_failure), (status, false), "{rules}");
        assert_eq!(made.status, Status::Manual, "{rules}");
    }
    let made = jobs(&world, project, &format!("{manual}{at_once}"), "main", true)
        .await
        .unwrap();
    assert_ne!(
        made.job("kustomize-bump").unwrap().status,
        Status::Manual,
        "unless that rule says otherwise"
    );
}
