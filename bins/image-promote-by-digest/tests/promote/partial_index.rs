//! Less than a whole index goes only where that is said, and never by accident.

use std::fs;

use serde_json::{Value, json};

use crate::image::Image;
use crate::world::{World, assert_holds, get, tagged};

/// The platform's own manifest.
fn child(image: &Image, architecture: &str) -> String {
    let index: Value = serde_json::from_slice(&image.manifests[&image.root].1).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry["platform"]["architecture"] == architecture);
    entry.unwrap()["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn some_platforms_go_under_another_digest_when_that_is_allowed() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_three_platforms("1");
    let source = format!("{}/dev/app:1", staging.host());
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let target = format!("{}/prod/app:1", production.host());

    let some = [
        source.as_str(),
        &target,
        "--platform",
        "linux/amd64,linux/riscv64",
    ];
    let refused = world.promote(&some).await;
    assert!(refused.failed_with(4).contains("--allow-partial-index"));
    assert_eq!(tagged(production.host(), None, "prod/app", "1").await, None);
    let unheard = [
        source.as_str(),
        &target,
        "--platform",
        "linux/s390x",
        "--allow-partial-index",
    ];
    let refused = world.promote(&unheard).await.failed_with(5);
    assert!(
        refused.contains("linux/s390x") && refused.contains("linux/arm64"),
        "{refused}"
    );

    let allowed = [&some[..], &["--allow-partial-index"]].concat();
    let report = world.promote(&allowed).await.succeeded();
    assert_eq!(report["reduced_from"], image.root.as_str());
    let digest = report["digest"].as_str().unwrap();
    assert_ne!(digest, image.root);
    assert_eq!(
        tagged(production.host(), None, "prod/app", "1").await.as_deref(),
        Some(digest)
    );
    let (_, _, index) = get(production.host(), None, "prod/app/manifests/1").await;
    let index: Value = serde_json::from_slice(&index).unwrap();
    let listed: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap())
        .collect();
    assert_eq!(listed, [child(&image, "amd64"), child(&image, "riscv64")]);
    assert_eq!(report["targets"][0]["copied"], 1 + 2 * 4);
    let path = format!("prod/app/manifests/{}", child(&image, "arm64"));
    assert_eq!(get(production.host(), None, &path).await.0, 404);
    let again = world.promote(&allowed).await.succeeded();
    assert_eq!(again["changed"], false);

    // All of them is the index itself.
    let all = format!("{}/prod/all:1", production.host());
    let report = world
        .promote(&[
            &source,
            &all,
            "--platform",
            "linux/amd64,linux/arm64,linux/riscv64",
        ])
        .await
        .succeeded();
    assert_eq!(report["digest"], image.root.as_str());
    assert_holds(production.host(), None, "prod/all", &image).await;
}

#[tokio::test]
async fn one_image_is_no_index_to_choose_from() {
    let world = World::open().await;
    let registry = world.registry("staging", &[]).await;
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let target = format!("{}/dev/app:1", registry.host());
    let run = world
        .promote(&[&layout, &target, "--platform", "linux/amd64"])
        .await;
    assert!(run.failed_with(2).contains("--platform"));
}

#[tokio::test]
async fn a_sparse_index_goes_byte_for_byte_where_it_is_taken() {
    let world = World::open().await;
    let registry = world.registry("staging", &[]).await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    let gone = child(&image, "arm64");
    let file = format!("blobs/sha256/{}", gone.strip_prefix("sha256:").unwrap());
    fs::remove_file(world.path(layout.strip_prefix("oci:").unwrap()).join(file)).unwrap();

    let target = format!("oci:{}:1", world.path("kept").display());
    let refused = world.promote(&[&layout, &target]).await;
    assert!(refused.failed_with(5).contains("--allow-partial-index"));
    let report = world
        .promote(&[&layout, &target, "--allow-partial-index"])
        .await
        .succeeded();
    assert_eq!(report["digest"], image.root.as_str());
    assert_eq!(report["absent"], json!([gone]));
    let root = world
        .path("kept/blobs/sha256")
        .join(image.root.strip_prefix("sha256:").unwrap());
    assert_eq!(fs::read(root).unwrap(), image.manifests[&image.root].1);

    // This registry takes no such thing, and says so; nothing is tagged.
    let pushed = format!("{}/dev/app:1", registry.host());
    let run = world.promote(&[&layout, &pushed, "--allow-partial-index"]).await;
    assert!(
        run.failed_with(4).contains("of which a part is missing"),
        "{}",
        run.log
    );
    assert_eq!(tagged(registry.host(), None, "dev/app", "1").await, None);
}
