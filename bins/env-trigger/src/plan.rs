//! What a pipeline's state means: whether it has ended, how, and what may happen next. No input or output here.

use towpath::failure::Failure;
use towpath::gitlab::{Job, Status};

use crate::args::Downstream;
use crate::manual::{Action, OnManual};
use crate::pace::Phase;
use crate::tree::{Leaf, Seen, Tree};

/// What the caller wants to be told of, and what not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// What is done about jobs that wait for a person.
    pub(crate) on_manual: OnManual,
    /// Which of the pipelines that it starts count.
    pub(crate) downstream: Downstream,
}

/// How a pipeline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Failed,
    Canceled,
    /// Nothing of it ran.
    Skipped,
    /// It waits for a person, and we were told not to.
    Blocked,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Success => "success",
            Verdict::Failed => "failed",
            Verdict::Canceled => "canceled",
            Verdict::Skipped => "skipped",
            Verdict::Blocked => "blocked",
        }
    }
}

/// What follows from one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is over.
    Ended(Verdict),
    /// It goes on.
    Wait(Phase),
}

/// Judges a pipeline by what was seen of it.
pub(crate) fn decide(tree: &Tree, policy: &Policy) -> Decision {
    let status = tree.root.effective_status();
    match of_pipeline(&status) {
        // Optional manual jobs and nothing else make a pipeline that GitLab calls skipped.
        Some(Verdict::Skipped) if tree.root.all_jobs().any(|job| job.status == Status::Manual) => {
            for_a_person(tree, policy)
        }
        Some(verdict) if policy.downstream == Downstream::All => with_all_below(verdict, tree, policy),
        Some(verdict) => Decision::Ended(verdict),
        None if tree.is_stuck() => for_a_person(tree, policy),
        None => Decision::Wait(phase(tree)),
    }
}

/// What a pipeline's status alone says; none when it goes on or waits for a person.
fn of_pipeline(status: &Status) -> Option<Verdict> {
    match status {
        Status::Success => Some(Verdict::Success),
        Status::Failed => Some(Verdict::Failed),
        Status::Canceled => Some(Verdict::Canceled),
        Status::Skipped => Some(Verdict::Skipped),
        Status::Created
        | Status::WaitingForResource
        | Status::Preparing
        | Status::WaitingForCallback
        | Status::Pending
        | Status::Running
        | Status::Canceling
        | Status::Manual
        | Status::Scheduled
        | Status::Unknown(_) => None,
    }
}

/// The pipeline has ended, and those that it started without waiting for them count too.
fn with_all_below(verdict: Verdict, tree: &Tree, policy: &Policy) -> Decision {
    let mut worst = verdict;
    let mut waits = false;
    for below in tree.below.values() {
        let status = below.seen.effective_status();
        match of_pipeline(&status) {
            Some(Verdict::Success | Verdict::Skipped) => {}
            Some(other) if worst == Verdict::Success => worst = other,
            Some(_) => {}
            None if status == Status::Manual => {
                let action = strictest(below.seen.manual_jobs(), policy);
                if action == Action::Fail && worst == Verdict::Success {
                    worst = Verdict::Blocked;
                }
                waits |= matches!(action, Action::Wait | Action::Play);
            }
            None => waits = true,
        }
    }
    if waits {
        Decision::Wait(phase(tree))
    } else {
        Decision::Ended(worst)
    }
}

fn for_a_person(tree: &Tree, policy: &Policy) -> Decision {
    let waiting = tree.waiting_for_a_person();
    match strictest(waiting.iter().map(|leaf| leaf.job), policy) {
        Action::Fail => Decision::Ended(Verdict::Blocked),
        Action::Wait | Action::Play => Decision::Wait(Phase::Idle),
        // GitLab calls a pipeline manual while some of its jobs are delayed, being prepared or being cancelled.
        Action::Ignore if tree.root.jobs.iter().any(moves_by_itself) => Decision::Wait(phase(tree)),
        Action::Ignore if tree.root.failed_jobs().next().is_some() => Decision::Ended(Verdict::Failed),
        Action::Ignore if tree.root.all_jobs().any(was_canceled) => Decision::Ended(Verdict::Canceled),
        Action::Ignore => Decision::Ended(Verdict::Success),
    }
}

/// Whether something will become of a job without a person, and whatever becomes of the others.
fn moves_by_itself(job: &Job) -> bool {
    matches!(
        job.status,
        Status::WaitingForResource
            | Status::Preparing
            | Status::WaitingForCallback
            | Status::Pending
            | Status::Running
            | Status::Canceling
            | Status::Scheduled
    )
}

/// Whether a job that the pipeline needs was cancelled.
fn was_canceled(job: &Job) -> bool {
    job.status == Status::Canceled && !job.allow_failure
}

/// What is done when these jobs are all that is waited for. Jobs that the token does not see follow the rule for all,
/// but nobody can start them.
fn strictest<'a>(jobs: impl Iterator<Item = &'a Job>, policy: &Policy) -> Action {
    let actions: Vec<Action> = jobs.map(|job| policy.on_manual.of(job)).collect();
    if actions.is_empty() {
        return match policy.on_manual.of_others() {
            Action::Play => Action::Fail,
            other => other,
        };
    }
    [Action::Fail, Action::Play, Action::Wait]
        .into_iter()
        .find(|action| actions.contains(action))
        .unwrap_or(Action::Ignore)
}

/// How near the end may be.
pub(crate) fn phase(tree: &Tree) -> Phase {
    let mut all = Activity::default();
    all.add(tree, &tree.root, 0);
    match all {
        Activity {
            runs: false,
            rests: true,
            ..
        } => Phase::Idle,
        Activity { waits: true, .. } | Activity { rests: true, .. } => Phase::Busy,
        Activity { .. } => Phase::Ending,
    }
}

/// What goes on in a pipeline.
#[derive(Clone, Copy, Default)]
struct Activity {
    runs: bool,
    waits: bool,
    rests: bool,
}

impl Activity {
    fn add(&mut self, tree: &Tree, seen: &Seen, depth: usize) {
        let mut add = |job: &Job| match job.status {
            Status::Running | Status::Canceling | Status::Unknown(_) => self.runs = true,
            Status::Created | Status::Pending | Status::Preparing => self.waits = true,
            Status::WaitingForResource | Status::WaitingForCallback | Status::Scheduled => self.rests = true,
            Status::Manual => self.rests |= !job.allow_failure,
            Status::Success | Status::Failed | Status::Canceled | Status::Skipped => {}
        };
        seen.jobs.iter().for_each(&mut add);
        // What a running trigger job does shows in the pipeline that it waits for.
        let (followed, others): (Vec<_>, Vec<_>) = seen.bridges.iter().partition(|bridge| {
            tree.started_by(bridge).is_some_and(|below| {
                !below.seen.jobs.is_empty() && !below.seen.effective_status().has_ended()
            })
        });
        others.iter().for_each(|bridge| add(&bridge.job));
        for bridge in followed {
            if let Some(below) = tree.started_by(bridge).filter(|_| depth < crate::tree::DEPTH) {
                self.add(tree, &below.seen, depth + 1);
            }
        }
    }
}

/// The failure that goes with a verdict; none with success.
pub(crate) fn failure_of(verdict: Verdict, tree: &Tree, policy: &Policy, created: bool) -> Option<Failure> {
    let (id, project) = (tree.id, &tree.project);
    let again = if created {
        String::new()
    } else {
        "; or pass --again to start another pipeline".to_owned()
    };
    let failure = match verdict {
        Verdict::Success => return None,
        Verdict::Failed => {
            let failures = tree.failures();
            let place = failures.first().map_or(project, |leaf| leaf.project).clone();
            Failure::unsuccessful(format!(
                "pipeline {id} of {project} failed: {}",
                named(&failures, "no job of it that this token sees")
            ))
            .hint(format!(
                "mend it in {place}, retry its failed jobs there, then run this again{again}"
            ))
        }
        Verdict::Canceled => Failure::unsuccessful(format!("pipeline {id} of {project} was canceled"))
            .hint("run this again to start another one"),
        Verdict::Skipped => Failure::unsuccessful(format!(
            "pipeline {id} of {project} was skipped: none of its jobs ran"
        ))
        .hint(format!("check the rules of the jobs in {project}{again}")),
        Verdict::Blocked => {
            let mut waiting = tree.waiting_for_a_person();
            waiting.retain(|leaf| policy.on_manual.of(leaf.job) == Action::Fail);
            Failure::deadline(format!(
                "pipeline {id} of {project} waits for a person: {}",
                named(&waiting, "a manual job that this token does not see")
            ))
            .hint(
                "start the manual job, then run this again; or say what is to be done about it: --on-manual \
                 JOB=wait, JOB=ignore or JOB=play (TOWPATH_ON_MANUAL)",
            )
        }
    };
    Some(failure)
}

/// Names of jobs for a message, the first few of many.
fn named(leaves: &[Leaf<'_>], none: &str) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = leaves
        .iter()
        .map(|leaf| match &leaf.job.failure_reason {
            Some(reason) => format!("{} ({reason})", leaf.name()),
            None => leaf.name(),
        })
        .collect();
    match names.len() {
        0 => none.to_owned(),
        1..=SHOWN => names.join(", "),
        more => format!("{} and {} more", names[..SHOWN].join(", "), more - SHOWN),
    }
}

#[cfg(test)]
mod tests {
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
    fn the_phase_tells_how_near_the_end_may_be() {
        for (statuses, expected) in [
            (&["success", "running"][..], Phase::Ending),
            (&["running", "created"], Phase::Busy),
            (&["pending"], Phase::Busy),
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
}
