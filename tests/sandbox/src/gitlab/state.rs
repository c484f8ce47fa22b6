//! Everything the stand-in remembers besides the git repositories: users, projects, pipelines, jobs and the rest.
//!
//! One lock guards all of it and is never held over an await. Repositories themselves are the truth about refs,
//! commits and files; nothing of them is repeated here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::directed::PlannedJob;
use super::job_spec::JobSpec;
use super::settings::{CiVariable, ProjectSettings, Role, wildcard_match};
use super::tokens::Token;
use super::trouble::{Asked, CommitHook, TroubleHook};

/// The thirteen statuses of pipelines and jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not looked at yet.
    Created,
    /// Another job of its resource group runs.
    WaitingForResource,
    /// Its prerequisites are being prepared; only a test brings a job here.
    Preparing,
    /// An external system has to call back; only a test brings a job here.
    WaitingForCallback,
    /// Waits for a free slot of the runner.
    Pending,
    /// Runs.
    Running,
    /// Ended well.
    Success,
    /// Ended badly.
    Failed,
    /// Was told to stop and has not stopped yet.
    Canceling,
    /// Was stopped.
    Canceled,
    /// Will not run.
    Skipped,
    /// Waits for a person.
    Manual,
    /// Waits for its delay.
    Scheduled,
}

impl Status {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::WaitingForResource => "waiting_for_resource",
            Status::Preparing => "preparing",
            Status::WaitingForCallback => "waiting_for_callback",
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Success => "success",
            Status::Failed => "failed",
            Status::Canceling => "canceling",
            Status::Canceled => "canceled",
            Status::Skipped => "skipped",
            Status::Manual => "manual",
            Status::Scheduled => "scheduled",
        }
    }

    /// Every status, in the order of GitLab's documentation.
    pub const ALL: [Status; 13] = [
        Status::Created,
        Status::WaitingForResource,
        Status::Preparing,
        Status::WaitingForCallback,
        Status::Pending,
        Status::Running,
        Status::Success,
        Status::Failed,
        Status::Canceling,
        Status::Canceled,
        Status::Skipped,
        Status::Manual,
        Status::Scheduled,
    ];

    /// Whether nothing more happens by itself or by a person's play.
    pub fn is_finished(self) -> bool {
        matches!(
            self,
            Status::Success | Status::Failed | Status::Canceled | Status::Skipped
        )
    }
}

#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) username: String,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) bot: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) id: u64,
    pub(super) path: String,
    pub(super) settings: ProjectSettings,
    pub(super) members: BTreeMap<u64, Role>,
    /// Projects whose job tokens may reach this one; its own always may.
    pub(super) job_token_allowlist: BTreeSet<u64>,
    pub(super) created_at: Timestamp,
    pub(super) last_pipeline_iid: u64,
    pub(super) last_merge_request_iid: u64,
    pub(super) last_deployment_iid: u64,
}

impl Project {
    pub(super) fn namespace(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub(super) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }

    pub(super) fn is_protected(&self, ref_name: &str, tag: bool) -> bool {
        let patterns = if tag {
            &self.settings.protected_tags
        } else {
            &self.settings.protected_branches
        };
        patterns.iter().any(|pattern| wildcard_match(pattern, ref_name))
    }

    pub(super) fn role(&self, user: u64) -> Option<Role> {
        self.members.get(&user).copied()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) id: u64,
    pub(super) iid: u64,
    pub(super) project: u64,
    pub(super) sha: String,
    pub(super) before_sha: Option<String>,
    pub(super) ref_name: String,
    pub(super) tag: bool,
    pub(super) source: Source,
    pub(super) user: u64,
    pub(super) variables: Vec<CiVariable>,
    pub(super) stages: Vec<String>,
    /// What `workflow:name` says.
    pub(super) name: Option<String>,
    /// Whether a test moves its jobs, not the runner.
    pub(super) directed: bool,
    /// The job whose token or `trigger:` started this pipeline.
    pub(super) source_job: Option<u64>,
    pub(super) status: Status,
    /// Why the configuration was refused; such a pipeline has no jobs.
    pub(super) yaml_errors: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
}

/// What started a pipeline, by the API's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A push of a branch or tag.
    Push,
    /// `POST /pipeline`.
    Api,
    /// A schedule of the project.
    Schedule,
    /// A trigger token.
    Trigger,
    /// A job token, or a `trigger:` job of another project.
    Pipeline,
    /// A `trigger:` job of the same project.
    ParentPipeline,
}

impl Source {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Push => "push",
            Source::Api => "api",
            Source::Schedule => "schedule",
            Source::Trigger => "trigger",
            Source::Pipeline => "pipeline",
            Source::ParentPipeline => "parent_pipeline",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) pipeline: u64,
    pub(super) project: u64,
    pub(super) spec: Arc<JobSpec>,
    pub(super) user: u64,
    pub(super) status: Status,
    /// A newer attempt took its place.
    pub(super) retried: bool,
    /// Automatic retries before this one.
    pub(super) attempt: u32,
    pub(super) created_at: Timestamp,
    pub(super) queued_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) failure_reason: Option<&'static str>,
    pub(super) exit_code: Option<i32>,
    pub(super) trace: Vec<u8>,
    /// Process group of the running job.
    pub(super) process_group: Option<i32>,
    pub(super) cancel_requested: bool,
    /// Variables given to `play`.
    pub(super) variables: Vec<CiVariable>,
    pub(super) artifacts: Option<PathBuf>,
    pub(super) dotenv: Vec<(String, String)>,
    pub(super) environment: Option<String>,
    /// The pipeline a `trigger:` job started.
    pub(super) downstream: Option<u64>,
}

impl Job {
    /// Whether its failure is one the pipeline may have.
    pub(super) fn failure_is_allowed(&self) -> bool {
        self.spec.allow_failure.covers(self.exit_code)
    }

    /// Whether its token is valid.
    pub(super) fn runs(&self) -> bool {
        matches!(self.status, Status::Running | Status::Canceling)
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.spec.trigger.is_some()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Environment {
    pub(super) id: u64,
    pub(super) project: u64,
    pub(super) name: String,
    pub(super) external_url: Option<String>,
    pub(super) tier: String,
    pub(super) available: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) id: u64,
    pub(super) iid: u64,
    pub(super) project: u64,
    pub(super) environment: u64,
    pub(super) ref_name: String,
    pub(super) tag: bool,
    pub(super) sha: String,
    pub(super) user: u64,
    /// The job that made it; `None` for one recorded by `POST /deployments`.
    pub(super) job: Option<u64>,
    pub(super) status: &'static str,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct MergeRequest {
    pub(super) id: u64,
    pub(super) iid: u64,
    pub(super) project: u64,
    pub(super) title: String,
    pub(super) description: Option<String>,
    pub(super) source_branch: String,
    pub(super) target_branch: String,
    pub(super) author: u64,
    pub(super) labels: Vec<String>,
    pub(super) remove_source_branch: bool,
    pub(super) squash: bool,
    pub(super) state: &'static str,
    /// Head of the source branch as last seen.
    pub(super) sha: String,
    pub(super) auto_merge_by: Option<u64>,
    /// The heads of source and target that were last checked against each other.
    pub(super) checked: Option<(String, String)>,
    /// Author and text of each note.
    pub(super) notes: Vec<(u64, String)>,
    pub(super) merge_commit_sha: Option<String>,
    pub(super) merged_by: Option<u64>,
    pub(super) merged_at: Option<Timestamp>,
    pub(super) closed_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

#[derive(Default)]
pub(super) struct State {
    last_id: HashMap<&'static str, u64>,
    pub(super) users: BTreeMap<u64, User>,
    pub(super) projects: BTreeMap<u64, Project>,
    pub(super) tokens: HashMap<String, Token>,
    /// Every secret ever given out, with what it is, those that are no longer valid too.
    pub(super) issued: Vec<(&'static str, String)>,
    pub(super) pipelines: BTreeMap<u64, Pipeline>,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) environments: BTreeMap<u64, Environment>,
    pub(super) deployments: BTreeMap<u64, Deployment>,
    pub(super) merge_requests: BTreeMap<u64, MergeRequest>,
    /// By project and name.
    pub(super) terraform_states: BTreeMap<(u64, String), super::api::StoredState>,
    pub(super) push_hooks: Vec<String>,
    /// Jobs of the pipelines of projects that a test directs.
    pub(super) plans: HashMap<u64, Arc<Vec<PlannedJob>>>,
    pub(super) trouble: Option<TroubleHook>,
    pub(super) before_commit: Option<CommitHook>,
    /// The API requests so far.
    pub(super) requests: Vec<Asked>,
    /// Times of recent events by what they count towards, for the limits.
    recent: HashMap<String, VecDeque<Instant>>,
    pub(super) stopping: bool,
}

impl State {
    /// The next id of one kind of object; ids are the instance's, as in GitLab.
    pub(super) fn next_id(&mut self, kind: &'static str) -> u64 {
        let last = self.last_id.entry(kind).or_insert(0);
        *last += 1;
        *last
    }

    /// The project an id or a full path names.
    pub(super) fn project_by(&self, id_or_path: &str) -> Option<&Project> {
        match id_or_path.parse::<u64>() {
            Ok(id) => self.projects.get(&id),
            Err(_) => self.projects.values().find(|project| project.path == id_or_path),
        }
    }

    /// The pipeline's jobs in order of their ids, the replaced ones included.
    pub(super) fn jobs_of(&self, pipeline: u64) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(move |job| job.pipeline == pipeline)
    }

    /// The pipeline's jobs less those a retry replaced.
    pub(super) fn latest_jobs_of(&self, pipeline: u64) -> impl Iterator<Item = &Job> {
        self.jobs_of(pipeline).filter(|job| !job.retried)
    }

    /// Counts one event and says how long to wait when `limit` events fell into the last `window` already.
    pub(super) fn count_event(
        &mut self,
        what: String,
        limit: usize,
        window: Duration,
    ) -> Result<usize, Duration> {
        let now = Instant::now();
        let events = self.recent.entry(what).or_default();
        while events.front().is_some_and(|at| now.duration_since(*at) >= window) {
            events.pop_front();
        }
        if events.len() >= limit {
            let oldest = events.front().copied().unwrap_or(now);
            return Err(window.saturating_sub(now.duration_since(oldest)));
        }
        events.push_back(now);
        Ok(limit - events.len())
    }

    /// Whether a user may run a job as far as environments go: one that is protected takes deployments of some roles alone.
    pub(super) fn may_deploy(&self, user: u64, job: &Job) -> bool {
        let (Some(spec), Some(name)) = (&job.spec.environment, &job.environment) else {
            return true;
        };
        if spec.action.as_deref().is_some_and(|action| action != "start") {
            return true;
        }
        let Some(project) = self.projects.get(&job.project) else {
            return true;
        };
        let protected = project.settings.protected_environments.iter();
        let mut of_it = protected.filter(|(pattern, _)| wildcard_match(pattern, name));
        of_it.all(|(_, role)| project.role(user).is_some_and(|own| own >= *role))
    }

    /// The environment of that name in a project, made when it is new.
    pub(super) fn environment(
        &mut self,
        project: u64,
        name: &str,
        tier: Option<&str>,
        url: Option<&str>,
    ) -> u64 {
        let now = now();
        if let Some(found) = self
            .environments
            .values_mut()
            .find(|env| env.project == project && env.name == name)
        {
            found.available = true;
            found.updated_at = now;
            if let Some(url) = url {
                found.external_url = Some(url.to_owned());
            }
            return found.id;
        }
        let id = self.next_id("environment");
        let tier = tier.map_or_else(|| guessed_tier(name).to_owned(), str::to_owned);
        self.environments.insert(
            id,
            Environment {
                id,
                project,
                name: name.to_owned(),
                external_url: url.map(str::to_owned),
                tier,
                available: true,
                created_at: now,
                updated_at: now,
            },
        );
        id
    }
}

/// The current time at the API's resolution of a millisecond.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// A timestamp as the API writes it.
pub(super) fn timestamp(at: Timestamp) -> Value {
    Value::String(format!("{at:.3}"))
}

/// Seconds between two times.
pub(super) fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_millisecond() - from.as_millisecond()) as f64 / 1000.0
}

/// The tier GitLab reads out of an environment's name.
fn guessed_tier(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["dev", "review", "trunk"]) {
        "development"
    } else if has(&["test", "tst", "int", "ac", "qa", "qc", "control", "quality"]) {
        "testing"
    } else if has(&["stag", "stg", "mod", "pre", "demo", "non"]) {
        "staging"
    } else if has(&["prod", "live"]) {
        "production"
    } else {
        "other"
    }
}
