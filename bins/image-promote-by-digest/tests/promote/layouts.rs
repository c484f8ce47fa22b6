//! Folders as targets: OCI layouts that are made, added to, and read again.

use std::fs;

use serde_json::{Value, json};

use crate::image::Image;
use crate::world::{World, assert_holds};

fn index(world: &World, folder: &str) -> Value {
    serde_json::from_slice(&fs::read(world.path(folder).join("index.json")).unwrap()).unwrap()
}

/// Checks that a folder has every byte of an image.
fn assert_kept(world: &World, folder: &str, image: &Image) {
    let blobs = world.path(folder).join("blobs/sha256");
    let manifests = image.manifests.iter().map(|(digest, (_, bytes))| (digest, bytes));
    for (digest, bytes) in image.blobs.iter().chain(manifests) {
        let held = fs::read(blobs.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
        assert_eq!(&held, bytes, "{digest}");
    }
}

#[tokio::test]
async fn an_image_goes_through_a_folder_unchanged() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let image = Image::of_three_platforms("1");
    let source = format!("{}/app:1", registry.host());
    world.promote(&[&world.layout(&image), &source]).await.succeeded();

    let plan = world.promote(&["plan", &source, "oci:kept"]).await.succeeded();
    assert_eq!(
        (&plan["targets"][0]["copied"], &plan["targets"][0]["bytes"]),
        (&13.into(), &image.bytes().into())
    );
    assert!(!world.path("kept").exists());

    let report = world
        .promote(&["--journal", "journal.jsonl", &source, "oci:kept"])
        .await
        .succeeded();
    let to = &report["targets"][0];
    assert_eq!(
        (&to["reference"], &to["tag"], &to["copied"]),
        (
            &format!("oci:kept@{}", image.root).into(),
            &"1".into(),
            &13.into()
        )
    );
    assert_kept(&world, "kept", &image);
    let listed = index(&world, "kept");
    assert_eq!(
        listed["manifests"],
        json!([{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": image.root,
            "size": image.manifests[&image.root].1.len(),
            "annotations": {"org.opencontainers.image.ref.name": "1"},
        }])
    );
    let entry: Value =
        serde_json::from_str(&fs::read_to_string(world.path("journal.jsonl")).unwrap()).unwrap();
    assert_eq!(
        (&entry["repository"], &entry["tag"]),
        (&"oci:kept".into(), &"1".into())
    );

    let again = world.promote(&[&source, "oci:kept"]).await.succeeded();
    assert_eq!((&again["changed"], &again["bytes"]), (&false.into(), &0.into()));
    let back = format!("{}/back:1", registry.host());
    world.promote(&["oci:kept:1", &back]).await.succeeded();
    assert_holds(registry.host(), None, "back", &image).await;
}

#[tokio::test]
async fn what_a_layout_has_besides_stays_and_its_tags_are_guarded() {
    let world = World::open().await;
    let (one, two) = (Image::of_three_platforms("1"), Image::of_three_platforms("2"));
    let (from_one, from_two) = (world.layout(&one), world.layout(&two));
    // A builder's layout, with things of its own.
    one.write(&world.path("kept"));
    let mut theirs = index(&world, "kept");
    theirs["annotations"] = json!({"vendor": "kept"});
    theirs["manifests"][0]["annotations"] = json!({"vendor": "kept"});
    fs::write(world.path("kept/index.json"), theirs.to_string()).unwrap();

    let report = world.promote(&[&from_two, "oci:kept:stable"]).await.succeeded();
    // The layer that both share is not written again.
    assert_eq!(
        (&report["targets"][0]["copied"], &report["targets"][0]["skipped"]),
        (&12.into(), &1.into())
    );
    let listed = index(&world, "kept");
    assert_eq!(listed["annotations"], theirs["annotations"]);
    assert_eq!(listed["manifests"][0], theirs["manifests"][0]);

    let error = world
        .promote(&[&from_one, "oci:kept:stable"])
        .await
        .failed_with(6);
    assert!(error.contains(&two.root), "{error}");
    let arguments = [
        "--journal",
        "journal.jsonl",
        "--move-tag-from",
        &two.root,
        &from_one,
        "oci:kept:stable",
    ];
    world.promote(&arguments).await.succeeded();
    for image in [&one, &two] {
        assert_kept(&world, "kept", image);
    }
    let named = || {
        let listed = index(&world, "kept");
        let entries = listed["manifests"].as_array().unwrap().clone();
        let named = entries
            .into_iter()
            .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == "stable");
        named.map(|entry| entry["digest"].as_str().unwrap().to_owned())
    };
    assert_eq!(named().unwrap(), one.root);
    world.promote(&["rollback", "journal.jsonl"]).await.succeeded();
    assert_eq!(named().unwrap(), two.root);

    // Several images and no tag: they are named.
    let error = world
        .promote(&["plan", "oci:kept", "oci:other"])
        .await
        .failed_with(2);
    for part in [&one.root, &two.root] {
        assert!(error.contains(part.as_str()), "{error}");
    }
}

#[tokio::test]
async fn without_a_tag_it_is_listed_by_its_digest() {
    let world = World::open().await;
    let image = Image::of_one_layer(b"layer");
    let source = world.layout(&image);
    let report = world.promote(&[&source, "oci:kept"]).await.succeeded();
    assert_eq!(
        (&report["targets"][0]["tag"], &report["changed"]),
        (&Value::Null, &true.into())
    );
    assert_kept(&world, "kept", &image);
    assert_eq!(
        index(&world, "kept")["manifests"][0]["digest"],
        image.root.as_str()
    );
    let again = world.promote(&[&source, "oci:kept"]).await.succeeded();
    assert_eq!(again["changed"], false);
    assert_eq!(index(&world, "kept")["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_source_leaves_the_layout_without_the_image() {
    let world = World::open().await;
    let image = Image::of_one_layer(b"layer");
    let source = world.layout(&image);
    let layer = image.blobs.iter().find(|(_, bytes)| bytes.as_slice() == b"layer");
    let folder = source.strip_prefix("oci:").unwrap();
    let path = format!(
        "{folder}/blobs/sha256/{}",
        layer.unwrap().0.strip_prefix("sha256:").unwrap()
    );
    fs::write(&path, "LAYER").unwrap();
    let run = world.promote(&[&source, "oci:kept:1"]).await;
    assert_ne!(run.code, 0, "{}", run.report);
    assert!(!world.path("kept/index.json").exists());
    let left: Vec<_> = fs::read_dir(world.path("kept/blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.iter().all(|name| name.len() == 64), "{left:?}");
    // Mended, the next run finishes it.
    fs::write(&path, "layer").unwrap();
    world.promote(&[&source, "oci:kept:1"]).await.succeeded();
    assert_kept(&world, "kept", &image);
}
