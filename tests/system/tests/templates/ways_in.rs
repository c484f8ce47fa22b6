//! The ways to include: by project, as a component, from an address, and from a copy in one's own repository.

use std::process::Stdio;

use serde_norway::Value as Yaml;
use tokio::process::Command;
use towpath_sandbox::gitlab::{PipelineRequest, ProjectSettings, Status};
use towpath_sandbox::tools::{Progress, Tools};

use crate::gitlab_world::{World, logs};
use crate::platform::{TAG, TEMPLATES, files_below, platform};

/// Every template with what it has to be given. Names differ where two templates would make the same job.
const ALL: [(&str, &str); 11] = [
    (
        "image",
        "vault_addr: https://vault.example.com, vault_role: image, vault_secret: a/b, registry_login: r.example, staging_repository: r.example/s, production_repository: r.example/p, env_project: shop/env, build_platform: linux/arm64, build_args: 'A=1,B=x/y', on_manual_jobs: 'approve=wait', run_on: branch, credentials: of-chain, build_job: build-image, rules: [{if: '$CI_COMMIT_MESSAGE =~ /skip/', when: never}]",
    ),
    (
        "env",
        "path: apps/**/prod, image: web, application: 'argocd/web,argocd/api', on_failure: rollback, wait_job: wait, infra_project: shop/infra, image_digest: 'sha256:1111111111111111111111111111111111111111111111111111111111111111', image_tag: '1.10', merge_request: true, bump_job: bump, protected_only: false",
    ),
    (
        "infra",
        "run_on: both, apply: on_success, smoke_script: a/b.sh, parallelism: 3, protected_only: false",
    ),
    ("rollback", "path: apps/web, image: web"),
    (
        "vault-scw-creds",
        "vault_addr: 'https://v.example:8200', vault_role: r, vault_secret: a/b/c, registry_login: 'a.example,b.example'",
    ),
    (
        "image-build",
        "job: build, repository: r.example/s, platform: linux/arm64, run_on: branch, push: after-gates, layout: one",
    ),
    (
        "image-push",
        "job: push, repository: r.example/s, run_on: branch, needs: [build, build-image], layouts: 'one,two'",
    ),
    (
        "image-promote-by-digest",
        "job: promote, target_repository: r.example/p, run_on: branch, build_job: push",
    ),
    (
        "env-trigger",
        "job: trigger, project: shop/env, run_on: branch, needs_job: promote, wait: false",
    ),
    ("kustomize-bump", "path: apps/web, image: web, job: bump-one"),
    (
        "argocd-wait",
        "application: web, image: web, job: wait-one, needs_job: bump-one, on_failure: rollback, merge_request: true, healthy_within: 90s, image_digest: 'sha256:1111111111111111111111111111111111111111111111111111111111111111', protected_only: false",
    ),
];

const WAYS: [&str; 4] = ["project", "component", "remote", "local"];

/// One entry of `include` for a template.
fn entry(world: &World, way: &str, name: &str, inputs: &str) -> String {
    let at = match way {
        "project" => format!("project: {TEMPLATES}, ref: {TAG}, file: /ci-templates/{name}.yml"),
        "component" => format!("component: \"$CI_SERVER_FQDN/{TEMPLATES}/{name}@{TAG}\""),
        "remote" => format!(
            "remote: \"{}/{TEMPLATES}/-/raw/{TAG}/templates/{name}/template.yml\"",
            world.gitlab.url()
        ),
        _ => format!("local: /templates/{name}/template.yml"),
    };
    format!("  - {{{at}, inputs: {{{inputs}}}}}\n")
}

#[tokio::test]
async fn each_way_gives_the_same_jobs() {
    let world = platform(&[], |_| {}).await;
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let copies = files_below("templates");
    let copies: Vec<(&str, &str)> = copies
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    world
        .project_with("group/app", ProjectSettings::default(), &copies)
        .await;
    let clone = world.clone_of("group/app", "main").await;
    let mut seen: Option<Yaml> = None;
    for way in WAYS {
        let entries = ALL.iter().map(|(name, inputs)| entry(&world, way, name, inputs));
        let config = format!("include:\n{}", entries.collect::<String>());
        std::fs::write(clone.join(".gitlab-ci.yml"), &config).unwrap();
        let own = std::env::var_os("PATH").unwrap();
        let path = [
            tools.bin_dir().to_owned(),
            tools.node.parent().unwrap().to_owned(),
        ];
        let path = std::env::join_paths(path.into_iter().chain(std::env::split_paths(&own))).unwrap();
        let output = Command::new(&tools.gitlab_ci_local)
            .args([
                "--preview",
                "--no-json-schema-validation",
                "--state-dir",
                &format!(".state-{way}"),
            ])
            .args([
                "--variable",
                &format!(
                    "CI_SERVER_FQDN={}",
                    world.gitlab.url().trim_start_matches("http://")
                ),
            ])
            .env_clear()
            .env("PATH", path)
            .env("HOME", world.folder())
            .env("GIT_TERMINAL_PROMPT", "0")
            .current_dir(&clone)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{way}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let at = text.find("---\n").unwrap_or(0);
        let jobs: Yaml =
            serde_norway::from_str(&text[at..]).unwrap_or_else(|error| panic!("{way}: {error}: {text}"));
        assert!(jobs.as_mapping().unwrap().len() > 15, "{way}: {text}");
        match &seen {
            None => seen = Some(jobs),
            Some(first) => {
                for (name, job) in first.as_mapping().unwrap() {
                    assert_eq!(jobs.get(name.as_str().unwrap()), Some(job), "{way}: {name:?}");
                }
                assert_eq!(&jobs, first, "{way} differs from {}", WAYS[0]);
            }
        }
    }
}

/// A wrong input is refused when the pipeline is made, whichever way the template came in.
#[tokio::test]
async fn each_way_runs_and_refuses_wrong_inputs() {
    let world = platform(&[], |_| {}).await;
    let copies = files_below("templates/rollback");
    for way in WAYS {
        let project = format!("group/by-{way}");
        let id = world.project(&project, ProjectSettings::default()).await;
        let include = |image: &str| {
            let inputs = format!("path: apps/web, image: {image}");
            format!("include:\n{}", entry(&world, way, "rollback", &inputs))
        };
        let good = include("web");
        let mut files: Vec<(&str, &str)> = vec![(".gitlab-ci.yml", &good)];
        files.extend(copies.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        world.push(&project, "main", &files, &["-o", "ci.skip"]).await;
        let run = || {
            world
                .gitlab
                .run_pipeline(id, world.maintainer, "main", PipelineRequest::default())
        };
        let pipeline = run().await.unwrap_or_else(|error| panic!("{way}: {error}"));
        let pipeline = world.gitlab.pipeline(pipeline).unwrap();
        let job = pipeline
            .job("rollback")
            .unwrap_or_else(|| panic!("{way}: {}", logs(&pipeline)));
        assert_eq!(job.status, Status::Manual, "{way}");
        let bad = include("'web$(id)'");
        world
            .push(&project, "main", &[(".gitlab-ci.yml", &bad)], &["-o", "ci.skip"])
            .await;
        let refused = run().await.expect_err(way).to_string();
        assert!(
            refused.contains("`image` input: provided value does not match required RegEx pattern"),
            "{way}: {refused}"
        );
    }
}
