//! A registry demands its password, and the base image can be pulled from it and built upon.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use towpath_sandbox::base_image::{self, BaseImage};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, docker_config, http_client};
use towpath_sandbox::tools::{BuilderKind, Progress, Tools, write_storage_conf};

const USER: &str = "ci";
const PASSWORD: &str = "canary-77c0";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn start() -> (Guardian, Tools, Registry) {
    let tools = Tools::find_or_install(&Progress::lines()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let registry = Registry::start(&guardian, &tools, "staging", &[(USER, PASSWORD)])
        .await
        .unwrap();
    (guardian, tools, registry)
}

async fn get(registry: &Registry, path: &str, password: Option<&str>) -> reqwest::Response {
    let request = http_client()
        .unwrap()
        .get(format!("http://{}/v2/{path}", registry.host()))
        .header("Accept", MANIFEST);
    let request = match password {
        Some(password) => request.basic_auth(USER, Some(password)),
        None => request,
    };
    request.send().await.unwrap()
}

fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test(flavor = "current_thread")]
async fn only_the_right_password_opens_the_registry() {
    let (guardian, tools, registry) = start().await;
    let open = Registry::start(&guardian, &tools, "open", &[]).await.unwrap();
    assert_ne!(registry.host(), open.host());
    assert_eq!(get(&registry, "", None).await.status(), 401);
    assert_eq!(get(&registry, "", Some("wrong")).await.status(), 401);
    assert_eq!(get(&registry, "", Some(PASSWORD)).await.status(), 200);
    assert_eq!(get(&open, "", None).await.status(), 200);
    let refused = base_image::push(&tools, &registry, None, "team/base", "1")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("401 Unauthorized") && refused.contains("/v2/team/base/"),
        "{refused}"
    );
    assert!(!fs::read_to_string(registry.log()).unwrap().contains(PASSWORD));
    guardian.stop().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn the_base_image_is_pulled_as_it_was_pushed() {
    let (guardian, tools, registry) = start().await;
    let login = Some((USER, PASSWORD));
    let digest = base_image::push(&tools, &registry, login, "team/base", "1")
        .await
        .unwrap();
    let again = base_image::push(&tools, &registry, login, "team/base", "1")
        .await
        .unwrap();
    assert_eq!(again, digest, "the image is the same each time it is made");

    let manifest = get(&registry, "team/base/manifests/1", Some(PASSWORD)).await;
    assert_eq!(manifest.headers()["docker-content-digest"], digest.as_str());
    let manifest = manifest.bytes().await.unwrap();
    assert_eq!(digest_of(&manifest), digest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for descriptor in [&manifest["config"], &manifest["layers"][0]] {
        let digest = descriptor["digest"].as_str().unwrap();
        let blob = get(&registry, &format!("team/base/blobs/{digest}"), Some(PASSWORD))
            .await
            .bytes()
            .await
            .unwrap();
        assert_eq!(
            (digest_of(&blob).as_str(), descriptor["size"].as_u64()),
            (digest, Some(blob.len() as u64))
        );
    }

    let layout = guardian.dir().join("layout");
    BaseImage::make(&tools)
        .await
        .unwrap()
        .write_oci_layout(&layout, "1")
        .unwrap();
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], json!(digest));
    let blob = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
    assert_eq!(digest_of(&blob), digest);
    guardian.stop().await.unwrap();
}

/// Only where buildah is the builder: kaniko's private root is `image-build`'s affair.
#[tokio::test(flavor = "current_thread")]
async fn buildah_builds_a_run_step_upon_the_base_image_and_pushes_the_result() {
    let (guardian, tools, registry) = start().await;
    if tools.builder.kind != BuilderKind::Buildah {
        return;
    }
    base_image::push(&tools, &registry, Some((USER, PASSWORD)), "team/base", "1")
        .await
        .unwrap();
    let context = guardian.dir().join("context");
    fs::create_dir(&context).unwrap();
    let base = format!("{}/team/base:1", registry.host());
    let dockerfile = format!("FROM {base}\nRUN echo hi > /hello && cat /proc/self/status >/dev/null\n");
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let logins = guardian.dir().join("auth.json");
    fs::write(
        &logins,
        docker_config(&[(registry.host(), USER, PASSWORD)]).to_string(),
    )
    .unwrap();
    let storage = write_storage_conf(guardian.dir()).unwrap();
    let digest_file = guardian.dir().join("digest");
    let image = format!("{}/team/app:1", registry.host());

    let mut build = guardian.command(&tools.builder.program);
    build
        .args(["bud", "--isolation", "chroot", "--tls-verify=false", "--authfile"])
        .arg(&logins);
    build
        .args(["--tag", &image])
        .arg(&context)
        .env("CONTAINERS_STORAGE_CONF", &storage);
    let output = build.output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut push = guardian.command(&tools.builder.program);
    push.args(["push", "--tls-verify=false", "--authfile"])
        .arg(&logins)
        .arg("--digestfile")
        .arg(&digest_file);
    push.arg(&image).env("CONTAINERS_STORAGE_CONF", &storage);
    let output = push.output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let manifest = get(&registry, "team/app/manifests/1", Some(PASSWORD))
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(digest_of(&manifest), fs::read_to_string(digest_file).unwrap());
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["layers"].as_array().unwrap().len(),
        2,
        "the base image's layer and the RUN step's"
    );
    guardian.stop().await.unwrap();
}
