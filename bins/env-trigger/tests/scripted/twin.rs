//! Two runs that start the same delivery at the same moment: one of the two pipelines is left.

use crate::support::{Scripted, job, ok, pipeline, status};
use serde_json::json;

const START: &str = "POST /projects/group%2Fenv/pipeline";
const LIST: &str = "GET /projects/group%2Fenv/pipelines";
const KEY: &str = "delivery-0001";

fn carries() -> towpath_sandbox::scripted::Reply {
    ok(json!([{"key": "TOWPATH_TRIGGER_KEY", "value": KEY}]))
}

/// A GitLab where pipeline 12 is started and another one appears a moment later.
async fn gitlab(other: u64) -> Scripted {
    let gitlab = Scripted::start().await;
    let both = || {
        let mut both = vec![pipeline(12, "running"), pipeline(other, "running")];
        both.sort_by_key(|pipeline| std::cmp::Reverse(pipeline["id"].as_u64()));
        ok(json!(both))
    };
    gitlab
        .on(LIST, [ok(json!([])), both()])
        .on(START, [status(201, pipeline(12, "created"))]);
    for id in [12, other] {
        let of = |what: &str| format!("GET /projects/group%2Fenv/pipelines/{id}{what}");
        gitlab
            .on(&of("/variables"), [carries()])
            .on(&of("/trigger_jobs"), [ok(json!([]))])
            .on(
                &of(""),
                [ok(pipeline(id, "running")), ok(pipeline(id, "canceled"))],
            )
            .on(
                &of("/jobs"),
                [
                    ok(json!([job(id * 10, "apply", "running", "running")])),
                    ok(json!([job(id * 10, "apply", "success", "success")])),
                ],
            )
            .on(
                &format!("POST /projects/group%2Fenv/pipelines/{id}/cancel"),
                [ok(pipeline(id, "canceling"))],
            );
    }
    gitlab
}

const ARGUMENTS: [&str; 4] = ["--project", "group/env", "--key", KEY];

#[tokio::test]
async fn the_later_one_gives_way() {
    for detach in [false, true] {
        let gitlab = gitlab(11).await;
        let mut arguments = ARGUMENTS.to_vec();
        if detach {
            arguments.push("--detach");
        }
        let ran = gitlab.tool(&arguments).with_access_token().run().await;
        assert_eq!(ran.code, 0, "{ran}");
        let report = ran.report().unwrap();
        assert_eq!(
            (
                &report["once"],
                &report["created"],
                &report["pipeline"]["id"],
                &report["twin"]["id"]
            ),
            (&json!("twin"), &json!(false), &json!(11), &json!(12)),
            "{ran}"
        );
        let cancelled = |id: u64| {
            let what = format!("POST /projects/group%2Fenv/pipelines/{id}/cancel");
            gitlab.asked_for(&what).len()
        };
        assert_eq!((cancelled(11), cancelled(12)), (0, 1));
        assert!(ran.stderr.contains("cancelled for its twin"), "{ran}");
        assert_eq!(
            report["verdict"],
            if detach { json!(null) } else { json!("success") }
        );
    }
}

#[tokio::test]
async fn the_first_one_stays() {
    let gitlab = gitlab(13).await;
    let ran = gitlab.tool(&ARGUMENTS).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["once"], &report["created"], &report["pipeline"]["id"]),
        (&json!("checked"), &json!(true), &json!(12))
    );
    assert!(
        gitlab
            .asked()
            .iter()
            .all(|asked| !asked.what.ends_with("/cancel"))
    );
}

#[tokio::test]
async fn a_run_that_found_the_one_that_gave_way_follows_the_other() {
    let gitlab = gitlab(11).await;
    gitlab
        .on(
            LIST,
            [
                ok(json!([pipeline(12, "running")])),
                ok(json!([pipeline(12, "canceled"), pipeline(11, "running")])),
            ],
        )
        .on(
            "GET /projects/group%2Fenv/pipelines/12/jobs",
            [ok(json!([job(120, "apply", "canceled", "canceled")]))],
        );
    let ran = gitlab.tool(&ARGUMENTS).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["once"], &report["pipeline"]["id"], &report["verdict"]),
        (&json!("found"), &json!(11), &json!("success"))
    );
    assert!(gitlab.asked_for(START).is_empty());
}

#[tokio::test]
async fn a_twin_that_cannot_be_cancelled_is_no_success() {
    let gitlab = gitlab(11).await;
    gitlab.on(
        "POST /projects/group%2Fenv/pipelines/12/cancel",
        [status(403, json!({"message": "403 Forbidden"}))],
    );
    let tool = gitlab.tool(&ARGUMENTS).with_access_token();
    gitlab.on(
        "GET /projects/group%2Fenv/pipelines/12",
        [ok(pipeline(12, "running"))],
    );
    let ran = tool.run().await;
    assert_eq!(ran.code, 6, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["pipeline"]["id"], &report["verdict"]),
        (&json!(11), &json!("success"))
    );
    let left = report["left_running"][0].as_str().unwrap();
    assert!(left.contains("pipeline 12") && left.contains("403"), "{ran}");
}

#[tokio::test]
async fn of_two_that_may_be_ours_after_a_lost_answer_one_is_left() {
    for detach in [false, true] {
        // 13 appears only after 12 was taken for ours.
        let gitlab = gitlab(13).await;
        let first = || ok(json!([pipeline(12, "running")]));
        let both = || ok(json!([pipeline(13, "running"), pipeline(12, "running")]));
        gitlab
            .on(LIST, [ok(json!([])), first(), both()])
            .on(START, [status(502, json!({}))]);
        let mut arguments = ARGUMENTS.to_vec();
        if detach {
            arguments.push("--detach");
        } else {
            // It goes on for long enough that the other one is seen.
            gitlab.on(
                "GET /projects/group%2Fenv/pipelines/12/jobs",
                [
                    ok(json!([job(120, "apply", "running", "running")])),
                    ok(json!([job(120, "apply", "running", "running")])),
                    ok(json!([job(120, "apply", "success", "success")])),
                ],
            );
        }
        let ran = gitlab.tool(&arguments).with_access_token().run().await;
        assert_eq!(ran.code, 0, "{ran}");
        assert_eq!(ran.report().unwrap()["pipeline"]["id"], 12, "{ran}");
        assert_eq!(gitlab.asked_for(START).len(), 1);
        let mut cancelled = gitlab.asked();
        cancelled.retain(|asked| asked.what.ends_with("/cancel"));
        assert_eq!(cancelled.len(), 1, "{ran}");
        assert!(cancelled[0].what.contains("/13/"), "{cancelled:?}");
        assert!(ran.stderr.contains("one too many"), "{ran}");
    }
}

#[tokio::test]
async fn what_was_read_once_of_other_pipelines_is_not_read_again_for_a_twin() {
    let gitlab = gitlab(13).await;
    let others: Vec<_> = (1..=10).rev().map(|id| pipeline(id, "success")).collect();
    let mut with_ours = vec![pipeline(12, "running")];
    with_ours.extend(others.clone());
    gitlab.on(LIST, [ok(json!(others)), ok(json!(with_ours))]);
    for id in 1..=10 {
        gitlab.on(
            &format!("GET /projects/group%2Fenv/pipelines/{id}/variables"),
            [ok(json!([]))],
        );
    }
    let ran = gitlab.tool(&ARGUMENTS).with_access_token().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert!(gitlab.asked_for(LIST).len() > 1, "{ran}");
    let mut read = gitlab.asked();
    read.retain(|asked| asked.what.ends_with("/variables"));
    assert_eq!(read.len(), 10, "{read:?}");
}
