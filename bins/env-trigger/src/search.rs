//! Looking for pipelines that carry a key.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use towpath::cli::effect;
use towpath::failure::{Kind, Result};
use towpath::gitlab::{Client, Pipeline, Project, Status};

use crate::request::{KEY_VARIABLE, Request};

/// How many of the newest pipelines on the ref are looked at.
const NAMES_READ: u8 = 100;
/// Of how many of them the variables are read at most, which takes a request each.
const VARIABLES_READ: usize = 25;
/// When to look for one that another run started at the same time: GitLab may take seconds to make one, and shows it
/// only then.
const TWIN_LOOKS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
/// How many of these looks are made where nobody waits for the pipeline.
const LOOKS_IN_PASSING: usize = 2;

/// A search for the pipelines that carry the key of a request. It remembers which ones do, since that never changes.
pub(crate) struct Search<'a> {
    reader: &'a Client,
    project: &'a Project,
    request: &'a Request,
    key: &'a str,
    carries: RefCell<BTreeMap<u64, Option<bool>>>,
    in_doubt: Cell<bool>,
}

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Found {
    /// The pipelines that carry the key, newest first, without those that were cancelled.
    pub(crate) alive: Vec<Pipeline>,
    /// Whether one was left out because it was cancelled.
    pub(crate) cancelled: bool,
    /// Whether everything was looked at that had to be.
    pub(crate) complete: bool,
}

impl Found {
    /// The one to follow: of those that have not ended the first, for that is the one which runs that started at the
    /// same time agree on; else the newest.
    pub(crate) fn best(&self) -> Option<&Pipeline> {
        let running = self.alive.iter().filter(|pipeline| !pipeline.status.has_ended());
        running
            .min_by_key(|pipeline| pipeline.id)
            .or_else(|| self.alive.first())
    }
}

impl<'a> Search<'a> {
    /// A search with a token that may look; none when the request has no key.
    pub(crate) fn new(reader: &'a Client, project: &'a Project, request: &'a Request) -> Option<Self> {
        request.key.as_deref().map(|key| Search {
            reader,
            project,
            request,
            key,
            carries: RefCell::default(),
            in_doubt: Cell::new(false),
        })
    }

    /// The same search with another client.
    pub(crate) fn by<'b>(&'b self, reader: &'b Client) -> Search<'b> {
        Search {
            reader,
            carries: self.carries.clone(),
            in_doubt: self.in_doubt.clone(),
            ..*self
        }
    }

    /// The answer to our start was lost, so that of several pipelines with the key nobody knows which one is ours.
    pub(crate) fn is_in_doubt(&self) {
        self.in_doubt.set(true);
    }

    /// Looks once.
    ///
    /// # Errors
    /// Denied, not found or unavailable, as GitLab answers.
    pub(crate) async fn look(&self) -> Result<Found> {
        let effect = effect(
            "look",
            format!("{} for a pipeline with key {}", self.project, self.key),
        );
        let newest = self
            .reader
            .newest_pipelines(self.project, &self.request.new.reference, NAMES_READ)
            .await?;
        let mut found = Found {
            alive: Vec::new(),
            cancelled: false,
            complete: true,
        };
        // A push or a schedule starts pipelines too, and none of them carries a key.
        let by_request = |pipeline: &Pipeline| {
            let source = pipeline.source.as_deref();
            source.is_none_or(|source| matches!(source, "api" | "trigger" | "pipeline"))
        };
        let candidates: Vec<Pipeline> = newest.into_iter().filter(by_request).collect();
        for (index, pipeline) in candidates.into_iter().enumerate() {
            match self.carries_key(&pipeline, index).await? {
                Some(true) if matches!(pipeline.status, Status::Canceled | Status::Canceling) => {
                    found.cancelled = true;
                }
                Some(true) => found.alive.push(pipeline),
                Some(false) => {}
                None => found.complete = false,
            }
            // Older ones matter only where one that is newer may have to give way to them.
            if found.alive.iter().any(|pipeline| pipeline.status.has_ended()) {
                break;
            }
        }
        // We cancel what we are interrupted in, and the next attempt has to start afresh.
        effect.done(match (found.alive.len(), found.cancelled) {
            (0, true) => "found, but canceled",
            (0, false) => "none",
            _ => "found",
        });
        Ok(found)
    }

    /// Whether a pipeline carries the key; none when that cannot be known, since it is somebody else's.
    async fn carries_key(&self, pipeline: &Pipeline, index: usize) -> Result<Option<bool>> {
        if pipeline.name.as_ref().is_some_and(|name| name.contains(self.key)) {
            return Ok(Some(true));
        }
        if self.request.key_input.is_some() || index >= VARIABLES_READ {
            return Ok(Some(false));
        }
        if let Some(known) = self.carries.borrow().get(&pipeline.id) {
            return Ok(*known);
        }
        let carries =
            match self.reader.pipeline_variables(self.project, pipeline.id).await {
                Ok(variables) => Some(variables.iter().any(|variable| {
                    variable.key == KEY_VARIABLE && variable.value.as_deref() == Some(self.key)
                })),
                // It is not one that this token started; or it was just made, and is not everywhere yet.
                Err(failure) if matches!(failure.kind(), Kind::Denied | Kind::NotFound) => {
                    tracing::debug!(
                        action = "look",
                        object = pipeline.id,
                        outcome = "not readable",
                        "{failure}"
                    );
                    if failure.kind() == Kind::NotFound {
                        return Ok(None);
                    }
                    None
                }
                Err(failure) => return Err(failure),
            };
        self.carries.borrow_mut().insert(pipeline.id, carries);
        Ok(carries)
    }

    /// Looks a few times for a pipeline with the key that came before this one: another run looked and started it at the
    /// same time as we did. Whatever goes wrong with looking, ours is there. Where it is in doubt which one is ours, those
    /// that came after it are given to `surplus`: one of them may be, and the others' runs give way by themselves.
    pub(crate) async fn twin_of(
        &self,
        ours: u64,
        in_passing: bool,
        surplus: impl AsyncFn(u64),
    ) -> Option<Pipeline> {
        self.carries.borrow_mut().insert(ours, Some(true));
        let looks = if in_passing {
            LOOKS_IN_PASSING
        } else {
            TWIN_LOOKS.len()
        };
        for pause in TWIN_LOOKS.into_iter().take(looks) {
            tokio::time::sleep(pause).await;
            match self.look().await {
                Ok(found) => {
                    let later = |pipeline: &&Pipeline| pipeline.id > ours && !pipeline.status.has_ended();
                    for pipeline in found.alive.iter().filter(later).filter(|_| self.in_doubt.get()) {
                        surplus(pipeline.id).await;
                    }
                    let earlier = found.alive.into_iter().filter(|pipeline| pipeline.id < ours);
                    if let Some(twin) = earlier.min_by_key(|pipeline| pipeline.id) {
                        return Some(twin);
                    }
                }
                Err(failure) => tracing::warn!(action = "look", outcome = "failed", "{failure}"),
            }
        }
        None
    }
}
