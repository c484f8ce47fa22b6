//! What came of it: a file of a job, checked against what was asked for.

use crate::support::{Scripted, job, ok, status, text};
use serde_json::json;

const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const TRIGGER_JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";
const FILE: &str = "GET /projects/group%2Fenv/jobs/1/artifacts/out/handoff.env";

async fn gitlab() -> Scripted {
    let gitlab = Scripted::start().await;
    gitlab
        .on(TRIGGER_JOBS, [ok(json!([]))])
        .on(JOBS, [ok(json!([job(1, "bump", "success", "success")]))])
        .on(FILE, [text(200, "IMAGE_DIGEST=sha256:abc\nIMAGE_TAG=v1\n")]);
    gitlab
}

fn wait<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [
        &[
            "--project",
            "group/env",
            "wait",
            "12",
            "--result",
            "bump:out/handoff.env",
        ],
        more,
    ]
    .concat()
}

#[tokio::test]
async fn the_result_is_reported_and_has_to_be_what_was_asked_for() {
    let gitlab = gitlab().await;
    for (expect, code) in [
        (&[][..], 0),
        (
            &["--expect", "IMAGE_DIGEST=sha256:abc", "--expect", "IMAGE_TAG=v1"],
            0,
        ),
        (&["--expect", "IMAGE_DIGEST=sha256:other"], 6),
        (&["--expect", "COMMIT=c1"], 6),
    ] {
        for access in [true, false] {
            let tool = gitlab.tool(&wait(expect));
            let tool = if access {
                tool.with_access_token()
            } else {
                tool.with_job_token()
            };
            let ran = tool.run().await;
            assert_eq!(ran.code, code, "{expect:?} {ran}");
            let report = ran.report().unwrap();
            assert_eq!(
                report["result"],
                json!({"IMAGE_DIGEST": "sha256:abc", "IMAGE_TAG": "v1"})
            );
            assert_eq!(report["verdict"], "success");
        }
    }
    let ran = gitlab
        .tool(&wait(&["--expect", "IMAGE_DIGEST=sha256:other"]))
        .with_job_token()
        .run()
        .await;
    assert!(
        ran.stderr
            .contains("IMAGE_DIGEST is sha256:abc, not sha256:other"),
        "{ran}"
    );
}

#[tokio::test]
async fn the_delivered_digest_is_expected_unless_something_else_is() {
    let gitlab = gitlab().await;
    gitlab.on(
        "POST /projects/group%2Fenv/trigger/pipeline",
        [status(201, crate::support::pipeline(12, "created"))],
    );
    let run = |digest: &str| {
        gitlab
            .tool(&["--project", "group/env", "--result", "bump:out/handoff.env"])
            .env("IMAGE_DIGEST", digest)
            .with_job_token()
    };
    assert_eq!(run("sha256:abc").run().await.code, 0);
    let ran = run("sha256:new").run().await;
    assert_eq!(ran.code, 6, "{ran}");
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_told_apart() {
    let gitlab = gitlab().await;
    let run = |source: &str, access: bool| {
        let tool = gitlab.tool(&["--project", "group/env", "wait", "12", "--result", source]);
        if access {
            tool.with_access_token()
        } else {
            tool.with_job_token()
        }
    };
    let ran = run("bmp:out/handoff.env", true).run().await;
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("has no job bmp"), "{ran}");
    gitlab.on(FILE, [status(404, json!({"message": "404 Not Found"}))]);
    let ran = run("bump:out/handoff.env", true).run().await;
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("artifacts:paths"), "{ran}");
    let ran = run("bump:out/handoff.env", false).run().await;
    assert_eq!(ran.code, 5, "{ran}");
    assert!(ran.stderr.contains("Premium"), "{ran}");
    gitlab.on(FILE, [text(200, &"A=1\n".repeat(100_000))]);
    assert_eq!(run("bump:out/handoff.env", true).run().await.code, 3);
    gitlab.on(FILE, [text(200, "<html>login</html>")]);
    assert_eq!(run("bump:out/handoff.env", true).run().await.code, 3);
    for (arguments, said) in [
        (&["--result", "bump"][..], "JOB:PATH"),
        (&["--result", "bump:../x"], "JOB:PATH"),
        (&["--expect", "A=1"], "--result"),
    ] {
        let ran = gitlab
            .tool(&[&["--project", "group/env", "wait", "12"], arguments].concat())
            .with_job_token()
            .run()
            .await;
        assert_eq!(ran.code, 2, "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
    }
}

#[tokio::test]
async fn the_job_of_a_long_pipeline_is_found_although_it_was_not_listed() {
    let gitlab = gitlab().await;
    gitlab.on(
        JOBS,
        [
            ok(json!([job(3, "other", "success", "success")])).header("x-next-page", "2"),
            // What goes on or failed: nothing.
            ok(json!([])),
            // What went well.
            ok(json!([job(1, "bump", "success", "success")])),
        ],
    );
    let ran = gitlab
        .tool(&wait(&["--expect", "IMAGE_TAG=v1"]))
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 0, "{ran}");
    let asked = gitlab.asked_for(JOBS);
    assert_eq!(asked.last().unwrap().query, "scope%5B%5D=success&per_page=100");
}
