//! The stand-in against what GitLab documents: the fields of its answers, what each kind of token may do in each release,
//! and how a pipeline's status follows its jobs'.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod access;
mod described;
#[path = "../gitlab_world/mod.rs"]
mod gitlab_world;
mod statuses;

use gitlab_world::World;
use towpath_sandbox::gitlab::{PipelineRequest, PlannedJob, ProjectSettings, Settings};

/// A configuration that nobody runs.
const CONFIG: &str = "job: {script: ['true']}\n";

/// A world with a project `group/env` whose pipelines have these jobs.
async fn directed(jobs: Vec<PlannedJob>, change: impl FnOnce(&mut Settings)) -> (World, u64) {
    let world = World::with(change).await;
    let settings = ProjectSettings {
        protected_branches: Vec::new(),
        ..ProjectSettings::default()
    };
    let id = world
        .project_with("group/env", settings, &[(".gitlab-ci.yml", CONFIG)])
        .await;
    world.gitlab.direct(id, jobs).unwrap();
    (world, id)
}

/// Starts a pipeline as the maintainer.
async fn start(world: &World, project: u64) -> u64 {
    let request = PipelineRequest::default();
    world
        .gitlab
        .run_pipeline(project, world.maintainer, "main", request)
        .await
        .unwrap()
}
