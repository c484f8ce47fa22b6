//! Following a pipeline to its end, with its changes in the log as they happen.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use towpath::cli::effect;
use towpath::failure::{Failure, Kind, Result};
use towpath::gitlab::{Client, Project, Status};

use crate::args::Downstream;
use crate::look::look;
use crate::pace::{Expected, Pace};
use crate::plan::{Decision, Policy, Verdict, decide, phase};
use crate::tell::{tell_changes, with_path};
use crate::tree::Tree;

/// How long a pipeline that was just started may be unknown to the part of GitLab that answers.
const SETTLING: Duration = Duration::from_secs(10);
/// How soon a failure or a block is looked at again: a job that GitLab retries by itself counts as failed for a moment,
/// and jobs that follow others are taken up a moment after these ended.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// How long a pipeline is followed before what its jobs took the last time is asked for.
const LONG: Duration = Duration::from_secs(30);
/// How long a pipeline may seem to have no jobs to a token that sees nothing but jobs.
const BLIND: Duration = Duration::from_secs(30);
/// How many looks in a row may be answered with something else than GitLab's answer.
const STRANGE_ANSWERS: u32 = 3;

/// Follows one pipeline.
pub(crate) struct Follower<'a> {
    client: &'a Client,
    policy: &'a Policy,
    /// Whether it was started a moment ago.
    fresh: bool,
    started: Instant,
    tree: Tree,
    /// How long the project's jobs took before, in seconds.
    durations: BTreeMap<String, f64>,
    /// When each running job was first seen running.
    running_since: BTreeMap<u64, Duration>,
    /// The jobs that we started.
    played: BTreeMap<u64, String>,
    last_trouble: Option<String>,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(
        client: &'a Client,
        project: &Project,
        id: u64,
        policy: &'a Policy,
        fresh: bool,
    ) -> Self {
        Follower {
            client,
            policy,
            fresh,
            started: Instant::now(),
            tree: Tree::new(project, id),
            durations: BTreeMap::new(),
            running_since: BTreeMap::new(),
            played: BTreeMap::new(),
            last_trouble: None,
        }
    }

    /// What the last look showed.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The same, for what is added to it once it is over.
    pub(crate) fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Why the last look showed nothing, when it did.
    pub(crate) fn last_trouble(&self) -> Option<&str> {
        self.last_trouble.as_deref()
    }

    /// The names of the manual jobs that we started.
    pub(crate) fn played(&self) -> impl Iterator<Item = &String> {
        self.played.values()
    }

    /// Looks until the pipeline has ended. Times when GitLab does not answer are sat out; the caller bounds them.
    ///
    /// # Errors
    /// Denied, not found or input, as GitLab answers.
    pub(crate) async fn until_ended(&mut self) -> Result<Verdict> {
        let mut pace = Pace::new();
        let mut counted = self.client.requests_sent();
        let mut troubles = 0;
        let mut strange = 0;
        let mut confirming = None;
        let began = self.started.elapsed();
        let mut asked_before = false;
        loop {
            if !asked_before && self.started.elapsed().saturating_sub(began) >= LONG {
                asked_before = true;
                self.read_durations().await;
            }
            let all = self.policy.downstream == Downstream::All;
            let looked = look(self.client, &self.tree, all).await;
            let looked = match looked {
                Ok(tree) => {
                    let changed = tell_changes(&self.tree, &tree);
                    self.take(tree);
                    self.start_manual_jobs().await.map(|started| changed || started)
                }
                Err(failure) => Err(failure),
            };
            let now = self.started.elapsed();
            let sent = self.client.requests_sent();
            pace.spent(now, sent - counted);
            counted = sent;
            let pause = match looked {
                Ok(changed) => {
                    troubles = 0;
                    strange = 0;
                    self.last_trouble = None;
                    if changed {
                        pace.moved(now);
                    }
                    pace.expects(self.tree.followed(), self.tree.requests_a_look());
                    match self.decide() {
                        Decision::Ended(verdict)
                            if matches!(verdict, Verdict::Failed | Verdict::Blocked)
                                && confirming != Some(verdict) =>
                        {
                            confirming = Some(verdict);
                            pace.at_least(now, CONFIRMATION)
                        }
                        Decision::Ended(verdict) => return Ok(verdict),
                        Decision::Wait(phase) => {
                            confirming = None;
                            self.refuse_blindness(now)?;
                            pace.pause(now, phase, self.expected(now), chance())
                        }
                    }
                }
                Err(failure) if self.may_pass(&failure, &mut strange) => {
                    troubles += 1;
                    tracing::warn!(
                        action = "look",
                        object = self.tree.id,
                        outcome = "failed",
                        "{failure}"
                    );
                    if failure.kind() == Kind::Unavailable {
                        self.last_trouble = Some(failure.to_string());
                    }
                    pace.at_least(now, Pace::pause_after_trouble(troubles, chance()))
                }
                Err(failure) => return Err(failure),
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn take(&mut self, tree: Tree) {
        self.tree = tree;
        let now = self.started.elapsed();
        let running: BTreeSet<u64> = self
            .tree
            .all_jobs()
            .filter(|job| job.status == Status::Running)
            .map(|job| job.id)
            .collect();
        self.running_since.retain(|id, _| running.contains(id));
        for id in running {
            self.running_since.entry(id).or_insert(now);
        }
    }

    /// What follows from the last look, given that jobs that we started count from then on.
    fn decide(&self) -> Decision {
        let unfinished = self
            .tree
            .all_jobs()
            .any(|job| self.played.contains_key(&job.id) && !job.status.has_ended());
        match decide(&self.tree, self.policy) {
            Decision::Ended(_) if unfinished => Decision::Wait(phase(&self.tree)),
            decision => decision,
        }
    }

    /// Asks how long jobs took before: of a pipeline that has run for a while, since a look at one that ends soon is
    /// worth more than knowing when. Whatever comes of it, it can be done without.
    async fn read_durations(&mut self) {
        if !self.client.token().is_access() {
            return;
        }
        match self.client.durations(&self.tree.project).await {
            Ok(durations) => self.durations = durations,
            Err(failure) => {
                tracing::debug!(action = "look", object = %self.tree.project, outcome = "failed", "{failure}");
            }
        }
    }

    /// When the last of the jobs that run is expected to end; none when one of them never ran before.
    fn expected(&self, now: Duration) -> Option<Expected> {
        let running = self
            .tree
            .root
            .jobs
            .iter()
            .filter(|job| job.status == Status::Running);
        let mut last: Option<Expected> = None;
        for job in running {
            let duration = *self.durations.get(&job.name)?;
            let since = self
                .running_since
                .get(&job.id)
                .map(|since| now.saturating_sub(*since));
            let ran = job
                .duration
                .or(since.map(|since| since.as_secs_f64()))
                .unwrap_or_default();
            let seconds = duration - ran;
            if last.is_none_or(|last| last.seconds < seconds) {
                last = Some(Expected { seconds, duration });
            }
        }
        last
    }

    /// Starts the manual jobs that are to be started and can be. Says whether there were any.
    async fn start_manual_jobs(&mut self) -> Result<bool> {
        if !self.policy.on_manual.starts_any() {
            return Ok(false);
        }
        let mut to_start: Vec<(Project, u64, String)> = Vec::new();
        for (project, _, path, seen) in self.tree.pipelines() {
            // A trigger job that started a pipeline shows how that one stands; played, it would start another.
            let unstarted = seen
                .bridges
                .iter()
                .filter(|bridge| bridge.downstream_pipeline.is_none());
            let jobs = seen.jobs.iter().chain(unstarted.map(|bridge| &bridge.job));
            let manual = jobs.filter(|job| job.status == Status::Manual && self.policy.on_manual.starts(job));
            to_start.extend(
                manual
                    .filter(|job| !self.played.contains_key(&job.id))
                    .map(|job| (project.clone(), job.id, with_path(path, &job.name))),
            );
        }
        let mut started = false;
        for (project, id, name) in to_start {
            let effect = effect("play", format!("job {name} of {project}"));
            self.client.play(&project, id).await?;
            effect.done("started");
            self.played.insert(id, name);
            started = true;
        }
        Ok(started)
    }

    /// Whether a failure to look may be gone at the next look.
    fn may_pass(&self, failure: &Failure, strange: &mut u32) -> bool {
        match failure.kind() {
            // Whoever follows ends at the deadline by itself, and says more than a single look can.
            Kind::Unavailable | Kind::Deadline => true,
            Kind::NotFound | Kind::Denied => self.fresh && self.started.elapsed() < SETTLING,
            // A proxy that shows a page for a moment; but not where GitLab never answered.
            Kind::Input if self.tree.root.is_known() => {
                *strange += 1;
                *strange <= STRANGE_ANSWERS
            }
            _ => false,
        }
    }

    fn refuse_blindness(&self, now: Duration) -> Result<()> {
        let blind = self.tree.root.jobs.is_empty() && !self.client.token().is_access();
        if blind && now > BLIND {
            return Err(Failure::denied(format!(
                "pipeline {} of {} shows no jobs to a job token: it has trigger jobs only",
                self.tree.id, self.tree.project
            ))
            .hint("set TOWPATH_GITLAB_TOKEN to an access token, which sees trigger jobs too"));
        }
        Ok(())
    }
}

/// A random number from 0 to 1, out of the keys that the standard library draws for its hash maps.
pub(crate) fn chance() -> f64 {
    let drawn = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(drawn >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
