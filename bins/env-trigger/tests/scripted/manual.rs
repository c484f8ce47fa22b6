//! Manual jobs: each by its own rule, named when they block, started when they are to be.

use crate::support::{Scripted, job, ok, pipeline, status};
use serde_json::{Value, json};

const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const TRIGGER_JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";
const PLAY: &str = "POST /projects/group%2Fenv/jobs/2/play";
const WAIT: [&str; 4] = ["--project", "group/env", "wait", "12"];

fn optional(id: u64, name: &str, state: &str, of_pipeline: &str) -> Value {
    let mut job = job(id, name, state, of_pipeline);
    job["allow_failure"] = json!(true);
    job
}

#[tokio::test]
async fn a_job_that_is_to_be_started_is_and_counts_from_then_on() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(PLAY, [ok(job(2, "deploy", "pending", "running"))])
        .on(
            JOBS,
            [
                ok(json!([
                    optional(2, "deploy", "manual", "success"),
                    job(1, "plan", "success", "success")
                ])),
                // GitLab takes a moment to see that the pipeline goes on.
                ok(json!([
                    optional(2, "deploy", "running", "success"),
                    job(1, "plan", "success", "success")
                ])),
                ok(json!([
                    optional(2, "deploy", "success", "success"),
                    job(1, "plan", "success", "success")
                ])),
            ],
        );
    let run = |rules: &str| gitlab.tool(&WAIT).env("TOWPATH_ON_MANUAL", rules);
    let ran = run("deploy=play").with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["played"], &report["changed"]),
        (&json!(["deploy"]), &json!(true))
    );
    assert_eq!(report["jobs"][1]["status"], "success", "{ran}");
    assert_eq!(gitlab.asked_for(PLAY).len(), 1);
    // A job token may not, and that is known before anything is asked.
    let asked = gitlab.asked().len();
    let ran = run("deploy=play").with_job_token().run().await;
    assert_eq!(ran.code, 2, "{ran}");
    assert_eq!(gitlab.asked().len(), asked);
}

#[tokio::test]
async fn who_may_not_start_a_job_is_told_where_that_is_set() {
    let gitlab = Scripted::start().await;
    let blocked = || {
        ok(json!([
            job(2, "deploy", "manual", "manual"),
            job(1, "plan", "success", "manual")
        ]))
    };
    gitlab
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(JOBS, [blocked()])
        .on(PLAY, [status(403, json!({"message": "403 Forbidden"}))]);
    let play = gitlab.tool(&WAIT).env("TOWPATH_ON_MANUAL", "play");
    let ran = play.with_access_token().run().await;
    assert_eq!(ran.code, 4, "{ran}");
    assert!(ran.stderr.contains("Protected environments"), "{ran}");
    assert!(ran.stderr.contains("which goes on"), "{ran}");
    // Somebody else was faster.
    gitlab
        .on(
            PLAY,
            [status(
                400,
                json!({"message": "400 Bad request - Unplayable Job"}),
            )],
        )
        .on(
            JOBS,
            [
                blocked(),
                ok(json!([
                    job(2, "deploy", "success", "success"),
                    job(1, "plan", "success", "success")
                ])),
            ],
        );
    let play = gitlab.tool(&WAIT).env("TOWPATH_ON_MANUAL", "play");
    let ran = play.with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
}

#[tokio::test]
async fn each_job_has_its_own_rule_and_only_what_blocks_is_named() {
    let gitlab = Scripted::start().await;
    gitlab.on(
        JOBS,
        [ok(json!([
            job(4, "approve", "manual", "manual"),
            job(3, "clean, up", "manual", "manual"),
            optional(2, "docs", "manual", "manual"),
            job(1, "plan", "success", "manual")
        ]))],
    );
    let run = |arguments: &[&str]| {
        gitlab
            .tool(&[&WAIT[..], arguments].concat())
            .with_job_token()
            .run()
    };
    let ran = run(&["--on-manual", "clean, up=ignore"]).await;
    assert_eq!(ran.code, 9, "{ran}");
    assert!(
        ran.stderr.contains("waits for a person: approve hint") || ran.stderr.contains("person: approve "),
        "{ran}"
    );
    assert!(!ran.stderr.contains("person: clean"), "{ran}");
    let ran = run(&["--on-manual", "clean, up=ignore,approve=ignore"]).await;
    assert_eq!(ran.code, 0, "{ran}");
    let ran = run(&["--on-manual", "ignore", "--on-manual", "aprove=wait"]).await;
    assert_eq!(ran.code, 0, "{ran}");
    assert!(
        ran.stderr.contains("no such job") && ran.stderr.contains("aprove"),
        "{ran}"
    );
    for wrong in ["sometimes", "approve=sometimes", "approve=wait,approve=fail"] {
        assert_eq!(run(&["--on-manual", wrong]).await.code, 2, "{wrong}");
    }
}

#[tokio::test]
async fn what_blocks_a_pipeline_below_is_named_with_the_way_to_it() {
    let gitlab = Scripted::start().await;
    let bridge = json!({"id": 5, "name": "infra", "stage": "next", "status": "running", "allow_failure": false,
                        "downstream_pipeline": {"id": 30, "project_id": 9, "status": "manual", "web_url": null}});
    let below = |state: &str, of_pipeline: &str| {
        let mut job = job(7, "approve", state, of_pipeline);
        job["pipeline"] = json!({"id": 30, "status": of_pipeline});
        ok(json!([job]))
    };
    gitlab
        .on(JOBS, [ok(json!([job(1, "plan", "success", "running")]))])
        .on(TRIGGER_JOBS, [ok(json!([bridge]))])
        .on("GET /projects/9/pipelines/30/trigger_jobs", [ok(json!([]))])
        .on("GET /projects/9/pipelines/30/jobs", [below("manual", "manual")]);
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 9, "{ran}");
    assert!(
        ran.stderr.contains("waits for a person: infra > approve"),
        "{ran}"
    );
    let report = ran.report().unwrap();
    let downstream = &report["jobs"][1]["downstream"];
    assert_eq!(
        (&downstream["project"], &downstream["jobs"][0]["name"]),
        (&json!("9"), &json!("approve"))
    );
    // And it can be started from here.
    let play = "POST /projects/9/jobs/7/play";
    let mut done = bridge.clone();
    done["status"] = json!("success");
    done["downstream_pipeline"]["status"] = json!("success");
    gitlab
        .on(play, [ok(json!({"id": 7}))])
        .on(
            JOBS,
            [
                ok(json!([job(1, "plan", "success", "running")])),
                ok(json!([job(1, "plan", "success", "success")])),
            ],
        )
        .on(TRIGGER_JOBS, [ok(json!([bridge])), ok(json!([done]))])
        .on(
            "GET /projects/9/pipelines/30/jobs",
            [below("manual", "manual"), below("success", "success")],
        );
    let tool = gitlab.tool(&WAIT).env("TOWPATH_ON_MANUAL", "approve=play");
    let ran = tool.with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.report().unwrap()["played"], json!(["infra > approve"]));
    assert_eq!(gitlab.asked_for(play).len(), 1);
}

#[tokio::test]
async fn a_deadline_says_what_was_waited_for() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(
            "GET /projects/group%2Fenv/pipelines/12",
            [ok(pipeline(12, "running"))],
        )
        .on(
            JOBS,
            [ok(json!([
                job(3, "apply", "waiting_for_resource", "waiting_for_resource"),
                job(2, "later", "scheduled", "waiting_for_resource"),
                job(1, "plan", "success", "waiting_for_resource")
            ]))],
        );
    let tool = gitlab.tool(&WAIT).env("TOWPATH_TIMEOUT", "2s");
    let ran = tool.with_job_token().run().await;
    assert_eq!(ran.code, 9, "{ran}");
    for part in [
        "apply waits for its resource group",
        "later waits for its delay",
        "it goes on",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {ran}");
    }
}
