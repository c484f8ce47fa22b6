//! Deployments to an environment, newest first.
//!
//! Source: GitLab documentation, "Deployments API". A deployment names a commit of the repository that its job ran on.
//! A job that commits what it deploys runs on the commit *before* that, so its job and pipeline are kept too.

use serde::Deserialize;

use super::client::Client;
use super::project::Project;
use crate::failure::Result;
use crate::http::Url;

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
