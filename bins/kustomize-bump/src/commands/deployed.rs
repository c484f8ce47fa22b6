//! GitLab's successful deployments, and what the image was with each.

use std::time::Duration;

use towpath::cli::Run;
use towpath::failure::{Failure, Result};
use towpath::git::{History, Revision};
use towpath::gitlab::{Client, Deployment, Deployments};

use super::gitlab;
use super::past::Past;
use crate::args::{PlaceArgs, RollbackArgs};
use crate::message::{JOB, PIPELINE};
use crate::rollback::{Choice, Outlook, Step, state_in};
use crate::source::Tree;

/// How long GitLab may take altogether: somebody waits for this.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many pages of 100 are read at most.
const PAGES: usize = 10;

/// The deployments to one environment, as far as they were read.
#[derive(Debug)]
pub(super) struct Deployed {
    environment: String,
    pages: Deployments,
    read: usize,
    known: Vec<Deployment>,
}

/// Where a look at the deployments led.
#[derive(Debug)]
pub(super) enum Looked {
    /// There.
    Found(Choice),
    /// Nowhere yet; so many deployments name commits that are not here, fetched too little or gone.
    Short(usize),
}

impl Deployed {
    /// Gets ready to ask, where an environment is named and there is a GitLab to ask.
    ///
    /// # Errors
    /// Usage (exit 2) for a malformed address, or a token file that cannot be read.
    pub(super) fn open(place: &PlaceArgs, arguments: &RollbackArgs, run: &Run) -> Result<Option<Self>> {
        let Some(environment) = arguments.environment.as_deref().filter(|_| !arguments.offline) else {
            return Ok(None);
        };
        let Some((api, project)) = gitlab::address(place)? else {
            towpath::cli::note(&format!(
                "deployments to {environment} are not counted: it is not known where the repository's GitLab is; \
                 going by the repository's history"
            ));
            return Ok(None);
        };
        let Some(token) = gitlab::token(place, &api)? else {
            towpath::cli::note(&format!(
                "deployments to {environment} are not counted: there is no token for {api}; going by the \
                 repository's history"
            ));
            return Ok(None);
        };
        let client = Client::new(gitlab::settings(place), api, token, run.deadline.within(PATIENCE))?;
        Ok(Some(Deployed {
            environment: environment.to_owned(),
            pages: client.deployments(&project, environment)?,
            read: 0,
            known: Vec::new(),
        }))
    }

    /// The environment.
    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    /// Reads one more page. False when there is none.
    pub(super) async fn more(&mut self) -> Result<bool> {
        if self.read == PAGES {
            return Ok(false);
        }
        let effect = towpath::cli::effect("read", format!("deployments to {}", self.environment));
        let page = self.pages.next().await.map_err(|failure| {
            Failure::new(
                failure.kind(),
                format!("cannot read the deployments to {}", self.environment),
            )
            .because(failure)
            .hint("--offline (TOWPATH_OFFLINE) goes by the repository's own history, and asks git alone")
        })?;
        let Some(page) = page else {
            effect.forget();
            return Ok(false);
        };
        effect.done(&format!("{} deployments", page.len()));
        self.read += 1;
        self.known.extend(page);
        Ok(true)
    }

    /// Counts back over the deployments that were read.
    pub(super) async fn back(
        &self,
        tree: &Tree<'_>,
        past: &mut Past,
        history: &History,
        file: &str,
        outlook: &Outlook<'_>,
        back: u16,
    ) -> Result<Looked> {
        let image = &outlook.current.name;
        let (mut steps, mut missing) = (Vec::new(), 0);
        for deployment in &self.known {
            let step = match made_by(history, image, deployment) {
                Some(revision) => Step {
                    state: revision
                        .content
                        .as_ref()
                        .and_then(|content| state_in(content, file, image)),
                    revision: revision.clone(),
                },
                None => {
                    let Some(commit) = past.commit(tree, &deployment.sha).await? else {
                        missing += 1;
                        continue;
                    };
                    let content = tree.content_at(&commit, file).await?;
                    let mut revision = Revision::default();
                    revision.commit = commit;
                    revision.date = deployment.finished_at.clone().unwrap_or_default();
                    Step {
                        state: content.and_then(|content| state_in(&content, file, image)),
                        revision,
                    }
                }
            };
            // Going back is no deployment to go back to.
            if step.state.is_none() || step.is_rollback(image) {
                continue;
            }
            steps.push(step);
            if let Some(choice) = outlook.deployed_back(&steps, back) {
                return Ok(Looked::Found(choice));
            }
        }
        Ok(Looked::Short(missing))
    }
}

/// The commit that a deployment's own job made, or its pipeline. A job that commits what it deploys runs on the commit
/// before, which is the one that GitLab shows.
fn made_by<'history>(
    history: &'history History,
    image: &str,
    deployment: &Deployment,
) -> Option<&'history Revision> {
    let numbered = |key: &'static str, number: Option<u64>| {
        let ending = format!("/{}", number?);
        history
            .revisions
            .iter()
            .filter(move |revision| {
                revision
                    .trailer(key)
                    .is_some_and(|url| url.trim_end_matches('/').ends_with(&ending))
            })
            .map(|revision| Step {
                state: None,
                revision: revision.clone(),
            })
            .find(|step| step.is_set(image) || (key == JOB && step.is_rollback(image)))
            .map(|step| step.revision.commit)
    };
    let commit = numbered(JOB, deployment.job()).or_else(|| numbered(PIPELINE, deployment.pipeline()))?;
    history
        .revisions
        .iter()
        .find(|revision| revision.commit == commit)
}
