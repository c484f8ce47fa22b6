//! How another commit stands to ours, asked of the environment repository itself: the checkout that this runs in, or the one
//! of `--repo`.
//!
//! Argo CD tells when a commit was written, and not what it stands on. One that was merged late may have been written before
//! what it follows, so a date proves nothing; it counts only where git cannot be asked.

use std::path::Path;
use std::time::Duration;

use towpath::cli::{Run, secret_variable};
use towpath::deadline::Deadline;
use towpath::failure::{Kind, Result};
use towpath::git::{self, Access, Ancestry, Credentials, Location, Remote};
use towpath::http::Url;

use crate::args::Args;
use crate::relation::Relation;

/// How long asking may take, while nothing else is decided about the application.
const LIMIT: Duration = Duration::from_secs(30);
/// What GitLab's job token, and an access token, log in to git as.
const JOB_TOKEN_USER: &str = "gitlab-ci-token";
const ACCESS_TOKEN_USER: &str = "oauth2";

/// The repositories that may be asked.
#[derive(Debug)]
pub(crate) struct Lineage {
    remote: Option<Remote>,
    deadline: Deadline,
}

impl Lineage {
    /// # Errors
    /// Usage (exit 2) when `--repo` is no address of a repository.
    pub(crate) fn new(args: &Args, run: &Run) -> Result<Self> {
        let remote = match &args.wait.repo {
            Some(address) => Some(remote(args, address)?),
            None => None,
        };
        Ok(Lineage {
            remote,
            deadline: run.deadline,
        })
    }

    /// How `other` stands to `ours`; none where nobody can be asked, or the two do not stand on each other.
    pub(crate) async fn relation(&self, ours: &str, other: &str) -> Option<Relation> {
        // The checkout costs nothing to ask; but what was pushed since is not in it.
        let here = git::Lineage::of_folder(Path::new("."), self.deadline.within(LIMIT));
        if let Ok(here) = here
            && let Some(told) = here.compare(ours, other).await.ok().and_then(told)
        {
            return Some(told);
        }
        let remote = self.remote.clone()?;
        let object = format!("the history of {}", remote.location());
        let asked = async {
            let remote = git::Lineage::of_remote(remote, self.deadline.within(LIMIT)).await?;
            remote.compare(ours, other).await
        };
        match asked.await {
            Ok(found) => told(found),
            Err(failure) => {
                let why = if failure.kind() == Kind::Deadline && !self.deadline.passed() {
                    format!("git did not answer within {} s", LIMIT.as_secs())
                } else {
                    failure.to_string()
                };
                tracing::warn!(action = "look", object, outcome = "not to be had", "{why}");
                None
            }
        }
    }
}

fn told(found: Ancestry) -> Option<Relation> {
    match found {
        Ancestry::Ancestor => Some(Relation::After),
        Ancestry::Descendant => Some(Relation::Before),
        Ancestry::Same | Ancestry::Diverged => None,
    }
}

fn remote(args: &Args, address: &str) -> Result<Remote> {
    let location = Location::parse("--repo (TOWPATH_REPO)", address)?;
    let credentials = match &location {
        Location::Http(url) => credentials(url, args.wait.server_url.as_deref())?,
        _ => None,
    };
    let access = Access {
        credentials,
        ca_file: args.record.gitlab_ca_file.clone(),
        plain_http: args.argocd.plain_http,
    };
    Remote::new(location, access)
}

fn credentials(url: &Url, own: Option<&str>) -> Result<Option<Credentials>> {
    if let Some(token) = secret_variable("TOWPATH_GIT_TOKEN")? {
        return Credentials::new(ACCESS_TOKEN_USER, token).map(Some);
    }
    // The job's token is for the job's own GitLab: another host must not even be offered it.
    let is_own = own
        .and_then(|own| Url::parse(own).ok())
        .is_some_and(|own| own.origin() == url.origin());
    match secret_variable("CI_JOB_TOKEN")? {
        Some(token) if is_own => Credentials::new(JOB_TOKEN_USER, token).map(Some),
        _ => Ok(None),
    }
}
