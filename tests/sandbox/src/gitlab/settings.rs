//! What a caller decides about the stand-in and about each project in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

pub use super::version::Version;

/// Makes the command for a program, so that the caller can have every child watched over.
pub type CommandHook = Arc<dyn Fn(&Path) -> Command + Send + Sync>;

/// Signs the claims of one id_token and returns the compact JWT.
pub type IdTokenSigner = Arc<dyn Fn(&Value) -> String + Send + Sync>;

/// How one stand-in runs: its folder, its tools, and what every job of every project gets.
#[derive(Clone)]
pub struct Settings {
    /// Folder for repositories, clones and artifacts; created when absent, owned by this stand-in alone.
    pub folder: PathBuf,
    /// The `gitlab-ci-local` program that expands pipelines and runs jobs.
    pub gitlab_ci_local: PathBuf,
    /// `PATH` of git, gitlab-ci-local and the jobs: must hold git, node, bash and rsync.
    pub path: OsString,
    /// Environment given to every process besides `PATH`, `HOME` and `LANG`, as a machine's runner would.
    pub environment: Vec<(OsString, OsString)>,
    /// Instance-level CI/CD variables: every job of every project gets them.
    pub variables: Vec<CiVariable>,
    /// Makes the command for each child process.
    pub command: CommandHook,
    /// Signer of id_tokens; without one a job that asks for an id_token fails.
    pub id_tokens: Option<IdTokenSigner>,
    /// The key set served at `/oauth/discovery/keys`, for those who verify id_tokens.
    pub jwks: Option<Value>,
    /// `iss` of id_tokens; the stand-in's own URL when absent.
    pub issuer: Option<String>,
    /// Host of the container registry (`CI_REGISTRY`); without one jobs get no `CI_REGISTRY*` variables.
    pub registry: Option<String>,
    /// Request limits.
    pub limits: Limits,
    /// How many jobs run at once, over all projects.
    pub concurrent_jobs: usize,
    /// Time between TERM and KILL for a job that is cancelled.
    pub cancel_grace: Duration,
    /// `CI_JOB_TIMEOUT` of a job that sets no `timeout`.
    pub job_timeout: Duration,
    /// The release to be.
    pub version: Version,
}

impl Settings {
    /// Settings with GitLab's usual defaults, plain child processes and no limits a test would meet by accident.
    pub fn new(
        folder: impl Into<PathBuf>,
        gitlab_ci_local: impl Into<PathBuf>,
        path: impl Into<OsString>,
    ) -> Self {
        Settings {
            folder: folder.into(),
            gitlab_ci_local: gitlab_ci_local.into(),
            path: path.into(),
            environment: Vec::new(),
            variables: Vec::new(),
            command: Arc::new(|program| Command::new(program)),
            id_tokens: None,
            jwks: None,
            issuer: None,
            registry: None,
            limits: Limits::default(),
            concurrent_jobs: 4,
            cancel_grace: Duration::from_secs(2),
            job_timeout: Duration::from_secs(3600),
            version: Version::V19_2,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Request limits, as GitLab's "Rate limits" administration pages describe them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Pipeline creations a minute for one project, user and commit; GitLab.com allows 25. Child pipelines do not count.
    pub pipelines_per_minute: usize,
    /// API requests a minute for one user (or for everyone without a token); `None` is unlimited.
    pub requests_per_minute: Option<usize>,
    /// Lists of a project's jobs a minute for one user.
    pub job_lists_per_minute: usize,
    /// What stands for the minute, so that a test need not wait for one.
    pub minute: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            pipelines_per_minute: 25,
            requests_per_minute: None,
            job_lists_per_minute: 600,
            minute: Duration::from_secs(60),
        }
    }
}

/// A member's role; the order is GitLab's order of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Access level 10.
    Guest = 10,
    /// Access level 20: reads code.
    Reporter = 20,
    /// Access level 30: pushes to unprotected branches, runs pipelines.
    Developer = 30,
    /// Access level 40: pushes to protected branches.
    Maintainer = 40,
    /// Access level 50.
    Owner = 50,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Guest => "guest",
            Role::Reporter => "reporter",
            Role::Developer => "developer",
            Role::Maintainer => "maintainer",
            Role::Owner => "owner",
        }
    }
}

/// What an access token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The whole API, and git.
    Api,
    /// Reading the API.
    ReadApi,
    /// `GET /user` alone.
    ReadUser,
    /// Fetching over HTTP and the repository files API.
    ReadRepository,
    /// Fetching and pushing over HTTP; no API.
    WriteRepository,
}

/// Who may see a project without being a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Members alone; for everyone else the project does not exist (404).
    #[default]
    Private,
    /// Everyone signed in.
    Internal,
    /// Everyone.
    Public,
}

impl Visibility {
    pub(super) fn name(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::Internal => "internal",
            Visibility::Public => "public",
        }
    }
}

/// Settings of one project.
#[derive(Clone, Debug)]
pub struct ProjectSettings {
    /// Who may see it without being a member.
    pub visibility: Visibility,
    /// The default branch; the stand-in does not make its first commit.
    pub default_branch: String,
    /// Patterns (`*` matches anything) of branches that refuse force pushes and hold protected variables.
    pub protected_branches: Vec<String>,
    /// Patterns of protected tags.
    pub protected_tags: Vec<String>,
    /// The role that may push to, merge into and run pipelines on protected refs.
    pub protected_push_role: Role,
    /// Patterns of protected environments, each with the role that may deploy to it (Premium and Ultimate).
    pub protected_environments: Vec<(String, Role)>,
    /// "Allow Git push requests to the repository" for job tokens of this project (18.4).
    pub job_token_may_push: bool,
    /// The same for job tokens of allowlisted projects (19.1).
    pub job_token_may_push_from_others: bool,
    /// The lowest role that may set pipeline variables; `None` is "no one allowed", the default of new namespaces.
    pub pipeline_variables_role: Option<Role>,
    /// Path of the CI/CD configuration in the repository.
    pub ci_config_path: String,
    /// CI/CD variables of the project.
    pub variables: Vec<CiVariable>,
}

impl Default for ProjectSettings {
    fn default() -> Self {
        ProjectSettings {
            visibility: Visibility::Private,
            default_branch: "main".into(),
            protected_branches: vec!["main".into()],
            protected_tags: Vec::new(),
            protected_push_role: Role::Maintainer,
            protected_environments: Vec::new(),
            job_token_may_push: false,
            job_token_may_push_from_others: false,
            pipeline_variables_role: Some(Role::Developer),
            ci_config_path: ".gitlab-ci.yml".into(),
            variables: Vec::new(),
        }
    }
}

/// One CI/CD variable of the instance, a project or a pipeline.
#[derive(Clone, PartialEq, Eq)]
pub struct CiVariable {
    /// Its name: letters, digits and `_`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Replaced by `[MASKED]` in job logs.
    pub masked: bool,
    /// Given to jobs on protected branches and tags alone.
    pub protected: bool,
    /// The job gets the path of a file that holds the value.
    pub file: bool,
    /// `$` in the value is not expanded.
    pub raw: bool,
    /// Environments it is for; `*` matches anything.
    pub environment_scope: String,
}

impl CiVariable {
    /// A plain variable for every job.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        CiVariable {
            key: key.into(),
            value: value.into(),
            masked: false,
            protected: false,
            file: false,
            raw: false,
            environment_scope: "*".into(),
        }
    }

    /// A masked variable whose `$` are not expanded: a secret.
    pub fn masked(key: impl Into<String>, value: impl Into<String>) -> Self {
        CiVariable {
            masked: true,
            raw: true,
            ..CiVariable::new(key, value)
        }
    }

    /// The same variable for protected branches and tags alone.
    pub fn protected(self) -> Self {
        CiVariable {
            protected: true,
            ..self
        }
    }

    /// The same variable as a file-type variable.
    pub fn file(self) -> Self {
        CiVariable {
            file: true,
            raw: true,
            ..self
        }
    }
}

impl fmt::Debug for CiVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CiVariable")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// How a pipeline is asked for; the optional parts of the creating endpoints.
#[derive(Clone, Debug, Default)]
pub struct PipelineRequest {
    /// Pipeline variables.
    pub variables: Vec<CiVariable>,
    /// Pipeline inputs by name.
    pub inputs: BTreeMap<String, Value>,
}

/// Whether a name matches a pattern in which `*` stands for any characters, as in protected branches.
pub(super) fn wildcard_match(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_protected_branches_do() {
        assert!(wildcard_match("main", "main"));
        assert!(!wildcard_match("main", "main2"));
        assert!(wildcard_match("release/*", "release/1.0"));
        assert!(wildcard_match("*-stable", "1-stable"));
        assert!(wildcard_match("*", ""));
        assert!(wildcard_match("a*b*c", "aXbYc"));
        assert!(!wildcard_match("a*b*c", "aXcYb"));
    }

    #[test]
    fn a_variable_does_not_print_its_value() {
        assert!(!format!("{:?}", CiVariable::masked("KEY", "s3cret-value")).contains("s3cret"));
    }
}
