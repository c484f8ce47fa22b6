//! Pipelines whose jobs a test moves. Nothing of them runs: they are made, listed, cancelled and retried like any other,
//! by the same rules and through the same API, and each job takes the status it is given.
//!
//! Kept from GitLab: a pipeline's status follows its jobs' (`scheduler`); a job that runs and is cancelled is
//! `canceling` until its runner lets go of it, here the test; one that a person plays or retries waits as `pending`.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

use super::GitLab;
use super::config::Config;
use super::job_spec::{AllowFailure, JobSpec, TriggerSpec};
use super::pipelines::{self, Draft};
use super::scheduler;
use super::settings::PipelineRequest;
use super::state::{Source, Status, now};
use super::tokens::{Token, random_token};

/// One job of the pipelines of a project.
#[derive(Clone, Debug)]
pub struct PlannedJob {
    name: String,
    stage: String,
    allow_failure: bool,
    downstream: Option<String>,
}

impl PlannedJob {
    /// A job whose failure fails the pipeline.
    pub fn new(name: impl Into<String>, stage: impl Into<String>) -> Self {
        PlannedJob {
            name: name.into(),
            stage: stage.into(),
            allow_failure: false,
            downstream: None,
        }
    }

    /// The same with `allow_failure: true`.
    #[must_use]
    pub fn allowed_to_fail(self) -> Self {
        PlannedJob {
            allow_failure: true,
            ..self
        }
    }

    /// A trigger job for the project of this full path; its own project makes a child pipeline.
    #[must_use]
    pub fn triggering(self, project: impl Into<String>) -> Self {
        PlannedJob {
            downstream: Some(project.into()),
            ..self
        }
    }

    fn spec(&self) -> JobSpec {
        JobSpec {
            name: self.name.clone(),
            stage: self.stage.clone(),
            when: "on_success".to_owned(),
            allow_failure: AllowFailure::Always(self.allow_failure),
            trigger: self.downstream.as_ref().map(|project| TriggerSpec {
                project: project.clone(),
                strategy: Some("depend".to_owned()),
                ..TriggerSpec::default()
            }),
            ..JobSpec::default()
        }
    }
}

/// What a directed pipeline consists of.
pub(super) fn config(jobs: &[PlannedJob]) -> Config {
    let mut stages: Vec<String> = Vec::new();
    for job in jobs {
        if !stages.contains(&job.stage) {
            stages.push(job.stage.clone());
        }
    }
    Config {
        stages,
        jobs: jobs.iter().map(PlannedJob::spec).collect(),
    }
}

impl GitLab {
    /// Gives every pipeline that is made in the project from now on these jobs, to be moved with
    /// [`GitLab::move_job`]. The configuration in the repository still has to be there, and says which inputs there are.
    ///
    /// # Errors
    /// When there is no such project.
    pub fn direct(&self, project: u64, jobs: Vec<PlannedJob>) -> anyhow::Result<()> {
        self.with_project(project, |_| ())?;
        self.hub.state().plans.insert(project, Arc::new(jobs));
        Ok(())
    }

    /// Gives a job of a directed pipeline a status.
    ///
    /// # Errors
    /// When there is no such job, or a runner has it.
    pub fn move_job(&self, id: u64, status: Status) -> anyhow::Result<()> {
        let pipeline = {
            let mut state = self.hub.state();
            let pipeline = state.jobs.get(&id).map(|job| job.pipeline);
            let directed = pipeline
                .and_then(|id| state.pipelines.get(&id))
                .is_some_and(|found| found.directed);
            let job = state
                .jobs
                .get_mut(&id)
                .with_context(|| format!("there is no job {id}"))?;
            ensure!(directed, "job {id} is not for a test to move");
            job.status = status;
            match status {
                Status::Pending => job.queued_at = Some(now()),
                Status::Running => job.started_at = Some(now()),
                Status::Failed => job.failure_reason = Some("script_failure"),
                _ => {}
            }
            job.finished_at = status.is_finished().then(now);
            job.pipeline
        };
        scheduler::advance(&self.hub, pipeline);
        Ok(())
    }

    /// Adds to the log of a job.
    pub fn write_log(&self, job: u64, text: &str) {
        super::runner::append(&self.hub, job, text);
    }

    /// Puts a new attempt in the place of a job, as GitLab does for `retry:`; it waits as `pending`. Returns its id.
    ///
    /// # Errors
    /// When there is no such job, or a newer attempt has its place.
    pub fn retry_job(&self, id: u64) -> anyhow::Result<u64> {
        let new = {
            let mut state = self.hub.state();
            if state.jobs.get(&id).is_none_or(|job| job.retried) {
                bail!("job {id} cannot be retried");
            }
            scheduler::replace(&mut state, id, None).with_context(|| format!("job {id} has no pipeline"))?
        };
        self.move_job(new, Status::Pending)?;
        Ok(new)
    }

    /// Makes the pipeline of a trigger job, and has the job run. Returns the pipeline's id.
    ///
    /// # Errors
    /// When it is no trigger job, or the pipeline is refused.
    pub async fn start_downstream(&self, id: u64) -> anyhow::Result<u64> {
        let draft = {
            let state = self.hub.state();
            let job = state
                .jobs
                .get(&id)
                .with_context(|| format!("there is no job {id}"))?;
            let target = job.spec.trigger.as_ref();
            let target = target.and_then(|trigger| state.project_by(&trigger.project));
            let target = target.with_context(|| format!("job {id} triggers nothing"))?;
            Draft {
                project: target.id,
                ref_name: target.settings.default_branch.clone(),
                user: job.user,
                source: if target.id == job.project {
                    Source::ParentPipeline
                } else {
                    Source::Pipeline
                },
                request: PipelineRequest::default(),
                before_sha: None,
                sha: None,
                source_job: Some(id),
            }
        };
        let pipeline = pipelines::create(&self.hub, draft)
            .await
            .map_err(|refused| anyhow::anyhow!("{}", refused.reason()))?;
        if let Some(job) = self.hub.state().jobs.get_mut(&id) {
            job.downstream = Some(pipeline);
        }
        self.move_job(id, Status::Running)?;
        Ok(pipeline)
    }

    /// The token of a job of a directed pipeline, valid while the job is `running`.
    ///
    /// # Errors
    /// When there is no such job, or no random number can be had.
    pub fn job_token(&self, job: u64) -> anyhow::Result<String> {
        ensure!(self.hub.state().jobs.contains_key(&job), "there is no job {job}");
        let token = random_token("glcbt-")?;
        self.hub.state().issue(&token, Token::Job { job });
        Ok(token)
    }
}
