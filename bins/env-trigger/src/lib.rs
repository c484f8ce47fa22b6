//! `env-trigger`: starts another project's pipeline once, follows it to its end, and stops it when stopped.
//!
//! Look (is there one with the key already?), decide, start, look again until it has ended. What is known of it is a
//! [`tree`] of pipelines; everything that is decided from it is in [`plan`]; how often GitLab is asked is in [`pace`].

mod access;
mod args;
mod compose;
mod ending;
mod follow;
mod look;
mod manual;
mod pace;
mod plan;
mod report;
mod request;
mod result;
mod search;
mod start;
mod stop;
mod tails;
mod tell;
mod tree;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use towpath::cli::{self, CommandLine, Outcome, Run};
use towpath::failure::Failure;

use crate::access::Access;
use crate::args::{Args, Command};
use crate::ending::{Follow, Interrupted, give_way, stop_surplus};
use crate::report::Triggered;
use crate::request::Request;
use crate::stop::Stopped;

/// The program: from the command line to the exit code.
#[must_use]
pub fn main(line: CommandLine) -> ExitCode {
    cli::run(&line, work)
}

async fn work(args: Args, run: Run) -> Result<Outcome> {
    let began = Instant::now();
    let access = Access::new(&args.gitlab, &run)?;
    let follow = Follow::new(&args, &access, &run)?;
    let mut report = Triggered::new(&args.gitlab.project()?);
    let failure = match &args.command {
        None => start(&args, &access, &run, &follow, &mut report).await?,
        Some(Command::Wait { pipeline }) => {
            report.pipeline(*pipeline);
            follow
                .to_the_end(&access, &run, &mut report, None, Interrupted::LeaveRunning)
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
async fn start(
    args: &Args,
    access: &Access,
    run: &Run,
    follow: &Follow<'_>,
    report: &mut Triggered,
) -> Result<Option<Failure>> {
    let request = Request::new(&args.start, access.project(), &run.trace)?;
    report.request(&request);
    if !args.start.detach {
        access.reader()?;
    }
    let search = start::search(access, &request);
    let looked = run
        .interruptible(
            "looking for the pipeline",
            start::look_first(access, &request, search.as_ref(), args.start.again),
        )
        .await?;
    if args.gitlab.dry_run {
        report.planned(&looked);
        return Ok(None);
    }
    let started = start::start_once(access, &request, search.as_ref(), looked, run).await?;
    report.started(&started);
    let search = search.filter(|_| !args.start.again);
    if let Some(search) = search.as_ref().filter(|_| started.lost) {
        search.is_in_doubt();
    }
    // One that was found may have ended already, and then how it ended is worth saying.
    let has_ended = !started.created && started.pipeline.status.has_ended();
    if args.start.detach && !has_ended {
        if let Some(search) = search.as_ref().filter(|_| started.created)
            && let Ok(Some(twin)) = run
                .interruptible("looking for a twin", async {
                    Ok::<_, Failure>(
                        search
                            .twin_of(started.pipeline.id, true, stop_surplus(access))
                            .await,
                    )
                })
                .await
        {
            return Ok(give_way(access, started.pipeline.id, &twin, report).await);
        }
        return Ok(None);
    }
    let interrupted = if started.created || args.follow.cancel_found {
        Interrupted::Stop
    } else {
        Interrupted::LeaveRunning
    };
    Ok(follow
        .to_the_end(access, run, report, search.as_ref(), interrupted)
        .await)
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
    if dry_run {
        return Ok(None);
    }
    let left = stop::stop(access, id).await;
    report.stopped(&left);
    // Stopping may have outlasted the run's own deadline.
    match access.canceller()?.pipeline(access.project(), id).await {
        Ok(after) => report.status_of(&after),
        Err(failure) => tracing::warn!(action = "look", object = id, outcome = "failed", "{failure}"),
    }
    Ok(match left {
        Stopped::All { .. } => None,
        Stopped::Left(_) => Some(
            Failure::deadline(format!("pipeline {id} is not cancelled yet: {left}"))
                .hint("look again in a while: a job in after_script is let finish"),
        ),
    })
}
