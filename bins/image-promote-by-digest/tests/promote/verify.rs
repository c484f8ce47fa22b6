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
