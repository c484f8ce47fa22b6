//! Following a pipeline to its end, with its changes in the log as they happen.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use towpath::failure::{Failure, Kind, Result};
use towpath::gitlab::{Client, Job, Project, Status};

use crate::args::OnManual;
use crate::pace::Pace;
use crate::plan::{self, Decision, Seen, Verdict, compose, decide};

/// How long a pipeline that was just started may be unknown to the part of GitLab that answers.
const SETTLING: Duration = Duration::from_secs(10);
/// How soon a failure is looked at again: a job that GitLab retries by itself counts as failed for a moment.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// How long a pipeline may seem to have no jobs to a token that sees nothing but jobs.
const BLIND: Duration = Duration::from_secs(30);
/// Of how many failed jobs the log is shown, how many lines of it, out of how many bytes.
const TAILS: usize = 5;
const TAIL_LINES: usize = 25;
const TAIL_BYTES: usize = 64 * 1024;

/// Follows one pipeline.
pub(crate) struct Follower<'a> {
    client: &'a Client,
    project: &'a Project,
    id: u64,
    on_manual: OnManual,
    /// Whether it was started a moment ago.
    fresh: bool,
    started: Instant,
    seen: Seen,
    last_trouble: Option<String>,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(
        client: &'a Client,
        project: &'a Project,
        id: u64,
        on_manual: OnManual,
        fresh: bool,
    ) -> Self {
        Follower {
            client,
            project,
            id,
            on_manual,
            fresh,
            started: Instant::now(),
            seen: Seen::default(),
            last_trouble: None,
        }
    }

    /// What the last look showed.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Why the last look showed nothing, when it did.
    pub(crate) fn last_trouble(&self) -> Option<&str> {
        self.last_trouble.as_deref()
    }

    /// Looks until the pipeline has ended. Times when GitLab does not answer are sat out; the caller bounds them.
    ///
    /// # Errors
    /// Denied, not found or input, as GitLab answers.
    pub(crate) async fn until_ended(&mut self) -> Result<Verdict> {
        let mut pace = Pace::new();
        let mut troubles = 0;
        let mut failed_before = false;
        loop {
            let before = self.client.requests_sent();
            let looked = self.look().await;
            let now = self.started.elapsed();
            pace.spent(now, self.client.requests_sent() - before);
            let pause = match looked {
                Ok(seen) => {
                    troubles = 0;
                    self.last_trouble = None;
                    if self.tell_changes(&seen) {
                        pace.moved(now);
                    }
                    self.seen = seen;
                    match decide(&self.seen, self.on_manual) {
                        Decision::Ended(Verdict::Failed) if !failed_before => {
                            failed_before = true;
                            CONFIRMATION
                        }
                        Decision::Ended(verdict) => return Ok(verdict),
                        Decision::Wait(phase) => {
                            failed_before = false;
                            self.refuse_blindness(now)?;
                            pace.pause(now, phase, chance())
                        }
                    }
                }
                Err(failure) if self.may_pass(&failure) => {
                    troubles += 1;
                    tracing::warn!(action = "look", object = self.id, outcome = "failed", "{failure}");
                    if failure.kind() == Kind::Unavailable {
                        self.last_trouble = Some(failure.to_string());
                    }
                    Pace::pause_after_trouble(troubles, chance())
                }
                Err(failure) => return Err(failure),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads the ends of failed jobs' logs, and logs them, where the token may.
    pub(crate) async fn collect_tails(&mut self) {
        if !self.client.token().is_access() {
            return;
        }
        // Trigger jobs have no log.
        let failed = self
            .seen
            .jobs
            .iter()
            .filter(|job| job.status == Status::Failed && !job.allow_failure);
        let failed: Vec<(u64, String)> = failed.take(TAILS).map(|job| (job.id, job.name.clone())).collect();
        for (id, name) in failed {
            let read = self.client.trace_tail(self.project, id, TAIL_LINES, TAIL_BYTES);
            match tokio::time::timeout(Duration::from_secs(20), read).await {
                Ok(Ok(lines)) => {
                    for line in &lines {
                        tracing::info!(action = "log", object = name, "{line}");
                    }
                    self.seen.tails.insert(id, lines);
                }
                Ok(Err(failure)) => {
                    tracing::warn!(
                        action = "log",
                        object = name,
                        outcome = "not readable",
                        "{failure}"
                    );
                }
                Err(_elapsed) => tracing::warn!(action = "log", object = name, outcome = "too slow"),
            }
        }
    }

    async fn look(&self) -> Result<Seen> {
        let jobs = self.client.jobs(self.project, self.id, false).await?;
        let own = jobs.iter().find_map(|job| job.pipeline.as_ref());
        let mut seen = Seen {
            status: own.map(|pipeline| pipeline.status.clone()),
            url: own.and_then(|pipeline| pipeline.web_url.clone()),
            jobs: plan::latest(jobs, |job| job),
            ..Seen::default()
        };
        if !self.client.token().is_access() {
            return Ok(seen);
        }
        if seen.status.as_ref().is_none_or(|status| !status.is_known()) {
            let pipeline = self.client.pipeline(self.project, self.id).await?;
            seen.status = Some(pipeline.status);
            seen.url = pipeline.web_url;
        }
        // All trigger jobs of a pipeline are there from the start, so none at first means none ever. They are worth a
        // request a look only where there are some.
        let first = self.seen.status.is_none();
        if first || !self.seen.bridges.is_empty() {
            let bridges = self.client.bridges(self.project, self.id).await?;
            seen.bridges = plan::latest(bridges, |bridge| &bridge.job);
        }
        Ok(seen)
    }

    /// Whether a failure to look may be gone at the next look.
    fn may_pass(&self, failure: &Failure) -> bool {
        match failure.kind() {
            // Whoever follows ends at the deadline by itself, and says more than a single look can.
            Kind::Unavailable | Kind::Deadline => true,
            Kind::NotFound | Kind::Denied => self.fresh && self.started.elapsed() < SETTLING,
            _ => false,
        }
    }

    fn refuse_blindness(&self, now: Duration) -> Result<()> {
        let blind = self.seen.jobs.is_empty() && !self.client.token().is_access();
        if blind && now > BLIND {
            return Err(Failure::denied(format!(
                "pipeline {} of {} shows no jobs to a job token: it has trigger jobs only",
                self.id, self.project
            ))
            .hint("set TOWPATH_GITLAB_TOKEN to an access token, which sees trigger jobs too"));
        }
        Ok(())
    }

    /// Logs what changed since the last look: the pipeline, its stages, its jobs. Says whether anything did.
    fn tell_changes(&self, seen: &Seen) -> bool {
        let mut changed = false;
        let (before, now) = (self.seen.effective_status(), seen.effective_status());
        if before != now || self.seen.jobs.is_empty() != seen.jobs.is_empty() {
            changed = true;
            tracing::info!(
                action = "pipeline",
                object = format!("{} of {}", self.id, self.project),
                outcome = now.as_str(),
                url = seen.url.as_deref().unwrap_or_default(),
            );
        }
        let stages_before = stages(&self.seen);
        for (stage, status) in stages(seen) {
            let is_news = stages_before.get(&stage) != Some(&status);
            if is_news && !matches!(status, Status::Created | Status::Skipped) {
                tracing::info!(action = "stage", object = stage, outcome = status.as_str());
            }
        }
        let before: BTreeMap<u64, &Status> = self.seen.all_jobs().map(|job| (job.id, &job.status)).collect();
        for job in seen.all_jobs() {
            let earlier = before.get(&job.id);
            if earlier == Some(&&job.status) {
                continue;
            }
            changed = true;
            // What has not begun is no news the first time it is seen.
            if earlier.is_some() || !matches!(job.status, Status::Created | Status::Skipped) {
                tell(job);
            }
        }
        for bridge in &seen.bridges {
            let Some(downstream) = &bridge.downstream_pipeline else {
                continue;
            };
            let known = self.seen.bridges.iter().any(|earlier| {
                earlier
                    .downstream_pipeline
                    .as_ref()
                    .is_some_and(|earlier| earlier.id == downstream.id && earlier.status == downstream.status)
            });
            if !known {
                changed = true;
                tracing::info!(
                    action = "downstream",
                    object = format!("pipeline {} of {}", downstream.id, bridge.job.name),
                    outcome = downstream.status.as_str(),
                    url = downstream.web_url.as_deref().unwrap_or_default(),
                );
            }
        }
        changed
    }
}

fn tell(job: &Job) {
    let note = match (&job.status, job.allow_failure) {
        (Status::Failed, true) => "the pipeline may go on without it",
        (Status::Manual, false) => "waits for a person, and the pipeline with it",
        (Status::Manual, true) => "optional: starts only when a person starts it",
        (Status::Scheduled, _) => "waits for its delay",
        (Status::WaitingForResource, _) => "another pipeline holds its resource group",
        _ => "",
    };
    tracing::info!(
        action = "job",
        object = job.name,
        outcome = job.status.as_str(),
        seconds = job.duration.map(crate::report::rounded),
        reason = job.failure_reason.as_deref(),
        url = job.web_url.as_deref().unwrap_or_default(),
        "{note}"
    );
}

fn stages(seen: &Seen) -> BTreeMap<String, Status> {
    let mut jobs: BTreeMap<String, Vec<&Job>> = BTreeMap::new();
    for job in seen.all_jobs().filter(|job| !job.stage.is_empty()) {
        jobs.entry(job.stage.clone()).or_default().push(job);
    }
    jobs.into_iter()
        .map(|(stage, jobs)| (stage, compose(jobs.into_iter())))
        .collect()
}

/// A random number from 0 to 1, out of the keys that the standard library draws for its hash maps.
pub(crate) fn chance() -> f64 {
    let drawn = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(drawn >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
