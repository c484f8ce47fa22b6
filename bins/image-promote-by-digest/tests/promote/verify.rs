//! Whether all of an image is there is looked at, and what is missing is brought.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use towpath_sandbox::servers::Registry;

use crate::image::{Image, MANIFEST};
use crate::world::{World, assert_holds, put_blob, put_manifest, tagged};

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// Two registries with an image and a signature of it, promoted from one to the other.
struct Pair {
    world: World,
    staging: Registry,
    production: Registry,
    image: Image,
    source: String,
    target: String,
}

impl Pair {
    async fn promoted() -> Self {
        let world = World::open().await;
        let staging = world.registry("staging", &[]).await;
        let production = world.registry("production", &[]).await;
        let image = Image::of_three_platforms("1");
        let source = format!("{}/dev/app:1", staging.host());
        world.promote(&[&world.layout(&image), &source]).await.succeeded();
        let mut signature = Image::default();
        let config = signature.blob("application/vnd.oci.image.config.v1+json", b"{}");
        signature.manifest(MANIFEST, &json!({"config": config, "layers": []}));
        put_blob(staging.host(), "dev/app", b"{}").await;
        let tag = format!("sha256-{}.sig", hex(&image.root));
        let (media_type, bytes) = &signature.manifests[&signature.root];
        put_manifest(staging.host(), "dev/app", &tag, media_type, bytes).await;
        let target = format!("{}/prod/app:1", production.host());
        world.promote(&[&source, &target]).await.succeeded();
        Pair {
            world,
            staging,
            production,
            image,
            source,
            target,
        }
    }

    fn repository(&self) -> PathBuf {
        let storage = self.production.storage();
        storage.join("docker/registry/v2/repositories/prod/app")
    }

    fn forget_blob(&self, digest: &str) {
        fs::remove_dir_all(self.repository().join("_layers/sha256").join(hex(digest))).unwrap();
    }

    fn forget_manifest(&self, digest: &str) {
        let revisions = self.repository().join("_manifests/revisions/sha256");
        fs::remove_dir_all(revisions.join(hex(digest))).unwrap();
    }

    fn data(&self, digest: &str) -> PathBuf {
        let blobs = self.production.storage().join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex(digest)[..2]).join(hex(digest)).join("data")
    }

    fn a_layer(&self) -> String {
        let layer = self
            .image
            .blobs
            .iter()
            .find(|(_, bytes)| bytes.starts_with(b"layer 0"));
        layer.unwrap().0.clone()
    }

    fn a_platform(&self) -> String {
        let mut manifests = self.image.manifests.keys();
        manifests
            .find(|digest| **digest != self.image.root)
            .unwrap()
            .clone()
    }
}

fn names(defects: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut names: Vec<(String, String)> = defects
        .as_array()
        .unwrap()
        .iter()
        .map(|defect| (text(&defect["part"]), text(&defect["name"])))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_whole_image_is_found_whole() {
    let pair = Pair::promoted().await;
    for extra in [&[][..], &["--source", &pair.source], &["--blobs", "read"]] {
        let arguments = [&["verify", pair.target.as_str()], extra].concat();
        let report = pair.world.promote(&arguments).await.succeeded();
        assert_eq!(report["schema"], "towpath.image-promote-by-digest/1");
        assert_eq!(report["whole"], true, "{report}");
        assert_eq!(report["digest"], pair.image.root.as_str());
        // Those of the signature among them.
        assert_eq!((&report["manifests"], &report["blobs"]), (&5.into(), &14.into()));
        assert_eq!(report["bytes"], pair.image.bytes() + 2);
        assert_eq!(report["referrers"], json!({".sig": 1}));
        assert_eq!(
            (&report["defects"], &report["changed"]),
            (&json!([]), &false.into())
        );
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_brought_from_a_source() {
    let pair = Pair::promoted().await;
    let (layer, platform) = (pair.a_layer(), pair.a_platform());
    let signature = format!("sha256-{}.sig", hex(&pair.image.root));
    pair.forget_blob(&layer);
    pair.forget_manifest(&platform);
    fs::remove_dir_all(pair.repository().join("_manifests/tags").join(&signature)).unwrap();

    let alone = pair.world.promote(&["verify", &pair.target]).await;
    assert!(alone.failed_with(6).contains("--source"));
    // What is not listed any more cannot be missed without a source.
    let found = names(&alone.report["defects"]);
    assert!(
        found.contains(&("manifest".into(), platform.clone())),
        "{found:?}"
    );

    let arguments = ["verify", pair.target.as_str(), "--source", &pair.source];
    let dry = pair
        .world
        .promote(&[&arguments[..], &["--dry-run"]].concat())
        .await;
    dry.failed_with(6);
    let all = [
        ("blob".to_owned(), layer),
        ("manifest".to_owned(), platform),
        ("referrer".to_owned(), signature.clone()),
    ];
    assert_eq!(names(&dry.report["defects"]), all);

    let repaired = pair.world.promote(&arguments).await.succeeded();
    assert_eq!(names(&repaired["repaired"]), all);
    assert_eq!(
        (&repaired["whole"], &repaired["changed"]),
        (&true.into(), &true.into())
    );
    assert_holds(pair.production.host(), None, "prod/app", &pair.image).await;
    assert!(
        tagged(pair.production.host(), None, "prod/app", &signature)
            .await
            .is_some()
    );
    let again = pair.world.promote(&arguments).await.succeeded();
    assert_eq!(
        (&again["changed"], &again["repaired"]),
        (&false.into(), &json!([]))
    );
}

#[tokio::test]
async fn bytes_that_went_bad_are_found_by_their_length_or_by_reading_them() {
    let pair = Pair::promoted().await;
    let data = pair.data(&pair.a_layer());
    let length = fs::metadata(&data).unwrap().len();
    fs::write(&data, vec![b'?'; usize::try_from(length).unwrap()]).unwrap();
    pair.world.promote(&["verify", &pair.target]).await.succeeded();
    let read = pair
        .world
        .promote(&["verify", &pair.target, "--blobs", "read"])
        .await;
    assert!(read.failed_with(6).contains(&pair.a_layer()));

    fs::write(&data, b"short").unwrap();
    let looked = pair.world.promote(&["verify", &pair.target]).await;
    assert!(looked.failed_with(6).contains("has 5 bytes"));
    // The registry says that it has it, so it cannot be given another: that is told, not passed over.
    let arguments = ["verify", pair.target.as_str(), "--source", &pair.source];
    pair.world.promote(&arguments).await.failed_with(6);
}

#[tokio::test]
async fn another_image_under_the_tag_is_a_defect_that_is_not_repaired_by_moving_it() {
    let pair = Pair::promoted().await;
    let other = Image::of_three_platforms("2");
    let layout = pair.world.layout(&other);
    let source = format!("{}/dev/app:2", pair.staging.host());
    pair.world.promote(&[&layout, &source]).await.succeeded();
    let run = pair
        .world
        .promote(&["verify", &pair.target, "--source", &source])
        .await;
    run.failed_with(6);
    let named = tagged(pair.production.host(), None, "prod/app", "1").await;
    assert_eq!(named.as_deref(), Some(pair.image.root.as_str()));
}

#[tokio::test]
async fn a_deep_look_after_a_promotion_repairs_what_the_tag_alone_does_not_tell() {
    let pair = Pair::promoted().await;
    pair.forget_blob(&pair.a_layer());
    let plain = pair
        .world
        .promote(&[&pair.source, &pair.target])
        .await
        .succeeded();
    assert_eq!(plain["changed"], false, "the tag names the image");
    let deep = pair
        .world
        .promote(&[&pair.source, &pair.target, "--verify", "deep"])
        .await
        .succeeded();
    assert_eq!(deep["changed"], true);
    assert_eq!(deep["targets"][0]["verified"]["blobs"], 14);
    assert_holds(pair.production.host(), None, "prod/app", &pair.image).await;
}

#[tokio::test]
async fn variables_of_a_promotion_do_not_stand_in_the_way() {
    let pair = Pair::promoted().await;
    let mut command = pair.world.command(&["verify", &pair.target]);
    command
        .env("TOWPATH_SOURCE", "nothing.example/at:all")
        .env("TOWPATH_TARGET", "nothing.example/there:either");
    pair.world.run(command).await.succeeded();
}

#[tokio::test]
async fn a_tag_that_names_another_image_than_the_digest_beside_it_is_a_defect() {
    let pair = Pair::promoted().await;
    let other = Image::of_three_platforms("2");
    let by_digest = format!("{}/prod/app", pair.production.host());
    pair.world
        .promote(&[&pair.world.layout(&other), &by_digest])
        .await
        .succeeded();
    let both = format!("{}@{}", pair.target, other.root);
    let run = pair.world.promote(&["verify", &both]).await;
    run.failed_with(6);
    assert_eq!(
        names(&run.report["defects"]),
        [("tag".to_owned(), "1".to_owned())]
    );
}

#[tokio::test]
async fn signatures_of_the_targets_own_are_no_defect() {
    let pair = Pair::promoted().await;
    let tag = format!("sha256-{}.sig", hex(&pair.image.root));
    let mut own = Image::default();
    let config = own.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let layer = own.blob("application/vnd.example.signature", b"production's own");
    own.manifest(MANIFEST, &json!({"config": config, "layers": [layer]}));
    put_blob(pair.production.host(), "prod/app", b"production's own").await;
    let (media_type, bytes) = &own.manifests[&own.root];
    put_manifest(pair.production.host(), "prod/app", &tag, media_type, bytes).await;
    for _ in 0..2 {
        let report = pair
            .world
            .promote(&["verify", &pair.target, "--source", &pair.source])
            .await
            .succeeded();
        assert_eq!(
            (&report["whole"], &report["changed"]),
            (&true.into(), &false.into())
        );
    }
    let named = tagged(pair.production.host(), None, "prod/app", &tag).await;
    assert_eq!(named.as_deref(), Some(own.root.as_str()));
}

#[tokio::test]
async fn a_deep_look_does_without_a_source_that_is_gone() {
    let pair = Pair::promoted().await;
    let by_digest = format!("{}/dev/gone@{}", pair.staging.host(), pair.image.root);
    let arguments = [by_digest.as_str(), &pair.target, "--verify", "deep"];
    let report = pair.world.promote(&arguments).await.succeeded();
    assert_eq!(report["changed"], false);
    assert_eq!(report["targets"][0]["verified"]["manifests"], 5);
    // What is wrong there cannot be mended from nowhere, and is told beside what was done.
    pair.forget_blob(&pair.a_layer());
    let run = pair.world.promote(&arguments).await;
    run.failed_with(6);
    assert_eq!(
        run.report["targets"][0]["verified"]["defects"][0]["name"],
        pair.a_layer().as_str()
    );
}

#[tokio::test]
async fn folders_are_brought_back_to_what_they_were() {
    let pair = Pair::promoted().await;
    let folder = pair.world.path("kept");
    let target = format!("oci:{}:1", folder.display());
    let verify = [
        "verify",
        target.as_str(),
        "--source",
        &pair.source,
        "--blobs",
        "read",
    ];
    // From nothing at all.
    let report = pair.world.promote(&verify).await.succeeded();
    assert_eq!(
        (&report["whole"], &report["changed"]),
        (&true.into(), &true.into())
    );
    let file = |digest: &str| folder.join("blobs/sha256").join(hex(digest));
    let root = file(&pair.image.root);

    fs::remove_file(&root).unwrap();
    pair.world.promote(&[&pair.source, &target]).await.succeeded();
    assert_eq!(fs::read(&root).unwrap(), pair.image.manifests[&pair.image.root].1);

    for damaged in [&pair.image.root, &pair.a_platform(), &pair.a_layer()] {
        let whole = fs::read(file(damaged)).unwrap();
        fs::write(file(damaged), vec![b'?'; whole.len()]).unwrap();
        let report = pair.world.promote(&verify).await.succeeded();
        assert_eq!(report["repaired"][0]["name"], damaged.as_str());
        assert_eq!(fs::read(file(damaged)).unwrap(), whole, "{damaged}");
    }
}
