//! Following a pipeline to its end, and what is made of how that came.

use std::collections::BTreeMap;

use towpath::cli::{self, Run, RunArgs};
use towpath::failure::{Failure, Kind, Result};
use towpath::gitlab::{Client, Pipeline};

use crate::access::Access;
use crate::args::{Args, Command, Downstream};
use crate::follow::Follower;
use crate::manual::OnManual;
use crate::plan::{self, Policy, Verdict};
use crate::report::Triggered;
use crate::request;
use crate::result::{self, Source};
use crate::search::Search;
use crate::stop::{self, Stopped};
use crate::tails;

/// Another run started a pipeline with the same key at the same time, and before ours: ours is cancelled. Gives back
/// the failure to do so, with which there are two.
pub(crate) async fn give_way(
    access: &Access,
    ours: u64,
    twin: &Pipeline,
    report: &mut Triggered,
) -> Option<Failure> {
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
    match stopped {
        Stopped::All { .. } => None,
        Stopped::Left(_) => Some(
            Failure::conflict(format!(
                "pipeline {} of {} was started by another run at the same time, and ours could not be cancelled; {stopped}",
                twin.id,
                access.project()
            ))
            .hint("cancel the one with the greater number, and look at what both have done"),
        ),
    }
}

/// What is done about a pipeline of the same delivery that is one too many.
pub(crate) fn stop_surplus(access: &Access) -> impl AsyncFn(u64) {
    async move |id| {
        let stopped = stop::stop(access, id).await;
        tracing::warn!(
            action = "start",
            object = format!("pipeline {id} of {}", access.project()),
            outcome = "one too many",
            "the answer to a start was lost, and another pipeline with the same key is followed; {stopped}"
        );
    }
}

/// What an interruption or the deadline does to the pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// It is ours: it goes down with us.
    Stop,
    /// Somebody else's: we only watched.
    LeaveRunning,
}

/// How a pipeline is followed, and what is made of it.
pub(crate) struct Follow<'a> {
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
    pub(crate) fn new(args: &'a Args, access: &Access, run: &Run) -> Result<Self> {
        let given = &args.follow;
        let policy = Policy {
            on_manual: OnManual::new(&given.on_manual)?,
            downstream: given.downstream,
        };
        let follows = !matches!(args.command, Some(Command::Cancel { .. }));
        if follows && policy.on_manual.starts_any() && access.full_reader().is_none() {
            return Err(Failure::usage("only an access token may start manual jobs")
                .hint("set TOWPATH_GITLAB_TOKEN, or give --on-manual (TOWPATH_ON_MANUAL) without play"));
        }
        if follows && policy.downstream == Downstream::All && access.full_reader().is_none() {
            return Err(Failure::usage("only an access token sees the pipelines below")
                .hint("set TOWPATH_GITLAB_TOKEN, or leave out --downstream all (TOWPATH_DOWNSTREAM)"));
        }
        if given.result.is_none() && !given.expect.is_empty() {
            return Err(Failure::usage("--expect is given without --result")
                .hint("name the file that says what came of it: --result JOB:PATH (TOWPATH_RESULT)"));
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
    pub(crate) async fn to_the_end(
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
        let mut beside = None;
        loop {
            let id = report.pipeline_id();
            let section = self.in_gitlab.then(|| {
                let title = format!("pipeline {id} of {}", access.project());
                cli::section(self.settings, &format!("pipeline_{id}"), &title, false)
            });
            let mut follower = Follower::new(reader, access.project(), id, &self.policy, report.created);
            let twin = async {
                match search {
                    Some(search) if report.created => search.twin_of(id, false, stop_surplus(access)).await,
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
                    beside = give_way(access, id, &twin, report).await;
                    search = None;
                    interrupted = Interrupted::LeaveRunning;
                    continue;
                }
                Followed::Ended(Ok(verdict)) => {
                    // One that was found may have given way to another one, which the run that started it follows now.
                    if verdict == Verdict::Canceled
                        && !report.created
                        && let Some(search) = search.take()
                        && let Some(other) = another(search, id).await
                    {
                        report.status_of(&other);
                        continue;
                    }
                    report.verdict(verdict);
                    self.conclude(reader, run, &mut follower, verdict, report).await
                }
                Followed::Ended(Err(failure)) => Some(still_there(failure, id)),
                Followed::CutShort => Some(cut_short(access, run, &follower, interrupted, report).await),
            };
            self.warn_of_unmet_names(&follower);
            report.seen(follower.tree());
            return failure.or(beside);
        }
    }

    /// The pipeline has ended: reads the logs of what failed, or what came of it.
    async fn conclude(
        &self,
        reader: &Client,
        run: &Run,
        follower: &mut Follower<'_>,
        verdict: Verdict,
        report: &mut Triggered,
    ) -> Option<Failure> {
        if verdict == Verdict::Failed {
            let collected = tails::collect(reader, follower.tree_mut(), self.settings, self.in_gitlab);
            tokio::select! {
                () = collected => {}
                () = run.interrupted() => tracing::warn!(action = "log", object = "failed jobs", outcome = "interrupted"),
            }
        }
        let failure = plan::failure_of(verdict, follower.tree(), &self.policy, report.created);
        let Some((source, expected)) = self.result.as_ref().filter(|_| failure.is_none()) else {
            return failure;
        };
        let fetched = run
            .interruptible(
                "reading the result",
                result::fetch(reader, follower.tree(), source),
            )
            .await;
        match fetched {
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

/// A pipeline with the key that is not this one.
async fn another(search: &Search<'_>, id: u64) -> Option<Pipeline> {
    let found = search.look().await.ok()?;
    found.best().filter(|other| other.id != id).cloned()
}

/// Why following came to an end.
enum Followed {
    Ended(Result<Verdict>),
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
