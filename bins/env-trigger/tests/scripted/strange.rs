//! Answers that are not GitLab's: login pages, redirects, documents that stop in the middle.

use crate::support::{JOB, Scripted, job, ok, pipeline, status, text};
use serde_json::json;
use std::time::Duration;

const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const TRIGGERED: &str = "POST /projects/group%2Fenv/trigger/pipeline";
const START: &str = "POST /projects/group%2Fenv/pipeline";
const LIST: &str = "GET /projects/group%2Fenv/pipelines";
const TRIGGER_JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";
const WAIT: [&str; 4] = ["--project", "group/env", "wait", "12"];
const LOGIN: &str = "\n<!DOCTYPE html><html><body>Please log in</body></html>";

#[tokio::test]
async fn a_login_page_is_named_and_started_nothing() {
    let gitlab = Scripted::start().await;
    let page = || text(200, LOGIN).header("content-type", "text/html");
    gitlab
        .on(TRIGGERED, [page()])
        .on(JOBS, [page()])
        .on(LIST, [page()]);
    let start = || gitlab.tool(&["--project", "group/env"]);
    for ran in [
        start().with_job_token().run().await,
        start().with_access_token().run().await,
        gitlab.tool(&WAIT).with_job_token().run().await,
    ] {
        assert_eq!(ran.code, 3, "{ran}");
        assert!(ran.stderr.contains("web page"), "{ran}");
        assert!(ran.stderr.contains("CI_API_V4_URL"), "{ran}");
    }
    // A redirect to one is the same, and no token follows it.
    let elsewhere = Scripted::start().await;
    let moved = || text(302, "").header("location", format!("{}/login", elsewhere.url));
    gitlab.on(TRIGGERED, [moved()]);
    let ran = start().with_job_token().run().await;
    assert_eq!(ran.code, 3, "{ran}");
    assert!(ran.stderr.contains("another address"), "{ran}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_page_that_comes_for_a_moment_is_sat_out() {
    let gitlab = Scripted::start().await;
    let whole = json!([job(1, "apply", "running", "running")]).to_string();
    gitlab.on(
        JOBS,
        [
            ok(json!([job(1, "apply", "running", "running")])),
            text(200, LOGIN),
            // It stops in the middle, with all the headers of one that does not.
            text(200, &whole[..whole.len() / 2]),
            text(200, ""),
            ok(json!([job(1, "apply", "success", "success")])),
        ],
    );
    let ran = gitlab.tool(&WAIT).with_job_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("ends in the middle"), "{ran}");
}

#[tokio::test]
async fn a_start_whose_answer_stops_in_the_middle_is_not_repeated() {
    let gitlab = Scripted::start().await;
    let whole = pipeline(12, "created").to_string();
    gitlab.on(TRIGGERED, [text(201, &whole[..20])]);
    let ran = gitlab
        .tool(&["--project", "group/env"])
        .with_job_token()
        .run()
        .await;
    assert_eq!(ran.code, 9, "{ran}");
    assert_eq!(gitlab.asked_for(TRIGGERED).len(), 1);
}

#[tokio::test]
async fn the_chosen_token_starts_and_the_access_token_does_the_rest() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(LIST, [ok(json!([]))])
        .on(TRIGGERED, [status(201, pipeline(12, "created"))])
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(JOBS, [ok(json!([job(1, "apply", "success", "success")]))]);
    let ran = gitlab
        .tool(&[
            "--project",
            "group/env",
            "--start-by",
            "job",
            "--key",
            "delivery-0001",
        ])
        .env("CI_JOB_TOKEN", JOB)
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.report().unwrap()["once"], "checked");
    let body = &gitlab.asked_for(TRIGGERED)[0].body;
    assert_eq!(
        (&body["token"], &body["variables"]),
        (&json!(JOB), &json!({"TOWPATH_TRIGGER_KEY": "delivery-0001"}))
    );
    assert!(gitlab.asked_for(START).is_empty());
    let ran = gitlab
        .tool(&["--project", "group/env", "--start-by", "trigger"])
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("no trigger token"), "{ran}");
}

#[tokio::test]
async fn what_gitlab_would_not_take_is_refused_before_it_is_asked() {
    let gitlab = Scripted::start().await;
    let name = format!("{}=1", "n".repeat(256));
    for given in [name.as_str(), "a:={\"b\":1}", "a b=1"] {
        let ran = gitlab
            .tool(&["--project", "group/env", "--input", given])
            .with_job_token()
            .run()
            .await;
        assert_eq!(ran.code, 2, "{given}");
    }
    let many: String = (0..21).map(|number| format!("i{number}=1\n")).collect();
    let ran = gitlab
        .tool(&["--project", "group/env"])
        .env("TOWPATH_INPUTS", &many)
        .with_job_token()
        .run()
        .await;
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("21 inputs"), "{ran}");
    assert!(gitlab.asked().is_empty());
}

#[tokio::test]
async fn a_pipeline_whose_start_outlasted_the_deadline_is_found_and_cancelled() {
    let gitlab = Scripted::start().await;
    gitlab
        .on(LIST, [ok(json!([])), ok(json!([pipeline(12, "running")]))])
        .on(
            START,
            [status(201, pipeline(12, "created")).after(Duration::from_secs(5))],
        )
        .on(
            "GET /projects/group%2Fenv/pipelines/12/variables",
            [ok(
                json!([{"key": "TOWPATH_TRIGGER_KEY", "value": "delivery-0001"}]),
            )],
        )
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(
            "GET /projects/group%2Fenv/pipelines/12",
            [ok(pipeline(12, "running")), ok(pipeline(12, "canceled"))],
        )
        .on(
            "POST /projects/group%2Fenv/pipelines/12/cancel",
            [ok(pipeline(12, "canceling"))],
        );
    let arguments = [
        "--project",
        "group/env",
        "--key",
        "delivery-0001",
        "--timeout",
        "1s",
    ];
    let ran = gitlab.tool(&arguments).with_access_token().run().await;
    assert_eq!(ran.code, 9, "{ran}");
    assert!(ran.stderr.contains("it was cancelled"), "{ran}");
    assert_eq!(gitlab.asked_for(START).len(), 1);
    let cancel = "POST /projects/group%2Fenv/pipelines/12/cancel";
    assert_eq!(gitlab.asked_for(cancel).len(), 1);
}

#[tokio::test]
async fn a_cancel_that_outlasts_the_deadline_is_reported_all_the_same() {
    let gitlab = Scripted::start().await;
    let states = ["running", "running", "canceling", "canceling", "canceled"];
    gitlab
        .on(
            "GET /projects/group%2Fenv/pipelines/12",
            states.map(|state| ok(pipeline(12, state))),
        )
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(
            "POST /projects/group%2Fenv/pipelines/12/cancel",
            [ok(pipeline(12, "canceling"))],
        );
    let arguments = ["--project", "group/env", "cancel", "12", "--timeout", "2s"];
    let ran = gitlab.tool(&arguments).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["pipeline"]["status"], &report["changed"]),
        (&json!("canceled"), &json!(true))
    );
}

#[tokio::test]
async fn an_address_cannot_make_lines_of_its_own() {
    let gitlab = Scripted::start().await;
    let mut hostile = pipeline(12, "success");
    hostile["web_url"] = json!("https://x\u{1b}[2J\u{202e}\nsection_end:1:pipeline_12\r\u{1b}[0K");
    gitlab
        .on(JOBS, [ok(json!([]))])
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on("GET /projects/group%2Fenv/pipelines/12", [ok(hostile)]);
    let mut arguments = WAIT.to_vec();
    arguments.extend(["--output", "text"]);
    let ran = gitlab.tool(&arguments).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    for stream in [&ran.stdout, &ran.stderr] {
        assert!(
            !stream.contains(['\u{1b}', '\u{202e}']) && !stream.contains("\nsection_end"),
            "{ran}"
        );
    }
}
