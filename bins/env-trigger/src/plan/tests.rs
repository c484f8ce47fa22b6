//! Table tests of what is decided from one look.

use std::sync::Arc;

use super::*;
use crate::compose::tests::{job, jobs};
use crate::tree::Below;
use towpath::failure::Kind;
use towpath::gitlab::{Bridge, Project};

fn policy(rule: &str) -> Policy {
    let rules = crate::manual::parse_rules(rule).unwrap();
    Policy {
        on_manual: OnManual::new(&[rules]).unwrap(),
        ..Policy::default()
    }
}

fn seen(status: Option<&str>, statuses: &[&str]) -> Seen {
    Seen {
        status: status.map(Status::from_word),
        jobs: jobs(statuses),
        ..Seen::default()
    }
}

fn tree(status: Option<&str>, statuses: &[&str]) -> Tree {
    Tree {
        root: Arc::new(seen(status, statuses)),
        ..Tree::new(&"group/env".parse().unwrap(), 7)
    }
}

/// A pipeline with one trigger job, and what that started.
fn with_below(status: &str, bridge: &str, below: Seen) -> Tree {
    let started = Bridge {
        job: Job {
            name: "infra".to_owned(),
            ..job(100, bridge)
        },
        downstream_pipeline: Some(serde_json::from_value(serde_json::json!({"id": 30})).unwrap()),
    };
    let root = Seen {
        bridges: vec![started],
        ..seen(Some(status), &["success"])
    };
    let below = Below {
        project: Project::Id(9),
        path: "infra".to_owned(),
        seen: Arc::new(below),
        unreadable: None,
    };
    Tree {
        root: Arc::new(root),
        below: [(30, below)].into(),
        ..tree(None, &[])
    }
}

#[test]
fn each_of_the_thirteen_statuses_is_judged() {
    let ended = |verdict| Some(Decision::Ended(verdict));
    for (status, expected) in [
        ("created", None),
        ("waiting_for_resource", None),
        ("preparing", None),
        ("waiting_for_callback", None),
        ("pending", None),
        ("running", None),
        ("success", ended(Verdict::Success)),
        ("failed", ended(Verdict::Failed)),
        ("canceling", None),
        ("canceled", ended(Verdict::Canceled)),
        ("skipped", ended(Verdict::Skipped)),
        ("manual", ended(Verdict::Blocked)),
        ("scheduled", None),
        ("snoozed", None),
    ] {
        // The pipeline's own word decides, whatever its jobs seem to say.
        let decision = decide(&tree(Some(status), &["running"]), &policy("fail"));
        match expected {
            Some(expected) => assert_eq!(decision, expected, "{status}"),
            None => assert!(matches!(decision, Decision::Wait(_)), "{status}: {decision:?}"),
        }
    }
    assert_eq!(Status::KNOWN.len(), 13);
}

#[test]
fn an_unknown_or_missing_status_of_the_pipeline_leaves_it_to_the_jobs() {
    for status in [None, Some(""), Some("snoozed")] {
        let decision = decide(&tree(status, &["success", "success"]), &policy("fail"));
        assert_eq!(decision, Decision::Ended(Verdict::Success), "{status:?}");
    }
    assert!(matches!(
        decide(&tree(None, &[]), &policy("fail")),
        Decision::Wait(_)
    ));
}

#[test]
fn manual_jobs_follow_the_policy() {
    for (statuses, rule, expected) in [
        (
            &["success", "manual"][..],
            "fail",
            Decision::Ended(Verdict::Blocked),
        ),
        (&["success", "manual"], "wait", Decision::Wait(Phase::Idle)),
        (
            &["success", "manual"],
            "ignore",
            Decision::Ended(Verdict::Success),
        ),
        (&["failed", "manual"], "ignore", Decision::Ended(Verdict::Failed)),
        (
            &["failed?", "manual"],
            "ignore",
            Decision::Ended(Verdict::Success),
        ),
        (
            &["canceled", "manual"],
            "ignore",
            Decision::Ended(Verdict::Canceled),
        ),
        (&["scheduled", "manual"], "ignore", Decision::Wait(Phase::Idle)),
        // An optional one holds nothing up, unless there is nothing else.
        (&["success", "manual?"], "fail", Decision::Ended(Verdict::Success)),
        (&["manual?"], "fail", Decision::Ended(Verdict::Blocked)),
        (&["manual?"], "ignore", Decision::Ended(Verdict::Success)),
    ] {
        assert_eq!(
            decide(&tree(None, statuses), &policy(rule)),
            expected,
            "{statuses:?} {rule}"
        );
    }
}

#[test]
fn what_blocks_below_is_ignored_and_what_failed_or_goes_on_there_is_not() {
    for (below, bridge, expected) in [
        (
            &["manual", "success"][..],
            "running",
            Decision::Ended(Verdict::Success),
        ),
        (&["manual", "failed"], "running", Decision::Ended(Verdict::Failed)),
        (
            &["manual", "failed?"],
            "running",
            Decision::Ended(Verdict::Success),
        ),
        (
            &["manual", "failed"],
            "running?",
            Decision::Ended(Verdict::Success),
        ),
        (
            &["manual", "canceled"],
            "running",
            Decision::Ended(Verdict::Canceled),
        ),
        (&["manual", "scheduled"], "running", Decision::Wait(Phase::Idle)),
        (&["manual", "scheduled"], "running?", Decision::Wait(Phase::Idle)),
    ] {
        let tree = with_below("running", bridge, seen(Some("manual"), below));
        assert_eq!(decide(&tree, &policy("ignore")), expected, "{below:?} {bridge}");
        if expected == Decision::Ended(Verdict::Failed) {
            let failure = failure_of(Verdict::Failed, &tree, &policy("ignore"), true).unwrap();
            assert!(failure.message().contains("infra > job-2"), "{failure}");
        }
    }
}

#[test]
fn a_trigger_job_that_mirrors_a_blocked_pipeline_does_not_wait_for_a_person_itself() {
    let mirrored = |below: &[&str]| with_below("manual", "manual", seen(None, below));
    let blocked = mirrored(&["manual", "success"]);
    let names = |tree: &Tree| -> Vec<String> { tree.waiting_for_a_person().iter().map(Leaf::name).collect() };
    assert_eq!(names(&blocked), ["infra > job-1"]);
    for (rule, expected) in [
        ("fail", Decision::Ended(Verdict::Blocked)),
        ("wait", Decision::Wait(Phase::Idle)),
        ("job-1=wait", Decision::Wait(Phase::Idle)),
        ("job-1=ignore", Decision::Ended(Verdict::Success)),
        ("ignore", Decision::Ended(Verdict::Success)),
    ] {
        assert_eq!(decide(&blocked, &policy(rule)), expected, "{rule}");
    }
    // Somebody acted below, and the trigger job shows it a moment later.
    for below in [&["running"][..], &["pending"], &["success"], &["failed"]] {
        let decision = decide(&mirrored(below), &policy("fail"));
        assert!(matches!(decision, Decision::Wait(_)), "{below:?}: {decision:?}");
    }
    assert_eq!(
        decide(&mirrored(&["failed", "manual"]), &policy("ignore")),
        Decision::Ended(Verdict::Failed)
    );
    // A manual trigger job that has started nothing waits itself.
    let mut unstarted = mirrored(&["running"]);
    Arc::make_mut(&mut unstarted.root).bridges[0].downstream_pipeline = None;
    assert_eq!(names(&unstarted), ["infra"]);
    assert_eq!(
        decide(&unstarted, &policy("fail")),
        Decision::Ended(Verdict::Blocked)
    );
}

#[test]
fn the_phase_tells_how_near_the_end_may_be() {
    for (statuses, expected) in [
        (&["success", "running"][..], Phase::Ending),
        (&["running", "created"], Phase::Busy),
        (&["pending"], Phase::Starting),
        (&["success", "created", "pending"], Phase::Starting),
        (&["running", "pending"], Phase::Busy),
        (&["success", "waiting_for_resource", "created"], Phase::Idle),
        (&["success", "scheduled"], Phase::Idle),
        (&["running", "manual"], Phase::Busy),
        (&["running", "manual?"], Phase::Ending),
        // Every job is done and the pipeline does not know yet.
        (&["success", "success"], Phase::Ending),
    ] {
        let decision = decide(&tree(Some("running"), statuses), &policy("wait"));
        assert_eq!(decision, Decision::Wait(expected), "{statuses:?}");
    }
}

#[test]
fn each_verdict_has_its_exit_code_and_names_the_jobs() {
    let tree = tree(None, &["failed", "failed?", "manual"]);
    let policy = policy("fail");
    assert!(failure_of(Verdict::Success, &tree, &policy, true).is_none());
    for (verdict, kind, part) in [
        (Verdict::Failed, Kind::Unsuccessful, "job-1"),
        (Verdict::Canceled, Kind::Unsuccessful, "canceled"),
        (Verdict::Skipped, Kind::Unsuccessful, "skipped"),
        (Verdict::Blocked, Kind::Deadline, "job-3"),
    ] {
        let failure = failure_of(verdict, &tree, &policy, true).unwrap();
        assert_eq!(failure.kind(), kind);
        assert!(failure.message().contains(part), "{failure}");
        assert!(
            !failure.message().contains("job-2"),
            "an allowed failure is not to blame: {failure}"
        );
    }
}

#[test]
fn each_manual_job_follows_its_own_rule() {
    let both = tree(None, &["success", "manual", "manual"]);
    let is = |rules: &str| decide(&both, &policy(rules));
    assert_eq!(is("job-2=ignore,job-3=fail"), Decision::Ended(Verdict::Blocked));
    assert_eq!(is("job-2=ignore,job-3=wait"), Decision::Wait(Phase::Idle));
    assert_eq!(is("job-2=play,job-3=ignore"), Decision::Wait(Phase::Idle));
    assert_eq!(is("job-2=ignore,job-3=ignore"), Decision::Ended(Verdict::Success));
    let failure = failure_of(Verdict::Blocked, &both, &policy("job-2=ignore"), true).unwrap();
    assert!(
        failure.message().ends_with("waits for a person: job-3"),
        "{failure}"
    );
    // A job token does not see which job it is, and so nobody can start it.
    assert_eq!(
        decide(&tree(Some("manual"), &["success"]), &policy("play")),
        Decision::Ended(Verdict::Blocked)
    );
}

#[test]
fn what_blocks_a_pipeline_below_blocks_the_one_that_waits_for_it() {
    let blocked = with_below("running", "running", seen(Some("manual"), &["success", "manual"]));
    assert_eq!(
        decide(&blocked, &policy("fail")),
        Decision::Ended(Verdict::Blocked)
    );
    let failure = failure_of(Verdict::Blocked, &blocked, &policy("fail"), true).unwrap();
    assert!(failure.message().contains("infra > job-2"), "{failure}");
    assert_eq!(decide(&blocked, &policy("wait")), Decision::Wait(Phase::Idle));
    let running = with_below(
        "running",
        "running",
        seen(Some("running"), &["running", "manual?"]),
    );
    assert_eq!(decide(&running, &policy("fail")), Decision::Wait(Phase::Ending));
    let busy = with_below(
        "running",
        "running",
        seen(Some("running"), &["running", "created"]),
    );
    assert_eq!(decide(&busy, &policy("fail")), Decision::Wait(Phase::Busy));
}

#[test]
fn a_failure_below_is_named_down_to_its_job() {
    let failed = with_below(
        "failed",
        "failed",
        seen(Some("failed"), &["success", "failed", "failed?"]),
    );
    assert_eq!(decide(&failed, &policy("fail")), Decision::Ended(Verdict::Failed));
    let failure = failure_of(Verdict::Failed, &failed, &policy("fail"), true).unwrap();
    assert!(failure.message().ends_with("failed: infra > job-2"), "{failure}");
    assert!(failure.next_action().unwrap().contains("project 9"));
    let unseen = with_below("failed", "failed", Seen::default());
    let failure = failure_of(Verdict::Failed, &unseen, &policy("fail"), true).unwrap();
    assert!(failure.message().ends_with("failed: infra"), "{failure}");
}

#[test]
fn pipelines_that_nobody_waits_for_count_only_when_they_are_to() {
    let all = Policy {
        downstream: Downstream::All,
        ..policy("fail")
    };
    for (below, expected) in [
        ("running", Decision::Wait(Phase::Ending)),
        ("failed", Decision::Ended(Verdict::Failed)),
        ("canceled", Decision::Ended(Verdict::Canceled)),
        ("manual", Decision::Ended(Verdict::Blocked)),
        ("success", Decision::Ended(Verdict::Success)),
    ] {
        let tree = with_below("success", "success", seen(Some(below), &[below]));
        assert_eq!(
            decide(&tree, &policy("fail")),
            Decision::Ended(Verdict::Success),
            "{below}"
        );
        assert_eq!(decide(&tree, &all), expected, "{below}");
    }
}
