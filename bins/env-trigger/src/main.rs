//! `env-trigger`: starts another project's pipeline once, follows it to its end, and stops it when stopped.
//!
//! Look (is there one with the key already?), decide, start, look again until it has ended. What is known of it is a
//! [`tree`] of pipelines; everything that is decided from it is in [`plan`]; how often GitLab is asked is in [`pace`].

mod access;
mod args;
mod compose;
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

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use towpath::cli::{self, Outcome, Run, RunArgs};
use towpath::failure::{Failure, Kind};
use towpath::gitlab::{Client, Pipeline};

use crate::access::Access;
use crate::args::{Args, Command, Downstream};
use crate::follow::Follower;
use crate::manual::OnManual;
use crate::plan::{Policy, Verdict};
use crate::report::Triggered;
use crate::request::Request;
use crate::result::Source;
use crate::search::Search;
use crate::stop::Stopped;

fn main() -> ExitCode {
    cli::run(work)
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
    let search = start::search(access, &request).filter(|_| !args.start.again);
    // One that was found may have ended already, and then how it ended is worth saying.
    let has_ended = !started.created && started.pipeline.status.has_ended();
    if args.start.detach && !has_ended {
        if let Some(search) = search.as_ref().filter(|_| started.created)
            && let Ok(Some(twin)) = run
                .interruptible("looking for a twin", async {
                    Ok::<_, Failure>(search.twin_of(started.pipeline.id, true).await)
                })
                .await
        {
            give_way(access, started.pipeline.id, &twin, report).await;
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

/// Another run started a pipeline with the same key at the same time, and before ours: ours is cancelled.
async fn give_way(access: &Access, ours: u64, twin: &Pipeline, report: &mut Triggered) {
    tracing::warn!(
        action = "start",
        object = format!("pipeline {ours} of {}", access.project()),
        outcome = "cancelled for its twin",
        url = twin.web_url.as_deref().unwrap_or_default(),
        "another run started pipeline {} with the same key at the same time",
        twin.id
    );
    let stopped = stop::stop(access, ours).await;
    report.gave_way(twin);
    report.stopped(&stopped);
}

/// What an interruption or the deadline does to the pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupted {
    /// It is ours: it goes down with us.
    Stop,
    /// Somebody else's: we only watched.
    LeaveRunning,
}

/// How a pipeline is followed, and what is made of it.
struct Follow<'a> {
    policy: Policy,
    result: Option<(&'a Source, BTreeMap<String, String>)>,
    settings: &'a RunArgs,
    in_gitlab: bool,
}

impl<'a> Follow<'a> {
    /// Takes over the arguments.
    ///
    /// # Errors
    /// Usage (exit 2) when they contradict each other, or a token is missing for what they ask for.
    fn new(args: &'a Args, access: &Access, run: &Run) -> Result<Self> {
        let given = &args.follow;
        let policy = Policy {
            on_manual: OnManual::new(&given.on_manual)?,
            downstream: given.downstream,
        };
        let follows = !matches!(args.command, Some(Command::Cancel { .. }));
        if follows && policy.on_manual.starts_any() && access.full_reader().is_none() {
            return Err(Failure::usage("only an access token may start manual jobs")
                .hint("set TOWPATH_GITLAB_TOKEN, or give --on-manual (TOWPATH_ON_MANUAL) without play")
                .into());
        }
        if follows && policy.downstream == Downstream::All && access.full_reader().is_none() {
            return Err(Failure::usage("only an access token sees the pipelines below")
                .hint("set TOWPATH_GITLAB_TOKEN, or leave out --downstream all (TOWPATH_DOWNSTREAM)")
                .into());
        }
        if given.result.is_none() && !given.expect.is_empty() {
            return Err(Failure::usage("--expect is given without --result")
                .hint("name the file that says what came of it: --result JOB:PATH (TOWPATH_RESULT)")
                .into());
        }
        let result = match &given.result {
            Some(source) => {
                let expected = request::expected(&given.expect, &args.start, &run.trace)?;
                Some((source, expected))
            }
            None => None,
        };
        Ok(Follow {
            policy,
            result,
            settings: &args.run,
            in_gitlab: given.gitlab_ci,
        })
    }

    /// Follows the pipeline of the report to its end, or the one that it gives way to. Gives back the failure that goes
    /// with how it ended.
    async fn to_the_end(
        &self,
        access: &Access,
        run: &Run,
        report: &mut Triggered,
        mut search: Option<&Search<'_>>,
        mut interrupted: Interrupted,
    ) -> Option<Failure> {
        let reader = match access.reader() {
            Ok(reader) => reader,
            Err(failure) => return Some(failure),
        };
        loop {
            let id = report.pipeline_id();
            let section = self.in_gitlab.then(|| {
                let title = format!("pipeline {id} of {}", access.project());
                cli::section(self.settings, &format!("pipeline_{id}"), &title, false)
            });
            let mut follower = Follower::new(reader, access.project(), id, &self.policy, report.created);
            let twin = async {
                match search {
                    Some(search) if report.created => search.twin_of(id, false).await,
                    _ => None,
                }
            };
            let followed = tokio::select! {
                ended = follower.until_ended() => Followed::Ended(ended),
                Some(twin) = twin => Followed::Twin(twin),
                () = run.interrupted() => Followed::CutShort,
                () = tokio::time::sleep(run.deadline.remaining()) => Followed::CutShort,
            };
            drop(section);
            report.played(follower.played());
            let failure = match followed {
                Followed::Twin(twin) => {
                    give_way(access, id, &twin, report).await;
                    search = None;
                    interrupted = Interrupted::LeaveRunning;
                    continue;
                }
                Followed::Ended(Ok(Verdict::Canceled)) if !report.created && search.is_some() => {
                    // The run that started it may have given way to another one of ours.
                    let found = search.take()?.look().await.ok();
                    if let Some(other) = found.as_ref().and_then(|found| found.best())
                        && other.id != id
                    {
                        report.status_of(other);
                        continue;
                    }
                    report.verdict(Verdict::Canceled);
                    plan::failure_of(Verdict::Canceled, follower.tree(), &self.policy, false)
                }
                Followed::Ended(Ok(verdict)) => {
                    report.verdict(verdict);
                    self.conclude(reader, &mut follower, verdict, report).await
                }
                Followed::Ended(Err(failure)) => Some(still_there(failure, id)),
                Followed::CutShort => Some(cut_short(access, run, &follower, interrupted, report).await),
            };
            self.warn_of_unmet_names(&follower);
            report.seen(follower.tree());
            return failure;
        }
    }

    /// The pipeline has ended: reads the logs of what failed, or what came of it.
    async fn conclude(
        &self,
        reader: &Client,
        follower: &mut Follower<'_>,
        verdict: Verdict,
        report: &mut Triggered,
    ) -> Option<Failure> {
        if verdict == Verdict::Failed {
            tails::collect(reader, follower.tree_mut(), self.settings, self.in_gitlab).await;
        }
        let failure = plan::failure_of(verdict, follower.tree(), &self.policy, report.created);
        let Some((source, expected)) = self.result.as_ref().filter(|_| failure.is_none()) else {
            return failure;
        };
        match result::fetch(reader, follower.tree(), source).await {
            Ok(result) => {
                let difference = result::difference(&result, expected, source);
                report.result = Some(result);
                difference
            }
            Err(failure) => Some(
                Failure::new(
                    failure.kind(),
                    "the pipeline succeeded, but its result cannot be read",
                )
                .hint(
                    failure
                        .next_action()
                        .unwrap_or("look at --result (TOWPATH_RESULT)")
                        .to_owned(),
                )
                .because(failure),
            ),
        }
    }

    /// A rule for a job that is not there is most often a misspelt one.
    fn warn_of_unmet_names(&self, follower: &Follower<'_>) {
        let tree = follower.tree();
        if !tree.root.is_known() || tree.pipelines().any(|(_, _, _, seen)| seen.partial) {
            return;
        }
        let unmet = self.policy.on_manual.unmet(tree.all_jobs());
        if !unmet.is_empty() {
            tracing::warn!(
                action = "look",
                object = format!("pipeline {} of {}", tree.id, tree.project),
                outcome = "no such job",
                "--on-manual (TOWPATH_ON_MANUAL) names {}",
                unmet.join(", ")
            );
        }
    }
}

/// Why following came to an end.
enum Followed {
    Ended(towpath::failure::Result<Verdict>),
    Twin(Pipeline),
    CutShort,
}

/// The run ended before the pipeline did.
async fn cut_short(
    access: &Access,
    run: &Run,
    follower: &Follower<'_>,
    interrupted: Interrupted,
    report: &mut Triggered,
) -> Failure {
    let id = follower.tree().id;
    let why = if run.deadline.passed() {
        "the deadline passed"
    } else {
        "interrupted"
    };
    let holdup = follower.tree().holdup();
    let holdup = holdup.map(|holdup| format!(" ({holdup})")).unwrap_or_default();
    let left = match interrupted {
        Interrupted::LeaveRunning => None,
        Interrupted::Stop => Some(stop::stop(access, id).await),
    };
    let outcome = match &left {
        None => format!("pipeline {id} goes on"),
        Some(left) => left.to_string(),
    };
    if let Some(left) = &left {
        report.stopped(left);
    }
    // A wait that ended because GitLab did not answer is worth another try; a pipeline that is slow is not.
    if run.deadline.passed()
        && let Some(last) = follower.last_trouble()
    {
        return Failure::new(
            Kind::Unavailable,
            format!("{why} without an answer: {last}; {outcome}"),
        )
        .hint("run it again: it follows a pipeline that goes on");
    }
    match left {
        None => Failure::deadline(format!("{why} before pipeline {id} ended{holdup}; it goes on"))
            .hint("run it again with a longer --timeout (TOWPATH_TIMEOUT) to go on waiting"),
        Some(Stopped::All { .. }) => {
            Failure::deadline(format!("{why} before pipeline {id} ended{holdup}; {outcome}"))
                .hint("raise --timeout (TOWPATH_TIMEOUT) if it only needs longer")
        }
        Some(Stopped::Left(_)) => {
            Failure::deadline(format!("{why} before pipeline {id} ended{holdup}; {outcome}")).hint(format!(
                "cancel what is left in {}, or set TOWPATH_GITLAB_TOKEN so that it can be done from here",
                access.project()
            ))
        }
    }
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
    if dry_run {
        return Ok(None);
    }
    let left = stop::stop(access, id).await;
    report.stopped(&left);
    report.status_of(&reader.pipeline(access.project(), id).await?);
    Ok(match left {
        Stopped::All { .. } => None,
        Stopped::Left(_) => Some(
            Failure::deadline(format!("pipeline {id} is not cancelled yet: {left}"))
                .hint("look again in a while: a job in after_script is let finish"),
        ),
    })
}
