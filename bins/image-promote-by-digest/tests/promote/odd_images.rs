//! Not everything in a registry is a plain image.

use std::fs;

use serde_json::json;
use towpath::oci::{Algorithm, Verifier};

use crate::image::{INDEX, Image, LAYER, MANIFEST};
use crate::scripted::{Script, Scripted};
use crate::world::{World, assert_holds, tagged};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

fn docker_list() -> Image {
    let mut image = Image::default();
    let config = image.blob(DOCKER_CONFIG, br#"{"architecture":"amd64","os":"linux"}"#);
    let layer = image.blob(
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        b"docker layer",
    );
    let mut child = image.manifest(DOCKER_MANIFEST, &json!({"config": config, "layers": [layer]}));
    child["platform"] = json!({"architecture": "amd64", "os": "linux"});
    image.manifest(DOCKER_LIST, &json!({"manifests": [child]}));
    image
}

fn nested_index_with_an_artifact() -> Image {
    let mut image = Image::default();
    let empty = image.blob("application/vnd.oci.empty.v1+json", b"{}");
    let nothing = image.blob(LAYER, b"");
    let mut data = image.blob("application/vnd.example.thing+json", b"{\"thing\":1}");
    data["data"] = json!("eyJ0aGluZyI6MX0=");
    let artifact = image.manifest(
        MANIFEST,
        &json!({"artifactType": "application/vnd.example", "config": empty, "layers": [data, nothing]}),
    );
    let inner = image.manifest(INDEX, &json!({"manifests": [artifact]}));
    image.manifest(
        INDEX,
        &json!({"manifests": [inner, artifact], "annotations": {"a": "b"}}),
    );
    image
}

#[tokio::test]
async fn dockers_own_formats_nested_indexes_artifacts_and_empty_blobs_arrive_byte_for_byte() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    for (name, image) in [
        ("docker", docker_list()),
        ("nested", nested_index_with_an_artifact()),
    ] {
        let source = format!("{}/{name}:1", staging.host());
        world.promote(&[&world.layout(&image), &source]).await.succeeded();
        let report = world
            .promote(&[&source, &format!("{}/{name}", production.host())])
            .await
            .succeeded();
        assert_eq!(report["digest"], image.root.as_str());
        assert_eq!(report["targets"][0]["copied"], image.blobs.len());
        for (digest, (media_type, bytes)) in &image.manifests {
            let answer = towpath_sandbox::servers::http_client()
                .unwrap()
                .get(format!(
                    "http://{}/v2/{name}/manifests/{digest}",
                    production.host()
                ))
                .header("accept", media_type)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.headers()["content-type"], media_type.as_str());
            assert_eq!(answer.bytes().await.unwrap(), bytes.as_slice(), "{name} {digest}");
        }
        let blobs_alone = Image {
            manifests: Default::default(),
            ..image
        };
        assert_holds(production.host(), None, name, &blobs_alone).await;
    }
}

/// A layout whose image is named by SHA-512; gives back its digest and what names it as a source.
fn named_by_sha512(world: &World, image: &Image) -> (String, String) {
    let folder = world.path("sha512");
    image.write(&folder);
    let (media_type, root) = &image.manifests[&image.root];
    let mut verifier = Verifier::new(Algorithm::Sha512);
    verifier.update(root);
    let digest = verifier.digest();
    fs::create_dir(folder.join("blobs/sha512")).unwrap();
    fs::write(folder.join("blobs/sha512").join(digest.hex()), root).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": media_type, "digest": digest.as_str(), "size": root.len()}
    ]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    (digest.to_string(), format!("oci:{}", folder.display()))
}

#[tokio::test]
async fn where_sha512_is_not_kept_the_tag_stays_as_it_was() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let (one, two) = (Image::of_one_layer(b"1"), Image::of_one_layer(b"2"));
    let target = format!("{}/app:stable", registry.host());
    world.promote(&[&world.layout(&one), &target]).await.succeeded();
    let (digest, source) = named_by_sha512(&world, &two);
    let arguments = [
        "--journal",
        "journal.jsonl",
        "--move-tag-from",
        "any",
        &source,
        &target,
    ];
    let error = world.promote(&arguments).await.failed_with(4);
    assert!(error.contains(&digest) && error.contains("SHA-256"), "{error}");
    assert_eq!(
        tagged(registry.host(), None, "app", "stable").await,
        Some(one.root)
    );
    assert!(
        fs::read_to_string(world.path("journal.jsonl"))
            .unwrap_or_default()
            .is_empty()
    );
}

#[tokio::test]
async fn a_tag_may_name_the_bytes_of_a_sha512_image_by_sha256_and_goes_back() {
    let world = World::open().await;
    let registry = Scripted::start(Script::default()).await;
    let (one, two) = (Image::of_one_layer(b"1"), Image::of_one_layer(b"2"));
    let target = format!("{}/app:stable", registry.host);
    world.promote(&[&world.layout(&one), &target]).await.succeeded();
    let (digest, source) = named_by_sha512(&world, &two);
    let arguments = [
        "--journal",
        "journal.jsonl",
        "--move-tag-from",
        "any",
        &source,
        &target,
    ];
    let report = world.promote(&arguments).await.succeeded();
    assert_eq!(report["digest"], digest.as_str());
    assert_eq!(registry.tagged("app", "stable"), Some(two.root.clone()));
    let by_digest = format!("{}/app@{digest}", registry.host);
    let back = format!("{}/back:1", registry.host);
    world.promote(&[&by_digest, &back]).await.succeeded();
    world.promote(&["rollback", "journal.jsonl"]).await.succeeded();
    assert_eq!(registry.tagged("app", "stable"), Some(one.root));
}
