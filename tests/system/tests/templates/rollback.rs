//! `rollback.yml`: the button, pressed in the pipeline of a delivery, with a digest chosen and without.

use std::path::{Path, PathBuf};

use reqwest::{Client, header};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use towpath_sandbox::gitlab::{PipelineRequest, ProjectSettings, Status};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, http_client};
use towpath_sandbox::tools::{Progress, Tools};

use crate::gitlab_world::{LIMIT, World, logs};
use crate::platform::{TAG, TEMPLATES, checkout, ended, platform, press};

const OVERLAY: &str = "apps/web/overlays/production";

/// The commits of the button are signed with the key in this file.
fn pipeline(key: &Path) -> String {
    let example =
        std::fs::read_to_string(checkout().join("ci-templates/examples/env/.gitlab-ci.yml")).unwrap();
    let (header, _) = example.split_once("\n---\n").unwrap();
    let handed_over = ["image_repository", "image_tag", "image_digest"];
    let handed_over = handed_over
        .map(|name| format!("      {name}: \"$[[ inputs.{name} ]]\"\n"))
        .concat();
    let include = |name: &str, inputs: &str| {
        format!(
            "  - project: {TEMPLATES}\n    ref: {TAG}\n    file: /ci-templates/{name}.yml\n    inputs:\n      path: {OVERLAY}\n      image: web\n{inputs}"
        )
    };
    format!(
        "{header}\n---\ninclude:\n{}{}",
        include("kustomize-bump", &handed_over),
        include(
            "rollback",
            &format!(
                "      to: \"$[[ inputs.rollback_to ]]\"\n      signing_key: {}\n",
                key.display()
            )
        )
    )
}

/// An SSH key without a passphrase, and beside it who may sign with it: anybody.
async fn ssh_key(guardian: &Guardian) -> PathBuf {
    let key = guardian.dir().join("key");
    let made = guardian
        .command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&key)
        .status()
        .await
        .unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    std::fs::write(key.with_extension("allowed"), format!("* {public}")).unwrap();
    key
}

/// An image without content, of its own by its number; answers its digest.
pub(crate) async fn image(http: &Client, host: &str, number: u8) -> String {
    let digest = |bytes: &[u8]| {
        let hash = Sha256::digest(bytes);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    };
    let blob = b"{}";
    let start = format!("http://{host}/v2/shop/web/blobs/uploads/");
    let started = http.post(start).send().await.unwrap();
    let location = started.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let target = format!("{location}&digest={}", digest(blob));
    let stored = http.put(target).body(&blob[..]).send().await.unwrap();
    assert_eq!(stored.status(), 201);
    let part = |kind: &str| json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()});
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": part("application/vnd.oci.image.config.v1+json"),
        "layers": [part("application/vnd.oci.image.layer.v1.tar")],
        "annotations": {"number": number.to_string()},
    })
    .to_string();
    let name = digest(manifest.as_bytes());
    let target = format!("http://{host}/v2/shop/web/manifests/{name}");
    let stored = http
        .put(target)
        .header(header::CONTENT_TYPE, kind)
        .body(manifest)
        .send()
        .await
        .unwrap();
    assert_eq!(stored.status(), 201);
    name
}

/// Three deliveries of three images. Answers the project, the last pipeline and what the kustomization names.
struct Deployed {
    world: World,
    project: u64,
    path: String,
    last: u64,
    digests: [String; 3],
    key: PathBuf,
    _registry: (Guardian, Registry),
}

async fn deployed() -> Deployed {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let registry = Registry::start(&guardian, &tools, "production", &[])
        .await
        .unwrap();
    let world = platform(&[], |_| {}).await;
    let settings = ProjectSettings {
        job_token_may_push: true,
        ..ProjectSettings::default()
    };
    let path = "shop/env".to_owned();
    let key = ssh_key(&guardian).await;
    let pipeline = pipeline(&key);
    let examples = crate::platform::files_below("ci-templates/examples/env/apps");
    let mut files: Vec<(&str, &str)> = vec![(".gitlab-ci.yml", &pipeline)];
    files.extend(examples.iter().map(|(name, text)| {
        let name = name.strip_prefix("ci-templates/examples/env/").unwrap();
        (name, text.as_str())
    }));
    let project = world.project_with(&path, settings, &files).await;
    let http = http_client().unwrap();
    let (mut digests, mut last) = (Vec::new(), 0);
    for number in 1..=3 {
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
        last = world
            .gitlab
            .run_pipeline(project, world.maintainer, "main", request)
            .await
            .unwrap();
        let delivered = world.gitlab.wait_until_finished(last, LIMIT).await.unwrap();
        // The button is there, and holds nothing up.
        assert_eq!(delivered.status, Status::Success, "{}", logs(&delivered));
        assert_eq!(delivered.job("rollback").unwrap().status, Status::Manual);
        digests.push(digest);
    }
    Deployed {
        world,
        project,
        path,
        last,
        digests: digests.try_into().unwrap(),
        key,
        _registry: (guardian, registry),
    }
}

impl Deployed {
    /// Presses the button and answers the log of the job and the kustomization afterwards.
    async fn pressed(&self, variables: &[(&str, &str)], expected: Status) -> (String, String) {
        let pipeline = self.world.gitlab.pipeline(self.last).unwrap();
        let button = pipeline.job("rollback").unwrap();
        assert_eq!(press(&self.world, self.project, button, variables).await, 200);
        let fits = |found: &towpath_sandbox::gitlab::PipelineSnapshot| {
            found.id == self.last && found.job("rollback").is_some_and(|job| job.status.is_finished())
        };
        let pipeline = self
            .world
            .gitlab
            .wait_for_pipeline(&self.path, fits, LIMIT)
            .await
            .unwrap();
        let job = pipeline.job("rollback").unwrap();
        assert_eq!(job.status, expected, "{}", job.trace);
        let clone = self.world.clone_of(&self.path, "main").await;
        let text = std::fs::read_to_string(clone.join(OVERLAY).join("kustomization.yaml")).unwrap();
        let log = self
            .world
            .git(&clone, &["log", "-1", "--format=%B"])
            .await
            .unwrap();
        if expected == Status::Success {
            let allowed = self.key.with_extension("allowed");
            let allowed = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
            let verify = ["-c", &allowed, "verify-commit", "HEAD"];
            self.world.git(&clone, &verify).await.unwrap();
        }
        (job.trace.clone(), format!("{text}\n{log}"))
    }
}

#[tokio::test]
async fn pressed_as_it_is_it_goes_one_deployment_back_and_says_who_pressed_it() {
    let deployed = deployed().await;
    let (trace, after) = deployed.pressed(&[], Status::Success).await;
    assert!(
        after.contains(&format!("digest: {}", deployed.digests[1])),
        "{after}\n{trace}"
    );
    assert!(after.contains("rollback job of maintainer"), "{after}");
    // The hold refuses the next delivery.
    let inputs = json!({"image_digest": deployed.digests[2], "image_tag": "1.3.0"});
    let request = PipelineRequest {
        inputs: inputs.as_object().unwrap().clone().into_iter().collect(),
        ..PipelineRequest::default()
    };
    let world = &deployed.world;
    let id = world
        .gitlab
        .run_pipeline(deployed.project, world.maintainer, "main", request)
        .await
        .unwrap();
    let held = ended(world, id).await;
    assert_eq!(
        held.job("kustomize-bump").unwrap().exit_code,
        Some(4),
        "{}",
        logs(&held)
    );
}

#[tokio::test]
async fn whoever_presses_it_chooses_the_digest_and_the_reason() {
    let deployed = deployed().await;
    let chosen = [
        ("TOWPATH_ROLLBACK_TO", deployed.digests[0].as_str()),
        ("TOWPATH_REASON", "checkout fails since 1.2.0"),
    ];
    let (trace, after) = deployed.pressed(&chosen, Status::Success).await;
    assert!(
        after.contains(&format!("digest: {}", deployed.digests[0])),
        "{after}\n{trace}"
    );
    assert!(after.contains("checkout fails since 1.2.0"), "{after}");
}

#[tokio::test]
async fn what_is_no_digest_commit_or_number_is_refused_by_the_tool() {
    let deployed = deployed().await;
    let chosen = [("TOWPATH_ROLLBACK_TO", "$(touch pwned)")];
    let (trace, after) = deployed.pressed(&chosen, Status::Failed).await;
    assert!(trace.contains("malformed --to"), "{trace}");
    assert!(
        after.contains(&format!("digest: {}", deployed.digests[2])),
        "{after}"
    );
}
