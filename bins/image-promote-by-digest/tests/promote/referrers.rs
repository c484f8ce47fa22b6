//! What refers to an image goes along: with and without the referrers API, by cosign's tags, and in turn.

use serde_json::{Value, json};
use towpath_sandbox::servers::ReferrersRegistry;

use crate::image::{INDEX, Image, LAYER, MANIFEST};
use crate::scripted::{Script, Scripted};
use crate::world::{World, assert_holds, get, put_blob, put_manifest, tagged};

const SIGNATURE: &str = "application/vnd.example.signature";
const SBOM: &str = "application/spdx+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// An image with a signature, an SBOM of one platform, a signature of that SBOM, and two of cosign's tags.
struct Family {
    image: Image,
    /// Everything that refers, with blobs and manifests of its own.
    others: Image,
    /// Subject, referrer, artifact type.
    referrers: Vec<(String, String, &'static str)>,
    /// Tag and the manifest it names.
    tags: Vec<(String, String)>,
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

impl Family {
    fn new(seed: &str) -> Self {
        let image = Image::of_three_platforms(seed);
        let root = image.root.clone();
        let child = image
            .manifests
            .keys()
            .find(|digest| **digest != root)
            .unwrap()
            .clone();
        let mut family = Family {
            image,
            others: Image::default(),
            referrers: Vec::new(),
            tags: Vec::new(),
        };
        family.refer(&root, SIGNATURE, b"signed");
        let sbom = family.refer(&child, SBOM, b"what is inside");
        family.refer(&sbom, SIGNATURE, b"the inside is signed");
        family.tag(&root, ".sig", &[b"cosign's signature"]);
        family.tag(&child, ".att", &[b"cosign's attestation"]);
        family
    }

    fn descriptor(&self, digest: &str) -> Value {
        let held = self
            .image
            .manifests
            .get(digest)
            .or_else(|| self.others.manifests.get(digest));
        let (media_type, bytes) = held.unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds a manifest with a subject.
    fn refer(&mut self, subject: &str, artifact_type: &'static str, content: &[u8]) -> String {
        let of = self.descriptor(subject);
        let config = self.others.blob(EMPTY, b"{}");
        let layer = self.others.blob(artifact_type, content);
        self.others.manifest(
            MANIFEST,
            &json!({"artifactType": artifact_type, "config": config, "layers": [layer], "subject": of,
                "annotations": {"org.example.by": "the test"}}),
        );
        let digest = self.others.root.clone();
        self.referrers
            .push((subject.to_owned(), digest.clone(), artifact_type));
        digest
    }

    /// Adds a tag made of a digest.
    fn tag(&mut self, subject: &str, ending: &str, layers: &[&[u8]]) -> String {
        let config = self.others.blob(
            "application/vnd.oci.image.config.v1+json",
            format!("{{\"layers\":{}}}", layers.len()).as_bytes(),
        );
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.others.blob(LAYER, layer))
            .collect();
        self.others
            .manifest(MANIFEST, &json!({"config": config, "layers": layers}));
        let tag = format!("sha256-{}{ending}", hex(subject));
        self.tags.retain(|(known, _)| *known != tag);
        self.tags.push((tag.clone(), self.others.root.clone()));
        tag
    }

    /// The list that a registry without the API is given for a subject.
    fn list(&self, subject: &str) -> Value {
        let of_subject = self.referrers.iter().filter(|(of, _, _)| of == subject);
        let entries: Vec<Value> = of_subject
            .map(|(_, digest, artifact_type)| {
                let mut entry = self.descriptor(digest);
                entry["artifactType"] = json!(artifact_type);
                entry
            })
            .collect();
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    }

    /// Writes what refers to the image, which is there already, without the code under test.
    async fn write_others(&self, host: &str, repository: &str, with_lists: bool) {
        for bytes in self.others.blobs.values() {
            put_blob(host, repository, bytes).await;
        }
        for (digest, (media_type, bytes)) in &self.others.manifests {
            put_manifest(host, repository, digest, media_type, bytes).await;
        }
        for (tag, digest) in &self.tags {
            let (media_type, bytes) = &self.others.manifests[digest];
            put_manifest(host, repository, tag, media_type, bytes).await;
        }
        if with_lists {
            for (subject, _, _) in &self.referrers {
                let tag = format!("sha256-{}", hex(subject));
                put_manifest(
                    host,
                    repository,
                    &tag,
                    INDEX,
                    self.list(subject).to_string().as_bytes(),
                )
                .await;
            }
        }
    }

    /// Checks that all of it is there and can be found.
    async fn assert_arrived(&self, host: &str, repository: &str, has_api: bool) {
        assert_holds(host, None, repository, &self.image).await;
        assert_holds(host, None, repository, &self.others).await;
        for (subject, digest, artifact_type) in &self.referrers {
            let list = if has_api {
                get(host, None, &format!("{repository}/referrers/{subject}")).await
            } else {
                get(
                    host,
                    None,
                    &format!("{repository}/manifests/sha256-{}", hex(subject)),
                )
                .await
            };
            assert_eq!(list.0, 200, "the list for {subject}");
            let list: Value = serde_json::from_slice(&list.2).unwrap();
            let entries = list["manifests"].as_array().unwrap();
            let entry = entries.iter().find(|entry| entry["digest"] == digest.as_str());
            let entry = entry.unwrap_or_else(|| panic!("{digest} is not in {list}"));
            if !has_api {
                assert_eq!(entry["artifactType"], *artifact_type);
                assert_eq!(entry["annotations"]["org.example.by"], "the test");
                assert_eq!(entry["size"], self.descriptor(digest)["size"]);
            }
        }
        for (tag, digest) in &self.tags {
            assert_eq!(
                tagged(host, None, repository, tag).await.as_ref(),
                Some(digest),
                "{tag}"
            );
        }
    }
}

/// A registry with or without the API.
enum Server {
    Plain(towpath_sandbox::servers::Registry),
    WithApi(ReferrersRegistry),
}

impl Server {
    fn host(&self) -> &str {
        match self {
            Server::Plain(registry) => registry.host(),
            Server::WithApi(registry) => registry.host(),
        }
    }

    fn has_api(&self) -> bool {
        matches!(self, Server::WithApi(_))
    }
}

/// Pushes an image and what refers to it to `dev/app:1`.
async fn push(world: &World, server: &Server, family: &Family) -> String {
    let source = format!("{}/dev/app:1", server.host());
    world
        .promote(&[&world.layout(&family.image), &source])
        .await
        .succeeded();
    family
        .write_others(server.host(), "dev/app", !server.has_api())
        .await;
    source
}

async fn goes_along(world: &World, from: Server, to: Server) {
    let mut family = Family::new("1");
    let source = push(world, &from, &family).await;
    let target = format!("{}/prod/app:1", to.host());
    let report = world.promote(&[&source, &target]).await.succeeded();
    family.assert_arrived(to.host(), "prod/app", to.has_api()).await;
    let counts = &report["targets"][0]["referrers"];
    assert_eq!(counts[SIGNATURE], json!({"copied": 2, "skipped": 0}), "{counts}");
    assert_eq!(counts[SBOM], json!({"copied": 1, "skipped": 0}));
    assert_eq!(counts[".sig"], json!({"copied": 1, "skipped": 0}));
    assert_eq!(counts[".att"], json!({"copied": 1, "skipped": 0}));
    assert_eq!(report["digest"], family.image.root.as_str());

    let again = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(
        again["targets"][0]["referrers"][SIGNATURE],
        json!({"copied": 0, "skipped": 2})
    );

    // Signed once more after it was promoted: that alone goes.
    let root = family.image.root.clone();
    family.refer(&root, SIGNATURE, b"signed by another");
    family.tag(&root, ".sig", &[b"cosign's signature", b"and another"]);
    family.write_others(from.host(), "dev/app", !from.has_api()).await;
    let third = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(third["changed"], true);
    let counts = &third["targets"][0]["referrers"];
    assert_eq!(counts[SIGNATURE], json!({"copied": 1, "skipped": 2}), "{counts}");
    assert_eq!(counts[".sig"], json!({"copied": 1, "skipped": 0}));
    assert_eq!(counts[SBOM], json!({"copied": 0, "skipped": 1}));
    family.assert_arrived(to.host(), "prod/app", to.has_api()).await;
}

async fn with_api(world: &World, name: &str) -> Option<Server> {
    let started = ReferrersRegistry::start(&world.guardian, name).await.unwrap();
    started.map(Server::WithApi)
}

#[tokio::test]
async fn from_and_to_registries_without_the_api() {
    let world = World::open().await;
    let from = Server::Plain(world.registry("staging", &[]).await);
    let to = Server::Plain(world.registry("production", &[]).await);
    goes_along(&world, from, to).await;
}

#[tokio::test]
async fn from_and_to_registries_with_the_api() {
    let world = World::open().await;
    let (Some(from), Some(to)) = (with_api(&world, "from").await, with_api(&world, "to").await) else {
        return;
    };
    goes_along(&world, from, to).await;
}

#[tokio::test]
async fn from_a_registry_with_the_api_to_one_without() {
    let world = World::open().await;
    let Some(from) = with_api(&world, "from").await else {
        return;
    };
    let to = Server::Plain(world.registry("production", &[]).await);
    goes_along(&world, from, to).await;
}

#[tokio::test]
async fn from_a_registry_without_the_api_to_one_with_it() {
    let world = World::open().await;
    let Some(to) = with_api(&world, "to").await else {
        return;
    };
    let from = Server::Plain(world.registry("staging", &[]).await);
    goes_along(&world, from, to).await;
}

#[tokio::test]
async fn looking_costs_a_request_for_each_manifest_and_one_for_the_tags_where_there_is_the_api() {
    let world = World::open().await;
    let Some(server) = with_api(&world, "registry").await else {
        return;
    };
    let image = Image::of_three_platforms("1");
    let source = format!("{}/dev/app:1", server.host());
    world.promote(&[&world.layout(&image), &source]).await.succeeded();
    let count = async |target: &str, referrers: &str| {
        let target = format!("{}/{target}:1", server.host());
        let report = world
            .promote(&[&source, &target, "--referrers", referrers])
            .await
            .succeeded();
        report["requests"].as_u64().unwrap()
    };
    let without = count("one", "none").await;
    assert_eq!(count("two", "all").await, without + 4 + 1);
}

#[tokio::test]
async fn what_goes_along_can_be_chosen() {
    let world = World::open().await;
    let server = Server::Plain(world.registry("staging", &[]).await);
    let family = Family::new("1");
    let source = push(&world, &server, &family).await;
    let promoted = async |repository: &str, referrers: &str| {
        let target = format!("{}/{repository}:1", server.host());
        let report = world
            .promote(&[&source, &target, "--referrers", referrers])
            .await
            .succeeded();
        report["targets"][0]["referrers"].clone()
    };
    assert_eq!(promoted("none", "none").await, json!({}));
    let some = promoted("some", &format!("{SBOM},.sig")).await;
    assert_eq!(
        some,
        json!({SBOM: {"copied": 1, "skipped": 0}, ".sig": {"copied": 1, "skipped": 0}})
    );
    let (_, root, _) = &family.referrers[0];
    assert_eq!(
        get(server.host(), None, &format!("some/manifests/{root}"))
            .await
            .0,
        404
    );
    let run = world
        .promote(&[&source, &source, "--referrers", "signatures"])
        .await;
    assert_eq!(run.code, 2, "{}", run.log);
    assert!(run.log.contains("TOWPATH_REFERRERS"), "{}", run.log);
}

#[tokio::test]
async fn a_tag_that_only_looks_like_a_list_is_not_taken_for_one() {
    let world = World::open().await;
    let server = world.registry("staging", &[]).await;
    let mut family = Family::new("1");
    let source = format!("{}/dev/app:1", server.host());
    world
        .promote(&[&world.layout(&family.image), &source])
        .await
        .succeeded();
    // As on registries where such a tag resolves to the digest itself.
    let root = family.image.root.clone();
    let (media_type, bytes) = &family.image.manifests[&root];
    put_manifest(
        server.host(),
        "dev/app",
        &format!("sha256-{}", hex(&root)),
        media_type,
        bytes,
    )
    .await;
    // A list of a child holds a manifest that refers to something else.
    let (child, sbom, _) = family.referrers[1].clone();
    family.referrers = vec![(root.clone(), sbom, SBOM)];
    let lie = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": family.list(&root)["manifests"]});
    let other = family
        .image
        .manifests
        .keys()
        .find(|digest| **digest != root && **digest != child);
    let tag = format!("sha256-{}", hex(other.unwrap()));
    family.tags.clear();
    family.write_others(server.host(), "dev/app", false).await;
    put_manifest(server.host(), "dev/app", &tag, INDEX, lie.to_string().as_bytes()).await;

    let target = format!("{}/prod/app:1", server.host());
    let report = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(report["targets"][0]["referrers"], json!({}));
    assert_eq!(tagged(server.host(), None, "prod/app", &tag).await, None);
}

#[tokio::test]
async fn signatures_at_the_target_are_kept_or_the_conflict_is_told() {
    let world = World::open().await;
    let server = Server::Plain(world.registry("staging", &[]).await);
    let mut family = Family::new("1");
    let source = push(&world, &server, &family).await;
    let target = format!("{}/prod/app:1", server.host());
    world.promote(&[&source, &target]).await.succeeded();
    let root = family.image.root.clone();

    // More than the source has: nothing to do.
    let tag = family.tag(&root, ".sig", &[b"cosign's signature", b"production's own"]);
    family.write_others(server.host(), "prod/app", true).await;
    let more = family.tags.last().unwrap().1.clone();
    let report = world.promote(&[&source, &target]).await.succeeded();
    assert_eq!(report["changed"], false);
    assert_eq!(tagged(server.host(), None, "prod/app", &tag).await, Some(more));

    // Another one altogether: refused before anything is written, unless it may go.
    family.tag(&root, ".sig", &[b"production's own"]);
    family.write_others(server.host(), "prod/app", true).await;
    let own = family.tags.last().unwrap().1.clone();
    let run = world.promote(&[&source, &target]).await;
    assert!(run.failed_with(6).contains(&tag));
    assert_eq!(tagged(server.host(), None, "prod/app", &tag).await, Some(own));
    world
        .promote(&[&source, &target, "--move-tag-from", "any"])
        .await
        .succeeded();
    assert_eq!(
        tagged(server.host(), None, "prod/app", &tag).await,
        tagged(server.host(), None, "dev/app", &tag).await
    );
}

#[tokio::test]
async fn a_registry_that_lists_no_tags_is_asked_for_them_one_by_one() {
    let world = World::open().await;
    for status in [400, 422] {
        let registry = Scripted::start(Script {
            lists_no_tags: Some(status),
            ..Script::default()
        })
        .await;
        let family = Family::new("1");
        let (tag, digest) = family.tags[0].clone();
        registry.hold("dev/app", "1", &family.image);
        let signature = Image {
            root: digest.clone(),
            ..family.others
        };
        registry.hold("dev/app", &tag, &signature);
        let source = format!("{}/dev/app:1", registry.host);
        let target = format!("{}/prod/app:1", registry.host);
        world.promote(&[&source, &target]).await.succeeded();
        assert_eq!(registry.tagged("prod/app", &tag), Some(digest), "{status}");
    }
}
