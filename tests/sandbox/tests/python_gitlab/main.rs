//! The client that programs use for GitLab's API, `python-gitlab`, unchanged against the stand-in: what it understands, and what
//! it makes of refusals and limits.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../gitlab_world/mod.rs"]
mod gitlab_world;

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use gitlab_world::World;
use serde_json::{Value, json};
use tokio::process::Command;
use towpath_sandbox::gitlab::{PipelineRequest, PlannedJob, ProjectSettings, Status, Trouble};
use towpath_sandbox::tools::{Progress, Tools};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_gitlab/client.py");
const CONFIG: &str = "spec:\n  inputs:\n    delivery: {default: none}\n---\nworkflow:\n  name: 'Deploy $[[ inputs.delivery ]]'\njob: {script: ['true']}\n";

/// Runs one part of the client and reads what it says.
async fn client(world: &World, tokens: &[(&str, &str)], part: &str, pipeline: u64) -> Value {
    let site = Tools::python_gitlab(&Progress::silent()).await.unwrap();
    let output = Command::new("python3")
        .args(["-B", CLIENT, part])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("PYTHONPATH", site)
        .env("NO_PROXY", "*")
        .env("GITLAB_URL", world.gitlab.url())
        .env("PROJECT", "group/env")
        .env("PIPELINE", pipeline.to_string())
        .envs(tokens.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}: {log}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{part}: {error}: {said}\n{log}"))
}

#[tokio::test]
async fn python_gitlab_drives_the_stand_in() {
    let world = World::start().await;
    let gitlab = &world.gitlab;
    let jobs = vec![
        PlannedJob::new("lint", "plan"),
        PlannedJob::new("plan", "plan"),
        PlannedJob::new("approve", "apply"),
        PlannedJob::new("apply", "apply"),
        PlannedJob::new("infra", "apply").triggering("group/infra"),
    ];
    let files = [(".gitlab-ci.yml", CONFIG)];
    let env = world
        .project_with("group/env", ProjectSettings::default(), &files)
        .await;
    let infra = world
        .project_with("group/infra", ProjectSettings::default(), &files)
        .await;
    let image = world
        .project_with("group/image", ProjectSettings::default(), &files)
        .await;
    gitlab.direct(env, jobs).unwrap();
    for project in [infra, image] {
        gitlab
            .direct(project, vec![PlannedJob::new("only", "deploy")])
            .unwrap();
    }
    gitlab.allow_job_tokens(env, image).unwrap();
    let request = PipelineRequest::default();
    let source = gitlab
        .run_pipeline(image, world.maintainer, "main", request)
        .await
        .unwrap();
    let running = gitlab.pipeline(source).unwrap().jobs[0].id;
    gitlab.move_job(running, Status::Running).unwrap();
    let job_token = gitlab.job_token(running).unwrap();
    let trigger_token = gitlab.trigger_token(env, world.maintainer).unwrap();
    let tokens = [
        ("ACCESS_TOKEN", world.token.as_str()),
        ("TRIGGER_TOKEN", &trigger_token),
        ("JOB_TOKEN", &job_token),
    ];

    let said = client(&world, &tokens, "start", 0).await;
    assert_eq!(
        (&said["version"], &said["user"]),
        (&json!("19.2.0"), &json!("maintainer"))
    );
    assert_eq!(said["name"], "Deploy d-1");
    assert_eq!(said["variables"], json!([["WORD", "yes"]]));
    assert_eq!(said["triggered"][1], "trigger");
    assert_eq!(said["by job token"][1], "pipeline");
    assert_eq!(
        said["no such ref"],
        json!([400, { "base": ["Reference not found"] }])
    );
    assert_eq!(said["unknown input"][0], 400, "{said}");
    assert_eq!(said["no such token"], json!([404, "404 Not Found"]));

    let id = said["started"].as_u64().unwrap();
    let job = |name: &str| gitlab.pipeline(id).unwrap().job(name).unwrap().id;
    gitlab.move_job(job("lint"), Status::Failed).unwrap();
    gitlab.retry_job(job("lint")).unwrap();
    gitlab.write_log(job("lint"), "not like this\n");
    gitlab.move_job(job("lint"), Status::Failed).unwrap();
    gitlab.move_job(job("plan"), Status::Success).unwrap();
    gitlab.move_job(job("approve"), Status::Manual).unwrap();
    gitlab.start_downstream(job("infra")).await.unwrap();
    let said = client(&world, &tokens, "look", id).await;
    assert_eq!(
        said,
        json!({
            "status": "running",
            "jobs": { "lint": "failed", "plan": "success", "approve": "manual", "apply": "created" },
            "attempts": 5,
            "failed": ["lint"],
            "bridges": [["infra", "created"]],
            "trace": "not like this\n",
            "played": "pending",
            "played again": [400, "400 Bad request - Unplayable Job"],
            "retried": true,
            "retried again": [403, "403 Forbidden - Job is not retryable"],
            "after cancel": "canceled",
            "after retry": "running",
            "newest": [id],
            "on the way": 1,
        })
    );

    let said = client(&world, &tokens, "change", id).await;
    assert_eq!(said["commit"], json!(["Bump", 1]));
    assert_eq!(said["file"], "1.2.3");
    assert_eq!(said["merge requests"], json!([[1, "Bump"]]));
    assert_eq!(said["state"], "opened");

    let said = client(&world, &tokens, "with_job_token", id).await;
    assert_eq!(said["jobs"], json!(["apply", "approve", "lint", "plan"]));
    assert_eq!(said["cancel"], 401);

    let before = AtomicBool::new(true);
    gitlab.trouble(move |_, path| {
        let first = path.ends_with("/pipelines") && before.swap(false, Ordering::Relaxed);
        first.then_some(Trouble::Throttled(1))
    });
    let said = client(&world, &tokens, "throttled", id).await;
    assert_eq!(said["pipelines"], 3, "asked again after the 429");
}
