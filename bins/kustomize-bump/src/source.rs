//! The repository that a command works on: a snapshot of a remote branch, a branch over GitLab's API, or a folder.

use towpath::cli::{Run, secret_variable};
use towpath::failure::{Failure, Kind, Result};
use towpath::git::{
    Access, Checkout, Credentials, Decision, Files, History, Identity, Landed, Location, NewCommit, Remote,
    Snapshot,
};
use towpath::gitlab::{self, Project, Token};
use towpath::http::{PlainHttp, Settings};
use towpath::secret::Secret;

use crate::args::{PlaceArgs, WriteArgs};
use crate::place::{Held, Via, Way};

/// How long GitLab may go on turning requests away by its rate limit.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
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
    /// A branch over GitLab's API.
    Api(Box<gitlab::Branch>),
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
    /// A branch over GitLab's API.
    Api(&'source mut gitlab::Branch),
    /// A folder.
    Checkout(&'source Checkout),
}

impl Source {
    /// Opens what the arguments name.
    pub(crate) async fn open(place: &PlaceArgs, run: &Run) -> Result<Self> {
        Self::open_via(place, place.via, run).await
    }

    /// The same without GitLab's API.
    pub(crate) async fn open_offline(place: &PlaceArgs, run: &Run) -> Result<Self> {
        Self::open_via(place, place.via_offline()?, run).await
    }

    async fn open_via(place: &PlaceArgs, via: Via, run: &Run) -> Result<Self> {
        let access = match &place.checkout {
            Some(_) => None,
            None => access_token(place)?,
        };
        let held = match &access {
            Some(_) => Held::Access,
            None if secret_variable("CI_JOB_TOKEN")?.is_some() => Held::Job,
            None => Held::Nothing,
        };
        match (place.way(via, held)?, access) {
            (Way::Checkout(folder), _) => Ok(Source::Checkout(Checkout::open(&folder, run.deadline).await?)),
            (Way::Git(address), access) => Self::by_git(place, &address, access, run).await,
            (Way::Api(project), Some(token)) => Self::by_api(place, &project, token, run).await,
            (Way::ApiElseGit(project, address), Some(token)) => {
                match (Self::by_api(place, &project, token.clone(), run).await, address) {
                    (Err(failure), Some(address)) if failure.kind() == Kind::Denied => {
                        towpath::cli::note(&format!("going by git, since {failure}"));
                        Self::by_git(place, &address, Some(token), run).await
                    }
                    (opened, _) => opened,
                }
            }
            (Way::Api(_) | Way::ApiElseGit(..), None) => {
                Err(Failure::internal("the API was chosen without a token"))
            }
        }
    }

    async fn by_git(place: &PlaceArgs, address: &str, access: Option<Secret>, run: &Run) -> Result<Self> {
        let flag = if place.project.is_some() {
            "--project (TOWPATH_PROJECT)"
        } else {
            "--repo (TOWPATH_REPO)"
        };
        let location = Location::parse(flag, address)?;
        let (credentials, by_job_token) = credentials(place, &location, access)?;
        let access = Access {
            credentials,
            ca_file: place.ca_file.clone(),
            plain_http: place.plain_http,
        };
        let remote = Remote::new(location, access)?;
        let effect = towpath::cli::effect("read", remote.location().to_string());
        let snapshot = Snapshot::open(remote, place.branch_to_open(), run.deadline).await?;
        effect.done(&format!("{} at {}", snapshot.branch(), snapshot.tip()));
        Ok(Source::Remote {
            snapshot: Box::new(snapshot),
            by_job_token,
        })
    }

    async fn by_api(place: &PlaceArgs, project: &Project, token: Secret, run: &Run) -> Result<Self> {
        let mut settings = Settings::new("gitlab");
        settings.ca_file.clone_from(&place.ca_file);
        settings.patience = Some(PATIENCE);
        if place.plain_http {
            settings.plain_http = PlainHttp::Allowed;
        }
        let client = gitlab::Client::new(settings, place.api()?, Token::Access(token), run.deadline)?;
        let effect = towpath::cli::effect("read", format!("{project} over GitLab's API"));
        let opened = gitlab::Branch::open(client, project.clone(), place.branch_to_open()).await;
        match opened {
            Ok(branch) => {
                effect.done(&format!("{} at {}", branch.branch(), branch.tip()));
                Ok(Source::Api(Box::new(branch)))
            }
            Err(failure) => {
                effect.done("refused");
                Err(failure)
            }
        }
    }

    /// How it is reached, for the report.
    pub(crate) fn via(&self) -> &'static str {
        match self {
            Source::Remote { .. } => "git",
            Source::Api(_) => "api",
            Source::Checkout(_) => "checkout",
        }
    }

    /// A path as it was given, from the root of the repository.
    pub(crate) fn path_from_root(&self, path: &str) -> String {
        match self {
            Source::Remote { .. } | Source::Api(_) => path.to_owned(),
            Source::Checkout(checkout) => checkout.path_from_root(path),
        }
    }

    /// The repository's address or folder, for the report.
    pub(crate) fn repository(&self) -> String {
        match self {
            Source::Remote { snapshot, .. } => snapshot.remote().location().to_string(),
            Source::Api(branch) => branch.repository(),
            Source::Checkout(checkout) => checkout.root().display().to_string(),
        }
    }

    /// The commit at the tip of the branch, as it was seen last; none in a checkout.
    pub(crate) fn tip(&self) -> Option<String> {
        match self {
            Source::Remote { snapshot, .. } => Some(snapshot.tip().to_owned()),
            Source::Api(branch) => Some(branch.tip().to_owned()),
            Source::Checkout(_) => None,
        }
    }

    /// The branch that is written to.
    pub(crate) fn branch(&self) -> Option<String> {
        match self {
            Source::Remote { snapshot, .. } => Some(snapshot.branch().to_owned()),
            Source::Api(branch) => Some(branch.branch().to_owned()),
            Source::Checkout(_) => None,
        }
    }

    /// What a decision reads from.
    pub(crate) fn tree(&mut self) -> Tree<'_> {
        match self {
            Source::Remote { snapshot, .. } => Tree::Snapshot(snapshot),
            Source::Api(branch) => Tree::Api(branch),
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
                Ok(landed.into())
            }
            Source::Api(branch) => {
                let landed = branch
                    .land(async |branch| decide(Tree::Api(branch)).await)
                    .await?;
                Ok(landed.into())
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

impl<T> From<Landed<T>> for Written<T> {
    fn from(landed: Landed<T>) -> Self {
        Written {
            commit: landed.commit,
            outcome: landed.outcome,
            attempts: landed.attempts,
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
            Tree::Api(branch) => branch.read(paths).await,
            Tree::Checkout(checkout) => checkout.read(paths),
        }
    }

    /// The files in a folder, with those below it.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.list(folder).await,
            Tree::Api(branch) => branch.list(folder).await,
            Tree::Checkout(checkout) => checkout.list(folder),
        }
    }

    /// The commits that changed a file, as far as they are here, without those that were taken back at once.
    pub(crate) async fn history(&self, path: &str) -> Result<History> {
        let mut history = match self {
            Tree::Snapshot(snapshot) => snapshot.history(path).await,
            Tree::Api(branch) => branch.history(path).await,
            Tree::Checkout(checkout) => checkout.history(path).await,
        }?;
        history.leave_out_taken_back();
        Ok(history)
    }

    /// The commits whose names begin like this, as far as they are here.
    pub(crate) async fn commits(&self, prefix: &str) -> Result<Vec<String>> {
        let mut commits = match self {
            Tree::Snapshot(snapshot) => snapshot.commits().await?,
            Tree::Api(branch) => return Ok(branch.commit(prefix).await?.into_iter().collect()),
            Tree::Checkout(checkout) => checkout.commits().await?,
        };
        commits.retain(|commit| commit.starts_with(prefix));
        Ok(commits)
    }

    /// What a file held after a commit that is here; none where it was not there.
    pub(crate) async fn content_at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.content_at(commit, path).await,
            Tree::Api(branch) => branch.content_at(commit, path).await,
            Tree::Checkout(checkout) => checkout.content_at(commit, path).await,
        }
    }

    /// Fetches more history; false when there is no more to be had.
    pub(crate) async fn deepen(&mut self) -> Result<bool> {
        match self {
            Tree::Snapshot(snapshot) => snapshot.deepen().await,
            Tree::Api(branch) => branch.deepen().await,
            Tree::Checkout(_) => Ok(false),
        }
    }
}

/// The access token that was given.
pub(crate) fn access_token(place: &PlaceArgs) -> Result<Option<Secret>> {
    if let Some(path) = &place.token_file {
        return Secret::from_file(path, "git token").map(Some);
    }
    match secret_variable("TOWPATH_GIT_TOKEN")? {
        None if place.project.is_some() => secret_variable("TOWPATH_GITLAB_TOKEN"),
        token => Ok(token),
    }
}

/// The token for git over HTTP, and whether it is the job's own.
fn credentials(
    place: &PlaceArgs,
    location: &Location,
    access: Option<Secret>,
) -> Result<(Option<Credentials>, bool)> {
    let Location::Http(url) = location else {
        return Ok((None, false));
    };
    if let Some(token) = access {
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
    let configured = match source {
        Source::Checkout(checkout) => Identity::configured(checkout.root(), run.deadline).await?,
        Source::Remote { snapshot, .. } => Identity::configured(snapshot.folder(), run.deadline).await?,
        // There need not be a git here; GitLab knows who the token is.
        Source::Api(branch) => Some(branch.identity().await?),
    };
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
