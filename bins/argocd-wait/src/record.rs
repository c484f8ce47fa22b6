//! The deployment in GitLab that says what came of it.

use std::time::Duration;

use serde::Serialize;
use towpath::cli::{Run, effect, secret_variable};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result};
use towpath::gitlab::{Client, DeploymentStatus, NewDeployment, Project, Recorded, Token};
use towpath::http::{self, Settings};
use towpath::secret::Secret;

use crate::args::{ArgoCdArgs, RecordArgs};

/// How long saying how it ended may take once the run is over.
const GRACE: Duration = Duration::from_secs(15);

/// A deployment as the report shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Deployment {
    pub(crate) id: u64,
    pub(crate) iid: u64,
    pub(crate) environment: String,
    /// `running`, `success`, `failed` or `canceled`.
    pub(crate) status: &'static str,
}

/// What is recorded, and where.
pub(crate) struct Record {
    client: Client,
    project: Project,
    new: NewDeployment,
}

impl Record {
    /// None when nothing is to be recorded.
    ///
    /// # Errors
    /// Usage (exit 2) when token or project are missing.
    pub(crate) fn new(
        args: &RecordArgs,
        argocd: &ArgoCdArgs,
        revision: &str,
        run: &Run,
    ) -> Result<Option<Self>> {
        let Some(environment) = &args.record else {
            return Ok(None);
        };
        let project = args.gitlab_project.clone().ok_or_else(|| {
            Failure::usage("no project is given to record a deployment in")
                .hint("pass --gitlab-project GROUP/PROJECT or set CI_PROJECT_PATH")
        })?;
        let access = match &args.gitlab_token_file {
            Some(path) => Some(Secret::from_file(path, "GitLab token")?),
            None => secret_variable("TOWPATH_GITLAB_TOKEN")?,
        };
        let token = match access {
            Some(token) => Token::Access(token),
            None => Token::Job(secret_variable("CI_JOB_TOKEN")?.ok_or_else(|| {
                Failure::usage("there is no token for GitLab to record a deployment with")
                    .hint("set TOWPATH_GITLAB_TOKEN, or run it in a job (CI_JOB_TOKEN)")
            })?),
        };
        let base = http::parse_base_url("--gitlab-url (CI_API_V4_URL)", &args.gitlab_url)?;
        let settings = Settings {
            ca_file: args.gitlab_ca_file.clone(),
            plain_http: argocd.plain_http(),
            ..Settings::new("gitlab")
        };
        Ok(Some(Record {
            client: Client::new(settings, base, token, run.deadline)?,
            project,
            new: NewDeployment {
                environment: environment.clone(),
                sha: revision.to_owned(),
                reference: args.branch.clone(),
            },
        }))
    }

    /// Records that it begins.
    ///
    /// # Errors
    /// As GitLab answers.
    pub(crate) async fn begin(&self) -> Result<Deployment> {
        let effect = effect("record", self.object());
        let Recorded { id, iid } = self.client.record_deployment(&self.project, &self.new).await?;
        effect.done("running");
        Ok(Deployment {
            id,
            iid,
            environment: self.new.environment.clone(),
            status: DeploymentStatus::Running.as_str(),
        })
    }

    /// Records how it ended, also when the run's own time is over.
    ///
    /// # Errors
    /// As GitLab answers.
    pub(crate) async fn finish(&self, deployment: &mut Deployment, status: DeploymentStatus) -> Result<()> {
        let effect = effect("record", self.object());
        let client = self.client.until(Deadline::after(GRACE))?;
        client
            .finish_deployment(&self.project, deployment.id, status)
            .await?;
        deployment.status = status.as_str();
        effect.done(status.as_str());
        Ok(())
    }

    fn object(&self) -> String {
        format!("a deployment to {} of {}", self.new.environment, self.project)
    }
}
