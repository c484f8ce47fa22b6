//! Deployments to an environment, newest first.
//!
//! Source: GitLab documentation, "Deployments API". A deployment names a commit of the repository that its job ran on.
//! A job that commits what it deploys runs on the commit *before* that, so its job and pipeline are kept too.

use serde::Deserialize;
use serde_json::json;

use super::client::{Client, document};
use super::project::Project;
use crate::failure::Result;
use crate::http::{Method, Url};

/// How many deployments are asked for at once: the most that GitLab gives.
const PAGE_SIZE: &str = "100";

/// A deployment that ended well.
#[derive(Clone, Debug, Deserialize)]
pub struct Deployment {
    /// Its number within the project.
    pub iid: u64,
    /// The commit that its job ran on.
    pub sha: String,
    /// When it ended, as GitLab writes it.
    #[serde(default)]
    pub finished_at: Option<String>,
    /// The job that made it; none when it was recorded over the API, or the job is gone.
    #[serde(default)]
    pub deployable: Option<Deployable>,
}

/// The job that made a deployment.
#[derive(Clone, Debug, Deserialize)]
pub struct Deployable {
    /// Its number.
    pub id: u64,
    /// Its pipeline.
    #[serde(default)]
    pub pipeline: Option<DeployingPipeline>,
}

/// The pipeline of a job that made a deployment.
#[derive(Clone, Debug, Deserialize)]
pub struct DeployingPipeline {
    /// Its number.
    pub id: u64,
}

impl Deployment {
    /// The job's number.
    #[must_use]
    pub fn job(&self) -> Option<u64> {
        self.deployable.as_ref().map(|job| job.id)
    }

    /// The pipeline's number.
    #[must_use]
    pub fn pipeline(&self) -> Option<u64> {
        let job = self.deployable.as_ref()?;
        job.pipeline.as_ref().map(|pipeline| pipeline.id)
    }
}

/// A deployment to record.
#[derive(Clone, Debug)]
pub struct NewDeployment {
    /// The environment, which is made when there is none of that name.
    pub environment: String,
    /// The commit that is deployed, in full. It has to be in the project's repository.
    pub sha: String,
    /// The branch that the commit is on.
    pub reference: String,
}

/// How a deployment that is recorded stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeploymentStatus {
    /// It goes on.
    Running,
    /// It ended well.
    Success,
    /// It failed.
    Failed,
    /// It was given up.
    Canceled,
}

impl DeploymentStatus {
    /// GitLab's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DeploymentStatus::Running => "running",
            DeploymentStatus::Success => "success",
            DeploymentStatus::Failed => "failed",
            DeploymentStatus::Canceled => "canceled",
        }
    }
}

/// A deployment that was recorded.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    /// Its number in the whole instance.
    pub id: u64,
    /// Its number within the project, which its page shows.
    pub iid: u64,
}

/// The successful deployments to one environment, read page by page.
#[derive(Debug)]
pub struct Deployments {
    client: Client,
    project: Project,
    environment: String,
    first: Url,
    next: Option<Url>,
}

impl Client {
    /// The successful deployments to `environment`, the one that ended last first. Nothing is asked yet. A job token
    /// may read them. An environment that does not exist has none.
    ///
    /// # Errors
    /// Internal when the project makes no URL.
    pub fn deployments(&self, project: &Project, environment: &str) -> Result<Deployments> {
        let mut first = self.url(project, "deployments")?;
        // By their end GitLab sorts those alone that ended well.
        first.query_pairs_mut().extend_pairs([
            ("environment", environment),
            ("status", "success"),
            ("order_by", "finished_at"),
            ("sort", "desc"),
            ("per_page", PAGE_SIZE),
        ]);
        Ok(Deployments {
            client: self.clone(),
            project: project.clone(),
            environment: environment.to_owned(),
            next: Some(first.clone()),
            first,
        })
    }
}

impl Client {
    /// Records a deployment that begins now. Never sent twice: each makes one.
    ///
    /// # Errors
    /// Denied, not found, input or unavailable, as GitLab answers.
    pub async fn record_deployment(&self, project: &Project, new: &NewDeployment) -> Result<Recorded> {
        let request = self
            .request(Method::POST, self.url(project, "deployments")?)
            .json(&json!({
                "environment": new.environment,
                "sha": new.sha,
                "ref": new.reference,
                "tag": false,
                "status": DeploymentStatus::Running.as_str(),
            }));
        let object = format!("a deployment to {} of {project}", new.environment);
        document(self.expect_success(request, project, &object).await?).await
    }

    /// Says how a recorded deployment ended.
    ///
    /// # Errors
    /// As [`Client::record_deployment`].
    pub async fn finish_deployment(
        &self,
        project: &Project,
        id: u64,
        status: DeploymentStatus,
    ) -> Result<()> {
        let request = self
            .request(Method::PUT, self.url(project, &format!("deployments/{id}"))?)
            .json(&json!({ "status": status.as_str() }));
        let object = format!("deployment {id} of {project}");
        self.expect_success(request, project, &object).await.map(drop)
    }
}

impl Deployments {
    /// The next page; none after the last.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn next(&mut self) -> Result<Option<Vec<Deployment>>> {
        let Some(url) = self.next.take() else {
            return Ok(None);
        };
        let object = format!("the deployments to {} of {}", self.environment, self.project);
        let (page, next) = self
            .client
            .read_page(&self.project, url, &self.first, &object)
            .await?;
        self.next = next;
        Ok(Some(page))
    }
}
