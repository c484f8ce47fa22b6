//! A change by way of a merge request: its branch, the request itself, and following it as far as was asked.

use std::time::{Duration, Instant};

use towpath::cli::Run;
use towpath::failure::{Failure, Kind, Result};
use towpath::git::{Decision, NewCommit};
use towpath::gitlab::{Accepted, Branch, Client, HeadPipeline, MergeRequest, NewMergeRequest, Project};
use towpath::kustomize::{HOLDS_FOLDER, Hold};

use crate::merge_request::{self, GRACE, HeldHere, MergeRequestArgs, Next, Purpose, Seen};
use crate::report::MergeRequestReport;
use crate::source::{Source, Tree, Written};

/// How often a change is put on a new tip of the target at most.
const ROUNDS: u32 = 20;
/// How long the merge may be asked for where nobody waits for it.
const ARMING: Duration = Duration::from_secs(300);
/// Pauses between two looks grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// As many characters as GitLab takes for a title; a path or an image's name may be as long alone.
const TITLE_LIMIT: usize = 255;
/// What is left of the run's time when following ends, to report.
const MARGIN: Duration = Duration::from_secs(2);

/// What came of it.
pub(super) struct Proposed<T> {
    /// The merge request; none when there was nothing to do.
    pub(super) merge_request: Option<MergeRequestReport>,
    /// The commit on the target branch, once it is merged.
    pub(super) commit: Option<String>,
    /// What came with the decision.
    pub(super) outcome: T,
    /// How many times it had to be decided.
    pub(super) attempts: u32,
    /// Why the run is no success although the merge request is there.
    pub(super) failure: Option<Failure>,
}

impl<T> From<Written<T>> for Proposed<T> {
    fn from(written: Written<T>) -> Self {
        Proposed {
            merge_request: None,
            commit: written.commit,
            outcome: written.outcome,
            attempts: written.attempts,
            failure: None,
        }
    }
}

/// Where it got to with one merge request.
enum Followed {
    Merged(MergeRequest),
    Settled(MergeRequest),
    Again,
    Stopped(MergeRequest, Failure),
}

/// Puts a change into a merge request, and follows it as far as was asked. Those that would set what `held` names are
/// closed for it.
///
/// # Errors
/// Whatever `decide` fails with; as GitLab answers; conflict (exit 6) when the target moved in its way too often.
pub(super) async fn propose<T>(
    source: &mut Source,
    asked: &MergeRequestArgs,
    purpose: &Purpose,
    run: &Run,
    held: impl Fn(&T) -> Vec<HeldHere>,
    mut decide: impl AsyncFnMut(Tree<'_>) -> Result<Decision<T>>,
) -> Result<Proposed<T>> {
    let target = by_api(source)?;
    let work = purpose.branch(target.branch());
    for attempts in 1..=ROUNDS {
        let Decision { commit, outcome } = decide(Tree::Api(target)).await?;
        let open = target
            .client()
            .open_merge_requests(target.project(), target.branch(), None)
            .await?;
        let Some(commit) = commit else {
            close_obsolete(target, &open, &work).await?;
            return Ok(Proposed {
                merge_request: None,
                commit: None,
                outcome,
                attempts,
                failure: None,
            });
        };
        let head = target.propose(&commit, &work, same).await?;
        let request = ensure(target, &open, &work, &commit, purpose).await?;
        let mut superseded = close_superseded(target, &open, &work, purpose, request.iid).await?;
        let by = format!("Overridden by !{}.", request.iid);
        for overridden in merge_request::overridden(&open, &held(&outcome)) {
            close(target.client(), target.project(), overridden, &by).await?;
            superseded.push(overridden.iid);
        }
        let shown = |request: &MergeRequest| MergeRequestReport {
            iid: request.iid,
            url: request.web_url.clone(),
            branch: work.clone(),
            state: request.state,
            auto_merge: request.auto_merge == Some(true),
            head: head.clone(),
            superseded: superseded.clone(),
        };
        let (request, commit, failure) = match follow(target, request, &head, asked, run).await? {
            Followed::Again => {
                target.refresh().await?;
                continue;
            }
            Followed::Merged(request) => {
                let landed = request.landed().map(str::to_owned);
                (request, landed, None)
            }
            Followed::Settled(request) => (request, None, None),
            Followed::Stopped(request, failure) => (request, None, Some(failure)),
        };
        return Ok(Proposed {
            merge_request: Some(shown(&request)),
            commit,
            outcome,
            attempts,
            failure,
        });
    }
    Err(Failure::conflict(format!(
        "{} of {} moved in the way of the merge request {ROUNDS} times",
        target.branch(),
        target.project()
    ))
    .hint("try again later"))
}

/// Whether a file says the same: of holds, whenever they were written.
fn same(path: &str, wanted: Option<&[u8]>, there: Option<&[u8]>) -> bool {
    let undated = |content: &[u8]| {
        let hold = Hold::parse(content, path).ok()?;
        Some(Hold {
            since: String::new(),
            ..hold
        })
    };
    match (wanted, there) {
        _ if wanted == there => true,
        (Some(wanted), Some(there)) if path.starts_with(HOLDS_FOLDER) => {
            undated(wanted).is_some_and(|wanted| undated(there) == Some(wanted))
        }
        _ => false,
    }
}

pub(super) fn by_api(source: &mut Source) -> Result<&mut Branch> {
    let needs = |message: &str| {
        Failure::denied(message).hint(
            "give --project GROUP/PROJECT (TOWPATH_PROJECT) and set TOWPATH_GIT_TOKEN to a project access token with \
             the scope `api`; a job token may not",
        )
    };
    match source {
        Source::Api(branch) => Ok(branch),
        Source::Remote {
            by_job_token: true, ..
        } => Err(needs("a job token may not open merge requests")),
        Source::Remote { .. } => Err(needs(
            "a merge request is opened over GitLab's API, and this goes by git",
        )),
        Source::Checkout(_) => Err(
            Failure::usage("a merge request needs a project, and this is a checkout")
                .hint("give --project GROUP/PROJECT (TOWPATH_PROJECT) instead of --checkout"),
        ),
    }
}

/// Opens the merge request of a branch, or brings the open one up to date.
async fn ensure(
    target: &Branch,
    open: &[MergeRequest],
    work: &str,
    commit: &NewCommit,
    purpose: &Purpose,
) -> Result<MergeRequest> {
    let (client, project) = (target.client(), target.project());
    let message = commit.message();
    let title: String = message
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(TITLE_LIMIT)
        .collect();
    let title = title.as_str();
    let description = purpose.description(commit);
    let mut found = open.iter().find(|request| request.source_branch == work).cloned();
    loop {
        if let Some(request) = found {
            let is_current = request.title.as_deref() == Some(title)
                && request.description.as_deref() == Some(description.as_str());
            if is_current {
                return Ok(request);
            }
            let effect = towpath::cli::effect("update merge request", format!("{project}!{}", request.iid));
            let request = client
                .rewrite_merge_request(project, request.iid, title, &description)
                .await?;
            effect.done("done");
            return Ok(request);
        }
        let effect = towpath::cli::effect("open merge request", format!("{project} {work}"));
        let new = NewMergeRequest {
            source_branch: work,
            target_branch: target.branch(),
            title,
            description: &description,
        };
        match client.open_merge_request(project, &new).await {
            Ok(request) => {
                effect.done(&format!("!{}", request.iid));
                return Ok(request);
            }
            // Somebody else opened it in this moment, or the answer was lost.
            Err(failure) if matches!(failure.kind(), Kind::Conflict | Kind::Unavailable) => {
                effect.forget();
                let open = client
                    .open_merge_requests(project, target.branch(), Some(work))
                    .await?;
                match open.into_iter().next() {
                    Some(request) => found = Some(request),
                    None => return Err(failure),
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn close_superseded(
    target: &Branch,
    open: &[MergeRequest],
    work: &str,
    purpose: &Purpose,
    by: u64,
) -> Result<Vec<u64>> {
    let mut closed = Vec::new();
    for request in merge_request::superseded(open, work, purpose) {
        let why = format!("Superseded by !{by}.");
        close(target.client(), target.project(), request, &why).await?;
        closed.push(request.iid);
    }
    Ok(closed)
}

async fn close_obsolete(target: &Branch, open: &[MergeRequest], work: &str) -> Result<()> {
    let why = format!("{} says so already; nothing is left to merge.", target.branch());
    for request in open.iter().filter(|request| request.source_branch == work) {
        close(target.client(), target.project(), request, &why).await?;
    }
    Ok(())
}

pub(super) async fn close(
    client: &Client,
    project: &Project,
    request: &MergeRequest,
    why: &str,
) -> Result<()> {
    let effect = towpath::cli::effect("close merge request", format!("{project}!{}", request.iid));
    client.close_merge_request(project, request.iid, why).await?;
    client.delete_branch(project, &request.source_branch).await?;
    effect.done("done");
    Ok(())
}

/// Asks for the merge and waits, as far as it is wanted.
async fn follow(
    target: &Branch,
    mut request: MergeRequest,
    head: &str,
    asked: &MergeRequestArgs,
    run: &Run,
) -> Result<Followed> {
    if !asked.auto_merge && !asked.wait {
        return Ok(Followed::Settled(request));
    }
    let (client, project, iid) = (target.client(), target.project(), request.iid);
    let url = request
        .web_url
        .clone()
        .unwrap_or_else(|| format!("{project}!{iid}"));
    towpath::cli::note(&format!("following {url}"));
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        let pipelines = client.merge_request_pipelines(project, iid).await?;
        let pipeline = newest_of(&pipelines, head);
        let seen = Seen {
            request: &request,
            pipeline,
            head,
            grace_is_over: began.elapsed() > GRACE,
        };
        let next = merge_request::next(&seen, asked);
        tell(&mut told, &request, pipeline);
        let stopped = |failure: Failure, request: MergeRequest| Ok(Followed::Stopped(request, failure));
        match next {
            Next::Merged => return Ok(Followed::Merged(request)),
            Next::Settled => return Ok(Followed::Settled(request)),
            Next::Again => return Ok(Followed::Again),
            Next::Closed => {
                let failure = Failure::unsuccessful(format!("{url} was closed without a merge"));
                return stopped(failure.hint("ask who closed it, and run again"), request);
            }
            Next::Replaced => {
                let failure = Failure::conflict(format!("{url} is at another commit now"));
                return stopped(failure.hint("a newer run took it over; follow that one"), request);
            }
            Next::PipelineFailed => {
                let page = pipeline.and_then(|pipeline| pipeline.web_url.clone());
                let failure = Failure::unsuccessful(format!("the pipeline of {url} did not succeed"));
                return stopped(
                    failure.hint(page.map_or("look at it".into(), |page| format!("see {page}"))),
                    request,
                );
            }
            Next::Person(why) => {
                let failure = Failure::deadline(format!("{url} waits for a person: {why}"));
                let hint = "merge it by hand, or pass --without-pipeline (TOWPATH_WITHOUT_PIPELINE) where there is none";
                return stopped(failure.hint(hint), request);
            }
            Next::Accept => {
                let effect = towpath::cli::effect("ask for the merge", url.clone());
                match client.accept_merge_request(project, iid, head).await? {
                    Accepted::Yes(answer) => {
                        effect.done("accepted");
                        request = *answer;
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Accepted::NotNow(failure) => {
                        effect.done("not yet");
                        towpath::cli::note(&failure.to_string());
                    }
                }
            }
            Next::Wait => {}
        }
        let is_late = run.deadline.remaining() < pause + MARGIN || (!asked.wait && began.elapsed() > ARMING);
        if is_late {
            let status = request.detailed_merge_status.clone().unwrap_or_default();
            let failure = Failure::deadline(format!("{url} is not merged yet ({status})"));
            return stopped(
                failure.hint(
                    "a rerun goes on with the same merge request; or raise --timeout (TOWPATH_TIMEOUT)",
                ),
                request,
            );
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f32(1.5).min(LONGEST_PAUSE);
        request = client.merge_request(project, iid).await?;
    }
}

/// Says what is waited for when that changes.
fn tell(told: &mut String, request: &MergeRequest, pipeline: Option<&HeadPipeline>) {
    let merge = request.detailed_merge_status.as_deref().unwrap_or("unknown");
    let pipeline = pipeline.map_or("none yet".to_owned(), |pipeline| pipeline.status.to_string());
    let state = format!("merge request !{}: {merge}, pipeline {pipeline}", request.iid);
    if *told != state {
        towpath::cli::note(&state);
        *told = state;
    }
}

/// Of a merge request's own pipelines GitLab says the commit; of pipelines of merged results, another one.
fn newest_of<'a>(pipelines: &'a [HeadPipeline], head: &str) -> Option<&'a HeadPipeline> {
    pipelines
        .iter()
        .find(|pipeline| pipeline.sha.as_deref() == Some(head))
}
