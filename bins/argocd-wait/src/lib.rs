//! `argocd-wait`: waits until the images that a commit of the environment repository sets are what runs, or says why
//! they do not.
//!
//! Ask Argo CD to look at the repository, listen to what happens to the application, decide about each state until one
//! decides. What a state means is in [`plan`]; how the commit that Argo CD sees stands to ours is in [`relation`].

mod args;
mod attempts;
mod evidence;
mod follow;
mod handover;
mod image;
mod lineage;
mod plan;
mod reach;
mod record;
mod relation;
mod report;
mod source;
mod trouble;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use towpath::argocd::Located;
use towpath::cli::{self, CommandLine, Outcome, Run};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Kind};
use towpath::gitlab::DeploymentStatus;
use towpath::handoff::Handoff;

use crate::args::Args;
use crate::evidence::Evidence;
use crate::follow::{Ending, Follower, Shared, lock};
use crate::lineage::Lineage;
use crate::plan::{Step, Waiting, Wanted};
use crate::record::Record;
use crate::report::{ApplicationReport, Waited};
use crate::source::Source;

/// How long looking at what is not well may take once the run is over.
const GRACE: Duration = Duration::from_secs(10);
/// How long telling GitLab may take after a signal: a cancelled job has a second, and then it is killed.
const AFTER_SIGNAL: Duration = Duration::from_millis(700);

/// The program: from the command line to the exit code.
#[must_use]
pub fn main(line: CommandLine) -> ExitCode {
    cli::run(&line, work)
}

async fn work(args: Args, run: Run) -> Result<Outcome> {
    let began = Instant::now();
    let applications = args.applications()?;
    let wanted = Arc::new(Wanted {
        revision: args.wait.revision.clone(),
        images: args.wait.images.clone(),
        repository: args.wait.repo.clone(),
        may_sync: args.wait.sync,
        degraded_for: args.wait.degraded_for,
        healthy_within: args.wait.healthy_within,
    });
    // Whatever is wrong with where the outcome goes has to be known before it is waited for.
    let handoff = match &args.wait.handoff {
        Some(path) => {
            Handoff::check_place(path)?;
            Some((path, Handoff::read_or_new(path)?))
        }
        None => None,
    };
    let record = Record::new(&args.record, &args.argocd, &wanted.revision, &run)?;
    let lineage = Arc::new(Lineage::new(&args, &run)?);
    let source = run
        .interruptible("looking for Argo CD", reach::reach(&args, &applications[0], &run))
        .await?;
    let mut waited = Waited::new(&wanted, source.name());
    let mut followers = Vec::new();
    for located in applications {
        let looking = format!("looking at application {located}");
        let begun = Follower::begin(source.clone(), lineage.clone(), located, wanted.clone());
        followers.push(run.interruptible(&looking, begun).await?);
    }
    if args.wait.dry_run {
        planned(followers, &wanted, &mut waited);
        return Ok(Outcome::report(&waited)?);
    }
    let mut deployment = match &record {
        Some(record) => Some(
            run.interruptible("recording a deployment", record.begin())
                .await?,
        ),
        None => None,
    };
    let (mut failure, status) = wait(followers, &source, &wanted, &run, &mut waited).await;
    if let (Some(record), Some(deployment)) = (&record, &mut deployment) {
        waited.changed = true;
        let finished = tokio::select! {
            finished = record.finish(deployment, status) => finished,
            () = time_after_a_signal(&run) => Err(Failure::new(
                Kind::Unavailable,
                "GitLab did not take the outcome in the time that a signal leaves",
            )),
        };
        if let Err(broken) = finished {
            tracing::warn!(
                action = "record",
                object = "the deployment",
                outcome = "left running",
                "{broken}"
            );
            failure = failure.or(Some(broken));
        }
    }
    waited.deployment = deployment;
    waited.seconds = report::rounded(began.elapsed().as_secs_f64());
    waited.requests = source.requests_sent();
    if let Some((path, before)) = handoff {
        handover::add(before, &wanted, &waited, &run.trace)?.write(path)?;
    }
    let outcome = Outcome::report(&waited)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// Resolves once a signal came in and what has to be done after it had its time.
async fn time_after_a_signal(run: &Run) {
    run.interrupted().await;
    tokio::time::sleep(AFTER_SIGNAL).await;
}

/// What a dry run found.
fn planned(followers: Vec<Follower>, wanted: &Wanted, waited: &mut Waited) {
    for mut follower in followers {
        let step = follower.decided_now();
        let shared = follower.shared();
        let mut standing = lock(&shared).clone();
        standing.application = follower.application().clone();
        let at = plan::at(&standing.application, wanted).to_owned();
        let report = ApplicationReport::new(follower.located(), &standing, &at);
        waited.applications.push(match step {
            Step::Ready(proof) => report.ready(proof),
            Step::Fail(trouble) => {
                let evidence = Evidence::default();
                let failure = trouble.failure(follower.located(), wanted, &evidence);
                report.failed(trouble.verdict(), failure.message(), evidence)
            }
            Step::Wait(_) | Step::Ask(_) | Step::Sync => report,
        });
    }
}

/// One application that is followed.
struct Followed {
    located: Located,
    shared: Shared,
    ending: Option<Ending>,
}

/// Waits for all of them, or for the first that fails. What the others were waiting for is reported as well.
async fn wait(
    followers: Vec<Follower>,
    source: &Source,
    wanted: &Wanted,
    run: &Run,
    waited: &mut Waited,
) -> (Option<Failure>, DeploymentStatus) {
    let mut all: Vec<Followed> = Vec::new();
    let mut running = JoinSet::new();
    for (index, follower) in followers.into_iter().enumerate() {
        all.push(Followed {
            located: follower.located().clone(),
            shared: follower.shared(),
            ending: None,
        });
        running.spawn(async move { (index, follower.until_ended().await) });
    }
    let mut cut_short = None;
    while cut_short.is_none() {
        let joined = tokio::select! {
            joined = running.join_next() => joined,
            () = run.interrupted() => {
                cut_short = Some(Cut::Interrupted);
                continue;
            }
            () = tokio::time::sleep(run.deadline.remaining()) => {
                cut_short = Some(Cut::Deadline);
                continue;
            }
        };
        match joined {
            None => break,
            Some(Ok((index, ending))) => {
                let failed = matches!(ending, Ending::Failed { .. });
                all[index].ending = Some(ending);
                if failed {
                    break;
                }
            }
            Some(Err(panicked)) => {
                let failure = Failure::internal("following an application came to no end").because(panicked);
                return (Some(failure), DeploymentStatus::Failed);
            }
        }
    }
    running.shutdown().await;
    let failed_one = all
        .iter()
        .any(|one| matches!(one.ending, Some(Ending::Failed { .. })));
    let mut failure = None;
    for one in all {
        let standing = lock(&one.shared).clone();
        waited.changed |= standing.sync_started;
        let at = plan::at(&standing.application, wanted);
        let report = ApplicationReport::new(&one.located, &standing, at);
        waited.applications.push(match (one.ending, cut_short) {
            (Some(Ending::Ready(proof)), _) => report.ready(proof),
            (
                Some(Ending::Failed {
                    verdict,
                    failure: why,
                    evidence,
                }),
                _,
            ) => {
                waited.verdict = waited.verdict.or(Some(verdict));
                let report = report.failed(verdict, why.message(), evidence);
                failure = failure.or(Some(why));
                report
            }
            (None, Some(cut)) if !failed_one => {
                let (verdict, why, evidence) = cut.failure(&one.located, &standing, source, run).await;
                waited.verdict = waited.verdict.or(Some(verdict));
                let report = report.failed(verdict, why.message(), evidence);
                failure = failure.or(Some(why));
                report
            }
            (None, _) => report,
        });
    }
    let status = match (&failure, cut_short) {
        (None, _) => DeploymentStatus::Success,
        (Some(_), Some(Cut::Interrupted)) => DeploymentStatus::Canceled,
        (Some(_), _) => DeploymentStatus::Failed,
    };
    if failure.is_none() {
        waited.verdict = Some("ready");
    }
    (failure, status)
}

/// Why the wait ended before it was decided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Interrupted,
    Deadline,
}

impl Cut {
    async fn failure(
        self,
        located: &Located,
        standing: &follow::Standing,
        source: &Source,
        run: &Run,
    ) -> (&'static str, Failure, Evidence) {
        let reason = standing.waiting.as_ref().map(Waiting::sentence);
        let reason = reason.unwrap_or_else(|| "nothing is known of it yet".to_owned());
        if self == Cut::Interrupted {
            let message = format!("interrupted while waiting for application {located}: {reason}");
            return ("interrupted", Failure::deadline(message), Evidence::default());
        }
        // A wait that ended because nobody answered is worth another try; an application that is slow is not.
        if let Some(trouble) = &standing.trouble {
            let message =
                format!("the deadline passed while application {located} could not be looked at: {trouble}");
            let failure =
                Failure::new(Kind::Unavailable, message).hint("run it again: it goes on where it was");
            return ("unavailable", failure, Evidence::default());
        }
        let unwell = matches!(
            standing.waiting,
            Some(Waiting::Unwell(_) | Waiting::OldRuns(_) | Waiting::NotSeen(_))
        );
        let evidence = if unwell {
            let source = source.until(Deadline::after(GRACE));
            tokio::select! {
                evidence = source.evidence(located, &standing.application) => evidence,
                () = run.interrupted() => Evidence::default(),
            }
        } else {
            Evidence::default()
        };
        let message = format!(
            "the deadline passed before application {located} was ready: {reason}{}",
            evidence.sentence()
        );
        let hint = match standing.waiting {
            Some(Waiting::AtOlder(_) | Waiting::AtUnknown(_)) => {
                "was the commit pushed, and to what the application follows? Raise --timeout (TOWPATH_TIMEOUT) if it only \
                 needs longer; a rerun goes on waiting"
            }
            _ => "raise --timeout (TOWPATH_TIMEOUT) if it only needs longer; a rerun goes on waiting",
        };
        let failure = Failure::deadline(message).hint(hint);
        ("deadline", failure, evidence)
    }
}
