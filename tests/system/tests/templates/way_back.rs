//! `argocd-wait.yml` with `on_failure: rollback` where the change goes through a merge request: so does the way back.

use serde_json::{Value, json};
use towpath_sandbox::gitlab::{PipelineRequest, PipelineSnapshot, ProjectSettings, Status};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::scripted::{Scripted, lines, ok};
use towpath_sandbox::servers::{Registry, http_client};
use towpath_sandbox::tools::{Progress, Tools};

use crate::gitlab_world::{LIMIT, World, logs};
use crate::platform::{TAG, TEMPLATES, checkout, files_below, platform, variable};
use crate::rollback::image;

const PROJECT: &str = "shop/env";
const OVERLAY: &str = "apps/web/overlays/production";
const HOLD: &str = ".towpath/holds/apps/web/overlays/production/web.json";

/// The pipeline of an environment whose changes go through merge requests: it sets an image, and waits for it if that is
/// asked for. `check` is what merge requests wait for.
fn pipeline(waits: bool, check: &str) -> String {
    let example = checkout().join("ci-templates/examples/env/.gitlab-ci.yml");
    let example = std::fs::read_to_string(example).unwrap();
    let (header, _) = example.split_once("\n---\n").unwrap();
    let include = |name: &str, inputs: &[&str]| {
        let inputs: String = inputs.iter().map(|input| format!("      {input}\n")).collect();
        format!(
            "  - project: {TEMPLATES}\n    ref: {TAG}\n    file: /ci-templates/{name}.yml\n    inputs:\n      path: {OVERLAY}\n      \
             image: web\n      merge_request: true\n      image_digest: \"$[[ inputs.image_digest ]]\"\n{inputs}"
        )
    };
    let bump = include(
        "kustomize-bump",
        &[
            "image_repository: \"$[[ inputs.image_repository ]]\"",
            "image_tag: \"$[[ inputs.image_tag ]]\"",
        ],
    );
    let wait = include(
        "argocd-wait",
        &["application: web-prod", "on_failure: rollback", "via: argocd"],
    );
    let wait = if waits { wait } else { String::new() };
    format!(
        "{header}\n---\ninclude:\n{bump}{wait}check:\n  stage: deploy\n  tags: [towpath-deploy]\n  script:\n    - {check}\n"
    )
}

/// An Argo CD that can compare nothing.
async fn broken_argocd() -> Scripted {
    let argocd = Scripted::start().await.unwrap();
    let recorded = checkout().join("bins/argocd-wait/tests/recorded/broken-1.json");
    let state: Value = serde_json::from_slice(&std::fs::read(recorded).unwrap()).unwrap();
    let look = "GET /api/v1/applications/web-prod";
    argocd
        .on(look, [ok(&state)])
        .on(&format!("{look}?refresh=normal"), [ok(&state)])
        .on(
            "GET /api/v1/stream/applications?name=web-prod",
            [lines([
                json!({"result": {"type": "MODIFIED", "application": state}}),
            ])],
        );
    argocd
}

/// An environment at its second image, which Argo CD makes nothing of.
struct Failed {
    world: World,
    pipeline: PipelineSnapshot,
    digests: [String; 2],
    _others: (Guardian, Registry, Scripted),
}

async fn failed(check: &str) -> Failed {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let registry = Registry::start(&guardian, &tools, "production", &[])
        .await
        .unwrap();
    let argocd = broken_argocd().await;
    let world = platform(&[], |_| {}).await;
    let settings = ProjectSettings {
        variables: vec![
            variable("TOWPATH_GIT_TOKEN", &world.token),
            variable("ARGOCD_SERVER", &argocd.url),
            variable("ARGOCD_AUTH_TOKEN", "a-token-of-this-test"),
        ],
        ..ProjectSettings::default()
    };
    let examples = files_below("ci-templates/examples/env/apps");
    let sets = pipeline(false, "\"true\"");
    let mut files: Vec<(&str, &str)> = vec![(".gitlab-ci.yml", &sets)];
    files.extend(examples.iter().map(|(name, text)| {
        let name = name.strip_prefix("ci-templates/examples/env/").unwrap();
        (name, text.as_str())
    }));
    let project = world.project_with(PROJECT, settings, &files).await;
    let http = http_client().unwrap();
    let mut digests = Vec::new();
    let mut last = None;
    for (number, waits) in [(1, false), (2, true)] {
        if waits {
            let config = pipeline(true, check);
            let options = ["-o", "ci.skip"];
            world
                .push(PROJECT, "main", &[(".gitlab-ci.yml", &config)], &options)
                .await;
        }
        let digest = image(&http, registry.host(), number).await;
        let inputs = json!({
            "image_repository": format!("{}/shop/web", registry.host()),
            "image_tag": format!("1.{number}.0"),
            "image_digest": digest,
        });
        let request = PipelineRequest {
            inputs: inputs.as_object().unwrap().clone().into_iter().collect(),
            ..PipelineRequest::default()
        };
        let id = world
            .gitlab
            .run_pipeline(project, world.maintainer, "main", request)
            .await
            .unwrap();
        let ended = world.gitlab.wait_until_finished(id, LIMIT * 2).await.unwrap();
        let expected = if waits { Status::Failed } else { Status::Success };
        assert_eq!(ended.status, expected, "{}", logs(&ended));
        digests.push(digest);
        last = Some(ended);
    }
    Failed {
        world,
        pipeline: last.unwrap(),
        digests: digests.try_into().unwrap(),
        _others: (guardian, registry, argocd),
    }
}

impl Failed {
    /// The kustomization as it is on the branch, and whether its image is held.
    async fn now(&self) -> (String, bool) {
        let clone = self.world.clone_of(PROJECT, "main").await;
        let text = std::fs::read_to_string(clone.join(OVERLAY).join("kustomization.yaml")).unwrap();
        (text, clone.join(HOLD).exists())
    }

    /// The merge request of the way back.
    async fn request(&self) -> Value {
        let path = format!("/projects/{}/merge_requests", PROJECT.replace('/', "%2F"));
        let (_, requests) = self.world.get(&path).await;
        let is_back = |request: &&Value| {
            let branch = request["source_branch"].as_str().unwrap_or_default();
            branch.contains("/rollback-web-")
        };
        let found = requests.as_array().and_then(|all| all.iter().find(is_back));
        found
            .cloned()
            .unwrap_or_else(|| panic!("{requests}: {}", logs(&self.pipeline)))
    }
}

#[tokio::test]
async fn what_came_by_a_merge_request_goes_back_by_one() {
    let failed = failed("\"true\"").await;
    let wait = failed.pipeline.job("argocd-wait").unwrap();
    assert_eq!(wait.exit_code, Some(8), "{}", wait.trace);
    assert!(wait.trace.contains("ComparisonError"), "{}", wait.trace);
    let (text, is_held) = failed.now().await;
    assert!(
        text.contains(&format!("digest: {}", failed.digests[0])),
        "{text}\n{}",
        wait.trace
    );
    assert!(is_held, "{}", wait.trace);
    assert_eq!(failed.request().await["state"], "merged", "{}", wait.trace);
}

#[tokio::test]
async fn a_way_back_that_is_not_merged_is_told() {
    // What merge requests wait for fails on that of the way back.
    let check = "case \"$CI_COMMIT_BRANCH\" in */rollback-*) exit 1;; esac";
    let failed = failed(&format!("'{check}'")).await;
    let wait = failed.pipeline.job("argocd-wait").unwrap();
    assert_eq!(wait.exit_code, Some(8), "{}", wait.trace);
    let request = failed.request().await;
    assert_eq!(request["state"], "opened", "{}", wait.trace);
    let address = request["web_url"].as_str().unwrap();
    assert!(wait.trace.contains(address), "{address} is not in {}", wait.trace);
    let (text, is_held) = failed.now().await;
    assert!(text.contains(&format!("digest: {}", failed.digests[1])), "{text}");
    assert!(!is_held);
}
