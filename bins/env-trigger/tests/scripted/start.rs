//! Starting once: by each kind of token, found again by key, and never twice on a guess.

use crate::support::{ACCESS, JOB, Scripted, TRIGGER, job, ok, pipeline, status, text};
use serde_json::json;

const START: &str = "POST /projects/group%2Fenv/pipeline";
const TRIGGERED: &str = "POST /projects/group%2Fenv/trigger/pipeline";
const LIST: &str = "GET /projects/group%2Fenv/pipelines";
const JOBS: &str = "GET /projects/group%2Fenv/pipelines/12/jobs";
const BRIDGES: &str = "GET /projects/group%2Fenv/pipelines/12/trigger_jobs";

/// A GitLab where pipeline 12 can be started and succeeds at the second look.
async fn gitlab() -> Scripted {
    let gitlab = Scripted::start().await;
    gitlab
        .on(LIST, [ok(json!([]))])
        .on(START, [status(201, pipeline(12, "created"))])
        .on(TRIGGERED, [status(201, pipeline(12, "created"))])
        .on(BRIDGES, [ok(json!([]))])
        .on(
            JOBS,
            [
                ok(json!([job(1, "apply", "running", "running")])),
                ok(json!([job(1, "apply", "success", "success")])),
            ],
        );
    gitlab
}

#[tokio::test]
async fn a_job_token_starts_and_follows_by_the_jobs_alone() {
    let gitlab = gitlab().await;
    let ran = gitlab
        .tool(&[
            "--project",
            "group/env",
            "--input",
            "image_digest=sha256:abc",
            "--input",
            "replicas:=3",
        ])
        .with_job_token()
        .run()
        .await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(report["schema"], "towpath.env-trigger/1");
    assert_eq!(report["pipeline"]["id"], 12);
    assert_eq!(report["pipeline"]["status"], "success");
    assert_eq!(report["pipeline"]["url"], "https://git.example.com/pipelines/12");
    assert_eq!(
        (&report["created"], &report["changed"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(report["once"], "not checked");
    assert_eq!(report["verdict"], "success");
    assert_eq!(report["jobs"][0]["name"], "apply");
    assert_eq!(report["jobs"][0]["seconds"], 1.3);
    assert!(
        ran.stderr.contains("not checked"),
        "the log says that nobody looked: {ran}"
    );

    let started = &gitlab.asked_for(TRIGGERED)[0];
    assert_eq!(
        started.body,
        json!({"ref": "main", "token": JOB, "inputs": {"image_digest": "sha256:abc", "replicas": 3}})
    );
    assert!(!started.headers.contains_key("job-token"));
    // Nothing that a job token may not do is even tried.
    for asked in gitlab.asked() {
        assert!([TRIGGERED, JOBS].contains(&asked.what.as_str()), "{asked:?}");
        assert!(!asked.query.contains("canary"));
    }
    assert_eq!(gitlab.asked_for(JOBS)[0].headers["job-token"], JOB);
}

#[tokio::test]
async fn an_access_token_looks_first_and_carries_the_key() {
    let gitlab = gitlab().await;
    let run = || {
        gitlab
            .tool(&["--project", "group/env", "--variable", "A=1"])
            .with_access_token()
    };
    let ran = run().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["once"], &report["created"]),
        (&json!("checked"), &json!(true))
    );
    let key = report["key"].as_str().unwrap().to_owned();
    let started = &gitlab.asked_for(START)[0];
    assert_eq!(started.headers["private-token"], ACCESS);
    assert_eq!(
        started.body["variables"],
        json!([{"key": "A", "value": "1"}, {"key": "TOWPATH_TRIGGER_KEY", "value": key}])
    );

    // The second attempt finds it, follows it and starts none.
    gitlab
        .on(
            LIST,
            [ok(json!([pipeline(13, "running"), pipeline(12, "running")]))],
        )
        .on(
            "GET /projects/group%2Fenv/pipelines/13/variables",
            [status(403, json!({"message": "403 Forbidden"}))],
        );
    gitlab.on(
        "GET /projects/group%2Fenv/pipelines/12/variables",
        [ok(json!([{"key": "TOWPATH_TRIGGER_KEY", "value": key}]))],
    );
    let ran = run().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["once"], &report["created"]),
        (&json!("found"), &json!(false))
    );
    assert_eq!((&report["changed"], &report["key"]), (&json!(false), &json!(key)));
    assert_eq!(gitlab.asked_for(START).len(), 1);

    // One that was cancelled does not count, and --again does not look.
    gitlab.on(LIST, [ok(json!([pipeline(12, "canceled")]))]);
    assert_eq!(run().run().await.report().unwrap()["once"], "checked");
    let again = run().env("TOWPATH_AGAIN", "true").run().await.report().unwrap();
    assert_eq!(
        (&again["once"], &again["created"]),
        (&json!("not checked"), &json!(true))
    );
    assert_eq!(gitlab.asked_for(START).len(), 3);
}

#[tokio::test]
async fn the_key_can_travel_in_an_input_and_the_name() {
    let gitlab = gitlab().await;
    let run = || {
        gitlab
            .tool(&[
                "--project",
                "group/env",
                "--key-input",
                "delivery",
                "--key",
                "delivery-0001",
            ])
            .with_access_token()
    };
    let ran = run().run().await;
    assert_eq!(ran.code, 0, "{ran}");
    let started = &gitlab.asked_for(START)[0];
    assert_eq!(
        started.body,
        json!({"ref": "main", "inputs": {"delivery": "delivery-0001"}})
    );
    let mut named = pipeline(12, "running");
    named["name"] = json!("Deploy delivery-0001");
    gitlab.on(LIST, [ok(json!([pipeline(13, "running"), named]))]);
    let report = run().run().await.report().unwrap();
    assert_eq!(
        (&report["once"], &report["pipeline"]["id"]),
        (&json!("found"), &json!(12))
    );
}

#[tokio::test]
async fn a_trigger_token_starts_and_leaves_and_the_handoff_fills_inputs() {
    let gitlab = gitlab().await;
    let folder = tempfile::tempdir().unwrap();
    let handoff = folder.path().join("handoff.env");
    let mut values = towpath::handoff::Handoff::new();
    values.set("IMAGE_DIGEST", "sha256:abc").unwrap();
    values.write(&handoff).unwrap();
    let run = |arguments: &[&str]| {
        gitlab
            .tool(arguments)
            .env("TOWPATH_TRIGGER_TOKEN", TRIGGER)
            .env("TOWPATH_PROJECT", "group/env")
            .env("TOWPATH_HANDOFF", handoff.to_str().unwrap())
            .env("TOWPATH_INPUTS", "image_digest\ntraceparent\nnote=a, b = c\n")
            .env(
                "TRACEPARENT",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
    };
    let ran = run(&["--detach"]).run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.report().unwrap()["pipeline"]["status"], "created");
    let body = &gitlab.asked_for(TRIGGERED)[0].body;
    assert_eq!(body["token"], TRIGGER);
    assert_eq!(
        body["inputs"],
        json!({
            "image_digest": "sha256:abc", "note": "a, b = c",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        })
    );
    // It could not be followed, so it is not started either.
    for tool in [
        run(&[]),
        run(&["--wait"]).env("TOWPATH_DETACH", "true"),
        run(&[]).env("TOWPATH_DETACH", "false"),
    ] {
        let ran = tool.run().await;
        assert_eq!(ran.code, 2, "{ran}");
    }
    assert_eq!(gitlab.asked_for(TRIGGERED).len(), 1);
}

#[tokio::test]
async fn a_dry_run_looks_and_starts_nothing() {
    let gitlab = gitlab().await;
    let ran = gitlab
        .tool(&["--project", "group/env", "--dry-run"])
        .with_access_token()
        .run()
        .await;
    assert_eq!(ran.code, 0, "{ran}");
    let report = ran.report().unwrap();
    assert_eq!(
        (&report["plan"], &report["changed"]),
        (&json!("start"), &json!(false))
    );
    assert!(gitlab.asked_for(START).is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_never_asked_for_again() {
    for lost in [
        text(502, "<html>Bad Gateway</html>"),
        status(201, pipeline(12, "created")).broken(),
    ] {
        let gitlab = gitlab().await;
        gitlab
            .on(START, [lost.clone()])
            .on(TRIGGERED, [lost])
            // The first look is before the start; the pipeline shows up at the third.
            .on(
                LIST,
                [ok(json!([])), ok(json!([])), ok(json!([pipeline(12, "running")]))],
            )
            .on(
                "GET /projects/group%2Fenv/pipelines/12/variables",
                [ok(
                    json!([{"key": "TOWPATH_TRIGGER_KEY", "value": "delivery-0001"}]),
                )],
            );
        let arguments = ["--project", "group/env", "--key", "delivery-0001"];
        let ran = gitlab.tool(&arguments).with_access_token().run().await;
        assert_eq!(ran.code, 0, "{ran}");
        let report = ran.report().unwrap();
        assert_eq!(
            (&report["once"], &report["created"]),
            (&json!("found"), &json!(true))
        );
        assert_eq!(gitlab.asked_for(START).len(), 1);

        // The one with the key that is there by now may be the one that was to be had again.
        let again = [&arguments[..], &["--again"]].concat();
        let ran = gitlab.tool(&again).with_access_token().run().await;
        assert_eq!(ran.code, 9, "{ran}");
        assert_eq!(gitlab.asked_for(START).len(), 2);

        let ran = gitlab.tool(&arguments).with_job_token().run().await;
        // A job token cannot look, so a person has to: a template that repeats 7 must not start a second one.
        assert_eq!(ran.code, 9, "{ran}");
        assert!(ran.stderr.contains("a pipeline may exist"), "{ran}");
        assert_eq!(gitlab.asked_for(TRIGGERED).len(), 1);
    }
}

#[tokio::test]
async fn rate_limits_of_both_kinds_are_waited_out_until_the_deadline() {
    let gitlab = gitlab().await;
    gitlab.on(
        TRIGGERED,
        [
            text(429, "Retry later\n").header("retry-after", "1"),
            text(429, "Too many requests. Try again later."),
            status(201, pipeline(12, "created")),
        ],
    );
    let tool = |arguments: &[&str]| {
        gitlab
            .tool(arguments)
            .env("TOWPATH_PROJECT", "group/env")
            .with_job_token()
    };
    let ran = tool(&["--detach"]).run().await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(gitlab.asked_for(TRIGGERED).len(), 3);

    gitlab.on(
        TRIGGERED,
        [text(429, "Retry later\n").header("retry-after", "600")],
    );
    let ran = tool(&["--timeout", "5s"]).run().await;
    assert_eq!(ran.code, 7, "{ran}");
    gitlab.on(TRIGGERED, [text(429, "Too many requests. Try again later.")]);
    let ran = tool(&["--timeout", "9s"]).run().await;
    assert_eq!(ran.code, 7, "{ran}");
    assert!(ran.stderr.contains("rate limit"), "{ran}");
}

#[tokio::test]
async fn refusals_have_their_exit_codes_and_say_what_to_change() {
    let forbidden = || status(403, json!({"message": "403 Forbidden"}));
    let missing = || status(404, json!({"message": "404 Not Found"}));
    let expired = || status(401, json!({"message": "401 Unauthorized"}));
    let gitlab = gitlab().await;
    let tool = || gitlab.tool(&["--project", "group/env"]);
    for (reply, code, said) in [
        (missing(), 4, "allowlist of group/env"),
        (forbidden(), 4, "allowlist of group/env"),
        (expired(), 4, "CI_JOB_TOKEN"),
    ] {
        gitlab.on(TRIGGERED, [reply]);
        let ran = tool().with_job_token().run().await;
        assert_eq!(ran.code, code, "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
    }
    for (reply, code, said) in [
        (missing(), 5, "check the path"),
        (forbidden(), 4, "Developer role"),
        (expired(), 4, "access token"),
    ] {
        gitlab.on(LIST, [reply]);
        let ran = tool().with_access_token().run().await;
        assert_eq!(ran.code, code, "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
    }
    assert!(gitlab.asked_for(START).is_empty());
}

#[tokio::test]
async fn what_a_400_means_is_found_out_by_looking_at_the_refs() {
    let gitlab = gitlab().await;
    let refused = status(
        400,
        json!({"message": {"base": ["Something about the pipeline"]}}),
    );
    gitlab.on(START, [refused.clone()]).on(TRIGGERED, [refused]);
    let branch = "GET /projects/group%2Fenv/repository/branches/main";
    let tag = "GET /projects/group%2Fenv/repository/tags/main";
    let absent = || status(404, json!({"message": "404 Not Found"}));
    let pushable = |may: bool| ok(json!({"name": "main", "can_push": may}));
    for (on_branch, on_tag, code, said) in [
        (pushable(true), ok(json!({"name": "main"})), 5, "ambiguous"),
        (absent(), absent(), 5, "no branch or tag main"),
        (pushable(false), absent(), 4, "Protected branches"),
        (pushable(true), absent(), 3, "Something about the pipeline"),
    ] {
        gitlab.on(branch, [on_branch]).on(tag, [on_tag]);
        let ran = gitlab
            .tool(&["--project", "group/env"])
            .with_access_token()
            .run()
            .await;
        assert_eq!(ran.code, code, "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
    }
    // A job token reads the refs over git.
    let refs = "GET //group/env.git/info/refs";
    for (list, code, said) in [
        (
            "0030aaaa refs/heads/main\n0030bbbb refs/tags/main\n",
            5,
            "ambiguous",
        ),
        ("0030aaaa refs/heads/other\n", 5, "no branch or tag main"),
        ("0030aaaa refs/heads/main\n", 4, "Something about the pipeline"),
    ] {
        gitlab.on(refs, [text(200, list)]);
        let ran = gitlab
            .tool(&["--project", "group/env"])
            .with_job_token()
            .run()
            .await;
        assert_eq!(ran.code, code, "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
    }
    assert_eq!(gitlab.asked_for(refs).len(), 3);
}

#[tokio::test]
async fn wrong_usage_is_named() {
    let gitlab = gitlab().await;
    for (arguments, variables, said) in [
        (&["--project", "group/env"][..], &[][..], "TOWPATH_GITLAB_TOKEN"),
        (&[], &[("CI_JOB_TOKEN", JOB)], "--project"),
        (&["--project", "env"], &[("CI_JOB_TOKEN", JOB)], "--project"),
        (&["--project", ""], &[("CI_JOB_TOKEN", JOB)], "TOWPATH_PROJECT"),
        (
            &["--project", "group/env"],
            &[("CI_JOB_TOKEN", "")],
            "CI_JOB_TOKEN",
        ),
        (
            &["--project", "group/env", "--input", "a={b}", "--input", "a=c"],
            &[("CI_JOB_TOKEN", JOB)],
            "twice",
        ),
        (
            &["--project", "group/env", "--input", "a:=b"],
            &[("CI_JOB_TOKEN", JOB)],
            "not JSON",
        ),
        (
            &["--project", "group/env", "--input", "image_tag"],
            &[("CI_JOB_TOKEN", JOB)],
            "IMAGE_TAG",
        ),
        (
            &["--project", "group/env"],
            &[("CI_JOB_TOKEN", JOB), ("TOWPATH_INPUTS", "")],
            "TOWPATH_INPUTS",
        ),
    ] {
        let mut tool = gitlab.tool(arguments);
        for (name, value) in variables {
            tool = tool.env(name, value);
        }
        let ran = tool.run().await;
        assert_eq!(ran.code, 2, "{arguments:?} {ran}");
        assert!(ran.stderr.contains(said), "{arguments:?} {ran}");
    }
    assert!(gitlab.asked().is_empty());
}
