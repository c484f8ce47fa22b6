//! `env-trigger`: starts another project's pipeline once, follows it to its end, and stops it when stopped.
//!
//! Look (is there one with the key already?), decide, start, look again until it has ended. Everything that is decided
//! from what GitLab said is in [`plan`]; how often it is asked is in [`pace`].

mod access;
mod args;
mod follow;
mod pace;
mod plan;
mod report;
mod request;
mod start;
mod stop;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Kind};

use crate::access::Access;
use crate::args::{Args, Command, OnManual};
use crate::follow::Follower;
use crate::plan::Verdict;
use crate::report::Triggered;
use crate::request::Request;
use crate::stop::Stopped;

fn main() -> ExitCode {
    towpath::cli::run(work)
}

async fn work(args: Args, run: Run) -> Result<Outcome> {
    let began = Instant::now();
    let access = Access::new(&args.gitlab, &run)?;
    let mut report = Triggered::new(&args.gitlab.project()?);
    let failure = match &args.command {
        None => start(&args, &access, &run, &mut report).await?,
        Some(Command::Wait { pipeline }) => {
            report.pipeline(*pipeline);
            follow(
                &access,
                &run,
                args.gitlab.on_manual,
                &mut report,
                Interrupted::LeaveRunning,
            )
            .await
        }
        Some(Command::Cancel { pipeline }) => {
            report.pipeline(*pipeline);
            cancel(&access, &run, args.gitlab.dry_run, *pipeline, &mut report).await?
        }
    };
    report.seconds = report::rounded(began.elapsed().as_secs_f64());
    let outcome = Outcome::report(&report)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// Finds or starts the pipeline, and follows it unless told to leave.
async fn start(args: &Args, access: &Access, run: &Run, report: &mut Triggered) -> Result<Option<Failure>> {
    let request = Request::new(&args.start, access.project(), &run.trace)?;
    report.request(&request);
    if !args.start.detach {
        access.reader()?;
    }
    let looked = run
        .interruptible(
            "looking for the pipeline",
            start::look_first(access, &request, args.start.again),
        )
        .await?;
    if args.gitlab.dry_run {
        report.planned(&looked);
        return Ok(None);
    }
    let started = start::start_once(access, &request, looked, run).await?;
    report.started(&started);
    // One that was found may have ended already, and then how it ended is worth saying.
    let has_ended = !started.created && started.pipeline.status.has_ended();
    if args.start.detach && !has_ended {
        return Ok(None);
    }
    Ok(follow(access, run, args.gitlab.on_manual, report, Interrupted::Stop).await)
}

/// What an interruption or the deadline does to the pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupted {
    /// It is ours: it goes down with us.
    Stop,
    /// Somebody else's: we only watched.
    LeaveRunning,
}

/// Follows the pipeline of the report to its end. Gives back the failure that goes with how it ended.
async fn follow(
    access: &Access,
    run: &Run,
    on_manual: OnManual,
    report: &mut Triggered,
    interrupted: Interrupted,
) -> Option<Failure> {
    let reader = match access.reader() {
        Ok(reader) => reader,
        Err(failure) => return Some(failure),
    };
    let id = report.pipeline_id();
    let mut follower = Follower::new(reader, access.project(), id, on_manual, report.created);
    let ended = tokio::select! {
        ended = follower.until_ended() => Some(ended),
        () = run.interrupted() => None,
        () = tokio::time::sleep(run.deadline.remaining()) => None,
    };
    let failure = match ended {
        Some(Ok(verdict)) => {
            if verdict == Verdict::Failed {
                follower.collect_tails().await;
            }
            plan::failure_of(verdict, follower.seen(), id, access.project(), report.created)
        }
        Some(Err(failure)) => Some(still_there(failure, id)),
        None => Some(cut_short(access, run, &follower, id, interrupted, report).await),
    };
    report.seen(follower.seen(), on_manual);
    failure
}

/// The run ended before the pipeline did.
async fn cut_short(
    access: &Access,
    run: &Run,
    follower: &Follower<'_>,
    id: u64,
    interrupted: Interrupted,
    report: &mut Triggered,
) -> Failure {
    let why = if run.deadline.passed() {
        "the deadline passed"
    } else {
        "interrupted"
    };
    let left = match interrupted {
        Interrupted::LeaveRunning => {
            return Failure::deadline(format!("{why}; pipeline {id} goes on"))
                .hint("run it again with a longer --timeout (TOWPATH_TIMEOUT) to go on waiting");
        }
        Interrupted::Stop => stop::stop(access, id).await,
    };
    report.stopped(&left);
    // A wait that ended because GitLab did not answer is worth another try; a pipeline that is slow is not.
    if run.deadline.passed()
        && let Some(last) = follower.last_trouble()
    {
        return Failure::new(
            Kind::Unavailable,
            format!("{why} without an answer: {last}; {left}"),
        )
        .hint("run it again: it finds the pipeline by its key and follows it");
    }
    Failure::deadline(format!("{why} before pipeline {id} ended; {left}")).hint(match left {
        Stopped::All => "raise --timeout (TOWPATH_TIMEOUT) if it only needs longer".to_owned(),
        Stopped::Left(_) => format!(
            "cancel what is left in {}, or set TOWPATH_GITLAB_TOKEN so that it can be done from here",
            access.project()
        ),
    })
}

fn still_there(failure: Failure, id: u64) -> Failure {
    let kind = failure.kind();
    let hint = failure.next_action().map(str::to_owned);
    let wrapped = Failure::new(kind, format!("cannot follow pipeline {id}, which goes on")).because(failure);
    match hint {
        Some(hint) => wrapped.hint(hint),
        None => wrapped,
    }
}

/// `env-trigger cancel`.
async fn cancel(
    access: &Access,
    run: &Run,
    dry_run: bool,
    id: u64,
    report: &mut Triggered,
) -> Result<Option<Failure>> {
    let reader = access.reader()?;
    access.canceller()?;
    let looking = format!("looking at pipeline {id} of {}", access.project());
    let before = run
        .interruptible(&looking, reader.pipeline(access.project(), id))
        .await?;
    report.status_of(&before);
    if dry_run || before.status.has_ended() {
        return Ok(None);
    }
    let left = stop::stop(access, id).await;
    report.stopped(&left);
    report.status_of(&reader.pipeline(access.project(), id).await?);
    report.changed = true;
    Ok(match left {
        Stopped::All => None,
        Stopped::Left(_) => Some(
            Failure::deadline(format!("pipeline {id} is not cancelled yet: {left}"))
                .hint("look again in a while: a job in after_script is let finish"),
        ),
    })
}
