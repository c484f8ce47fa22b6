//! The repository that a command works on: a snapshot of a remote branch, or a folder.

use towpath::cli::{Run, secret_variable};
use towpath::failure::{Failure, Result};
use towpath::git::{
    Access, Checkout, Credentials, Decision, Files, History, Identity, Location, NewCommit, Remote, Snapshot,
};
use towpath::secret::Secret;

use crate::args::{PlaceArgs, WriteArgs};

/// The user name that GitLab wants with a job token.
pub(crate) const JOB_TOKEN_USER: &str = "gitlab-ci-token";

/// Where to read and write.
#[derive(Debug)]
pub(crate) enum Source {
    /// The tip of a remote branch.
    Remote {
        /// What is there.
        snapshot: Box<Snapshot>,
        /// Whether the job's own token opens it.
        by_job_token: bool,
    },
    /// A folder.
    Checkout(Checkout),
}

/// What became of a decision.
#[derive(Debug)]
pub(crate) struct Written<T> {
    /// The commit that was made.
    pub(crate) commit: Option<String>,
    /// What came with the decision.
    pub(crate) outcome: T,
    /// How many times it had to be decided.
    pub(crate) attempts: u32,
}

/// What a decision may read.
pub(crate) enum Tree<'source> {
    /// The tip of a remote branch.
    Snapshot(&'source mut Snapshot),
    /// A folder.
    Checkout(&'source Checkout),
}

impl Source {
    /// Opens what the arguments name.
    pub(crate) async fn open(place: &PlaceArgs, run: &Run) -> Result<Self> {
        let own_project = place
            .project_url
            .as_ref()
            .map(|url| format!("{}.git", url.trim_end_matches('/')));
        let (address, branch) = match (&place.checkout, &place.repo, &own_project) {
            (Some(folder), _, _) => return Ok(Source::Checkout(Checkout::open(folder, run.deadline).await?)),
            (None, Some(repo), _) => (repo, place.branch.as_deref()),
            // Only the job's own project has the default branch that the job knows.
            (None, None, Some(own)) => (own, place.branch.as_deref().or(place.default_branch.as_deref())),
            (None, None, None) => {
                return Ok(Source::Checkout(
                    Checkout::open(std::path::Path::new("."), run.deadline).await?,
                ));
            }
        };
        let location = Location::parse("--repo (TOWPATH_REPO)", address)?;
        let (credentials, by_job_token) = credentials(place, &location)?;
        let access = Access {
            credentials,
            ca_file: place.ca_file.clone(),
            plain_http: place.plain_http,
        };
        let remote = Remote::new(location, access)?;
        let effect = towpath::cli::effect("read", remote.location().to_string());
        let snapshot = Snapshot::open(remote, branch, run.deadline).await?;
        effect.done(&format!("{} at {}", snapshot.branch(), snapshot.tip()));
        Ok(Source::Remote {
            snapshot: Box::new(snapshot),
            by_job_token,
        })
    }

    /// A path as it was given, from the root of the repository.
    pub(crate) fn path_from_root(&self, path: &str) -> String {
        match self {
            Source::Remote { .. } => path.to_owned(),
            Source::Checkout(checkout) => checkout.path_from_root(path),
        }
    }

    /// The repository's address or folder, for the report.
    pub(crate) fn repository(&self) -> String {
        match self {
            Source::Remote { snapshot, .. } => snapshot.remote().location().to_string(),
            Source::Checkout(checkout) => checkout.root().display().to_string(),
        }
    }

    /// The branch that is written to.
    pub(crate) fn branch(&self) -> Option<String> {
        match self {
            Source::Remote { snapshot, .. } => Some(snapshot.branch().to_owned()),
            Source::Checkout(_) => None,
        }
    }

    /// What a decision reads from.
    pub(crate) fn tree(&mut self) -> Tree<'_> {
        match self {
            Source::Remote { snapshot, .. } => Tree::Snapshot(snapshot),
            Source::Checkout(checkout) => Tree::Checkout(checkout),
        }
    }

    /// Decides and writes: pushed to a branch, as often as it takes; or into the files of a checkout.
    pub(crate) async fn write<T>(
        &mut self,
        commit: bool,
        mut decide: impl AsyncFnMut(Tree<'_>) -> Result<Decision<T>>,
    ) -> Result<Written<T>> {
        match self {
            Source::Remote {
                snapshot,
                by_job_token,
            } => {
                let mut told = !*by_job_token;
                let landed = snapshot
                    .land(async |snapshot| {
                        let decision = decide(Tree::Snapshot(snapshot)).await?;
                        if decision.commit.is_some() && !std::mem::replace(&mut told, true) {
                            towpath::cli::note(
                                "pushing with CI_JOB_TOKEN: GitLab starts no pipeline for this commit; \
                                 set TOWPATH_GIT_TOKEN if one has to run",
                            );
                        }
                        Ok(decision)
                    })
                    .await?;
                Ok(Written {
                    commit: landed.commit,
                    outcome: landed.outcome,
                    attempts: landed.attempts,
                })
            }
            Source::Checkout(checkout) => {
                let decision = decide(Tree::Checkout(checkout)).await?;
                let mut id = None;
                if let Some(new) = &decision.commit {
                    write_files(checkout, new)?;
                    if commit {
                        id = checkout.commit(new).await?;
                    }
                }
                Ok(Written {
                    commit: id,
                    outcome: decision.outcome,
                    attempts: 1,
                })
            }
        }
    }
}

fn write_files(checkout: &Checkout, commit: &NewCommit) -> Result<()> {
    let names: Vec<&str> = commit.changes.iter().map(|change| change.path.as_str()).collect();
    let effect = towpath::cli::effect("write", names.join(" "));
    checkout.write(commit)?;
    effect.done("done");
    Ok(())
}

impl Tree<'_> {
    /// The contents of those of `paths` that are there.
    pub(crate) async fn read(&self, paths: &[String]) -> Result<Files> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.read(paths).await,
            Tree::Checkout(checkout) => checkout.read(paths),
        }
    }

    /// The files in a folder, with those below it.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.list(folder).await,
            Tree::Checkout(checkout) => checkout.list(folder),
        }
    }

    /// The commits that changed a file, as far as they are here.
    pub(crate) async fn history(&self, path: &str) -> Result<History> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.history(path).await,
            Tree::Checkout(checkout) => checkout.history(path).await,
        }
    }

    /// The commits that are here, newest first.
    pub(crate) async fn commits(&self) -> Result<Vec<String>> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.commits().await,
            Tree::Checkout(checkout) => checkout.commits().await,
        }
    }

    /// What a file held after a commit that is here; none where it was not there.
    pub(crate) async fn content_at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.content_at(commit, path).await,
            Tree::Checkout(checkout) => checkout.content_at(commit, path).await,
        }
    }

    /// Fetches more history; false when there is no more to be had.
    pub(crate) async fn deepen(&mut self) -> Result<bool> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.deepen().await,
            Tree::Checkout(_) => Ok(false),
        }
    }
}

/// The token for HTTP, and whether it is the job's own.
fn credentials(place: &PlaceArgs, location: &Location) -> Result<(Option<Credentials>, bool)> {
    let Location::Http(url) = location else {
        return Ok((None, false));
    };
    if let Some(token) = git_token(place)? {
        return Ok((Some(Credentials::new(&place.git_user, token)?), false));
    }
    // The job's token is for the job's own GitLab: another host must not even be offered it.
    let own = [&place.server_url, &place.project_url]
        .into_iter()
        .flatten()
        .filter_map(|own| towpath::http::Url::parse(own).ok())
        .any(|own| own.origin() == url.origin());
    match secret_variable("CI_JOB_TOKEN")? {
        Some(token) if own => Ok((Some(Credentials::new(JOB_TOKEN_USER, token)?), true)),
        _ => Ok((None, false)),
    }
}

/// Who commits: given, else the person behind the job, else whom git knows.
pub(crate) async fn identity(write: &WriteArgs, source: &Source, run: &Run) -> Result<Identity> {
    let name = write.author.as_ref().or(write.gitlab_user_name.as_ref());
    let email = write.author_email.as_ref().or(write.gitlab_user_email.as_ref());
    if let (Some(name), Some(email)) = (name, email) {
        return Identity::new(name, email);
    }
    let folder = match source {
        Source::Checkout(checkout) => checkout.root(),
        Source::Remote { snapshot, .. } => snapshot.folder(),
    };
    let configured = Identity::configured(folder, run.deadline).await?;
    let missing = || {
        Failure::usage("nobody is named as the author of the commit")
            .hint("pass --author and --author-email (TOWPATH_GIT_AUTHOR, TOWPATH_GIT_AUTHOR_EMAIL)")
    };
    match (name, email, configured) {
        (None, None, configured) => configured.ok_or_else(missing),
        (name, email, Some(configured)) => Identity::new(
            name.map_or(configured.name(), String::as_str),
            email.map_or(configured.email(), String::as_str),
        ),
        _ => Err(missing()),
    }
}

/// The token that was given for the repository.
pub(crate) fn git_token(place: &PlaceArgs) -> Result<Option<Secret>> {
    match &place.token_file {
        Some(path) => Secret::from_file(path, "git token").map(Some),
        None => secret_variable("TOWPATH_GIT_TOKEN"),
    }
}

/// Who it is when nothing is committed.
pub(crate) fn nobody() -> Result<Identity> {
    Identity::new("nobody", "nobody@localhost")
}

/// Who commits, where we do. Files that are edited in a checkout for somebody else to commit need no name.
pub(crate) async fn committer(write: &WriteArgs, source: &Source, run: &Run) -> Result<Identity> {
    match source {
        Source::Checkout(_) if !write.commit => nobody(),
        _ => identity(write, source, run).await,
    }
}
