//! What there is to see of pipelines, for tests and the demo.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use tokio::sync::watch;

use super::GitLab;
use super::state::{Job, Pipeline, Source, State, Status, seconds_between};

/// One pipeline as it is now.
#[derive(Clone, Debug)]
pub struct PipelineSnapshot {
    /// Its id, one of the instance.
    pub id: u64,
    /// The project's full path.
    pub project: String,
    /// Branch or tag.
    pub ref_name: String,
    /// The commit.
    pub sha: String,
    /// What started it.
    pub source: Source,
    /// Its status.
    pub status: Status,
    /// Why its configuration was refused.
    pub yaml_errors: Option<String>,
    /// The job whose token or `trigger:` started it.
    pub source_job: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From its first job's start to its last one's end.
    pub duration: Option<Duration>,
    /// Its jobs in order of their ids; those a retry replaced are marked.
    pub jobs: Vec<JobSnapshot>,
}

impl PipelineSnapshot {
    /// The newest job of that name.
    pub fn job(&self, name: &str) -> Option<&JobSnapshot> {
        self.jobs.iter().rev().find(|job| job.name == name)
    }
}

/// One job as it is now.
#[derive(Clone, Debug)]
pub struct JobSnapshot {
    /// Its id, one of the instance.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// Its status.
    pub status: Status,
    /// Whether a retry took its place.
    pub retried: bool,
    /// Whether the pipeline may go on without its success.
    pub allow_failure: bool,
    /// The pipeline it started, where it is a trigger job.
    pub downstream: Option<u64>,
    /// The script's exit code, once it ended.
    pub exit_code: Option<i32>,
    /// Why it failed, by the API's word.
    pub failure_reason: Option<&'static str>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// How long it ran, or has run until now.
    pub duration: Option<Duration>,
    /// Its log, masked.
    pub trace: String,
    /// Variables of its dotenv reports.
    pub dotenv: Vec<(String, String)>,
    /// Its environment.
    pub environment: Option<String>,
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_secs_f64(seconds_between(from, to).max(0.0))
}

fn job_snapshot(job: &Job) -> JobSnapshot {
    JobSnapshot {
        id: job.id,
        name: job.spec.name.clone(),
        stage: job.spec.stage.clone(),
        status: job.status,
        retried: job.retried,
        allow_failure: job.failure_is_allowed(),
        downstream: job.downstream,
        exit_code: job.exit_code,
        failure_reason: job.failure_reason,
        started_at: job.started_at,
        duration: job
            .started_at
            .map(|from| between(from, job.finished_at.unwrap_or_else(Timestamp::now))),
        trace: String::from_utf8_lossy(&job.trace).into_owned(),
        dotenv: job.dotenv.clone(),
        environment: job.environment.clone(),
    }
}

fn snapshot(state: &State, pipeline: &Pipeline) -> PipelineSnapshot {
    let project = state.projects.get(&pipeline.project);
    PipelineSnapshot {
        id: pipeline.id,
        project: project.map_or_else(String::new, |project| project.path.clone()),
        ref_name: pipeline.ref_name.clone(),
        sha: pipeline.sha.clone(),
        source: pipeline.source,
        status: pipeline.status,
        yaml_errors: pipeline.yaml_errors.clone(),
        source_job: pipeline.source_job,
        created_at: pipeline.created_at,
        duration: pipeline
            .started_at
            .zip(pipeline.finished_at)
            .map(|(from, to)| between(from, to)),
        jobs: state.jobs_of(pipeline.id).map(job_snapshot).collect(),
    }
}

impl GitLab {
    /// Every pipeline with its jobs, oldest first.
    pub fn snapshot(&self) -> Vec<PipelineSnapshot> {
        let state = self.hub.state();
        state
            .pipelines
            .values()
            .map(|pipeline| snapshot(&state, pipeline))
            .collect()
    }

    /// The number of the project with this full path.
    pub fn project_id(&self, path: &str) -> Option<u64> {
        self.hub.state().project_by(path).map(|project| project.id)
    }

    /// One pipeline.
    pub fn pipeline(&self, id: u64) -> Option<PipelineSnapshot> {
        let state = self.hub.state();
        state
            .pipelines
            .get(&id)
            .map(|pipeline| snapshot(&state, pipeline))
    }

    /// A number that grows with every change of pipelines, jobs and logs, to wait on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.hub.subscribe()
    }

    /// Waits for the first pipeline of a project that fits.
    ///
    /// # Errors
    /// When none came in time.
    pub async fn wait_for_pipeline(
        &self,
        project: &str,
        fits: impl Fn(&PipelineSnapshot) -> bool,
        limit: Duration,
    ) -> anyhow::Result<PipelineSnapshot> {
        let look = || {
            self.snapshot()
                .into_iter()
                .find(|found| found.project == project && fits(found))
        };
        let Some(found) = self.wait_until(look, limit).await else {
            bail!("no such pipeline of {project} within {} s", limit.as_secs());
        };
        Ok(found)
    }

    /// Waits until a pipeline has ended, or waits for a person.
    ///
    /// # Errors
    /// When it has not in time; the message tells how its jobs stand.
    pub async fn wait_until_finished(&self, id: u64, limit: Duration) -> anyhow::Result<PipelineSnapshot> {
        let look = || {
            let found = self.pipeline(id);
            found.filter(|found| found.status.is_finished() || found.status == Status::Manual)
        };
        if let Some(found) = self.wait_until(look, limit).await {
            return Ok(found);
        }
        let left = self
            .pipeline(id)
            .with_context(|| format!("there is no pipeline {id}"))?;
        let jobs: Vec<String> = left
            .jobs
            .iter()
            .map(|job| format!("{}: {}", job.name, job.status.as_str()))
            .collect();
        bail!(
            "pipeline {id} is still {} after {} s ({})",
            left.status.as_str(),
            limit.as_secs(),
            jobs.join(", ")
        )
    }

    /// Waits until GitLab does nothing by itself any more: nothing that a push started, no pipeline being made, no job with a
    /// runner. Jobs may still wait for a person or for a time. Until somebody asks something of it, it changes no file then.
    ///
    /// # Errors
    /// When it does not come to rest in time; the message names the pipelines that have not ended.
    pub async fn rest(&self, limit: Duration) -> anyhow::Result<()> {
        let mut under_way = self.hub.under_way();
        let rests = under_way.wait_for(|count| *count == 0);
        if tokio::time::timeout(limit, rests).await.is_ok() {
            return Ok(());
        }
        let left: Vec<String> = self
            .snapshot()
            .iter()
            .filter(|pipeline| !pipeline.status.is_finished())
            .map(|pipeline| {
                format!(
                    "{} of {}: {}",
                    pipeline.id,
                    pipeline.project,
                    pipeline.status.as_str()
                )
            })
            .collect();
        bail!(
            "GitLab is still at work after {} s (pipelines {})",
            limit.as_secs(),
            left.join(", ")
        )
    }

    async fn wait_until<T>(&self, look: impl Fn() -> Option<T>, limit: Duration) -> Option<T> {
        let mut changes = self.changes();
        let wait = async {
            loop {
                if let Some(found) = look() {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.ok().flatten()
    }
}
