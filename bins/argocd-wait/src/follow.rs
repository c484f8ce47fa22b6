//! Follows one application until it is decided about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use towpath::argocd::application::{Application, moment};
use towpath::argocd::{Located, Rendered, SyncWindows};
use towpath::failure::{Failure, Kind, Result};

use crate::attempts::Attempts;
use crate::evidence::Evidence;
use crate::lineage::Lineage;
use crate::plan::{self, Known, Proof, Question, Step, Trouble, Waiting, Wanted};
use crate::relation::{Clues, Relation, relation};
use crate::source::{Event, Source};
use crate::trouble::short;
use crate::watch::{Heard, Watch};

/// How often is decided anew although nothing was heard: some things count by how long they last.
const TICK: Duration = Duration::from_millis(500);
/// How long is waited to know when the commit was written, once all else is known.
const DATE_PATIENCE: Duration = Duration::from_millis(300);

/// How an application stands, for whoever has to report before it is decided about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) application: Application,
    pub(crate) waiting: Option<Waiting>,
    /// When it was first seen synced and when healthy, in seconds since 1970.
    pub(crate) synced: Option<f64>,
    pub(crate) healthy: Option<f64>,
    /// When the commit was written.
    pub(crate) written: Option<i64>,
    pub(crate) sync_started: bool,
    /// The last failure to look, unless something was seen since.
    pub(crate) trouble: Option<String>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Ready(Proof),
    Failed {
        verdict: &'static str,
        failure: Failure,
        evidence: Evidence,
    },
}

/// The state of an application that others may look at while it is followed.
pub(crate) type Shared = Arc<Mutex<Standing>>;

/// Follows one application.
pub(crate) struct Follower {
    source: Source,
    lineage: Arc<Lineage>,
    located: Located,
    wanted: Arc<Wanted>,
    shared: Shared,
    application: Application,
    first: Application,
    refreshed: Refreshed,
    was_at_ours: bool,
    relation: Option<(String, Relation)>,
    rendered: Option<(String, Option<Rendered>)>,
    windows: Option<(String, Option<SyncWindows>)>,
    sync_started: bool,
    synced: Option<Instant>,
    degraded: Option<Instant>,
    idle: Option<Instant>,
    attempts: Attempts,
    failing: Option<Instant>,
    said: String,
}

/// What became of the comparison that this run asked for.
enum Refreshed {
    Asked,
    /// It was made, at this time.
    Made(Option<String>),
    /// It could not be asked for: Argo CD compares when it likes.
    Not,
}

impl Follower {
    /// Takes a first look.
    ///
    /// # Errors
    /// Denied, not found or unavailable, as the system answers.
    pub(crate) async fn begin(
        source: Source,
        lineage: Arc<Lineage>,
        located: Located,
        wanted: Arc<Wanted>,
    ) -> Result<Self> {
        let first = source.look(&located).await?;
        Ok(Follower {
            source,
            lineage,
            located,
            wanted,
            shared: Shared::default(),
            application: first.clone(),
            first,
            refreshed: Refreshed::Asked,
            was_at_ours: false,
            relation: None,
            rendered: None,
            windows: None,
            sync_started: false,
            synced: None,
            degraded: None,
            idle: None,
            attempts: Attempts::default(),
            failing: None,
            said: String::new(),
        })
    }

    /// How it stands, kept up to date.
    pub(crate) fn shared(&self) -> Shared {
        Arc::clone(&self.shared)
    }

    pub(crate) fn located(&self) -> &Located {
        &self.located
    }

    /// The latest state.
    pub(crate) fn application(&self) -> &Application {
        &self.application
    }

    /// What would be decided now, without asking or doing anything.
    pub(crate) fn decided_now(&mut self) -> Step {
        self.note();
        plan::decide(&self.application, &self.wanted, &self.known())
    }

    /// Follows it to the end.
    pub(crate) async fn until_ended(mut self) -> Ending {
        match self.follow().await {
            Ok(ending) => ending,
            Err(failure) => Ending::Failed {
                verdict: match failure.kind() {
                    Kind::Denied => "denied",
                    Kind::NotFound => "deleted",
                    Kind::Unavailable => "unavailable",
                    _ => "failed",
                },
                failure,
                evidence: Evidence::default(),
            },
        }
    }

    async fn follow(&mut self) -> Result<Ending> {
        let mut refreshing = Refreshing::begin(self.source.clone(), self.located.clone());
        let mut watch = Watch::begin(self.source.clone(), self.located.clone());
        let _dating = self.dating();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = watch.heard.recv() => match heard {
                    Some(Heard::Event(Event::Seen(application))) => self.take(*application),
                    Some(Heard::Event(Event::Deleted)) => return Ok(self.failed(&Trouble::Deleted).await),
                    Some(Heard::Trouble(failure)) => self.bear(failure)?,
                    None => return Err(Failure::internal(format!("nothing listens to application {}", self.located))),
                },
                refreshed = refreshing.done() => self.refreshed(refreshed)?,
                _ = ticks.tick() => {}
            }
            if let Some(ending) = self.decide().await? {
                return Ok(ending);
            }
        }
    }

    /// Decides, and finds out what that needs.
    async fn decide(&mut self) -> Result<Option<Ending>> {
        loop {
            self.note();
            match plan::decide(&self.application, &self.wanted, &self.known()) {
                Step::Ready(proof) => {
                    self.stand(None);
                    self.well();
                    // It is known by now, or not worth to be waited for.
                    let _ = tokio::time::timeout(DATE_PATIENCE, self.date()).await;
                    return Ok(Some(Ending::Ready(proof)));
                }
                Step::Wait(waiting) => {
                    self.say(&waiting);
                    self.stand(Some(waiting));
                    return Ok(None);
                }
                Step::Ask(question) => {
                    if let Err(failure) = self.answer(question).await {
                        self.bear(failure)?;
                        return Ok(None);
                    }
                }
                Step::Sync => {
                    if let Some(ending) = self.sync().await? {
                        return Ok(Some(ending));
                    }
                }
                Step::Fail(trouble) => return Ok(Some(self.failed(&trouble).await)),
            }
        }
    }

    /// What is known of the commit that it is at.
    fn known(&self) -> Known {
        let at = plan::at(&self.application, &self.wanted);
        let lasted = |since: Option<Instant>| since.map(|since| since.elapsed()).unwrap_or_default();
        let of_commit = |commit: &String| commit == at;
        Known {
            is_fresh: self.is_fresh(),
            relation: self
                .relation
                .as_ref()
                .filter(|(c, _)| of_commit(c))
                .map(|(_, r)| *r),
            rendered: self
                .rendered
                .as_ref()
                .filter(|(c, _)| of_commit(c))
                .map(|(_, r)| r.clone()),
            windows: self
                .windows
                .as_ref()
                .filter(|(c, _)| of_commit(c))
                .map(|(_, w)| w.clone()),
            sync_started: self.sync_started,
            idle: lasted(self.idle),
            degraded: lasted(self.degraded),
            synced: lasted(self.synced),
            attempts: self.attempts.clone(),
            failing: lasted(self.failing),
        }
    }

    fn is_fresh(&self) -> bool {
        let seen = &self.application.status.reconciled_at;
        match &self.refreshed {
            Refreshed::Asked => false,
            // Both count seconds in the same form, so that they compare as text.
            Refreshed::Made(at) => seen >= at,
            Refreshed::Not => *seen != self.first.status.reconciled_at,
        }
    }

    /// Takes over a state, unless it is older than the one that is known.
    fn take(&mut self, application: Application) {
        let version = |application: &Application| application.metadata.resource_version.parse::<u64>().ok();
        let is_older = version(&application)
            .zip(version(&self.application))
            .is_some_and(|(new, known)| new < known);
        lock(&self.shared).trouble = None;
        if !is_older {
            self.application = application;
        }
    }

    fn refreshed(&mut self, refreshed: Result<Application>) -> Result<()> {
        match refreshed {
            Ok(application) => {
                self.refreshed = Refreshed::Made(application.status.reconciled_at.clone());
                self.take(application);
                Ok(())
            }
            Err(failure) => {
                self.refreshed = Refreshed::Not;
                // What may be looked at may be refreshed in Argo CD, but not in a cluster.
                tracing::warn!(
                    action = "refresh",
                    object = format!("application {}", self.located),
                    outcome = "not asked for: Argo CD looks at the repository when it likes",
                    "{failure}"
                );
                Ok(())
            }
        }
    }

    /// What may pass is borne until the deadline.
    fn bear(&self, failure: Failure) -> Result<()> {
        if failure.kind() != Kind::Unavailable {
            return Err(failure);
        }
        let mut standing = lock(&self.shared);
        if standing.trouble.is_none() {
            tracing::warn!(
                action = "look",
                object = format!("application {}", self.located),
                outcome = "trying again",
                "{failure}"
            );
        }
        standing.trouble = Some(failure.to_string());
        Ok(())
    }

    /// Counts how long what is seen has lasted.
    fn note(&mut self) {
        let at = plan::at(&self.application, &self.wanted);
        let is_ours = at == self.wanted.revision;
        self.was_at_ours |= is_ours;
        let is_in_place = is_ours
            || self
                .relation
                .as_ref()
                .is_some_and(|(c, r)| c == at && *r == Relation::After);
        let status = &self.application.status;
        let is_synced = is_in_place && status.sync.status == "Synced" && self.application.operation.is_none();
        let since = |kept: &mut Option<Instant>, lasts: bool| {
            if lasts {
                kept.get_or_insert_with(Instant::now);
            } else {
                *kept = None;
            }
        };
        since(
            &mut self.degraded,
            is_synced && status.health.status == "Degraded",
        );
        let running = self
            .application
            .operation
            .as_ref()
            .and(status.operation_state.as_ref());
        let is_idle = is_in_place
            && status.sync.status == "OutOfSync"
            && (self.application.operation.is_none()
                || running.is_some_and(|state| !plan::has_applied(state)));
        since(&mut self.idle, is_idle);
        self.attempts.note(&self.application);
        since(&mut self.failing, self.attempts.has_failed());
        if is_synced {
            self.synced.get_or_insert_with(Instant::now);
            let mut standing = lock(&self.shared);
            if standing.synced.is_none() {
                // What was synced before we looked has its time in the history.
                let was = self.first == self.application;
                let told = self.application.deployed_at(at).and_then(moment).filter(|_| was);
                standing.synced = Some(told.map_or_else(now, seconds));
            }
        }
    }

    fn well(&self) {
        let mut standing = lock(&self.shared);
        let was = self.first == self.application;
        let told = self.application.status.health.last_transition_time.as_deref();
        let told = told.and_then(moment).filter(|_| was);
        let healthy = told.map_or_else(now, seconds);
        // It may have been well all the time.
        standing.healthy = Some(healthy.max(standing.synced.unwrap_or(healthy)));
    }

    fn stand(&self, waiting: Option<Waiting>) {
        let mut standing = lock(&self.shared);
        standing.application = self.application.clone();
        standing.waiting = waiting;
        standing.sync_started = self.sync_started;
    }

    /// Logs what changed.
    fn say(&mut self, waiting: &Waiting) {
        let status = &self.application.status;
        let said = format!(
            "{} at {}, {}: {}",
            or_unknown(&status.sync.status),
            short(plan::at(&self.application, &self.wanted)),
            or_unknown(&status.health.status),
            waiting.sentence()
        );
        if said == self.said {
            return;
        }
        let object = format!("application {}", self.located);
        if matches!(waiting, Waiting::Retrying(_)) {
            tracing::warn!(action = "look", object, outcome = said);
        } else {
            tracing::info!(action = "look", object, outcome = said);
        }
        self.said = said;
    }

    async fn answer(&mut self, question: Question) -> Result<()> {
        match question {
            Question::Manifests(commit) => {
                let compared = &self.application.status.sync;
                let rendered = self.source.rendered(&self.located, compared).await?;
                self.rendered = Some((commit, rendered));
            }
            Question::Windows => {
                let windows = self.source.windows(&self.located).await?;
                let at = plan::at(&self.application, &self.wanted).to_owned();
                self.windows = Some((at, windows));
            }
            Question::Relation(other) => {
                if let Some(repository) = &self.wanted.repository {
                    // Somebody who does not answer has to be named where the run's time is over before.
                    self.stand(Some(Waiting::Asking {
                        repository: repository.clone(),
                        other: other.clone(),
                    }));
                }
                let lineage = self.lineage.relation(&self.wanted.revision, &other).await;
                let mut written = None;
                if lineage.is_none() {
                    self.date().await;
                    let ours = lock(&self.shared).written;
                    let place = plan::place(&self.application, &self.wanted);
                    let theirs = self.source.commit_date(&self.located, &other, place).await;
                    written = ours.zip(theirs.as_deref().and_then(moment));
                }
                let clues = Clues {
                    was_at_ours: self.was_at_ours,
                    appeared: plan::at(&self.first, &self.wanted) != other && self.is_fresh(),
                    lineage,
                    written,
                };
                let found = relation(&self.application, &self.wanted.revision, &other, &clues);
                self.relation = Some((other, found));
            }
        }
        Ok(())
    }

    /// Learns when our commit was written while something else is done.
    fn dating(&self) -> JoinSet<()> {
        let (source, located) = (self.source.clone(), self.located.clone());
        let (wanted, shared) = (self.wanted.clone(), self.shared());
        let place = plan::place(&self.application, &self.wanted);
        let mut dating = JoinSet::new();
        dating.spawn(async move {
            let date = source.commit_date(&located, &wanted.revision, place).await;
            lock(&shared).written = date.as_deref().and_then(moment);
        });
        dating
    }

    /// Learns when our commit was written.
    async fn date(&self) {
        if lock(&self.shared).written.is_some() {
            return;
        }
        let date = self
            .source
            .commit_date(
                &self.located,
                &self.wanted.revision,
                plan::place(&self.application, &self.wanted),
            )
            .await;
        lock(&self.shared).written = date.as_deref().and_then(moment);
    }

    /// Starts a sync, once: to what it is compared to, which is our commit or a later one that carries our images. An earlier
    /// one would stay out of sync with that. A window may forbid it, which looks like a missing permission.
    async fn sync(&mut self) -> Result<Option<Ending>> {
        let effect = towpath::cli::effect("sync", format!("application {}", self.located));
        let commit = plan::at(&self.application, &self.wanted);
        match self.source.sync(&self.located, commit).await {
            Ok(()) => effect.done("started"),
            Err(failure) if failure.kind() == Kind::Conflict => {
                // Another operation is running, or began in this moment: that one may be ours as well.
                effect.done("not started: another operation is running");
                tracing::warn!(
                    action = "sync",
                    object = format!("application {}", self.located),
                    "{failure}"
                );
            }
            Err(failure) => {
                drop(effect);
                if failure.kind() == Kind::Denied
                    && let Some(windows) = self.source.windows(&self.located).await?
                    && !windows.can_sync
                    && let Some(window) = windows.in_the_way()
                {
                    return Ok(Some(self.failed(&Trouble::Window(window.clone())).await));
                }
                return Err(failure);
            }
        }
        self.sync_started = true;
        Ok(None)
    }

    async fn failed(&mut self, trouble: &Trouble) -> Ending {
        self.stand(None);
        let evidence = if trouble.wants_evidence() {
            self.source.evidence(&self.located, &self.application).await
        } else {
            Evidence::default()
        };
        Ending::Failed {
            verdict: trouble.verdict(),
            failure: trouble.failure(&self.located, &self.wanted, &evidence),
            evidence,
        }
    }
}

/// The comparison that was asked for. Dropping it gives up waiting for the answer.
struct Refreshing(Option<JoinHandle<Result<Application>>>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Refreshing {
    fn begin(source: Source, located: Located) -> Self {
        Refreshing(Some(tokio::spawn(async move { source.refresh(&located).await })))
    }

    /// The answer, once; never again after that.
    async fn done(&mut self) -> Result<Application> {
        let Some(task) = &mut self.0 else {
            return std::future::pending().await;
        };
        let answer = task.await;
        self.0 = None;
        answer.unwrap_or_else(|error| Err(Failure::internal("the refresh came to no end").because(error)))
    }
}

/// The lock of a state that no panic can leave half written.
pub(crate) fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Standing> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn or_unknown(status: &str) -> &str {
    if status.is_empty() { "Unknown" } else { status }
}

/// Now, in seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit for ages")]
fn seconds(moment: i64) -> f64 {
    moment as f64
}
