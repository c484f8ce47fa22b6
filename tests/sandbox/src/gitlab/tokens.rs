//! Tokens and what each kind of them may do.
//!
//! Kept from GitLab: personal and project access tokens carry scopes and act as their user; a job token acts as the
//! job's user, lives while the job runs, is looked at by some routes alone, and reaches another project only when
//! that project's allowlist holds the job's project; a trigger token starts pipelines of one project and nothing
//! else. A private project that the caller may not see does not exist for it (404). Which routes look at job tokens
//! depends on the release (`version`).
//!
//! Not modelled: expiry, deploy tokens and keys, fine-grained job token permissions, group tokens.

use std::fmt;
use std::io::Read as _;

use anyhow::Context as _;

use super::settings::{Role, Scope, Visibility};
use super::state::{Project, State};

/// What a token stands for.
#[derive(Clone, Debug)]
pub(super) enum Token {
    /// A personal or project access token; a project's token belongs to its bot user.
    Access { user: u64, scopes: Vec<Scope> },
    /// Valid while the job runs.
    Job { job: u64 },
    /// Starts pipelines of one project as its owner.
    Trigger { project: u64, owner: u64 },
}

/// The credentials of one request.
#[derive(Clone)]
pub(super) enum Caller {
    /// No token, or a job token at a route that does not look at job tokens.
    Anonymous,
    User {
        user: u64,
        scopes: Vec<Scope>,
    },
    Job {
        job: u64,
        project: u64,
        user: u64,
    },
}

impl Caller {
    pub(super) fn user(&self) -> Option<u64> {
        match self {
            Caller::Anonymous => None,
            Caller::User { user, .. } | Caller::Job { user, .. } => Some(*user),
        }
    }

    pub(super) fn has_scope(&self, wanted: &[Scope]) -> bool {
        match self {
            Caller::User { scopes, .. } => wanted.iter().any(|scope| scopes.contains(scope)),
            Caller::Anonymous | Caller::Job { .. } => true,
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({:?})", self.user())
    }
}

impl State {
    /// Makes a token valid.
    pub(super) fn issue(&mut self, text: &str, token: Token) {
        let what = match token {
            Token::Access { .. } => "a GitLab access token",
            Token::Job { .. } => "a job token",
            Token::Trigger { .. } => "a trigger token",
        };
        self.issued.push((what, text.to_owned()));
        self.tokens.insert(text.to_owned(), token);
    }

    /// Who holds this token; `None` for an unknown token, a trigger token, or a job token whose job does not run.
    pub(super) fn caller(&self, token: &str) -> Option<Caller> {
        match self.tokens.get(token)? {
            Token::Access { user, scopes } => Some(Caller::User {
                user: *user,
                scopes: scopes.clone(),
            }),
            Token::Job { job } => {
                let job = self.jobs.get(job).filter(|job| job.runs())?;
                Some(Caller::Job {
                    job: job.id,
                    project: job.project,
                    user: job.user,
                })
            }
            Token::Trigger { .. } => None,
        }
    }

    /// Whether the project exists for this caller.
    pub(super) fn can_read(&self, caller: &Caller, project: &Project) -> bool {
        if project.settings.visibility == Visibility::Public {
            return true;
        }
        let Some(user) = caller.user() else { return false };
        if !self.job_token_reaches(caller, project) {
            return false;
        }
        project.settings.visibility == Visibility::Internal || project.role(user).is_some()
    }

    /// Whether the inbound allowlist lets a job token in; true for every other caller.
    pub(super) fn job_token_reaches(&self, caller: &Caller, project: &Project) -> bool {
        match caller {
            Caller::Job { project: own, .. } => {
                *own == project.id || project.job_token_allowlist.contains(own)
            }
            _ => true,
        }
    }

    /// Whether the caller's role in the project is at least this one.
    pub(super) fn has_role(&self, caller: &Caller, project: &Project, role: Role) -> bool {
        let public = project.settings.visibility == Visibility::Public && role <= Role::Reporter;
        public
            || caller
                .user()
                .and_then(|user| project.role(user))
                .is_some_and(|held| held >= role)
    }

    /// Whether this user may push to, merge into and run pipelines on a ref.
    pub(super) fn may_change_ref(&self, user: u64, project: &Project, ref_name: &str, tag: bool) -> bool {
        let needed = if project.is_protected(ref_name, tag) {
            project.settings.protected_push_role
        } else {
            Role::Developer
        };
        project.role(user).is_some_and(|held| held >= needed)
    }
}

/// A new random token with one of GitLab's prefixes.
///
/// # Errors
/// When the machine's random source cannot be read.
pub(super) fn random_token(prefix: &str) -> anyhow::Result<String> {
    let mut bytes = [0u8; 20];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}{hex}"))
}
