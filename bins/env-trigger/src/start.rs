//! Starting a pipeline once: find it by its key, or start it, and never start it on a guess.
//!
//! GitLab has no way to start a pipeline under a name that must be new. So the key travels with the pipeline, in a
//! variable or in an input that shows in its name, and is looked for first. An access token can look; a job token or
//! trigger token cannot, which the report says (`"once": "not checked"`).

use std::time::Duration;

use serde::Serialize;
use towpath::cli::{Run, effect};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result};
use towpath::gitlab::{NotStarted, Pipeline};

use crate::access::{Access, GRACE};
use crate::follow::chance;
use crate::pace::Pace;
use crate::request::Request;
use crate::search::{Found, Search};

/// When to look after an answer was lost: GitLab may still be at it.
const SECOND_LOOKS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// What is known about there being only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Once {
    /// There was one with the key, and it is followed.
    #[serde(rename = "found")]
    Found,
    /// Another run started one at the same time, and before ours, which was cancelled: that one is followed.
    #[serde(rename = "twin")]
    Twin,
    /// There was none with the key.
    #[serde(rename = "checked")]
    Checked,
    /// Nobody looked, or not everywhere.
    #[serde(rename = "not checked")]
    NotChecked,
}

/// What looking came to.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The newest pipeline with the key, unless it was cancelled.
    pub(crate) found: Option<Pipeline>,
    /// Whether everything was looked at that had to be.
    complete: bool,
    /// Whether a pipeline with the key that is seen later is a new one: not so where nobody looked before.
    baseline: bool,
}

impl Looked {
    const NOT: Looked = Looked {
        found: None,
        complete: false,
        baseline: false,
    };

    fn new(found: &Found) -> Self {
        Looked {
            found: found.best().cloned(),
            complete: found.complete,
            baseline: true,
        }
    }

    pub(crate) fn once(&self) -> Once {
        match (&self.found, self.complete) {
            (Some(_), _) => Once::Found,
            (None, true) => Once::Checked,
            (None, false) => Once::NotChecked,
        }
    }
}

/// The pipeline to follow.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pipeline: Pipeline,
    pub(crate) once: Once,
    /// Whether this run made it.
    pub(crate) created: bool,
    /// Whether that was never said: it carries the key, and so may one that another run made at the same time.
    pub(crate) lost: bool,
}

/// Looks for a pipeline with the key, where there is a key and a token that may look.
///
/// # Errors
/// Whatever GitLab refuses; a project that is not there ends the run here.
pub(crate) async fn look_first(
    access: &Access,
    request: &Request,
    search: Option<&Search<'_>>,
    again: bool,
) -> Result<Looked> {
    let reason = match (search, &request.key) {
        _ if again => "--again was given",
        (Some(search), _) => return Ok(Looked::new(&search.look().await?)),
        (None, None) => "nothing says what is delivered: no commit, no digest, no --key",
        (None, Some(_)) => "only an access token may list pipelines (TOWPATH_GITLAB_TOKEN)",
    };
    tracing::info!(action = "look", object = %access.project(), outcome = "not checked", reason);
    Ok(Looked::NOT)
}

/// A search for the key, where there is a key and a token that may look. One serves the whole run: it remembers what it
/// read, and each pipeline that another search reads again is a request.
pub(crate) fn search<'a>(access: &'a Access, request: &'a Request) -> Option<Search<'a>> {
    Search::new(access.full_reader()?, access.project(), request)
}

/// Follows what was found, or starts a pipeline. An interruption waits for GitLab's answer, so that there is no
/// pipeline that nobody knows of.
///
/// # Errors
/// Denied, not found or input when GitLab refuses; unavailable (exit 7) when its limits do not let us in before the
/// deadline, or when its answer was lost and no pipeline is to be seen; deadline (exit 9: a person has to look) when its
/// answer was lost and the token cannot look.
pub(crate) async fn start_once(
    access: &Access,
    request: &Request,
    search: Option<&Search<'_>>,
    looked: Looked,
    run: &Run,
) -> Result<Started> {
    let once = looked.once();
    // What is seen later is new only where somebody looked before.
    let search = search.filter(|_| looked.baseline);
    if let Some(pipeline) = looked.found {
        tracing::info!(
            action = "follow",
            object = format!("pipeline {} of {}", pipeline.id, access.project()),
            outcome = "found",
            status = pipeline.status.as_str(),
            url = pipeline.web_url.as_deref().unwrap_or_default(),
            "not starting another one; --again would"
        );
        return Ok(Started {
            pipeline,
            once,
            created: false,
            lost: false,
        });
    }
    let project = access.project();
    let new = request.with_key(access.full_reader().is_some());
    let mut refusals = 0;
    loop {
        let effect = effect("start", format!("pipeline on {} of {project}", new.reference));
        match access.starter().start_pipeline(project, &new).await {
            Ok(pipeline) => {
                effect.done(&format!("pipeline {}", pipeline.id));
                return Ok(Started {
                    pipeline,
                    once,
                    created: true,
                    lost: false,
                });
            }
            Err(NotStarted::Refused(failure)) => return Err(failure),
            Err(NotStarted::Impossible(failure)) => return Err(explain(access, request, failure).await),
            Err(NotStarted::Limited(failure)) => {
                effect.done("turned away by a rate limit");
                refusals += 1;
                let pause = Pace::pause_after_trouble(refusals + 2, chance());
                if pause >= run.deadline.remaining() {
                    return Err(failure);
                }
                run.interruptible("waiting for GitLab's rate limit", async {
                    tokio::time::sleep(pause).await;
                    Ok::<(), Failure>(())
                })
                .await?;
                // Somebody else may have started the same delivery while we waited.
                if let Some(search) = search
                    && let Some(pipeline) = search.look().await?.best()
                {
                    return Ok(Started {
                        pipeline: pipeline.clone(),
                        once: Once::Found,
                        created: false,
                        lost: false,
                    });
                }
            }
            Err(NotStarted::Unknown(failure)) => {
                effect.done("no answer");
                return after_a_lost_answer(access, request, search, failure).await;
            }
        }
    }
}

/// Looks for the pipeline whose answer was lost. Asking again without having seen it could make a second one.
/// With --again there may be an older one with the same key, which must not be taken for ours.
async fn after_a_lost_answer(
    access: &Access,
    request: &Request,
    search: Option<&Search<'_>>,
    lost: Failure,
) -> Result<Started> {
    let project = access.project();
    if let (Some(search), Some(reader)) = (search, access.full_reader()) {
        // It may have been the deadline that cut the answer off, and what was started then has to be found all the same.
        let reader = reader.until(Deadline::after(GRACE))?;
        let search = search.by(&reader);
        let mut outcome = "it could not be looked for";
        for pause in SECOND_LOOKS {
            tokio::time::sleep(pause).await;
            match search.look().await {
                Ok(found) => {
                    if let Some(pipeline) = found.best() {
                        return Ok(Started {
                            pipeline: pipeline.clone(),
                            once: Once::Found,
                            // There was none before we asked.
                            created: true,
                            lost: true,
                        });
                    }
                    outcome = "none is to be seen";
                }
                Err(failure) => tracing::warn!(action = "look", outcome = "failed", "{failure}"),
            }
        }
        return Err(Failure::unavailable(format!(
            "the answer to the start of a pipeline of {project} with the key {} was lost, and {outcome}; one may still \
             appear",
            request.key.as_deref().unwrap_or_default()
        ))
        .because(lost)
        .hint("run it again in a minute: it looks for the key first"));
    }
    // Not "unavailable": templates repeat that by themselves, and only a person can see here whether it is safe to.
    Err(Failure::deadline(format!(
        "the answer to the start of a pipeline of {project} was lost; a pipeline may exist"
    ))
    .because(lost)
    .hint(format!(
        "look at the pipelines of {project} before running it again; with an access token (TOWPATH_GITLAB_TOKEN), \
         and without --again, it looks by itself"
    )))
}

/// GitLab answers 400 to a missing or ambiguous ref, to one that is out of bounds, and to inputs, variables or a
/// configuration it does not like. Which of them it was is found out by looking at the refs.
async fn explain(access: &Access, request: &Request, refused: Failure) -> Failure {
    let project = access.project();
    let name = &request.new.reference;
    let client = access.reader().unwrap_or(access.starter());
    let refs = match client.refs_named(project, name).await {
        Ok(refs) => refs,
        Err(failure) => {
            tracing::debug!(action = "look", object = %name, outcome = "failed", "{failure}");
            None
        }
    };
    // Full names are never ambiguous, and no branch is called so.
    let is_full = name.starts_with("refs/");
    let knows_more = client.token().is_access();
    match refs {
        Some(refs) if refs.branch && refs.tag => {
            Failure::not_found(format!("{name} of {project} is ambiguous: a branch and a tag have that name"))
                .because(refused)
                .hint("rename one of them, or name it in full (refs/heads/... or refs/tags/...) where this GitLab takes that")
        }
        Some(refs) if !refs.branch && !refs.tag && !is_full => {
            Failure::not_found(format!("{project} has no branch or tag {name}"))
                .because(refused)
                .hint("check --ref (TOWPATH_REF)")
        }
        Some(refs) if refs.may_push == Some(false) => {
            Failure::denied(format!("the token may not run pipelines on {name} of {project}"))
                .because(refused)
                .hint(format!(
                    "give its user at least the Developer role, or, as {name} may be protected, the right to push or \
                     merge to it (Settings > Repository > Protected branches of {project})"
                ))
        }
        Some(_) if knows_more => refused.hint(format!(
            "compare --input with `spec:inputs` in {project} (NAME:=VALUE gives a number, a boolean or an array), and \
             check its CI configuration; where variables are refused, carry the key with --key-input"
        )),
        _ => Failure::denied(format!("no pipeline on {name} of {project} for this token"))
            .because(refused)
            .hint(format!(
                "may the user who started this job run pipelines on {name} of {project}? Compare --input with \
                 `spec:inputs` there; prefer inputs to variables, which need a permission of their own"
            )),
    }
}
