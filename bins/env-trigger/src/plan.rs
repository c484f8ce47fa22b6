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
        Action::Ignore => without_the_manual_jobs(tree),
    }
}

/// What ran of a pipeline, and of those that it waits for, decides.
fn without_the_manual_jobs(tree: &Tree) -> Decision {
    let awaited = tree.awaited();
    let counting = || awaited.iter().filter(|(_, counts)| *counts).map(|(seen, _)| seen);
    // GitLab calls a pipeline manual while some of its jobs are delayed, being prepared or being cancelled.
    if awaited
        .iter()
        .any(|(seen, _)| seen.jobs.iter().any(moves_by_itself))
    {
        Decision::Wait(phase(tree))
    } else if counting().any(|seen| seen.failed_jobs().next().is_some()) {
        Decision::Ended(Verdict::Failed)
    } else if counting().any(|seen| seen.all_jobs().any(was_canceled)) {
        Decision::Ended(Verdict::Canceled)
    } else {
        Decision::Ended(Verdict::Success)
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
        Activity {
            runs: false,
            waits: true,
            ..
        } => Phase::Starting,
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
mod tests;
