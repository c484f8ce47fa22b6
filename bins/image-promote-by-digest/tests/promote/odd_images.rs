//! Not everything in a registry is a plain image.

use serde_json::json;

use crate::image::{INDEX, Image, LAYER, MANIFEST};
use crate::world::{World, assert_holds};

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
