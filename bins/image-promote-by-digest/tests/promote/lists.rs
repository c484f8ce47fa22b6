//! Lists of referrers under a tag, as registries without the API keep them: what is wrong in them, and who writes them.

use std::fs;

use axum::http::Method;
use serde_json::{Value, json};

use crate::image::{INDEX, Image, MANIFEST};
use crate::scripted::{Script, Scripted};
use crate::world::{World, get, written};

const SIGNATURE: &str = "application/vnd.example.signature";

/// The referrers tag of a subject.
fn list_of(subject: &str) -> String {
    subject.replacen(':', "-", 1)
}

/// An image with signatures, and the list of those that a test writes itself.
struct Signed {
    image: Image,
    /// The signatures and the list, which is its root.
    others: Image,
    tag: String,
    signatures: Vec<String>,
}

impl Signed {
    /// `list` makes the entries, of the signatures' descriptors.
    fn new(by: &[&[u8]], list: impl Fn(&[Value]) -> Value) -> Self {
        let image = Image::of_three_platforms("1");
        let mut others = Image::default();
        let root = &image.manifests[&image.root].1;
        let subject = json!({"mediaType": INDEX, "digest": image.root, "size": root.len()});
        let mut entries = Vec::new();
        for by in by {
            let config = others.blob("application/vnd.oci.empty.v1+json", b"{}");
            let layer = others.blob(SIGNATURE, by);
            entries.push(others.manifest(
                MANIFEST,
                &json!({"artifactType": SIGNATURE, "config": config, "layers": [layer], "subject": subject}),
            ));
        }
        others.manifest(INDEX, &json!({"manifests": list(&entries)}));
        let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
        Signed {
            tag: list_of(&image.root),
            image,
            others,
            signatures: entries.iter().map(digest).collect(),
        }
    }

    fn held_by(&self, registry: &Scripted, repository: &str) {
        registry.hold(repository, "1", &self.image);
        registry.hold(repository, &self.tag, &self.others);
    }
}

/// What a scripted registry lists under a referrers tag.
async fn listed(registry: &Scripted, repository: &str, tag: &str) -> Vec<String> {
    let (_, _, list) = get(&registry.host, None, &format!("{repository}/manifests/{tag}")).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    let entries = list["manifests"].as_array().into_iter().flatten();
    entries
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn bad_entries_of_a_list_are_passed_over_and_said() {
    let world = World::open().await;
    let registry = Scripted::start(Script::default()).await;
    let signed = Signed::new(&[b"1", b"2", b"3"], |entries| {
        let mut entries = entries.to_vec();
        entries[0].as_object_mut().unwrap().remove("mediaType");
        entries[1]["size"] = json!(entries[1]["size"].as_u64().unwrap() + 1);
        entries.push(json!("sha256:none"));
        json!(entries)
    });
    signed.held_by(&registry, "dev/app");
    // The list of a platform is an image.
    let child = signed
        .image
        .manifests
        .keys()
        .find(|digest| **digest != signed.image.root);
    let no_list = list_of(child.unwrap());
    let other = Image::of_one_layer(b"no list");
    registry.hold("dev/app", &no_list, &other);

    let source = format!("{}/dev/app:1", registry.host);
    let target = format!("{}/prod/app:1", registry.host);
    let run = world.promote(&[&source, &target]).await;
    let log = run.log.clone();
    run.succeeded();
    assert_eq!(
        listed(&registry, "prod/app", &signed.tag).await,
        [signed.signatures[2].clone()]
    );
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("\"warn\"")).collect();
    for said in [&signed.tag, &signed.signatures[1], &no_list] {
        assert!(warnings.iter().any(|line| line.contains(said)), "{said}: {log}");
    }
}

#[tokio::test]
async fn a_list_without_an_end_is_refused_by_name() {
    let world = World::open().await;
    let registry = Scripted::start(Script::default()).await;
    let signed = Signed::new(&[b"1"], |entries| json!(vec![entries[0].clone(); 1001]));
    signed.held_by(&registry, "dev/app");
    let source = format!("{}/dev/app:1", registry.host);
    let target = format!("{}/prod/app:1", registry.host);
    let error = world.promote(&[&source, &target]).await.failed_with(3);
    assert!(error.contains("/dev/app lists more than 1000"), "{error}");
    assert!(error.contains(&signed.image.root), "{error}");
}

#[tokio::test]
async fn a_list_in_a_folder_is_read() {
    let world = World::open().await;
    let registry = Scripted::start(Script::default()).await;
    let signed = Signed::new(
        &[b"1", b"2"],
        |entries| json!([entries[0], entries[1], {"digest": "odd"}]),
    );
    let folder = world.path("signed");
    signed.others.write(&folder);
    let read = || -> Value { serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap() };
    let mut list = read()["manifests"][0].clone();
    list["annotations"] = json!({"org.opencontainers.image.ref.name": signed.tag});
    signed.image.write(&folder);
    let mut index = read();
    index["manifests"].as_array_mut().unwrap().push(list);
    fs::write(folder.join("index.json"), index.to_string()).unwrap();

    let target = format!("{}/prod/app:1", registry.host);
    let report = world.promote(&["oci:signed", &target]).await.succeeded();
    assert_eq!(report["digest"], signed.image.root.as_str());
    let mut there = listed(&registry, "prod/app", &signed.tag).await;
    there.sort();
    let mut wanted = signed.signatures.clone();
    wanted.sort();
    assert_eq!(there, wanted);
}

#[tokio::test]
async fn what_another_writer_takes_out_of_a_list_is_put_in_again() {
    let world = World::open().await;
    let registry = Scripted::start(Script {
        loses_list: Some("prod/app"),
        ..Script::default()
    })
    .await;
    let signed = Signed::new(&[b"1", b"2"], |entries| json!(entries));
    signed.held_by(&registry, "dev/app");
    let source = format!("{}/dev/app:1", registry.host);
    let target = format!("{}/prod/app:1", registry.host);
    world.promote(&[&source, &target]).await.succeeded();
    let there = listed(&registry, "prod/app", &signed.tag).await;
    assert_eq!(there.len(), 2, "{there:?}");
    let puts = registry.lines(&format!("/prod/app/manifests/{}", signed.tag), &Method::PUT);
    assert_eq!(puts.len(), 2);
}

#[tokio::test]
async fn two_of_one_batch_list_their_signatures_of_one_image() {
    let world = World::open().await;
    let registry = Scripted::start(Script::default()).await;
    let mut batch = String::new();
    let mut wanted = Vec::new();
    for name in ["one", "two", "three"] {
        let signed = Signed::new(&[name.as_bytes()], |entries| json!(entries));
        signed.held_by(&registry, &format!("dev/{name}"));
        let host = &registry.host;
        batch += &format!("{host}/dev/{name}:1 {host}/prod/app:{name}\n");
        wanted.extend(signed.signatures);
    }
    let batch = written(&world.path("release.batch"), &batch);
    world.promote(&["--batch", &batch]).await.succeeded();
    let tag = list_of(&Image::of_three_platforms("1").root);
    let mut there = listed(&registry, "prod/app", &tag).await;
    there.sort();
    wanted.sort();
    assert_eq!(there, wanted);
    // One after the other, and none twice.
    let puts = registry.lines(&format!("/prod/app/manifests/{tag}"), &Method::PUT);
    assert_eq!(puts.len(), 3);
}
