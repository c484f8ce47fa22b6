//! What a pipeline's state means: whether it has ended, how, and what may happen next. No input or output here.

use std::collections::BTreeMap;

use towpath::failure::Failure;
use towpath::gitlab::{Bridge, Job, Project, Status};

use crate::args::OnManual;
use crate::pace::Phase;

/// What was seen of a pipeline at one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How the pipeline itself stands; none when the token sees only jobs and these did not say.
    pub(crate) status: Option<Status>,
    /// Its page.
    pub(crate) url: Option<String>,
    /// The latest attempt of each job, oldest first.
    pub(crate) jobs: Vec<Job>,
    /// The latest attempt of each trigger job, oldest first; empty where the token may not read them.
    pub(crate) bridges: Vec<Bridge>,
    /// The last lines of failed jobs' logs, by the job's number.
    pub(crate) tails: BTreeMap<u64, Vec<String>>,
}

impl Seen {
    /// Jobs and trigger jobs.
    pub(crate) fn all_jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs
            .iter()
            .chain(self.bridges.iter().map(|bridge| &bridge.job))
    }

    /// The jobs whose failure the pipeline does not put up with.
    pub(crate) fn failed_jobs(&self) -> impl Iterator<Item = &Job> {
        self.all_jobs()
            .filter(|job| job.status == Status::Failed && !job.allow_failure)
    }

    /// The jobs that were cancelled though the pipeline needs them.
    pub(crate) fn canceled_jobs(&self) -> impl Iterator<Item = &Job> {
        self.all_jobs()
            .filter(|job| job.status == Status::Canceled && !job.allow_failure)
    }

    /// The jobs that wait for a person and hold the pipeline up.
    pub(crate) fn manual_jobs(&self) -> impl Iterator<Item = &Job> {
        self.all_jobs()
            .filter(|job| job.status == Status::Manual && !job.allow_failure)
    }

    /// The pipeline's status: its own where it is known, else what its jobs amount to.
    pub(crate) fn effective_status(&self) -> Status {
        match &self.status {
            Some(status) if status.is_known() => status.clone(),
            _ => compose(self.all_jobs()),
        }
    }
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
pub(crate) fn decide(seen: &Seen, on_manual: OnManual) -> Decision {
    let status = seen.effective_status();
    match of_pipeline(&status) {
        // Optional manual jobs and nothing else make a pipeline that GitLab calls skipped.
        Some(Decision::Ended(Verdict::Skipped))
            if seen.all_jobs().any(|job| job.status == Status::Manual) =>
        {
            for_a_person(seen, on_manual)
        }
        Some(decision) => decision,
        None if status == Status::Manual => for_a_person(seen, on_manual),
        None => Decision::Wait(phase(seen)),
    }
}

/// What a pipeline's status alone says; none when it goes on or waits for a person.
fn of_pipeline(status: &Status) -> Option<Decision> {
    let verdict = match status {
        Status::Success => Verdict::Success,
        Status::Failed => Verdict::Failed,
        Status::Canceled => Verdict::Canceled,
        Status::Skipped => Verdict::Skipped,
        Status::Created
        | Status::WaitingForResource
        | Status::Preparing
        | Status::WaitingForCallback
        | Status::Pending
        | Status::Running
        | Status::Canceling
        | Status::Manual
        | Status::Scheduled
        | Status::Unknown(_) => return None,
    };
    Some(Decision::Ended(verdict))
}

fn for_a_person(seen: &Seen, on_manual: OnManual) -> Decision {
    match on_manual {
        OnManual::Fail => Decision::Ended(Verdict::Blocked),
        OnManual::Wait => Decision::Wait(Phase::Idle),
        // GitLab calls a pipeline manual while some of its jobs are delayed, being prepared or being cancelled.
        OnManual::Ignore if seen.all_jobs().any(moves_by_itself) => Decision::Wait(phase(seen)),
        OnManual::Ignore if seen.failed_jobs().next().is_some() => Decision::Ended(Verdict::Failed),
        OnManual::Ignore if seen.canceled_jobs().next().is_some() => Decision::Ended(Verdict::Canceled),
        OnManual::Ignore => Decision::Ended(Verdict::Success),
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

/// What a set of jobs amounts to, as GitLab composes the status of a stage or pipeline: failures that are allowed
/// count as success, manual jobs that are optional as skipped. A status we do not know counts as still running.
pub(crate) fn compose<'a>(jobs: impl Iterator<Item = &'a Job>) -> Status {
    let statuses: Vec<Status> = jobs
        .map(|job| match (&job.status, job.allow_failure) {
            (Status::Failed | Status::Canceled, true) => Status::Success,
            (Status::Manual, true) => Status::Skipped,
            (Status::Unknown(_), _) => Status::Running,
            (status, _) => status.clone(),
        })
        .collect();
    let any = |wanted: &Status| statuses.contains(wanted);
    let only = |wanted: &[Status]| statuses.iter().all(|status| wanted.contains(status));
    if only(&[Status::Created]) {
        return Status::Created;
    }
    if only(&[Status::Skipped]) {
        return Status::Skipped;
    }
    if only(&[Status::Success, Status::Skipped]) {
        return Status::Success;
    }
    if only(&[Status::Canceled, Status::Success, Status::Skipped]) {
        return Status::Canceled;
    }
    if only(&[Status::Pending, Status::Created, Status::Skipped]) && any(&Status::Pending) {
        return Status::Pending;
    }
    // The first of these that any job is in; a job that waits behind others keeps the pipeline running.
    let telling = [
        (Status::Canceling, Status::Canceling),
        (Status::Running, Status::Running),
        (Status::Pending, Status::Running),
        (Status::WaitingForResource, Status::WaitingForResource),
        (Status::WaitingForCallback, Status::WaitingForCallback),
        (Status::Manual, Status::Manual),
        (Status::Scheduled, Status::Scheduled),
        (Status::Preparing, Status::Preparing),
        (Status::Created, Status::Running),
    ];
    telling
        .into_iter()
        .find_map(|(found, composed)| any(&found).then_some(composed))
        .unwrap_or(Status::Failed)
}

/// How near the end may be.
fn phase(seen: &Seen) -> Phase {
    let mut runs = false;
    let mut waits = false;
    let mut rests = false;
    for job in seen.all_jobs() {
        match job.status {
            Status::Running | Status::Canceling | Status::Unknown(_) => runs = true,
            Status::Created | Status::Pending | Status::Preparing => waits = true,
            Status::WaitingForResource | Status::WaitingForCallback | Status::Scheduled => rests = true,
            Status::Manual => rests |= !job.allow_failure,
            Status::Success | Status::Failed | Status::Canceled | Status::Skipped => {}
        }
    }
    match (runs, waits, rests) {
        (false, _, true) => Phase::Idle,
        (_, true, _) | (true, _, true) => Phase::Busy,
        (_, false, false) => Phase::Ending,
    }
}

/// Of each job the latest attempt, oldest first: a retry has the same name and a greater number.
pub(crate) fn latest<T>(attempts: Vec<T>, job: impl Fn(&T) -> &Job) -> Vec<T> {
    let mut by_name: BTreeMap<(String, u64), T> = BTreeMap::new();
    for attempt in attempts {
        let Job { id, name, .. } = job(&attempt);
        // Without a name there is nothing that two attempts would have in common.
        let key = (name.clone(), if name.is_empty() { *id } else { 0 });
        match by_name.get(&key) {
            Some(earlier) if job(earlier).id >= *id => {}
            _ => {
                by_name.insert(key, attempt);
            }
        }
    }
    let mut latest: Vec<T> = by_name.into_values().collect();
    latest.sort_by_key(|attempt| job(attempt).id);
    latest
}

/// The failure that goes with a verdict; none with success.
pub(crate) fn failure_of(
    verdict: Verdict,
    seen: &Seen,
    id: u64,
    project: &Project,
    created: bool,
) -> Option<Failure> {
    let again = if created {
        String::new()
    } else {
        "; or pass --again to start another pipeline".to_owned()
    };
    let failure = match verdict {
        Verdict::Success => return None,
        Verdict::Failed => Failure::unsuccessful(format!(
            "pipeline {id} of {project} failed: {}",
            named(seen.failed_jobs(), "no job of it that this token sees")
        ))
        .hint(format!(
            "mend it in {project}, retry its failed jobs there, then run this again{again}"
        )),
        Verdict::Canceled => Failure::unsuccessful(format!("pipeline {id} of {project} was canceled"))
            .hint("run this again to start another one"),
        Verdict::Skipped => {
            Failure::unsuccessful(format!("pipeline {id} of {project} was skipped: none of its jobs ran"))
                .hint(format!("check the rules of the jobs in {project}{again}"))
        }
        Verdict::Blocked => Failure::deadline(format!(
            "pipeline {id} of {project} waits for a person: {}",
            if seen.manual_jobs().next().is_some() {
                named(seen.manual_jobs(), "")
            } else {
                let optional = seen.all_jobs().filter(|job| job.status == Status::Manual);
                named(optional, "a manual job that this token does not see")
            }
        ))
        .hint("start the manual job, then run this again; or set --on-manual wait or ignore (TOWPATH_ON_MANUAL)"),
    };
    Some(failure)
}

/// Names of jobs for a message, the first few of many.
fn named<'a>(jobs: impl Iterator<Item = &'a Job>, none: &str) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = jobs
        .map(|job| match &job.failure_reason {
            Some(reason) => format!("{} ({reason})", job.name),
            None => job.name.clone(),
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
    use super::*;
    use towpath::failure::Kind;

    fn job(id: u64, status: &str, allow_failure: bool) -> Job {
        Job {
            id,
            name: format!("job-{id}"),
            status: Status::from_word(status),
            allow_failure,
            ..Job::default()
        }
    }

    fn jobs(statuses: &[&str]) -> Vec<Job> {
        // A question mark stands for `allow_failure`.
        let numbered = (1..).zip(statuses);
        numbered
            .map(|(id, status)| job(id, status.trim_end_matches('?'), status.ends_with('?')))
            .collect()
    }

    fn seen(status: Option<&str>, statuses: &[&str]) -> Seen {
        Seen {
            status: status.map(Status::from_word),
            jobs: jobs(statuses),
            ..Seen::default()
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
            let decision = decide(&seen(Some(status), &["running"]), OnManual::Fail);
            match expected {
                Some(expected) => assert_eq!(decision, expected, "{status}"),
                None => assert!(matches!(decision, Decision::Wait(_)), "{status}: {decision:?}"),
            }
        }
        assert_eq!(Status::KNOWN.len(), 13);
    }

    #[test]
    fn jobs_alone_compose_the_status() {
        for (statuses, expected) in [
            (&[][..], "created"),
            (&["created", "created"], "created"),
            (&["success", "success"], "success"),
            (&["success", "skipped"], "success"),
            (&["success", "failed?"], "success"),
            (&["success", "canceled?"], "success"),
            (&["success", "manual?"], "success"),
            (&["skipped", "skipped"], "skipped"),
            (&["skipped", "manual?"], "skipped"),
            (&["success", "failed"], "failed"),
            (&["failed", "skipped"], "failed"),
            (&["failed", "canceled"], "failed"),
            (&["success", "canceled"], "canceled"),
            (&["canceled", "skipped"], "canceled"),
            (&["failed", "created"], "running"),
            (&["success", "created"], "running"),
            (&["success", "running"], "running"),
            (&["failed", "running"], "running"),
            (&["success", "pending"], "running"),
            (&["pending", "created"], "pending"),
            (&["success", "manual", "created"], "manual"),
            (&["success", "manual", "running"], "running"),
            (&["success", "scheduled", "created"], "scheduled"),
            (&["success", "waiting_for_resource"], "waiting_for_resource"),
            (&["success", "waiting_for_callback"], "waiting_for_callback"),
            (&["success", "preparing"], "preparing"),
            (&["canceling", "running"], "canceling"),
            (&["success", "snoozed"], "running"),
            (&["success", ""], "running"),
        ] {
            let composed = compose(jobs(statuses).iter());
            assert_eq!(composed, Status::from_word(expected), "{statuses:?}");
        }
    }

    #[test]
    fn an_unknown_or_missing_status_of_the_pipeline_leaves_it_to_the_jobs() {
        for status in [None, Some(""), Some("snoozed")] {
            let decision = decide(&seen(status, &["success", "success"]), OnManual::Fail);
            assert_eq!(decision, Decision::Ended(Verdict::Success), "{status:?}");
        }
        assert!(matches!(
            decide(&seen(None, &[]), OnManual::Fail),
            Decision::Wait(_)
        ));
    }

    #[test]
    fn manual_jobs_follow_the_policy() {
        for (statuses, policy, expected) in [
            (
                &["success", "manual"][..],
                OnManual::Fail,
                Decision::Ended(Verdict::Blocked),
            ),
            (
                &["success", "manual"],
                OnManual::Wait,
                Decision::Wait(Phase::Idle),
            ),
            (
                &["success", "manual"],
                OnManual::Ignore,
                Decision::Ended(Verdict::Success),
            ),
            (
                &["failed", "manual"],
                OnManual::Ignore,
                Decision::Ended(Verdict::Failed),
            ),
            (
                &["failed?", "manual"],
                OnManual::Ignore,
                Decision::Ended(Verdict::Success),
            ),
            (
                &["canceled", "manual"],
                OnManual::Ignore,
                Decision::Ended(Verdict::Canceled),
            ),
            (
                &["scheduled", "manual"],
                OnManual::Ignore,
                Decision::Wait(Phase::Idle),
            ),
            // An optional one holds nothing up, unless there is nothing else.
            (
                &["success", "manual?"],
                OnManual::Fail,
                Decision::Ended(Verdict::Success),
            ),
            (&["manual?"], OnManual::Fail, Decision::Ended(Verdict::Blocked)),
            (&["manual?"], OnManual::Ignore, Decision::Ended(Verdict::Success)),
        ] {
            assert_eq!(
                decide(&seen(None, statuses), policy),
                expected,
                "{statuses:?} {policy:?}"
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
            let decision = decide(&seen(Some("running"), statuses), OnManual::Wait);
            assert_eq!(decision, Decision::Wait(expected), "{statuses:?}");
        }
    }

    #[test]
    fn a_retried_job_counts_once_by_its_latest_attempt() {
        let named = |id, name: &str, status: &str| Job {
            name: name.to_owned(),
            ..job(id, status, false)
        };
        let attempts = vec![
            named(3, "deploy", "success"),
            named(1, "deploy", "failed"),
            named(2, "test", "success"),
            named(4, "", "success"),
            named(5, "", "success"),
        ];
        let latest = latest(attempts, |job| job);
        assert_eq!(latest.iter().map(|job| job.id).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(compose(latest.iter()), Status::Success);
    }

    #[test]
    fn each_verdict_has_its_exit_code_and_names_the_jobs() {
        let project: Project = "group/env".parse().unwrap();
        let seen = seen(None, &["failed", "failed?", "manual"]);
        assert!(failure_of(Verdict::Success, &seen, 7, &project, true).is_none());
        for (verdict, kind, part) in [
            (Verdict::Failed, Kind::Unsuccessful, "job-1"),
            (Verdict::Canceled, Kind::Unsuccessful, "canceled"),
            (Verdict::Skipped, Kind::Unsuccessful, "skipped"),
            (Verdict::Blocked, Kind::Deadline, "job-3"),
        ] {
            let failure = failure_of(verdict, &seen, 7, &project, true).unwrap();
            assert_eq!(failure.kind(), kind);
            assert!(failure.message().contains(part), "{failure}");
            assert!(
                !failure.message().contains("job-2"),
                "an allowed failure is not to blame: {failure}"
            );
        }
    }
}
