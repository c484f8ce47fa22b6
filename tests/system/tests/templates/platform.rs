//! A GitLab with the templates in a project of their own, as a platform team publishes them.

use std::path::{Path, PathBuf};

use serde_json::json;
use towpath_sandbox::gitlab::{
    CiVariable, JobSnapshot, PipelineSnapshot, ProjectSettings, Settings, Visibility,
};
use towpath_sandbox::tools::{Progress, Tools};
use towpath_sandbox::towpath_binaries;

use crate::gitlab_world::{LIMIT, World};

pub(crate) const TEMPLATES: &str = "platform/towpath";
pub(crate) const TAG: &str = "v0.1.0";

pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The files below a folder of this checkout, by their paths in it.
pub(crate) fn files_below(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![checkout().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(checkout())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// A world whose jobs find Towpath's binaries, and `programs` first; with the templates published.
pub(crate) async fn platform(programs: &[&Path], change: impl FnOnce(&mut Settings)) -> World {
    let bin = towpath_binaries::build().unwrap();
    let world = World::with(|settings| {
        let own = std::env::split_paths(&settings.path).collect::<Vec<_>>();
        let given = programs
            .iter()
            .map(|program| program.parent().unwrap().to_owned());
        settings.path = std::env::join_paths(given.chain([bin]).chain(own)).unwrap();
        // No job of these tests shows its id_token to anyone.
        settings.id_tokens = Some(std::sync::Arc::new(|_| "a.b.c".to_owned()));
        settings
            .environment
            .push(("CHECKPOINT_DISABLE".into(), "1".into()));
        change(settings);
    })
    .await;
    let public = ProjectSettings {
        visibility: Visibility::Public,
        ..ProjectSettings::default()
    };
    let published = [files_below("ci-templates"), files_below("templates")].concat();
    let published: Vec<(&str, &str)> = published
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    world.project_with(TEMPLATES, public, &published).await;
    let clone = world.clone_of(TEMPLATES, "main").await;
    world.git(&clone, &["tag", TAG]).await.unwrap();
    world
        .git(&clone, &["push", "--quiet", "origin", TAG])
        .await
        .unwrap();
    world
}

/// OpenTofu or Terraform.
pub(crate) async fn tofu() -> PathBuf {
    let (_, tofu) = Tools::find_or_install_with_tofu(&Progress::silent())
        .await
        .unwrap();
    tofu
}

/// Presses a manual job as a person does, with variables.
pub(crate) async fn press(world: &World, project: u64, job: &JobSnapshot, variables: &[(&str, &str)]) -> u16 {
    let given: Vec<_> = variables
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    let path = format!("/projects/{project}/jobs/{}/play", job.id);
    let (status, _) = world
        .post(&path, json!({"job_variables_attributes": given}))
        .await;
    status.as_u16()
}

/// The pipeline once it has moved on from where it was left.
pub(crate) async fn ended(world: &World, id: u64) -> PipelineSnapshot {
    let fits = |found: &PipelineSnapshot| found.id == id && found.status.is_finished();
    let project = world.gitlab.pipeline(id).unwrap().project;
    world
        .gitlab
        .wait_for_pipeline(&project, fits, LIMIT)
        .await
        .unwrap()
}

pub(crate) fn variable(key: &str, value: &str) -> CiVariable {
    CiVariable::new(key, value)
}

/// A program of a script's text; answers its path.
pub(crate) fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}
