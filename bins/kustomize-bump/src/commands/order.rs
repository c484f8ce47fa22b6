//! Looking up which of two source commits came first, for every tip that `set` decides on.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath::cli::{Run, secret_variable};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result};
use towpath::git::{Access, Ancestry, Credentials, Lineage, Location, Remote};
use towpath::kustomize::ImageState;

use super::past::Past;
use crate::args::{OrderArgs, OrderChoice, PlaceArgs, WriteArgs};
use crate::order::{Origin, deployed_origin, judge};
use crate::plan::SetPlan;
use crate::rollback;
use crate::source::{JOB_TOKEN_USER, Tree, access_token};

/// How long the source repository may take: a deployment waits for this.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many times history is fetched further for who set what is there: to some 500 commits.
const FAR_ENOUGH: u32 = 2;

/// The guard of one run. What was answered once holds for every tip.
pub(super) struct Guard<'run> {
    place: &'run PlaceArgs,
    arguments: &'run OrderArgs,
    write: &'run WriteArgs,
    deadline: Deadline,
    answers: BTreeMap<String, Ancestry>,
    said: Vec<String>,
}

impl<'run> Guard<'run> {
    /// The guard that the arguments ask for; none where there is nothing to guard.
    ///
    /// # Errors
    /// Usage (exit 2) when the order is required and no source commit is given.
    pub(super) fn new(
        place: &'run PlaceArgs,
        arguments: &'run OrderArgs,
        write: &'run WriteArgs,
        run: &Run,
    ) -> Result<Option<Self>> {
        if arguments.order == OrderChoice::Off {
            return Ok(None);
        }
        if write.source_commit.is_none() {
            return match arguments.order {
                OrderChoice::Require => Err(Failure::usage(
                    "--order require needs the commit that the image was built from",
                )
                .hint("pass --source-commit (SOURCE_COMMIT), or --order check")),
                OrderChoice::Check | OrderChoice::Off => Ok(None),
            };
        }
        Ok(Some(Guard {
            place,
            arguments,
            write,
            deadline: run.deadline,
            answers: BTreeMap::new(),
            said: Vec::new(),
        }))
    }

    /// Checks what `set` is about to change.
    ///
    /// # Errors
    /// As [`judge`].
    pub(super) async fn check(&mut self, tree: &mut Tree<'_>, plan: &SetPlan) -> Result<()> {
        let Some(wanted) = self.write.source_commit.as_deref() else {
            return Ok(());
        };
        let mut past = Past::default();
        for file in plan.files.iter().filter(|file| file.changed) {
            // What is added takes nobody's place.
            let Some(current) = &file.old else { continue };
            let found = self.compare(tree, &mut past, &file.file, current, wanted).await;
            let said = judge(self.arguments.order, &file.path, current, wanted, found)?;
            if let Some(said) = said.filter(|said| !self.said.contains(said)) {
                towpath::cli::note(&said);
                self.said.push(said);
            }
        }
        Ok(())
    }

    async fn compare(
        &mut self,
        tree: &mut Tree<'_>,
        past: &mut Past,
        file: &str,
        current: &ImageState,
        wanted: &str,
    ) -> Result<(Origin, Ancestry)> {
        let origin = loop {
            let history = past.history(tree, file).await?;
            let steps = rollback::steps(history, file, &current.name);
            if let Some(origin) = deployed_origin(&steps, current) {
                break origin;
            }
            if history.complete || !past.deepen(tree, FAR_ENOUGH).await? {
                return Err(Failure::not_found(
                    "no commit of the repository says from which commit it was built",
                ));
            }
        };
        let projects = (origin.project.as_deref(), self.write.source_project.as_deref());
        if let (Some(deployed), Some(own)) = projects
            && deployed != own
        {
            return Err(Failure::not_found(format!(
                "it was built from another project, {deployed}"
            )));
        }
        if let Some(known) = self.answers.get(&origin.commit) {
            return Ok((origin, *known));
        }
        if origin.commit == wanted {
            return Ok((origin, Ancestry::Same));
        }
        let effect = towpath::cli::effect("compare", format!("{wanted} with {}", origin.commit));
        let asked = self.ask(wanted, &origin.commit).await;
        match asked {
            Ok(ancestry) => {
                effect.done(match ancestry {
                    Ancestry::Same => "the same",
                    Ancestry::Ancestor => "older",
                    Ancestry::Descendant => "newer",
                    Ancestry::Diverged => "diverged",
                });
                self.answers.insert(origin.commit.clone(), ancestry);
                Ok((origin, ancestry))
            }
            Err(failure) => {
                effect.forget();
                Err(failure)
            }
        }
    }

    /// Asks anew each time, since a lost race may come long after, when the patience of the first time is at its end.
    async fn ask(&self, one: &str, other: &str) -> Result<Ancestry> {
        self.open().await?.compare(one, other).await
    }

    async fn open(&self) -> Result<Lineage> {
        let deadline = self.deadline.within(PATIENCE);
        if let Some(folder) = &self.arguments.source_checkout {
            return Lineage::of_folder(folder, deadline);
        }
        let location = match &self.arguments.source_repo {
            Some(address) => Location::parse("--source-repo (TOWPATH_SOURCE_REPO)", address)?,
            None => self.beside_the_repository()?,
        };
        let access = Access {
            credentials: self.credentials(&location)?,
            ca_file: self.place.ca_file.clone(),
            plain_http: self.place.plain_http,
        };
        Lineage::of_remote(Remote::new(location, access)?, deadline).await
    }

    /// The source project on the GitLab that the job runs on, or that the repository is on.
    fn beside_the_repository(&self) -> Result<Location> {
        let unknown = || {
            Failure::not_found("it is not known where the source repository is").hint(
                "pass --source-repo (TOWPATH_SOURCE_REPO) or --source-checkout (TOWPATH_SOURCE_CHECKOUT)",
            )
        };
        let project = self.write.source_project.as_deref().ok_or_else(unknown)?;
        if let Some(server) = &self.place.server_url {
            let server = server.trim_end_matches('/');
            return Location::parse("CI_SERVER_URL", &format!("{server}/{project}.git"));
        }
        if self.place.project.is_some() {
            let address = self.place.address_of(&project.parse()?)?.ok_or_else(unknown)?;
            return Location::parse("--gitlab-url (CI_API_V4_URL)", &address);
        }
        let repository = self.place.repo.as_ref().or(self.place.project_url.as_ref());
        let location = Location::parse("--repo (TOWPATH_REPO)", repository.ok_or_else(unknown)?)?;
        location.beside(project).ok_or_else(unknown)
    }

    /// The token for the source repository: its own; else the job's, for the job's own GitLab; else the environment
    /// repository's, for the same host.
    fn credentials(&self, location: &Location) -> Result<Option<Credentials>> {
        let Location::Http(url) = location else {
            return Ok(None);
        };
        let user = &self.place.git_user;
        if let Some(token) = secret_variable("TOWPATH_SOURCE_TOKEN")? {
            return Credentials::new(user, token).map(Some);
        }
        let is_on = |address: &Option<String>| {
            address
                .as_ref()
                .and_then(|address| towpath::http::Url::parse(address).ok())
                .is_some_and(|address| address.origin() == url.origin())
        };
        if (is_on(&self.place.server_url) || is_on(&self.place.project_url))
            && let Some(token) = secret_variable("CI_JOB_TOKEN")?
        {
            return Credentials::new(JOB_TOKEN_USER, token).map(Some);
        }
        let is_beside = self.place.project.is_some() && self.place.api()?.origin() == url.origin();
        if !is_beside && !is_on(&self.place.repo) {
            return Ok(None);
        }
        let token = access_token(self.place)?;
        token.map(|token| Credentials::new(user, token)).transpose()
    }
}
