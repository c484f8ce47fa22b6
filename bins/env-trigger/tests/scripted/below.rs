//! The pipelines below: followed into other projects, blamed down to their jobs, cancelled one by one.

use crate::support::{Scripted, job, ok, pipeline, status, text};
use serde_json::{Value, json};
use towpath_sandbox::tool_run::Signal;

const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const TRIGGER_JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";
const WAIT: [&str; 4] = ["--project", "group/env", "wait", "12"];

fn bridge(id: u64, name: &str, state: &str, downstream: Value) -> Value {
    json!({"id": id, "name": name, "stage": "next", "status": state, "allow_failure": false,
           "downstream_pipeline": downstream})
}

fn below(id: u64, project: u64, state: &str) -> Value {
    json!({"id": id, "project_id": project, "status": state, "web_url": format!("https://git.example.com/p/{id}")})
}

fn job_of(pipeline: u64, id: u64, name: &str, state: &str) -> Value {
    let mut job = job(id, name, state, state);
    job["pipeline"] = json!({"id": pipeline, "status": state});
    job
}

#[tokio::test]
async fn a_failure_two_projects_below_is_named_and_its_log_is_shown() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(JOBS, [ok(json!([job(1, "plan", "success", "failed")]))])
        .on(
            TRIGGER_JOBS,
            [ok(json!([bridge(5, "infra", "failed", below(30, 9, "failed"))]))],
        )
        .on(
            "GET /projects/9/pipelines/30/jobs",
            [ok(json!([job_of(30, 6, "plan", "success")]))],
        )
        .on(
            "GET /projects/9/pipelines/30/trigger_jobs",
            // And back up again, which must not go round in circles.
            [ok(json!([
                bridge(7, "network", "failed", below(40, 10, "failed")),
                bridge(8, "back", "failed", below(12, 3, "failed"))
            ]))],
        )
        .on(
            "GET /projects/10/pipelines/40/jobs",
            [ok(json!([job_of(40, 9, "apply", "failed")]))],
        )
        .on("GET /projects/10/pipelines/40/trigger_jobs", [ok(json!([]))])
        .on("GET /projects/10/jobs/9/trace", [text(200, "no such subnet\n")]);
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 8, "{ran}");
    assert!(ran.stderr.contains("infra > network > apply"), "{ran}");
    assert!(ran.stderr.contains("no such subnet"), "{ran}");
    assert!(ran.stderr.contains("mend it in project 10"), "{ran}");
    let report = ran.report().unwrap();
    let infra = &report["jobs"][1]["downstream"];
    assert_eq!(infra["project"], "9");
    let apply = &infra["jobs"][1]["downstream"]["jobs"][0];
    assert_eq!(
        (&apply["name"], &apply["tail"]),
        (&json!("apply"), &json!(["no such subnet"]))
    );
    // The settled ones are not read again at the second look.
    assert_eq!(gitlab.asked_for("GET /projects/10/pipelines/40/jobs").len(), 1);
}

#[tokio::test]
async fn a_project_that_the_token_may_not_see_is_said_and_not_asked_for_again() {
    let gitlab = Scripted::start().await;
    let hidden = || ok(json!([bridge(5, "infra", "running", below(30, 9, "running"))]));
    gitlab
        .on(
            JOBS,
            [
                ok(json!([job(1, "plan", "success", "running")])),
                ok(json!([job(1, "plan", "success", "running")])),
                ok(json!([job(1, "plan", "success", "success")])),
            ],
        )
        .on(
            TRIGGER_JOBS,
            [
                hidden(),
                hidden(),
                ok(json!([bridge(5, "infra", "success", below(30, 9, "success"))])),
            ],
        );
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    let downstream = &report["jobs"][1]["downstream"];
    assert_eq!(downstream["status"], "success");
    assert!(
        downstream["unreadable"].as_str().unwrap().contains("404"),
        "{ran}"
    );
    assert_eq!(gitlab.asked_for("GET /projects/9/pipelines/30/jobs").len(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_counts_with_downstream_all() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(JOBS, [ok(json!([job(1, "plan", "success", "success")]))])
        .on(
            TRIGGER_JOBS,
            [
                ok(json!([bridge(5, "infra", "success", below(30, 9, "running"))])),
                ok(json!([bridge(5, "infra", "success", below(30, 9, "failed"))])),
            ],
        )
        .on("GET /projects/9/pipelines/30/trigger_jobs", [ok(json!([]))])
        .on("GET /projects/9/jobs/6/trace", [text(200, "gone wrong\n")])
        .on(
            "GET /projects/9/pipelines/30/jobs",
            [
                ok(json!([job_of(30, 6, "apply", "running")])),
                ok(json!([job_of(30, 6, "apply", "failed")])),
            ],
        );
    let all = || gitlab.tool(&WAIT).env("TOWPATH_DOWNSTREAM", "all");
    let ran = all().with_access_token().run().await;
    assert_eq!(ran.code, 8, "{ran}");
    assert!(
        ran.stderr.contains("infra > apply") && ran.stderr.contains("gone wrong"),
        "{ran}"
    );
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(all().with_job_token().run().await.code, 2);
}

/// A pipeline that has one below it in another project, and another one below that.
async fn running() -> Scripted {
    let gitlab = Scripted::start().await;
    let states = |id: u64, states: &[&str]| {
        let replies: Vec<_> = states.iter().map(|state| ok(pipeline(id, state))).collect();
        replies
    };
    gitlab
        .on("GET /projects/group%2Fenv/pipelines", [ok(json!([]))])
        .on(
            "POST /projects/group%2Fenv/pipeline",
            [status(201, pipeline(12, "created"))],
        )
        .on(JOBS, [ok(json!([job(1, "plan", "running", "running")]))])
        .on(
            TRIGGER_JOBS,
            [ok(json!([bridge(
                5,
                "infra",
                "running",
                below(30, 9, "running")
            )]))],
        )
        .on(
            "GET /projects/group%2Fenv/pipelines/12",
            states(12, &["running", "running", "canceled"]),
        )
        .on(
            "GET /projects/9/pipelines/30",
            states(30, &["running", "canceling", "canceled"]),
        )
        .on(
            "GET /projects/10/pipelines/40",
            states(40, &["running", "canceled"]),
        )
        .on(
            "GET /projects/9/pipelines/30/jobs",
            [ok(json!([job_of(30, 6, "plan", "running")]))],
        )
        .on("GET /projects/10/pipelines/40/trigger_jobs", [ok(json!([]))])
        // It starts the next one only while it is being cancelled.
        .on(
            "GET /projects/9/pipelines/30/trigger_jobs",
            [
                ok(json!([bridge(7, "network", "created", Value::Null)])),
                ok(json!([bridge(7, "network", "running", below(40, 10, "running"))])),
            ],
        );
    for (project, id) in [("group%2Fenv", 12), ("9", 30), ("10", 40)] {
        gitlab.on(
            &format!("POST /projects/{project}/pipelines/{id}/cancel"),
            [ok(pipeline(id, "canceling"))],
        );
    }
    gitlab
}

fn cancelled(gitlab: &Scripted) -> Vec<String> {
    let mut asked: Vec<String> = gitlab.asked().into_iter().map(|asked| asked.what).collect();
    asked.retain(|what| what.ends_with("/cancel"));
    asked.sort();
    asked
}

const ALL: [&str; 3] = [
    "POST /projects/10/pipelines/40/cancel",
    "POST /projects/9/pipelines/30/cancel",
    "POST /projects/group%2Fenv/pipelines/12/cancel",
];

#[tokio::test]
async fn everything_below_is_cancelled_once_even_what_came_in_the_meantime() {
    let gitlab = running().await;
    let child = gitlab
        .tool(&["--project", "group/env", "--key", "delivery-0001"])
        .with_access_token()
        .spawn();
    crate::follow::until_asked(&gitlab, "GET /projects/9/pipelines/30/trigger_jobs").await;
    child.signal(Signal::TERM).unwrap();
    let ran = child.ended().await.unwrap();
    assert_eq!(ran.code, 143, "{ran}");
    assert_eq!(cancelled(&gitlab), ALL);
    assert_eq!(ran.report().unwrap().get("left_running"), None, "{ran}");
    let gitlab = running().await;
    let ran = gitlab
        .tool(&["--project", "group/env", "cancel", "12"])
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(cancelled(&gitlab), ALL);
}

#[tokio::test]
async fn a_pipeline_that_was_found_goes_on_unless_it_is_to_be_cancelled_too() {
    for (flag, cancels) in [(None, 0), (Some("--cancel-found"), 3)] {
        let gitlab = running().await;
        gitlab
            .on(
                "GET /projects/group%2Fenv/pipelines",
                [ok(json!([pipeline(12, "running")]))],
            )
            .on(
                "GET /projects/group%2Fenv/pipelines/12/variables",
                [ok(
                    json!([{"key": "TOWPATH_TRIGGER_KEY", "value": "delivery-0001"}]),
                )],
            );
        let mut arguments = vec![
            "--project",
            "group/env",
            "--key",
            "delivery-0001",
            "--timeout",
            "2s",
        ];
        arguments.extend(flag);
        let ran = gitlab.tool(&arguments).with_access_token().run().await;
        assert_eq!(ran.code, 9, "{ran}");
        assert_eq!(ran.report().unwrap()["once"], "found");
        assert_eq!(cancelled(&gitlab).len(), cancels, "{ran}");
        assert_eq!(ran.stderr.contains("it goes on"), cancels == 0, "{ran}");
    }
}

#[tokio::test]
async fn a_manual_job_below_a_trigger_job_that_mirrors_it_is_started_and_the_trigger_job_is_not() {
    let gitlab = Scripted::start().await;
    let above = |state: &str| {
        (
            ok(json!([job(1, "plan", "success", state)])),
            ok(json!([bridge(5, "infra", state, below(30, 9, state))])),
        )
    };
    // `strategy: mirror` shows what happens below a moment later.
    let (jobs, bridges): (Vec<_>, Vec<_>) = [above("manual"), above("manual"), above("success")]
        .into_iter()
        .unzip();
    gitlab
        .on(JOBS, jobs)
        .on(TRIGGER_JOBS, bridges)
        .on(
            "GET /projects/9/pipelines/30/jobs",
            ["manual", "running", "success"].map(|state| ok(json!([job_of(30, 6, "approve", state)]))),
        )
        .on("GET /projects/9/pipelines/30/trigger_jobs", [ok(json!([]))])
        .on(
            "POST /projects/9/jobs/6/play",
            [ok(job_of(30, 6, "approve", "pending"))],
        );
    let mut arguments = WAIT.to_vec();
    arguments.extend(["--on-manual", "play"]);
    let ran = gitlab.tool(&arguments).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(
        ran.report().unwrap()["played"],
        json!(["infra > approve"]),
        "{ran}"
    );
    let mut posts = gitlab.asked();
    posts.retain(|asked| asked.what.starts_with("POST"));
    assert_eq!(posts.len(), 1, "{posts:?}");
}

#[tokio::test]
async fn how_the_pipeline_ended_is_known_without_those_below_unless_they_count() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(JOBS, [ok(json!([job(1, "plan", "success", "success")]))])
        .on(
            TRIGGER_JOBS,
            [ok(json!([bridge(
                5,
                "infra",
                "success",
                below(30, 9, "running")
            )]))],
        )
        .on(
            "GET /projects/9/pipelines/30/jobs",
            [status(500, json!({"message": "500 Internal Server Error"}))],
        );
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.report().unwrap()["verdict"], "success");
    let mut arguments = WAIT.to_vec();
    arguments.extend(["--downstream", "all", "--timeout", "4s"]);
    let ran = gitlab.tool(&arguments).with_access_token().run().await;
    assert_eq!(ran.code, 7, "{ran}");
}
