//! A stand-in for GitLab that runs pipelines for real.
//!
//! Projects are bare git repositories behind real `git http-backend`. A pipeline runs the repository's
//! `.gitlab-ci.yml`: gitlab-ci-local expands it and runs each job's script in a fresh clone, with the variables,
//! job token, id_tokens, artifacts and dotenv variables that a job gets from GitLab. The REST API (version 4) shows
//! and changes what there is.
//!
//! Kept from GitLab's documentation, each part saying more in its own file: what each kind of token may do and the
//! answers to what it may not (`tokens`, `api`); pushes, protected branches, `ci.skip` (`pushes`); creation of
//! pipelines with its refusals (`pipelines`), inputs of pipelines and includes (`inputs`, `includes`); stages,
//! `needs`, `when`, retries, `resource_group`, manual jobs and cancelling (`scheduler`); precedence of variables
//! (`variables`); dotenv grammar (`dotenv`); masking (`trace`); the commits API's optimistic lock (`api/commits`);
//! merge requests with auto-merge (`merge_requests`); deployments, protected environments; state of OpenTofu and Terraform
//! (`api/terraform`); rate limits ([`Limits`]); what differs between
//! releases ([`Version`]). A push's pipelines come a moment after the push was accepted, as there. Pipelines whose jobs a
//! test moves (`directed`) and trouble on the way (`trouble`) are for tests of what is hard to bring about.
//!
//! Not modelled, besides what those parts name: groups, members and settings as API objects, SSH, LFS, the package
//! and container registries, when schedules are due, coverage, test reports, job images (every job runs on the
//! machine itself), the GraphQL API, web pages.

mod api;
mod config;
mod deployments;
mod directed;
mod dotenv;
mod downstream;
mod git_http;
mod hub;
mod id_tokens;
mod includes;
mod inputs;
mod job_run;
mod job_spec;
mod merge_requests;
mod pipelines;
mod pushes;
mod repository;
mod runner;
mod scheduler;
mod settings;
mod snapshot;
mod state;
mod tokens;
mod trace;
mod trouble;
mod variables;
mod version;
mod workspace;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::directed::PlannedJob;
pub use self::settings::{
    CiVariable, CommandHook, IdTokenSigner, Limits, PipelineRequest, ProjectSettings, Role, Scope, Settings,
    Version, Visibility,
};
pub use self::snapshot::{JobSnapshot, PipelineSnapshot};
pub use self::state::{Source, Status};
pub use self::trouble::{Asked, Trouble};

use self::hub::Shared;
use self::pipelines::Draft;
use self::state::{Project, User, now};
use self::tokens::{Token, random_token};

/// A running stand-in. Dropping it stops it and kills the jobs that run.
pub struct GitLab {
    hub: Shared,
    server: JoinHandle<()>,
}

impl GitLab {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When no port, no git or no writable folder can be had.
    pub async fn start(settings: Settings) -> anyhow::Result<GitLab> {
        // The client of webhooks needs a provider even for plain HTTP; another part may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let git = git_http::find_git(&settings.path)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("no free loopback port")?;
        let port = listener.local_addr()?.port();
        let hub = hub::Hub::new(settings, port, git);
        std::fs::create_dir_all(hub.home()).context("cannot make the GitLab stand-in's folder")?;
        pushes::install_hooks(&hub.hooks_folder())?;
        let router = api::router(Arc::clone(&hub));
        let server = tokio::spawn(async move {
            // Serving ends only with the task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(GitLab { hub, server })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.hub.url
    }

    /// `CI_API_V4_URL`.
    pub fn api_url(&self) -> String {
        self.hub.api_url()
    }

    /// Where a project is cloned from; credentials are not part of it.
    pub fn clone_url(&self, path: &str) -> String {
        format!("{}/{path}.git", self.hub.url)
    }

    /// Adds a person and returns their id.
    pub fn add_user(&self, username: &str) -> u64 {
        self.insert_user(username, username, false)
    }

    fn insert_user(&self, username: &str, name: &str, bot: bool) -> u64 {
        let mut state = self.hub.state();
        let id = state.next_id("user");
        let email = format!("{username}@users.noreply.gitlab.test");
        let user = User {
            id,
            username: username.to_owned(),
            name: name.to_owned(),
            email,
            bot,
        };
        state.users.insert(id, user);
        id
    }

    /// Makes a project with an empty repository at a full path such as `group/sub/name`, and returns its id.
    ///
    /// # Errors
    /// When the path is taken or no path, or when git fails.
    pub async fn create_project(&self, path: &str, settings: ProjectSettings) -> anyhow::Result<u64> {
        let good = |part: &str| {
            let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            !part.is_empty() && part.bytes().all(named) && !part.starts_with('.') && !part.ends_with(".git")
        };
        ensure!(
            path.contains('/') && path.split('/').all(good),
            "{path} is no path of a project"
        );
        let project = {
            let mut state = self.hub.state();
            ensure!(
                state.project_by(path).is_none(),
                "project {path} is already there"
            );
            let id = state.next_id("project");
            Project {
                id,
                path: path.to_owned(),
                settings,
                members: Default::default(),
                job_token_allowlist: Default::default(),
                created_at: now(),
                last_pipeline_iid: 0,
                last_merge_request_iid: 0,
                last_deployment_iid: 0,
            }
        };
        let repository = self.hub.repository(&project);
        repository
            .create(&project.settings.default_branch, &self.hub.hooks_folder())
            .await?;
        let id = project.id;
        self.hub.state().projects.insert(id, project);
        Ok(id)
    }

    /// Changes a project's settings.
    ///
    /// # Errors
    /// When there is no such project.
    pub fn configure(&self, project: u64, change: impl FnOnce(&mut ProjectSettings)) -> anyhow::Result<()> {
        self.with_project(project, |project| change(&mut project.settings))
    }

    fn with_project<T>(&self, project: u64, act: impl FnOnce(&mut Project) -> T) -> anyhow::Result<T> {
        let mut state = self.hub.state();
        let found = state
            .projects
            .get_mut(&project)
            .with_context(|| format!("there is no project {project}"))?;
        Ok(act(found))
    }

    /// Makes a person a member of a project.
    ///
    /// # Errors
    /// When there is no such project.
    pub fn add_member(&self, project: u64, user: u64, role: Role) -> anyhow::Result<()> {
        self.with_project(project, |project| {
            project.members.insert(user, role);
        })
    }

    /// Lets jobs of `source` use their tokens on `target`.
    ///
    /// # Errors
    /// When there is no such project.
    pub fn allow_job_tokens(&self, target: u64, source: u64) -> anyhow::Result<()> {
        self.with_project(target, |project| {
            project.job_token_allowlist.insert(source);
        })
    }

    /// A personal access token of a user.
    ///
    /// # Errors
    /// When there is no such user, or no random number can be had.
    pub fn personal_access_token(&self, user: u64, scopes: &[Scope]) -> anyhow::Result<String> {
        if !self.hub.state().users.contains_key(&user) {
            bail!("there is no user {user}");
        }
        self.insert_token(
            "glpat-",
            Token::Access {
                user,
                scopes: scopes.to_vec(),
            },
        )
    }

    /// A project access token: its bot user is a member of that project alone.
    ///
    /// # Errors
    /// When there is no such project, or no random number can be had.
    pub fn project_access_token(&self, project: u64, role: Role, scopes: &[Scope]) -> anyhow::Result<String> {
        let name = format!(
            "project_{project}_bot_{}",
            random_token("")?.get(..12).unwrap_or_default()
        );
        let bot = self.insert_user(&name, "project token", true);
        self.add_member(project, bot, role)?;
        self.insert_token(
            "glpat-",
            Token::Access {
                user: bot,
                scopes: scopes.to_vec(),
            },
        )
    }

    /// A trigger token of a project; its pipelines run as `owner`.
    ///
    /// # Errors
    /// When no random number can be had.
    pub fn trigger_token(&self, project: u64, owner: u64) -> anyhow::Result<String> {
        self.insert_token("glptt-", Token::Trigger { project, owner })
    }

    fn insert_token(&self, prefix: &str, token: Token) -> anyhow::Result<String> {
        let text = random_token(prefix)?;
        self.hub.state().issue(&text, token);
        Ok(text)
    }

    /// Every token this instance ever gave out, with what it is: access, trigger and job tokens, and id_tokens. Those
    /// that are no longer valid are among them, for a search of logs and files.
    pub fn issued_tokens(&self) -> Vec<(&'static str, String)> {
        self.hub.state().issued.clone()
    }

    /// Posts GitLab's push events of every project to this URL from now on.
    pub fn add_push_hook(&self, url: &str) {
        self.hub.state().push_hooks.push(url.to_owned());
    }

    /// Starts a pipeline as a user would, and returns its id.
    ///
    /// # Errors
    /// GitLab's reason for not starting it.
    pub async fn run_pipeline(
        &self,
        project: u64,
        user: u64,
        ref_name: &str,
        request: PipelineRequest,
    ) -> anyhow::Result<u64> {
        self.draft(project, user, ref_name, Source::Api, request).await
    }

    async fn draft(
        &self,
        project: u64,
        user: u64,
        ref_name: &str,
        source: Source,
        request: PipelineRequest,
    ) -> anyhow::Result<u64> {
        let draft = Draft {
            project,
            ref_name: ref_name.to_owned(),
            user,
            source,
            request,
            before_sha: None,
            sha: None,
            source_job: None,
        };
        pipelines::create(&self.hub, draft)
            .await
            .map_err(|refused| anyhow::anyhow!("{}", refused.reason()))
    }

    /// Starts a pipeline as a schedule does that belongs to this user, and returns its id. When schedules are due is
    /// for the caller to say.
    ///
    /// # Errors
    /// GitLab's reason for not starting it.
    pub async fn run_schedule(&self, project: u64, owner: u64, ref_name: &str) -> anyhow::Result<u64> {
        self.draft(
            project,
            owner,
            ref_name,
            Source::Schedule,
            PipelineRequest::default(),
        )
        .await
    }

    /// A state that OpenTofu or Terraform keeps with a project, as it was last written.
    pub fn terraform_state(&self, project: u64, name: &str) -> Option<Vec<u8>> {
        let key = (project, name.to_owned());
        self.hub.state().terraform_states.get(&key)?.content.clone()
    }

    /// The bare repository of a project.
    ///
    /// # Errors
    /// When there is no such project.
    pub fn repository(&self, project: u64) -> anyhow::Result<PathBuf> {
        let project = self.with_project(project, |project| project.clone())?;
        Ok(self.hub.repository(&project).path)
    }

    /// Kills the jobs that run and stops answering. Nothing is left but the folder.
    pub async fn shutdown(mut self) {
        scheduler::stop(&self.hub);
        self.server.abort();
        // The task ends by being cancelled.
        let _ = (&mut self.server).await;
    }
}

impl Drop for GitLab {
    fn drop(&mut self) {
        scheduler::stop(&self.hub);
        self.server.abort();
    }
}
