//! Making pipelines: from a ref and a request to jobs that wait for the runner.
//!
//! The refusals are GitLab's and in its order: the ref, the user's permission, the rate limit, the configuration
//! file, inputs, what the configuration says. A push with a broken configuration leaves a failed pipeline with
//! `yaml_errors`; a request gets the error as its answer and no pipeline. The limit of pipelines a minute is one of these
//! errors, and answered like the others: 400 with its sentence, not 429.
//!
//! Not modelled: merge request pipelines, schedules, cancelling of redundant pipelines.

use std::path::Path;
use std::sync::Arc;

use super::config::{self, Config};
use super::directed;
use super::hub::{Hub, Shared, UnderWay};
use super::includes;
use super::inputs;
use super::job_spec::JobSpec;
use super::repository::{Commit, RefProblem, ResolvedRef};
use super::scheduler;
use super::settings::{CiVariable, PipelineRequest, Role, Scope};
use super::state::{Job, Pipeline, Project, Source, Status, User, now};
use super::tokens::{Token, random_token};
use super::variables::{self, Variables};
use super::workspace;

/// A pipeline that is asked for.
pub(super) struct Draft {
    pub(super) project: u64,
    pub(super) ref_name: String,
    pub(super) user: u64,
    pub(super) source: Source,
    pub(super) request: PipelineRequest,
    /// Where the branch stood before a push.
    pub(super) before_sha: Option<String>,
    /// The commit of a push; other pipelines take the ref as it is.
    pub(super) sha: Option<String>,
    pub(super) source_job: Option<u64>,
}

/// Why there is no pipeline.
#[derive(Debug)]
pub(super) enum Refused {
    /// An error of the pipeline as a whole: `{"message":{"base":[...]}}`.
    Base(String),
    /// An error of the configuration, shaped likewise.
    Config(String),
}

impl Refused {
    pub(super) fn reason(&self) -> &str {
        match self {
            Refused::Base(reason) | Refused::Config(reason) => reason,
        }
    }
}

/// Makes a pipeline and starts its first jobs.
pub(super) async fn create(hub: &Shared, draft: Draft) -> Result<u64, Refused> {
    let _under_way = UnderWay::new(hub);
    let (project, user) = {
        let state = hub.state();
        let project = state.projects.get(&draft.project).cloned();
        let user = state.users.get(&draft.user).cloned();
        project
            .zip(user)
            .ok_or_else(|| Refused::Base("Reference not found".into()))?
    };
    let repository = hub.repository(&project);
    let at = repository.resolve(&draft.ref_name).await;
    let at = match (at, &draft.sha) {
        (Ok(at), Some(sha)) => ResolvedRef {
            sha: sha.clone(),
            ..at
        },
        (Ok(at), None) => at,
        (Err(RefProblem::Ambiguous), _) => return Err(Refused::Base("Ref is ambiguous".into())),
        (Err(RefProblem::NotFound), _) => return Err(Refused::Base("Reference not found".into())),
    };
    check_permission(hub, &project, &draft, &at)?;
    count(hub, &draft, &at)?;
    let commit = repository
        .commit(&at.sha)
        .await
        .ok_or_else(|| Refused::Base("Commit not found".into()))?;
    let content = repository.file(&at.sha, &project.settings.ci_config_path).await;
    let content = content.ok_or_else(|| Refused::Base("Missing CI config file".into()))?;
    let content = String::from_utf8_lossy(&content).into_owned();

    let plan = hub.state().plans.get(&draft.project).cloned();
    let (id, iid) = {
        let mut state = hub.state();
        let id = state.next_id("pipeline");
        let project = state
            .projects
            .get_mut(&draft.project)
            .expect("projects are never removed");
        project.last_pipeline_iid += 1;
        (id, project.last_pipeline_iid)
    };
    let mut pipeline = Pipeline {
        id,
        iid,
        project: project.id,
        sha: at.sha,
        before_sha: draft.before_sha,
        ref_name: at.name,
        tag: at.tag,
        source: draft.source,
        user: user.id,
        variables: draft.request.variables,
        stages: Vec::new(),
        name: None,
        directed: plan.is_some(),
        source_job: draft.source_job,
        status: Status::Created,
        yaml_errors: None,
        created_at: now(),
        updated_at: now(),
        started_at: None,
        finished_at: None,
    };
    let read = match inputs::with_inputs(&content, &draft.request.inputs) {
        Ok(content) => {
            pipeline.name = inputs::workflow_name(&content);
            match &plan {
                Some(jobs) => Ok((directed::config(jobs), Variables::default())),
                None => configure(hub, &pipeline, &project, &user, &commit, &content).await,
            }
        }
        Err(errors) => Err(anyhow::anyhow!("{}", errors.join(", "))),
    };
    match read {
        Ok((config, variables)) => {
            insert(hub, pipeline, config, &variables);
            scheduler::advance(hub, id);
            Ok(id)
        }
        Err(error) => {
            let reason = format!("{error:#}");
            let by_rules = ["Pipeline filtered out", "The resulting pipeline would"];
            if draft.source == Source::Push && !by_rules.iter().any(|start| reason.starts_with(start)) {
                pipeline.status = Status::Failed;
                pipeline.yaml_errors = Some(reason.clone());
                pipeline.finished_at = Some(now());
                hub.state().pipelines.insert(id, pipeline);
                hub.changed();
            }
            Err(Refused::Config(reason))
        }
    }
}

fn check_permission(hub: &Hub, project: &Project, draft: &Draft, at: &ResolvedRef) -> Result<(), Refused> {
    let role = project.role(draft.user);
    if role.is_none_or(|role| role < Role::Developer) {
        return Err(Refused::Base(
            "Insufficient permissions to create a new pipeline".into(),
        ));
    }
    if !hub.state().may_change_ref(draft.user, project, &at.name, at.tag) {
        return Err(Refused::Base(format!(
            "You do not have sufficient permission to run a pipeline on '{}'. Please select a different branch or contact your administrator for assistance.",
            at.name
        )));
    }
    let allowed = project.settings.pipeline_variables_role;
    let given = draft
        .request
        .variables
        .iter()
        .any(|variable| variable.key != PAYLOAD);
    if given && allowed.is_none_or(|needed| role < Some(needed)) {
        return Err(Refused::Base(
            "Insufficient permissions to set pipeline variables".into(),
        ));
    }
    Ok(())
}

/// The file variable that holds what a trigger was sent.
pub(super) const PAYLOAD: &str = "TRIGGER_PAYLOAD";

fn count(hub: &Hub, draft: &Draft, at: &ResolvedRef) -> Result<(), Refused> {
    if draft.source == Source::ParentPipeline {
        return Ok(());
    }
    let limits = &hub.settings.limits;
    let what = format!("pipelines:{}:{}:{}", draft.project, draft.user, at.sha);
    hub.state()
        .count_event(what, limits.pipelines_per_minute, limits.minute)
        .map(drop)
        .map_err(|_| Refused::Base("Too many pipelines created in the last minute. Try again later.".into()))
}

/// Expands the configuration in a clone of its own, with the user's right to read what it includes.
async fn configure(
    hub: &Hub,
    pipeline: &Pipeline,
    project: &Project,
    user: &User,
    commit: &Commit,
    content: &str,
) -> anyhow::Result<(Config, Variables)> {
    let folder = hub.pipeline_folder(pipeline.id).join("config");
    let token = random_token("glpat-")?;
    let access = Token::Access {
        user: user.id,
        scopes: vec![Scope::ReadRepository],
    };
    hub.state().issue(&token, access);
    let result = expand(hub, pipeline, project, user, commit, content, &folder, &token).await;
    hub.state().tokens.remove(&token);
    // Another run of this pipeline never looks here again; a folder that stays is removed with the world.
    let _ = tokio::fs::remove_dir_all(&folder).await;
    result
}

#[expect(
    clippy::too_many_arguments,
    reason = "the tail of `configure`, apart so that the token is always taken back"
)]
async fn expand(
    hub: &Hub,
    pipeline: &Pipeline,
    project: &Project,
    user: &User,
    commit: &Commit,
    content: &str,
    folder: &Path,
    token: &str,
) -> anyhow::Result<(Config, Variables)> {
    let clone = folder.join("clone");
    workspace::check_out(hub, project, &pipeline.sha, &clone).await?;
    // gitlab-ci-local compares with the default branch on origin; GitLab, after a push, with what was pushed over,
    // and takes every `changes` as true where there is nothing to compare with.
    if let Some(before) = &pipeline.before_sha {
        let default = format!("refs/remotes/origin/{}", project.settings.default_branch);
        workspace::git(hub, &clone, &["update-ref", &default, before]).await?;
    }
    let git_config = workspace::write_git_config(hub, folder, &user.username, token).await?;
    tokio::fs::write(folder.join("pipeline.yml"), content).await?;
    let mut variables = Variables::default();
    variables.predefine(variables::of_pipeline(hub, pipeline, project, user, commit));
    let protected = project.is_protected(&pipeline.ref_name, pipeline.tag);
    for level in [
        &hub.settings.variables,
        &project.settings.variables,
        &pipeline.variables,
    ] {
        variables.add(variables::for_job(level, protected, None));
    }
    let source = config::Source {
        clone: &clone,
        file: "pipeline.yml",
        variables: &variables,
        git_config: &git_config,
        evaluate_changes: pipeline.before_sha.is_some(),
    };
    includes::provide(hub, user.id, &clone, &folder.join("state"), content).await;
    let config = config::read(hub, &source).await?;
    Ok((config, variables))
}

fn insert(hub: &Hub, mut pipeline: Pipeline, config: Config, variables: &Variables) {
    let mut state = hub.state();
    pipeline.stages = config.stages;
    let mut specs = config.jobs;
    // Ids follow the stages, as in GitLab, whatever the order in the file.
    let stages = pipeline.stages.clone();
    specs.sort_by_key(|spec| stages.iter().position(|stage| *stage == spec.stage));
    for spec in specs {
        let environment = spec.environment.as_ref();
        let environment = environment.map(|at| variables.expand(&at.name, &spec.yaml_values));
        let id = state.next_id("job");
        let job = new_job(id, &pipeline, Arc::new(spec), pipeline.user, environment);
        state.jobs.insert(id, job);
    }
    state.pipelines.insert(pipeline.id, pipeline);
    drop(state);
    hub.changed();
}

/// A job that nothing has happened to.
pub(super) fn new_job(
    id: u64,
    pipeline: &Pipeline,
    spec: Arc<JobSpec>,
    user: u64,
    environment: Option<String>,
) -> Job {
    Job {
        id,
        pipeline: pipeline.id,
        project: pipeline.project,
        spec,
        user,
        status: Status::Created,
        retried: false,
        attempt: 0,
        created_at: now(),
        queued_at: None,
        started_at: None,
        finished_at: None,
        failure_reason: None,
        exit_code: None,
        trace: Vec::new(),
        process_group: None,
        cancel_requested: false,
        variables: Vec::new(),
        artifacts: None,
        dotenv: Vec::new(),
        environment,
        downstream: None,
    }
}

/// Variables of a request's map of strings.
pub(super) fn plain_variables(values: impl IntoIterator<Item = (String, String)>) -> Vec<CiVariable> {
    values
        .into_iter()
        .map(|(key, value)| CiVariable::new(key, value))
        .collect()
}
