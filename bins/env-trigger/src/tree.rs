//! What is known of a pipeline and of those it started, in their projects, at one look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath::gitlab::{Bridge, Job, Project, Status};

use crate::compose::compose;

/// How deep pipelines are followed. GitLab allows two levels of child pipelines, and projects may trigger on.
pub(crate) const DEPTH: usize = 8;
/// How many pipelines are followed.
pub(crate) const PIPELINES: usize = 50;

/// What was seen of one pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How the pipeline itself stands; none when the token sees only jobs and these did not say.
    pub(crate) status: Option<Status>,
    /// Its page.
    pub(crate) url: Option<String>,
    /// The latest attempt of each job, oldest first; of a pipeline with more than a page of jobs only those that run,
    /// wait or failed.
    pub(crate) jobs: Vec<Job>,
    /// The latest attempt of each trigger job, oldest first; empty where the token may not read them.
    pub(crate) bridges: Vec<Bridge>,
    /// Whether there are more jobs than [`Seen::jobs`] holds.
    pub(crate) partial: bool,
}

impl Seen {
    /// Jobs and trigger jobs.
    pub(crate) fn all_jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs
            .iter()
            .chain(self.bridges.iter().map(|bridge| &bridge.job))
    }

    /// The jobs whose failure the pipeline does not put up with.
    pub(crate) fn failed_jobs(&self) -> impl Iterator<Item = &Job> {
        self.all_jobs().filter(|job| has_failed(job))
    }

    /// The jobs that wait for a person and hold the pipeline up.
    pub(crate) fn manual_jobs(&self) -> impl Iterator<Item = &Job> {
        self.all_jobs().filter(|job| holds_up(job))
    }

    /// The pipeline's status: its own where it is known, else what its jobs amount to.
    pub(crate) fn effective_status(&self) -> Status {
        match &self.status {
            Some(status) if status.is_known() => status.clone(),
            _ => compose(self.all_jobs()),
        }
    }

    /// Whether it was looked at.
    pub(crate) fn is_known(&self) -> bool {
        self.status.is_some() || !self.jobs.is_empty()
    }
}

fn has_failed(job: &Job) -> bool {
    job.status == Status::Failed && !job.allow_failure
}

/// A pipeline that a trigger job started.
#[derive(Clone, Debug)]
pub(crate) struct Below {
    /// Where it runs.
    pub(crate) project: Project,
    /// The trigger jobs that lead to it.
    pub(crate) path: String,
    /// What was seen of it.
    pub(crate) seen: Arc<Seen>,
    /// Why it could not be read, when it could not.
    pub(crate) unreadable: Option<String>,
}

impl Below {
    /// Whether it is looked at again.
    fn is_active(&self) -> bool {
        self.unreadable.is_none() && !self.seen.effective_status().has_ended()
    }
}

/// A pipeline and those it started.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) project: Project,
    pub(crate) id: u64,
    pub(crate) root: Arc<Seen>,
    /// By their numbers, which are unique in the instance.
    pub(crate) below: BTreeMap<u64, Below>,
    /// Whether there are more than are followed.
    pub(crate) cut: bool,
    /// The last lines of failed jobs' logs, by the job's number.
    pub(crate) tails: BTreeMap<u64, Vec<String>>,
}

/// A failure that no deeper one explains, or a job that waits for a person.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a> {
    pub(crate) project: &'a Project,
    /// The trigger jobs that lead to it; empty in the pipeline itself.
    pub(crate) path: &'a str,
    pub(crate) job: &'a Job,
    /// Whether it is a trigger job, which has no log.
    pub(crate) is_bridge: bool,
}

impl Leaf<'_> {
    /// The job's name, with the way to it.
    pub(crate) fn name(&self) -> String {
        if self.path.is_empty() {
            self.job.name.clone()
        } else {
            format!("{} > {}", self.path, self.job.name)
        }
    }
}

impl Tree {
    pub(crate) fn new(project: &Project, id: u64) -> Self {
        Tree {
            project: project.clone(),
            id,
            root: Arc::default(),
            below: BTreeMap::new(),
            cut: false,
            tails: BTreeMap::new(),
        }
    }

    /// Every pipeline that was seen, the root first: its project, number, way and state.
    pub(crate) fn pipelines(&self) -> impl Iterator<Item = (&Project, u64, &str, &Seen)> {
        let root = std::iter::once((&self.project, self.id, "", self.root.as_ref()));
        let below = self.below.iter();
        root.chain(below.map(|(id, below)| (&below.project, *id, below.path.as_str(), below.seen.as_ref())))
    }

    /// All jobs of all pipelines.
    pub(crate) fn all_jobs(&self) -> impl Iterator<Item = &Job> {
        self.pipelines().flat_map(|(_, _, _, seen)| seen.all_jobs())
    }

    /// What a trigger job started, where it is followed.
    pub(crate) fn started_by(&self, bridge: &Bridge) -> Option<&Below> {
        self.below.get(&bridge.downstream_pipeline.as_ref()?.id)
    }

    /// The failures that the pipeline failed of, down to the jobs at the bottom of it.
    pub(crate) fn failures(&self) -> Vec<Leaf<'_>> {
        let mut leaves = Vec::new();
        let mut visited = BTreeSet::from([self.id]);
        self.failures_in(&self.project, "", &self.root, &mut visited, &mut leaves);
        if leaves.is_empty() {
            // It went well itself, and one that it did not wait for did not.
            for (id, below) in &self.below {
                let has_failed = below.seen.effective_status() == Status::Failed;
                if has_failed && visited.insert(*id) {
                    self.failures_in(
                        &below.project,
                        &below.path,
                        &below.seen,
                        &mut visited,
                        &mut leaves,
                    );
                }
            }
        }
        leaves
    }

    /// How many requests the next look will take.
    pub(crate) fn requests_a_look(&self) -> u64 {
        let of = |seen: &Seen| 1 + u64::from(!seen.bridges.is_empty());
        let below = self
            .below
            .values()
            .filter(|below| below.is_active())
            .map(|below| of(&below.seen));
        of(&self.root) + below.sum::<u64>()
    }

    /// How many pipelines are looked at.
    pub(crate) fn followed(&self) -> usize {
        1 + self.below.values().filter(|below| below.is_active()).count()
    }

    fn failures_in<'a>(
        &'a self,
        project: &'a Project,
        path: &'a str,
        seen: &'a Seen,
        visited: &mut BTreeSet<u64>,
        leaves: &mut Vec<Leaf<'a>>,
    ) {
        let leaf = |job, is_bridge| Leaf {
            project,
            path,
            job,
            is_bridge,
        };
        leaves.extend(
            seen.jobs
                .iter()
                .filter(|job| has_failed(job))
                .map(|job| leaf(job, false)),
        );
        for bridge in &seen.bridges {
            let has_failed = has_failed(&bridge.job);
            // Where what blocks a pipeline is ignored, a failure below has not reached its trigger job.
            if !has_failed && (bridge.job.allow_failure || !self.is_awaited(bridge)) {
                continue;
            }
            let before = leaves.len();
            let id = bridge
                .downstream_pipeline
                .as_ref()
                .map(|downstream| downstream.id);
            if let (Some(below), Some(id)) = (self.started_by(bridge), id)
                && visited.insert(id)
            {
                self.failures_in(&below.project, &below.path, &below.seen, visited, leaves);
            }
            if has_failed && leaves.len() == before {
                leaves.push(leaf(&bridge.job, true));
            }
        }
    }

    /// The jobs that wait for a person and hold their pipeline up, in all pipelines that have not ended; of one that
    /// nothing but optional jobs is left of, these.
    pub(crate) fn waiting_for_a_person(&self) -> Vec<Leaf<'_>> {
        let mut leaves = Vec::new();
        for (project, _, path, seen) in self.pipelines() {
            let status = seen.effective_status();
            if matches!(status, Status::Success | Status::Failed | Status::Canceled) {
                continue;
            }
            let leaf = |job, is_bridge| Leaf {
                project,
                path,
                job,
                is_bridge,
            };
            let before = leaves.len();
            leaves.extend(
                seen.jobs
                    .iter()
                    .filter(|job| holds_up(job))
                    .map(|job| leaf(job, false)),
            );
            let bridges = seen.bridges.iter().filter(|bridge| !self.mirrors(bridge));
            let bridges = bridges.map(|bridge| &bridge.job);
            leaves.extend(bridges.filter(|job| holds_up(job)).map(|job| leaf(job, true)));
            if leaves.len() == before && status == Status::Skipped {
                let optional = seen.all_jobs().filter(|job| job.status == Status::Manual);
                leaves.extend(optional.map(|job| leaf(job, false)));
            }
        }
        leaves
    }

    /// Whether nothing happens in a pipeline until a person acts, here or in one that it waits for.
    pub(crate) fn is_stuck(&self) -> bool {
        let mut visited = BTreeSet::from([self.id]);
        self.is_stuck_in(&self.root, &mut visited)
    }

    fn is_stuck_in(&self, seen: &Seen, visited: &mut BTreeSet<u64>) -> bool {
        let is_manual = seen.effective_status() == Status::Manual;
        let (mirrors, others): (Vec<_>, Vec<_>) =
            seen.bridges.iter().partition(|bridge| self.mirrors(bridge));
        let mut own = seen.jobs.iter().chain(others.iter().map(|bridge| &bridge.job));
        let mut waits = own.any(holds_up);
        if is_manual && (waits || mirrors.is_empty()) {
            return true;
        }
        if !is_manual && !seen.jobs.iter().all(rests) {
            return false;
        }
        // That somebody acted below shows in a trigger job that mirrors, and so in this pipeline, a moment later.
        let others = others
            .into_iter()
            .filter(|bridge| !is_manual && !rests(&bridge.job));
        for bridge in mirrors.into_iter().chain(others) {
            let below = self.started_by(bridge);
            let id = bridge
                .downstream_pipeline
                .as_ref()
                .map(|downstream| downstream.id);
            let is_stuck = below.zip(id).is_some_and(|(below, id)| {
                visited.insert(id)
                    && !below.seen.effective_status().has_ended()
                    && self.is_stuck_in(&below.seen, visited)
            });
            if !is_stuck {
                return false;
            }
            waits = true;
        }
        waits
    }

    /// Whether a trigger job is manual because the pipeline that it started is (`strategy: mirror`): then what waits for
    /// a person is down there. One that waits itself has started none.
    fn mirrors(&self, bridge: &Bridge) -> bool {
        let is_seen = |below: &Below| below.unreadable.is_none() && below.seen.is_known();
        bridge.job.status == Status::Manual && self.started_by(bridge).is_some_and(is_seen)
    }

    /// Whether a pipeline waits for the one that its trigger job started.
    fn is_awaited(&self, bridge: &Bridge) -> bool {
        self.mirrors(bridge) || (!rests(&bridge.job) && self.started_by(bridge).is_some())
    }

    /// The pipeline and those that it still waits for, each with whether its failures count.
    pub(crate) fn awaited(&self) -> Vec<(&Seen, bool)> {
        let mut found: Vec<(&Seen, bool)> = vec![(self.root.as_ref(), true)];
        let mut visited = BTreeSet::from([self.id]);
        let mut next = 0;
        while let Some(&(seen, counts)) = found.get(next) {
            next += 1;
            for bridge in seen.bridges.iter().filter(|bridge| self.is_awaited(bridge)) {
                let id = bridge
                    .downstream_pipeline
                    .as_ref()
                    .map(|downstream| downstream.id);
                if let (Some(below), Some(id)) = (self.started_by(bridge), id)
                    && visited.insert(id)
                {
                    found.push((&below.seen, counts && !bridge.job.allow_failure));
                }
            }
        }
        found
    }

    /// What it waits for, in a few words for a message; none when it just runs.
    pub(crate) fn holdup(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for (_, _, path, seen) in self.pipelines() {
            if seen.effective_status().has_ended() {
                continue;
            }
            for job in seen.all_jobs() {
                let reason = match job.status {
                    Status::WaitingForResource => "waits for its resource group",
                    Status::WaitingForCallback => "waits for an external system",
                    Status::Scheduled => "waits for its delay to pass",
                    Status::Manual if !job.allow_failure => "waits for a person",
                    Status::Pending => "waits for a runner",
                    Status::Canceling => "is being canceled",
                    _ => continue,
                };
                let way = if path.is_empty() {
                    String::new()
                } else {
                    format!("{path} > ")
                };
                reasons.push(format!("{way}{} {reason}", job.name));
            }
        }
        let more = reasons.len().saturating_sub(3);
        reasons.truncate(3);
        if more > 0 {
            reasons.push(format!("{more} more"));
        }
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }
}

/// Whether a job waits for a person, and its pipeline with it.
fn holds_up(job: &Job) -> bool {
    job.status == Status::Manual && !job.allow_failure
}

/// Whether nothing more happens to a job by itself as long as the others rest too.
fn rests(job: &Job) -> bool {
    matches!(
        job.status,
        Status::Success
            | Status::Failed
            | Status::Canceled
            | Status::Skipped
            | Status::Created
            | Status::Manual
    )
}
