//! `env-trigger` against the GitLab stand-in, where a triggered pipeline really runs.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test runs the binary as a process and may panic anywhere"
)]

mod world;

use serde_json::json;
use tokio::process::Command;
use towpath_sandbox::gitlab::{Role, Scope, Source, Status};
use world::{LIMIT, World};

/// Two stages, an input, a job that may fail, an optional manual job and a child pipeline.
const DEPLOY: &str = r#"
spec:
  inputs:
    image_digest: {regex: '^sha256:[0-9a-f]+$'}
---
stages: [plan, apply]
plan:
  stage: plan
  script: ['echo "planning $[[ inputs.image_digest ]]"']
lint:
  stage: plan
  allow_failure: true
  script: ['exit 1']
apply:
  stage: apply
  script: ['echo applied']
by-hand:
  stage: apply
  when: manual
  script: ['exit 1']
"#;

const BROKEN: &str = "
apply:
  script:
    - echo 'no such cluster'
    - exit 3
";

/// A pipeline that hands on to another project's.
const CHAIN: &str = "
infra:
  trigger: {project: group/infra, strategy: depend}
";

const ENDLESS: &str = "
apply:
  script:
    - sleep 600
";

/// A job that a person has to start, and one that says what came of it.
const GUARDED: &str = "
stages: [bump, apply]
bump:
  stage: bump
  script: ['echo IMAGE_DIGEST=sha256:abc > handoff.env']
  artifacts: {paths: [handoff.env]}
apply:
  stage: apply
  when: manual
  allow_failure: false
  script: ['echo applied']
";

const DIGEST: &str = "image_digest=sha256:abc";

#[tokio::test]
async fn a_job_token_starts_a_real_pipeline_and_follows_it() {
    let world = World::with_env(DEPLOY).await;
    world.gitlab.allow_job_tokens(world.env, world.image).unwrap();
    let ended = world
        .in_a_job(&format!("--project group/env --input {DIGEST}"))
        .await;
    let job = ended.job("promote").unwrap();
    assert_eq!(job.status, Status::Success, "{}", job.trace);
    assert!(job.trace.contains("\"verdict\":\"success\""), "{}", job.trace);
    assert!(job.trace.contains("\"once\":\"not checked\""), "{}", job.trace);
    let started = world.env_pipelines();
    assert_eq!(started.len(), 1);
    assert_eq!(
        (started[0].source, started[0].status),
        (Source::Pipeline, Status::Success)
    );
    assert_eq!(
        started[0].source_job,
        Some(job.id),
        "GitLab links the two pipelines"
    );
    assert!(
        started[0]
            .job("plan")
            .unwrap()
            .trace
            .contains("planning sha256:abc")
    );
}

#[tokio::test]
async fn a_project_that_is_not_on_the_allowlist_is_refused_with_what_to_change() {
    let world = World::with_env(DEPLOY).await;
    let ended = world
        .in_a_job(&format!("--project group/env --input {DIGEST}"))
        .await;
    let job = ended.job("promote").unwrap();
    assert_eq!(
        (job.status, job.exit_code),
        (Status::Failed, Some(4)),
        "{}",
        job.trace
    );
    assert!(job.trace.contains("allowlist of group/env"), "{}", job.trace);
    assert!(world.env_pipelines().is_empty());
}

#[tokio::test]
async fn an_access_token_starts_once_and_finds_it_again() {
    let world = World::with_env(DEPLOY).await;
    let arguments = ["--input", DIGEST, "--key", "delivery-0001"];
    let ran = world.run(&arguments).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = ran.report();
    assert_eq!(
        (&report["once"], &report["created"]),
        (&json!("checked"), &json!(true))
    );
    let statuses: Vec<String> = report["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| {
            format!(
                "{} {}",
                job["name"].as_str().unwrap(),
                job["status"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        statuses,
        ["plan success", "lint failed", "apply success", "by-hand manual"]
    );
    let again = world.run(&arguments).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let found = again.report();
    assert_eq!(
        (&found["once"], &found["changed"]),
        (&json!("found"), &json!(false))
    );
    assert_eq!(found["pipeline"]["id"], report["pipeline"]["id"]);
    assert_eq!(world.env_pipelines().len(), 1);
}

#[tokio::test]
async fn a_failed_job_is_named_with_the_end_of_its_log() {
    let world = World::with_env(BROKEN).await;
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, Some(8), "{ran:?}");
    assert!(ran.stderr.contains("failed: apply"), "{}", ran.stderr);
    let tail = ran.report()["jobs"][0]["tail"].to_string();
    assert!(tail.contains("no such cluster"), "{tail}");

    world.gitlab.allow_job_tokens(world.env, world.image).unwrap();
    let ended = world.in_a_job("--project group/env").await;
    let job = ended.job("promote").unwrap();
    assert_eq!(job.exit_code, Some(8), "{}", job.trace);
}

#[tokio::test]
async fn a_downstream_pipeline_is_shown_and_fails_what_depends_on_it() {
    let world = World::with_env(CHAIN).await;
    world.infra(BROKEN).await;
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, Some(8), "{ran:?}");
    let report = ran.report();
    let bridge = &report["jobs"][0];
    assert_eq!(
        (&bridge["name"], &bridge["status"]),
        (&json!("infra"), &json!("failed"))
    );
    assert_eq!(bridge["downstream"]["status"], "failed");
    assert!(ran.stderr.contains("downstream pipeline"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_manual_job_is_started_and_the_result_is_compared() {
    let world = World::with_env(GUARDED).await;
    let ran = world.run(&[]).await;
    assert_eq!(ran.code, Some(9), "{ran:?}");
    assert!(ran.stderr.contains("waits for a person: apply"), "{}", ran.stderr);
    for (digest, code) in [("sha256:abc", 0), ("sha256:def", 6)] {
        let expect = format!("IMAGE_DIGEST={digest}");
        let ran = world
            .run(&[
                "--on-manual",
                "apply=play",
                "--result",
                "bump:handoff.env",
                "--expect",
                &expect,
            ])
            .await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let report = ran.report();
        assert_eq!(report["played"], json!(["apply"]));
        assert_eq!(report["result"], json!({"IMAGE_DIGEST": "sha256:abc"}));
        assert_eq!(report["verdict"], "success");
    }
}

#[tokio::test]
async fn term_cancels_the_running_pipeline_and_the_one_it_started() {
    let world = World::with_env(CHAIN).await;
    world.infra(ENDLESS).await;
    let child = world.by_hand(&[]).spawn().unwrap();
    let running = world
        .gitlab
        .wait_for_pipeline(
            "group/infra",
            |pipeline| pipeline.status == Status::Running,
            LIMIT,
        )
        .await
        .unwrap();
    let id = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
    let ran = world.ended(child).await;
    assert_eq!(ran.code, Some(143), "{ran:?}");
    assert!(ran.stderr.contains("it was cancelled"), "{}", ran.stderr);
    // It had been read again until it was so.
    let after = world.gitlab.snapshot();
    assert!(after.iter().any(|pipeline| pipeline.id == running.id));
    assert_eq!(after.len(), 2);
    assert!(
        after.iter().all(|pipeline| pipeline.status == Status::Canceled),
        "{after:?}"
    );
}

#[tokio::test]
async fn what_gitlab_refuses_with_400_is_told_apart() {
    let world = World::with_env(DEPLOY).await;
    let ran = world.run(&["--ref", "nowhere", "--input", DIGEST]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let ran = world.run(&["--input", "image_digest=latest"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let ran = world.run(&["--input", DIGEST, "--input", "other=1"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let unknown = world
        .run(&["--project", "group/nothing", "--key", "delivery-0001"])
        .await;
    assert_eq!(unknown.code, Some(5), "{unknown:?}");

    // `main` is protected, and a developer may not push to it.
    let developer = world
        .gitlab
        .project_access_token(world.env, Role::Developer, &[Scope::Api])
        .unwrap();
    let ran = world
        .ended(
            world
                .by_hand_as(&developer, &["--input", DIGEST])
                .spawn()
                .unwrap(),
        )
        .await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("Protected branches"), "{}", ran.stderr);

    let repository = world.gitlab.repository(world.env).unwrap();
    let tagged = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["tag", "main", "refs/heads/main"])
        .status();
    assert!(tagged.await.unwrap().success());
    let ran = world.run(&["--input", DIGEST]).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("ambiguous"), "{}", ran.stderr);
    world.gitlab.allow_job_tokens(world.env, world.image).unwrap();
    let ended = world
        .in_a_job(&format!("--project group/env --input {DIGEST}"))
        .await;
    let job = ended.job("promote").unwrap();
    assert_eq!(job.exit_code, Some(5), "{}", job.trace);
    assert!(job.trace.contains("ambiguous"), "{}", job.trace);
    assert!(
        world
            .env_pipelines()
            .iter()
            .all(|pipeline| pipeline.source == Source::Push)
    );
}
