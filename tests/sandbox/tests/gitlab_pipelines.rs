//! Pipelines run for real: includes, variables, dotenv, artifacts, id_tokens, conditions, retries, cancelling.

mod gitlab_world;

use std::sync::Arc;

use gitlab_world::{LIMIT, World, ended, files_with, logs};
use serde_json::json;
use towpath_sandbox::gitlab::{CiVariable, PipelineRequest, ProjectSettings, Role, Source, Status};

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
    - test -z "${CARGO_MANIFEST_DIR+set}"
    - |
      for file in /proc/[0-9]*/cmdline; do
        arguments=$(tr '\0' ' ' 2> /dev/null < "$file" || true)
        [[ "$arguments" != *"$CI_JOB_TOKEN"* && "$arguments" != *"$SECRET"* ]]
      done
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

    // The job looks for it in all processes, where nobody else's test may hold the same.
    let secret = format!("top$ecret value of {}", std::process::id());
    let pipeline = PIPELINE.replace("top$ecret value", &secret);
    let settings = ProjectSettings {
        variables: vec![
            CiVariable::masked("SECRET", &secret).protected(),
            CiVariable::new("CONFIG_FILE", "file content").file(),
            CiVariable::new("BOTH", "of project"),
        ],
        ..ProjectSettings::default()
    };
    world.project("group/app", settings).await;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", &pipeline)], &[])
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
    let escaped = secret.replace('$', "$$");
    let left = files_with(world.folder(), &["glcbt-", &secret, &escaped]);
    assert!(left.is_empty(), "secrets of ended jobs are left in {left:?}");
}

#[tokio::test]
async fn a_tag_runs_with_its_own_variables_and_workflow_rules_leave_branches_out() {
    let world = World::start().await;
    world.project("group/app", ProjectSettings::default()).await;
    let config = r#"
workflow:
  rules:
    - if: $CI_COMMIT_TAG
on-tag:
  rules:
    - if: $CI_COMMIT_TAG =~ /^v/
      variables:
        KIND: release
  script:
    - test "$CI_COMMIT_TAG" = v1.0
    - test "$CI_COMMIT_REF_NAME" = v1.0
    - test -z "${CI_COMMIT_BRANCH+set}"
    - test "$KIND" = release
on-branch:
  rules:
    - if: $CI_COMMIT_BRANCH
  script: [exit 1]
"#;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let clone = world.clone_of("group/app", "main").await;
    world.git(&clone, &["tag", "v1.0"]).await.unwrap();
    world
        .git(&clone, &["push", "--quiet", "origin", "v1.0"])
        .await
        .unwrap();
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Success, "{}", logs(&pipeline));
    assert_eq!(pipeline.ref_name, "v1.0");
    assert_eq!(pipeline.jobs.len(), 1);
    assert_eq!(
        world.gitlab.snapshot().len(),
        1,
        "the branch's pipeline is filtered out by the workflow's rules"
    );
}

#[tokio::test]
async fn id_tokens_carry_the_documented_claims() {
    let world = World::with(|settings| {
        settings.issuer = Some("https://gitlab.example.test".into());
        // A test signer whose tokens a job can read, so that the claims can be looked at.
        settings.id_tokens = Some(Arc::new(|claims| {
            let mut claims = claims.clone();
            claims["jti"] = json!("x");
            format!("signed:{claims}")
        }));
    })
    .await;
    let settings = ProjectSettings::default();
    world.project("group/sub/app", settings).await;
    let config = r#"
job:
  environment: {name: prod/$CI_COMMIT_BRANCH}
  id_tokens:
    VAULT_ID_TOKEN: {aud: https://vault.example.test}
  script:
    - printf '%s' "$VAULT_ID_TOKEN" | sed 's/signed://' > token.json
    - printf '%s' "$VAULT_ID_TOKEN" | wc -l
    - echo "$VAULT_ID_TOKEN"
  artifacts: {paths: [token.json]}
"#;
    let sha = world
        .push("group/sub/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let pipeline = world.finished("group/sub/app", &sha).await;
    assert_eq!(pipeline.status, Status::Success, "{}", logs(&pipeline));
    let job = pipeline.job("job").unwrap();
    assert!(
        !job.trace.contains("ref_protected"),
        "an id_token is masked: {}",
        job.trace
    );
    let path = format!("/projects/group%2Fsub%2Fapp/jobs/{}/artifacts/token.json", job.id);
    let (_, claims) = world.get(&path).await;
    assert_eq!(claims["iss"], "https://gitlab.example.test");
    assert_eq!(claims["aud"], "https://vault.example.test");
    assert_eq!(
        claims["sub"],
        "project_path:group/sub/app:ref_type:branch:ref:main"
    );
    assert_eq!(claims["project_path"], "group/sub/app");
    assert_eq!(claims["namespace_path"], "group/sub");
    assert_eq!(claims["ref_protected"], "true");
    assert_eq!(claims["job_id"], job.id.to_string());
    assert_eq!(claims["user_login"], "maintainer");
    assert_eq!(claims["environment"], "prod/main");
    assert!(claims["exp"].as_i64() > claims["iat"].as_i64());
    let (_, deployments) = world
        .get("/projects/group%2Fsub%2Fapp/deployments?environment=prod/main")
        .await;
    assert_eq!(deployments[0]["status"], "success");
    assert_eq!(deployments[0]["deployable"]["id"], job.id);
}

#[tokio::test]
async fn failures_go_on_to_what_waits_for_them() {
    let world = World::start().await;
    world.project("group/app", ProjectSettings::default()).await;
    let config = r#"
stages: [one, two, three]
may-fail:
  stage: one
  script: [exit 42]
  allow_failure: {exit_codes: [42]}
fails:
  stage: one
  retry: {max: 1, exit_codes: [7]}
  script: [echo trying, exit 7]
needs-good:
  stage: two
  needs: [may-fail]
  script: [echo ran]
next:
  stage: two
  script: [echo never]
rescue:
  stage: two
  when: on_failure
  script: [echo rescued]
always:
  stage: three
  when: always
  script: [echo always]
by-hand:
  stage: three
  needs: [may-fail]
  when: manual
  script: [echo "played with $WORD"]
after-hand:
  stage: three
  needs: [by-hand]
  script: [echo after]
"#;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Failed, "{}", logs(&pipeline));
    let status = |name: &str| pipeline.job(name).unwrap().status;
    assert_eq!(status("may-fail"), Status::Failed);
    assert_eq!(pipeline.job("may-fail").unwrap().exit_code, Some(42));
    assert_eq!(status("needs-good"), Status::Success);
    assert_eq!(status("next"), Status::Skipped);
    assert_eq!(status("rescue"), Status::Success);
    assert_eq!(status("always"), Status::Success);
    assert_eq!(status("by-hand"), Status::Manual);
    assert_eq!(status("after-hand"), Status::Skipped);
    let tries: Vec<_> = pipeline.jobs.iter().filter(|job| job.name == "fails").collect();
    assert_eq!(tries.len(), 2, "{}", logs(&pipeline));
    assert!(tries[0].retried && !tries[1].retried);
    assert!(
        tries[1].trace.contains("ERROR: Job failed: exit status 7"),
        "{}",
        tries[1].trace
    );

    let by_hand = pipeline.job("by-hand").unwrap().id;
    let play = format!("/projects/group%2Fapp/jobs/{by_hand}/play");
    let (status, job) = world
        .post(
            &play,
            json!({ "job_variables_attributes": [{ "key": "WORD", "value": "care" }] }),
        )
        .await;
    assert_eq!(status, 200, "{job}");
    let played = world
        .gitlab
        .wait_for_pipeline(
            "group/app",
            |found| {
                found
                    .job("after-hand")
                    .is_some_and(|job| job.status == Status::Success)
            },
            LIMIT,
        )
        .await
        .unwrap();
    assert!(played.job("by-hand").unwrap().trace.contains("played with care"));
    let (status, refused) = world.post(&play, json!(null)).await;
    assert_eq!(
        (status.as_u16(), &refused["message"]),
        (400, &json!("400 Bad request - Unplayable Job"))
    );
}

#[tokio::test]
async fn cancelling_ends_the_script_and_all_it_started() {
    let world = World::start().await;
    world.project("group/app", ProjectSettings::default()).await;
    let config = r#"
stages: [one, two]
long:
  stage: one
  script:
    - sleep 300 & echo "child $!"
    - echo waiting
    - sleep 300
later:
  stage: two
  script: [echo later]
"#;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let waiting = |found: &towpath_sandbox::gitlab::PipelineSnapshot| {
        found
            .job("long")
            .is_some_and(|job| job.trace.lines().any(|line| line == "waiting"))
    };
    let pipeline = world
        .gitlab
        .wait_for_pipeline("group/app", waiting, LIMIT)
        .await
        .unwrap();
    let cancel = format!("/projects/group%2Fapp/pipelines/{}/cancel", pipeline.id);
    let (status, shown) = world.post(&cancel, json!(null)).await;
    assert_eq!((status.as_u16(), &shown["status"]), (200, &json!("canceling")));
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Canceled, "{}", logs(&pipeline));
    assert_eq!(pipeline.job("later").unwrap().status, Status::Canceled);
    let log = &pipeline.job("long").unwrap().trace;
    let child = log.lines().find_map(|line| line.strip_prefix("child ")).unwrap();
    ended(child).await;
    let (status, again) = world.post(&cancel, json!(null)).await;
    assert_eq!((status.as_u16(), &again["status"]), (200, &json!("canceled")));
}

#[tokio::test]
async fn inputs_are_checked_before_there_is_a_pipeline() {
    let world = World::start().await;
    let config = "spec:\n  inputs:\n    image: {regex: '^sha256:[0-9a-f]+$'}\n    count: {type: number, default: 1}\n---\njob:\n  script: ['echo image=$[[ inputs.image ]] count=$[[ inputs.count ]]']\n";
    let project = world
        .project_with(
            "group/env",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", config)],
        )
        .await;
    let ask = async |inputs: serde_json::Value| {
        world
            .post(
                &format!("/projects/{project}/pipeline"),
                json!({ "ref": "main", "inputs": inputs }),
            )
            .await
    };
    for (inputs, reason) in [
        (json!({}), "`image` input: required value has not been provided"),
        (
            json!({ "image": "latest" }),
            "`image` input: provided value does not match required RegEx pattern",
        ),
        (
            json!({ "image": "sha256:a", "more": "x" }),
            "unknown input arguments: more",
        ),
    ] {
        let (status, body) = ask(inputs).await;
        assert_eq!(
            (status.as_u16(), &body["message"]["base"][0]),
            (400, &json!(reason))
        );
    }
    assert!(world.gitlab.snapshot().is_empty());
    let (status, body) = ask(json!({ "image": "sha256:ab", "count": 2 })).await;
    assert_eq!(status, 201, "{body}");
    let pipeline = world
        .gitlab
        .wait_until_finished(body["id"].as_u64().unwrap(), LIMIT)
        .await
        .unwrap();
    assert!(
        logs(&pipeline).contains("image=sha256:ab count=2"),
        "{}",
        logs(&pipeline)
    );
}

#[tokio::test]
async fn a_file_of_another_project_is_included_by_who_may_read_it() {
    let world = World::start().await;
    let job = "job: {script: [echo included]}\n";
    let files = [("outer.yml", "include: {local: inner.yml}\n"), ("inner.yml", job)];
    let hidden = world
        .project_with("group/hidden", ProjectSettings::default(), &files)
        .await;
    world.project("group/app", ProjectSettings::default()).await;
    let include = "include: {project: group/hidden, ref: main, file: /outer.yml}\n";
    for (role, status) in [(Role::Guest, Status::Failed), (Role::Reporter, Status::Success)] {
        world.gitlab.add_member(hidden, world.maintainer, role).unwrap();
        let text = format!("# {}\n{include}", status.as_str());
        let sha = world
            .push("group/app", "main", &[(".gitlab-ci.yml", &text)], &[])
            .await;
        // The push alone is enough for GitLab not to be at rest.
        world.gitlab.rest(LIMIT).await.unwrap();
        let pipelines = world.gitlab.snapshot();
        let pipeline = pipelines.iter().find(|pipeline| pipeline.sha == sha).unwrap();
        let error = pipeline.yaml_errors.clone().unwrap_or_default();
        assert_eq!(pipeline.status, status, "{error} {}", logs(pipeline));
        assert_eq!(
            error.contains("Project include could not be fetched"),
            role == Role::Guest,
            "{error}"
        );
        let left = world
            .folder()
            .join("gitlab/pipelines")
            .join(pipeline.id.to_string());
        assert!(!left.join("config").exists());
    }
}

#[tokio::test]
async fn a_broken_configuration_or_report_fails_as_gitlabs_does() {
    let world = World::start().await;
    world.project("group/app", ProjectSettings::default()).await;
    let missing = "include: {project: group/none, file: x.yml}\njob: {script: [echo]}\n";
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", missing)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Failed);
    assert!(
        pipeline
            .yaml_errors
            .unwrap()
            .contains("Project include could not be fetched")
    );

    let include = "include: {local: t.yml, inputs: {image: latest}}\n";
    let template = "spec: {inputs: {image: {regex: '^sha256:'}}}\n---\njob: {script: [echo]}\n";
    let sha = world
        .push(
            "group/app",
            "main",
            &[(".gitlab-ci.yml", include), ("t.yml", template)],
            &[],
        )
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    let error = pipeline.yaml_errors.unwrap_or_default();
    assert_eq!(
        error,
        "`t.yml`: `image` input: provided value does not match required RegEx pattern"
    );

    let report = "job:\n  script: [\"printf 'A=1\\\\n\\\\nB=2\\\\n' > r.env\"]\n  artifacts: {reports: {dotenv: r.env}}\n";
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", report)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Failed, "{}", logs(&pipeline));
    assert!(
        logs(&pipeline).contains("400 Bad Request (Invalid Format)"),
        "{}",
        logs(&pipeline)
    );

    let request = PipelineRequest::default();
    let project = 1;
    let refused = world
        .gitlab
        .run_pipeline(project, world.maintainer, "nowhere", request)
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "Reference not found");
}

#[tokio::test]
async fn stopping_leaves_no_job_behind() {
    let world = World::start().await;
    world.project("group/app", ProjectSettings::default()).await;
    let config = "long: {script: ['echo shell $$', sleep 300]}\n";
    world
        .push("group/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let shell = |found: &towpath_sandbox::gitlab::PipelineSnapshot| {
        let log = &found.job("long")?.trace;
        log.lines()
            .find_map(|line| line.strip_prefix("shell "))
            .map(str::to_owned)
    };
    let running = world
        .gitlab
        .wait_for_pipeline("group/app", |found| shell(found).is_some(), LIMIT)
        .await
        .unwrap();
    let process = shell(&running).unwrap();
    let url = world.gitlab.url().to_owned();
    world.gitlab.shutdown().await;
    ended(&process).await;
    assert!(world.http.get(url).send().await.unwrap_err().is_connect());
}
