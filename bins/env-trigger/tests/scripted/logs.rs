//! The ends of failed jobs' logs: as little of them as GitLab lets us, and nothing that commands the reader.

use crate::support::{Scripted, job, ok, text};
use serde_json::{Value, json};

const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const TRIGGER_JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";
const LOG: &str = "GET /projects/group%2Fenv/jobs/1/trace";
const WAIT: [&str; 4] = ["--project", "group/env", "wait", "12"];

async fn failed(artifacts: Value) -> Scripted {
    let gitlab = Scripted::start().await;
    let mut failed = job(1, "apply", "failed", "failed");
    failed["artifacts"] = artifacts;
    gitlab
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(JOBS, [ok(json!([failed]))])
        .on(LOG, [text(200, "the end\n")]);
    gitlab
}

#[tokio::test]
async fn only_the_end_is_asked_for() {
    // The length is known once the log is archived.
    let gitlab = failed(json!([{"file_type": "trace", "size": 200_000}])).await;
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert_eq!(ran.code, 8, "{ran}");
    let asked = &gitlab.asked_for(LOG)[0];
    assert_eq!(asked.query, "byte_offset=134464&byte_limit=65536");
    for artifacts in [
        json!([]),
        json!(null),
        json!([{"file_type": "trace", "size": 500}]),
    ] {
        let gitlab = failed(artifacts).await;
        let ran = gitlab.tool(&WAIT).with_access_token().run().await;
        let asked = &gitlab.asked_for(LOG)[0];
        assert_eq!(
            (asked.query.as_str(), asked.headers["range"].as_str()),
            ("", "bytes=-65536")
        );
        assert_eq!(ran.report().unwrap()["jobs"][0]["tail"], json!(["the end"]));
    }
}

#[tokio::test]
async fn a_log_that_comes_whole_is_cut_to_its_end() {
    let gitlab = failed(json!([])).await;
    let mut log = "noise that nobody needs\n".repeat(100_000);
    log.push_str("the cause\n");
    gitlab.on(LOG, [text(200, &log)]);
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    let report = ran.report().unwrap();
    let tail = report["jobs"][0]["tail"].as_array().unwrap();
    assert_eq!(tail.len(), 25);
    assert_eq!(tail[24], "the cause");
}

#[tokio::test]
async fn a_log_neither_commands_the_reader_nor_breaks_our_sections() {
    let gitlab = failed(json!([])).await;
    let hostile = "section_end:1700000000:job_1\r\u{1b}[0K\u{1b}]0;owned\u{7}\n\
                   ::add-mask::hunter22secret\nlogin with hunter22secret\n\
                   safe \u{1b}[2J\u{1b}[31mred\u{1b}[0m \u{202e}desrever\n";
    gitlab.on(LOG, [text(200, hostile)]);
    let in_gitlab = || gitlab.tool(&WAIT).env("GITLAB_CI", "true").with_access_token();
    let ran = in_gitlab().run().await;
    assert_eq!(ran.code, 8, "{ran}");
    assert_eq!(
        ran.report().unwrap()["jobs"][0]["tail"],
        json!(["::add-mask::****", "login with ****", "safe red desrever"])
    );
    assert!(
        !ran.stderr.contains("hunter22secret") && !ran.stderr.contains("owned"),
        "{ran}"
    );
    // Every section that opens closes, and no other control characters are there.
    let marks = |edge: &str| ran.stderr.matches(&format!("section_{edge}:")).count();
    assert_eq!((marks("start"), marks("end")), (2, 2), "{ran}");
    assert!(ran.stderr.contains(":job_1\r\u{1b}[0Klog of apply"), "{ran}");
    let others = ran.stderr.replace("\r\u{1b}[0K", "").replace('\n', "");
    assert!(!others.chars().any(char::is_control), "{others:?}");
    // Elsewhere there are none, nor in a log for machines.
    let ran = gitlab.tool(&WAIT).with_access_token().run().await;
    assert!(!ran.stderr.contains("section_"), "{ran}");
    let ran = in_gitlab().env("TOWPATH_LOG_FORMAT", "json").run().await;
    assert!(!ran.stderr.contains("section_"), "{ran}");
}

#[tokio::test]
async fn a_log_that_cannot_be_read_changes_no_verdict() {
    for reply in [
        text(403, "{\"message\":\"403 Forbidden\"}"),
        text(416, ""),
        text(200, "half of").broken(),
    ] {
        let gitlab = failed(json!([])).await;
        gitlab.on(LOG, [reply]);
        let ran = gitlab.tool(&WAIT).with_access_token().run().await;
        assert_eq!(ran.code, 8, "{ran}");
    }
}
