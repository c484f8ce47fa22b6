//! Following: verdicts, faults on the way, manual jobs, logs of failures, and what an interruption leaves behind.

use std::time::{Duration, Instant};

use crate::support::{ACCESS, Scripted, job, ok, pipeline, status, text};
use serde_json::{Value, json};
use towpath_sandbox::tool_run::Signal;

const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const PIPELINE: &str = "GET /projects/group%2Fenv/pipelines/12";
const TRIGGER_JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";
const BRIDGES: &str = "GET /projects/group%2Fenv/pipelines/12/bridges";
const CANCEL: &str = "POST /projects/group%2Fenv/pipelines/12/cancel";
const TRIGGERED: &str = "POST /projects/group%2Fenv/trigger/pipeline";
const START: &str = "POST /projects/group%2Fenv/pipeline";

const WAIT: [&str; 4] = ["--project", "group/env", "wait", "12"];

#[tokio::test]
async fn every_final_status_has_its_exit_code_with_either_token() {
    let gitlab = Scripted::start().await;
    gitlab.on(TRIGGER_JOBS, [ok(json!([]))]);
    for (state, code, verdict) in [
        ("success", 0, "success"),
        ("failed", 8, "failed"),
        ("canceled", 8, "canceled"),
        ("skipped", 8, "skipped"),
        ("manual", 9, "blocked"),
    ] {
        gitlab.on(JOBS, [ok(json!([job(1, "apply", state, state)]))]);
        for tool in [
            gitlab.tool(&WAIT).with_job_token(),
            gitlab.tool(&WAIT).with_access_token(),
        ] {
            let ran = tool.run().await;
            assert_eq!(ran.code, code, "{state}: {ran}");
            let report = ran.report().unwrap();
            assert_eq!(
                (&report["verdict"], &report["changed"]),
                (&json!(verdict), &json!(false))
            );
        }
    }
}

#[tokio::test]
async fn jobs_that_say_nothing_of_the_pipeline_are_composed() {
    let gitlab = Scripted::start().await;
    let bare = |id: u64, name: Value, state: Value, allow_failure: Value| {
        json!({"id": id, "name": name, "stage": null, "status": state, "allow_failure": allow_failure,
               "duration": null, "web_url": null, "pipeline": null})
    };
    gitlab.on(
        JOBS,
        [
            ok(json!([bare(1, json!("apply"), json!("snoozed"), Value::Null)])),
            ok(json!([bare(1, json!("apply"), Value::Null, Value::Null)])),
            // The first attempt failed and was retried; both are listed by a GitLab in the middle of it.
            ok(json!([
                bare(3, json!("apply"), json!("success"), json!(false)),
                bare(2, Value::Null, json!("failed"), json!(true)),
                bare(1, json!("apply"), json!("failed"), json!(false)),
            ])),
        ],
    );
    let ran = gitlab.tool(&WAIT).with_job_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(report["pipeline"]["status"], "success");
    let ids: Vec<&str> = report["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["name"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["", "apply"]);
    assert!(ran.stderr.contains("snoozed"), "{ran}");
}

#[tokio::test]
async fn faults_on_the_way_are_sat_out() {
    let gitlab = Scripted::start().await;
    gitlab.on(
        JOBS,
        [
            text(429, "Retry later\n").header("retry-after", "1"),
            ok(json!([job(1, "apply", "running", "running")])),
            text(500, "oops"),
            text(503, ""),
            ok(json!([job(1, "apply", "running", "running")])).broken(),
            ok(json!([job(1, "apply", "running", "running")])).after(Duration::from_millis(700)),
            ok(json!([job(1, "apply", "success", "success")])),
        ],
    );
    let ran = gitlab.tool(&WAIT).with_job_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("(500)"), "{ran}");
    // With nothing but faults the deadline is the end, and worth another try.
    gitlab.on(JOBS, [text(500, "oops")]);
    let tool = gitlab.tool(&WAIT).env("TOWPATH_TIMEOUT", "3s");
    assert_eq!(tool.with_job_token().run().await.code, 7);
    gitlab.on(TRIGGERED, [status(201, pipeline(12, "created"))]);
    let tool = gitlab.tool(&["--project", "group/env", "--timeout", "3s"]);
    let ran = tool.with_job_token().run().await;
    assert_eq!(ran.code, 7, "{ran}");
    assert_eq!(ran.report().unwrap()["left_running"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_long_pipeline_only_what_goes_on_or_failed_is_read() {
    let gitlab = Scripted::start().await;
    let page = |ids: &[u64], state: &str| {
        let jobs: Vec<Value> = ids
            .iter()
            .map(|id| job(*id, &format!("job-{id}"), state, "failed"))
            .collect();
        ok(json!(jobs))
    };
    let link = format!(
        "<{}/api/v4/projects/group%2Fenv/pipelines/12/jobs?cursor=x>; rel=\"next\"",
        gitlab.url
    );
    gitlab.on(
        JOBS,
        [
            page(&[1], "success").header("x-next-page", "2"),
            page(&[2], "failed").header("x-next-page", "2"),
            page(&[3], "failed").header("x-next-page", ""),
            page(&[2], "failed").header("link", link),
            page(&[3], "failed"),
        ],
    );
    let ran = gitlab.tool(&WAIT).with_job_token().run().await;
    assert_eq!(ran.code, 8, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(report["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(report["more_jobs"], true);
    assert!(ran.stderr.contains("failed: job-2, job-3"), "{ran}");
    let queries: Vec<String> = gitlab
        .asked_for(JOBS)
        .into_iter()
        .map(|asked| asked.query)
        .collect();
    let scoped = &queries[1];
    assert!(scoped.starts_with("scope%5B%5D=running&"), "{scoped}");
    assert!(
        !scoped.contains("success") && !scoped.contains("created"),
        "{scoped}"
    );
    let second = format!("{scoped}&page=2");
    assert_eq!(queries, ["per_page=100", scoped, &second, scoped, "cursor=x"]);
}

#[tokio::test]
async fn a_next_page_on_another_host_gets_no_token() {
    let gitlab = Scripted::start().await;
    let elsewhere = Scripted::start().await;
    let link = format!("<{}/api/v4/jobs>; rel=\"next\"", elsewhere.url);
    gitlab.on(
        JOBS,
        [ok(json!([job(1, "apply", "running", "running")])).header("link", link)],
    );
    let ran = gitlab.tool(&WAIT).with_job_token().run().await;
    assert_eq!(ran.code, 4, "{ran}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_failed_job_shows_the_end_of_its_log() {
    let gitlab = Scripted::start().await;
    let mut allowed = job(2, "lint", "failed", "failed");
    allowed["allow_failure"] = json!(true);
    let mut failed = job(1, "apply", "failed", "failed");
    failed["failure_reason"] = json!("script_failure");
    gitlab
        .on(JOBS, [ok(json!([allowed, failed]))])
        .on(BRIDGES, [ok(json!([]))])
        .on(
            "GET /projects/group%2Fenv/jobs/1/trace",
            [text(
                200,
                &format!("first\n\u{1b}[31mdenied by policy\u{1b}[0m\ntoken {ACCESS}\n"),
            )],
        );
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 8, "{ran}");
    assert!(ran.stderr.contains("apply (script_failure)"), "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        report["jobs"][0]["tail"],
        json!(["first", "denied by policy", "token ****"])
    );
    assert_eq!(report["jobs"][1].get("tail"), None);
    assert!(ran.stderr.contains("denied by policy"), "{ran}");
    assert!(
        gitlab
            .asked_for("GET /projects/group%2Fenv/jobs/2/trace")
            .is_empty()
    );
    assert_eq!(
        gitlab.asked_for(BRIDGES).len(),
        1,
        "asked for where trigger_jobs is not there"
    );
}

#[tokio::test]
async fn a_failure_that_gitlab_retries_by_itself_is_none() {
    let gitlab = Scripted::start().await;
    gitlab.on(
        JOBS,
        [
            ok(json!([job(1, "apply", "failed", "failed")])),
            ok(json!([job(2, "apply", "running", "running")])),
            ok(json!([job(2, "apply", "success", "success")])),
        ],
    );
    let ran = gitlab.tool(&WAIT).with_job_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.report().unwrap()["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn manual_jobs_block_are_waited_for_or_are_ignored() {
    let gitlab = Scripted::start().await;
    let manual = || {
        ok(json!([
            job(2, "approve", "manual", "manual"),
            job(1, "plan", "success", "manual")
        ]))
    };
    gitlab.on(JOBS, [manual()]);
    let tool = |policy| {
        gitlab
            .tool(&WAIT)
            .env("TOWPATH_ON_MANUAL", policy)
            .with_job_token()
    };
    let ran = tool("fail").run().await;
    assert_eq!(ran.code, 9, "{ran}");
    assert!(ran.stderr.contains("waits for a person: approve"), "{ran}");
    let ran = tool("ignore").run().await;
    assert_eq!(
        (ran.code, &ran.report().unwrap()["verdict"]),
        (0, &json!("success")),
        "{ran}"
    );
    gitlab.on(
        JOBS,
        [
            manual(),
            ok(json!([
                job(2, "approve", "success", "success"),
                job(1, "plan", "success", "success")
            ])),
        ],
    );
    let ran = tool("wait").run().await;
    assert_eq!(ran.code, 0, "{ran}");
}

#[tokio::test]
async fn a_token_that_sees_no_jobs_does_not_guess() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(JOBS, [ok(json!([]))])
        .on(PIPELINE, [ok(pipeline(12, "success"))])
        .on(TRIGGER_JOBS, [ok(json!([]))]);
    let ran = gitlab
        .tool(&WAIT)
        .env("TOWPATH_TIMEOUT", "3s")
        .with_job_token()
        .run()
        .await;
    assert_eq!(ran.code, 9, "{ran}");
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
}

/// A pipeline that runs until it is cancelled, and has started one in another project.
async fn endless() -> Scripted {
    let gitlab = Scripted::start().await;
    let bridge = json!({"id": 5, "name": "infra", "stage": "next", "status": "running", "allow_failure": false,
                        "downstream_pipeline": {"id": 30, "project_id": 9, "status": "running", "web_url": null}});
    gitlab
        .on("GET /projects/group%2Fenv/pipelines", [ok(json!([]))])
        .on(START, [status(201, pipeline(12, "created"))])
        .on(TRIGGERED, [status(201, pipeline(12, "created"))])
        .on(JOBS, [ok(json!([job(1, "apply", "running", "running")]))])
        .on(TRIGGER_JOBS, [ok(json!([bridge]))])
        .on(CANCEL, [ok(pipeline(12, "running"))])
        .on(
            PIPELINE,
            [ok(pipeline(12, "running")), ok(pipeline(12, "canceled"))],
        )
        .on(
            "POST /projects/9/pipelines/30/cancel",
            [ok(pipeline(30, "running"))],
        )
        .on("GET /projects/9/pipelines/30/trigger_jobs", [ok(json!([]))])
        .on(
            "GET /projects/9/pipelines/30",
            [
                ok(pipeline(30, "running")),
                ok(pipeline(30, "canceling")),
                ok(pipeline(30, "canceled")),
            ],
        );
    gitlab
}

pub(crate) async fn until_asked(gitlab: &Scripted, what: &str) {
    let began = Instant::now();
    while gitlab.asked_for(what).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody asked {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_signal_cancels_the_pipeline_and_what_it_started() {
    for (name, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let gitlab = endless().await;
        let child = gitlab
            .tool(&["--project", "group/env"])
            .with_access_token()
            .spawn();
        until_asked(&gitlab, TRIGGER_JOBS).await;
        child.signal(name).unwrap();
        let ran = child.ended().await.unwrap();
        assert_eq!(ran.code, code, "{ran}");
        assert_eq!(gitlab.asked_for(CANCEL).len(), 1);
        assert_eq!(gitlab.asked_for("POST /projects/9/pipelines/30/cancel").len(), 1);
        assert_eq!(
            gitlab.asked_for("GET /projects/9/pipelines/30").len(),
            3,
            "read again until it was cancelled: {ran}"
        );
        assert!(ran.stderr.contains("it was cancelled"), "{ran}");
        assert_eq!(ran.report().unwrap().get("left_running"), None);
    }
}

#[tokio::test]
async fn a_job_token_says_what_it_leaves_running() {
    let gitlab = endless().await;
    let child = gitlab.tool(&["--project", "group/env"]).with_job_token().spawn();
    until_asked(&gitlab, JOBS).await;
    child.signal(Signal::TERM).unwrap();
    let ran = child.ended().await.unwrap();
    assert_eq!(ran.code, 143, "{ran}");
    assert!(ran.stderr.contains("still running: pipeline 12"), "{ran}");
    assert_eq!(ran.report().unwrap()["left_running"].as_array().unwrap().len(), 1);
    assert!(gitlab.asked_for(CANCEL).is_empty());
}

#[tokio::test]
async fn the_deadline_cancels_what_was_started_and_leaves_what_was_watched() {
    let gitlab = endless().await;
    let ran = gitlab
        .tool(&["--project", "group/env", "--timeout", "2s"])
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 9, "{ran}");
    assert_eq!(gitlab.asked_for(CANCEL).len(), 1);
    let ran = gitlab
        .tool(&WAIT)
        .env("TOWPATH_TIMEOUT", "2s")
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 9, "{ran}");
    assert_eq!(gitlab.asked_for(CANCEL).len(), 1, "watching cancels nothing");
}

#[tokio::test]
async fn cancel_waits_until_it_has_stopped_and_is_repeatable() {
    let gitlab = endless().await;
    gitlab.on(
        PIPELINE,
        [
            ok(pipeline(12, "running")),
            ok(pipeline(12, "canceling")),
            ok(pipeline(12, "canceled")),
        ],
    );
    let cancel = || gitlab.tool(&["--project", "group/env", "cancel", "12"]);
    let ran = cancel().with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["pipeline"]["status"], &report["changed"]),
        (&json!("canceled"), &json!(true))
    );
    let report = cancel().with_access_token().run().await.report().unwrap();
    assert_eq!(
        (&report["pipeline"]["status"], &report["changed"]),
        (&json!("canceled"), &json!(false))
    );
    assert_eq!(gitlab.asked_for(CANCEL).len(), 1);
    let ran = cancel().with_job_token().run().await;
    assert_eq!(ran.code, 4, "{ran}");
}
