//! Which token does what.

use std::time::Duration;

use towpath::cli::{Run, secret_variable};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result};
use towpath::gitlab::{Client, Project, Token};
use towpath::secret::Secret;

use crate::args::{GitLabArgs, Kind};

/// How long stopping a pipeline may take after the run is over, within the minute that the frame leaves of the job's
/// own timeout.
pub(crate) const GRACE: Duration = Duration::from_secs(25);

/// The clients at hand, one per token that is used.
pub(crate) struct Access {
    project: Project,
    starter: Client,
    reader: Option<Client>,
}

impl Access {
    /// Takes the tokens from their variables or file.
    ///
    /// # Errors
    /// Usage (exit 2) when there is no token, or project, address or file are malformed.
    pub(crate) fn new(args: &GitLabArgs, run: &Run) -> Result<Self> {
        let project = args.project()?;
        let by_file = args
            .token_file
            .as_deref()
            .map(|path| Secret::from_file(path, "GitLab token"));
        let access = match by_file {
            Some(token) => Some(token?),
            None => secret_variable("TOWPATH_GITLAB_TOKEN")?,
        };
        let (starter, reader) = choose(
            access,
            secret_variable("TOWPATH_TRIGGER_TOKEN")?,
            secret_variable("CI_JOB_TOKEN")?,
            args.start_by,
        )?;
        let client = |token| Client::new(args.settings(), args.base()?, token, run.deadline);
        Ok(Access {
            project,
            starter: client(starter)?,
            reader: reader.map(client).transpose()?,
        })
    }

    /// The project everything is about.
    pub(crate) fn project(&self) -> &Project {
        &self.project
    }

    /// The client that starts pipelines.
    pub(crate) fn starter(&self) -> &Client {
        &self.starter
    }

    /// The client that follows pipelines.
    ///
    /// # Errors
    /// Usage (exit 2) when only a trigger token is there, which reads nothing.
    pub(crate) fn reader(&self) -> Result<&Client> {
        self.reader.as_ref().ok_or_else(|| {
            Failure::usage("a trigger token can start a pipeline, but not follow it")
                .hint("set TOWPATH_GITLAB_TOKEN, run it in a job (CI_JOB_TOKEN), or pass --detach")
        })
    }

    /// The client that reads whole pipelines and lists them, where there is one.
    pub(crate) fn full_reader(&self) -> Option<&Client> {
        self.reader.as_ref().filter(|client| client.token().is_access())
    }

    /// A client for stopping a pipeline, which still works when the run's deadline has passed.
    ///
    /// # Errors
    /// Denied (exit 4) when no token at hand may cancel.
    pub(crate) fn canceller(&self) -> Result<Client> {
        let client = self.full_reader().ok_or_else(|| {
            Failure::denied("a job token or trigger token may not cancel a pipeline")
                .hint("set TOWPATH_GITLAB_TOKEN to an access token with the scope `api`")
        })?;
        client.until(Deadline::after(GRACE))
    }
}

/// Starter and reader out of what is there. Unless one is chosen, the strongest token starts: the access token, else the
/// trigger token, else the job token. The access token reads, else the job token does.
fn choose(
    access: Option<Secret>,
    trigger: Option<Secret>,
    job: Option<Secret>,
    start_by: Option<Kind>,
) -> Result<(Token, Option<Token>)> {
    let access = access.map(Token::Access);
    let trigger = trigger.map(Token::Trigger);
    let job = job.map(Token::Job);
    let reader = access.clone().or(job.clone());
    let (starter, missing) = match start_by {
        None => (access.or(trigger).or(job), "there is no token for GitLab"),
        Some(Kind::Access) => (access, "there is no access token to start by"),
        Some(Kind::Trigger) => (trigger, "there is no trigger token to start by"),
        Some(Kind::Job) => (job, "there is no job token to start by"),
    };
    let starter = starter.ok_or_else(|| {
        Failure::usage(missing).hint(
            "set TOWPATH_GITLAB_TOKEN (access token), TOWPATH_TRIGGER_TOKEN or, in a job, CI_JOB_TOKEN; or pass \
             --token-file; compare --start-by (TOWPATH_START_BY)",
        )
    })?;
    Ok((starter, reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_token_is_taken_unless_another_is_chosen() {
        let some = |name: &str| Some(Secret::new(name));
        let chosen = |access, trigger, job, start_by| {
            choose(access, trigger, job, start_by)
                .map(|(starter, reader)| (starter.kind(), reader.map(|token| token.kind())))
                .ok()
        };
        let kinds = |access, trigger, job| chosen(access, trigger, job, None);
        assert_eq!(
            kinds(some("a"), some("t"), some("j")),
            Some(("access token", Some("access token")))
        );
        assert_eq!(
            kinds(None, some("t"), some("j")),
            Some(("trigger token", Some("job token")))
        );
        assert_eq!(
            kinds(None, None, some("j")),
            Some(("job token", Some("job token")))
        );
        assert_eq!(kinds(None, some("t"), None), Some(("trigger token", None)));
        assert_eq!(kinds(None, None, None), None);
        assert_eq!(
            chosen(some("a"), some("t"), some("j"), Some(Kind::Job)),
            Some(("job token", Some("access token")))
        );
        assert_eq!(
            chosen(some("a"), some("t"), None, Some(Kind::Trigger)),
            Some(("trigger token", Some("access token")))
        );
        assert_eq!(chosen(some("a"), None, None, Some(Kind::Job)), None);
    }
}
