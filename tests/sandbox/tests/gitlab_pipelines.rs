//! Pipelines run for real: includes, variables, dotenv, artifacts, id_tokens, conditions, retries, cancelling.

mod gitlab_world;

use std::sync::Arc;

use gitlab_world::{LIMIT, World, logs};
use serde_json::json;
use towpath_sandbox::gitlab::{CiVariable, PipelineRequest, ProjectSettings, Source, Status};

const TEMPLATE: &str = r#"spec:
  inputs:
    stage:
      default: build
    greeting:
      regex: ^[a-z]+$
---
greet:
  stage: $[[ inputs.stage ]]
  script:
    - echo "$[[ inputs.greeting ]] from $CI_PROJECT_PATH"
    - printf 'GREETING=$[[ inputs.greeting ]]\nBOTH=of report\n' > greet.env
    - mkdir -p out && echo content > out/file.txt
  artifacts:
    paths: [out/]
    reports:
      dotenv: greet.env
"#;

const PIPELINE: &str = r#"include:
  - project: group/templates
    ref: v1
    file: greet.yml
    inputs:
      greeting: hello
stages: [build, test]
check:
  stage: test
  script:
    - test "$GREETING" = hello
    - test "$BOTH" = 'of project'
    - test "$(cat out/file.txt)" = content
    - test "$CI_COMMIT_BRANCH" = main
    - test -z "${CI_COMMIT_TAG+set}"
    - test "$CI_PIPELINE_SOURCE" = push
    - test "$CI_COMMIT_SHA" = "$(git rev-parse HEAD)"
    - test "$CI_PROJECT_DIR" = "$PWD"
    - test "$SECRET" = 'top$ecret value'
    - test "$(cat "$CONFIG_FILE")" = 'file content'
    - test -z "${HOST_VARIABLE+set}"
    - echo "secret is $SECRET, token is $CI_JOB_TOKEN"
    - echo "$CI_REPOSITORY_URL"
    - git ls-remote origin > /dev/null
    - test -z "$(git status --porcelain --untracked-files=no)"
"#;

#[tokio::test]
async fn a_push_runs_stages_with_an_included_template_and_its_reports() {
    let world = World::start().await;
    world
        .project_with(
            "group/templates",
            ProjectSettings::default(),
            &[("greet.yml", TEMPLATE)],
        )
        .await;
    let clone = world.clone_of("group/templates", "main").await;
    world.git(&clone, &["tag", "v1"]).await.unwrap();
    world
        .git(&clone, &["push", "--quiet", "origin", "v1"])
        .await
        .unwrap();

    let settings = ProjectSettings {
        variables: vec![
            CiVariable::masked("SECRET", "top$ecret value").protected(),
            CiVariable::new("CONFIG_FILE", "file content").file(),
            CiVariable::new("BOTH", "of project"),
        ],
        ..ProjectSettings::default()
    };
    world.project("group/app", settings).await;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", PIPELINE)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Success, "{}", logs(&pipeline));
    assert_eq!(pipeline.source, Source::Push);
    let greet = pipeline.job("greet").unwrap();
    assert!(greet.trace.contains("hello from group/app"), "{}", greet.trace);
    assert_eq!(greet.dotenv[0], ("GREETING".to_owned(), "hello".to_owned()));
    let check = pipeline.job("check").unwrap();
    assert!(
        check.trace.contains("secret is [MASKED], token is [MASKED]"),
        "{}",
        check.trace
    );
    assert!(check.trace.contains("Job succeeded"));
    assert!(!check.trace.contains("glcbt-"), "{}", check.trace);
    assert!(check.started_at >= greet.started_at);
}
