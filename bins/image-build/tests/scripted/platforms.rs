//! Images for other platforms, and several of them as one index.

use std::fs;

use serde_json::{Value, json};
use towpath::oci::Digest;

use crate::workshop::{COMMIT, OTHER_COMMIT, Workshop};

impl Workshop {
    /// Builds for a platform into a layout of its own. Gives the digest.
    async fn layout(&self, name: &str, architecture: &str, commit: &str) -> String {
        let digest = self.image_for(architecture, commit, name);
        let platform = format!("linux/{architecture}");
        let arguments = [
            "--tag",
            "test",
            "--no-push",
            "--oci-layout",
            name,
            "--platform",
            &platform,
        ];
        let ran = self.run(&arguments).await;
        assert_eq!(ran.done()["platform"], platform.as_str());
        assert_eq!(ran.report["digest"], digest.as_str());
        let given = format!("--custom-platform={platform}\n");
        assert!(
            self.seen("arguments").contains(&given),
            "{}",
            self.seen("arguments")
        );
        digest
    }

    /// A blob as the registry keeps it.
    fn stored(&self, digest: &str) -> Vec<u8> {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        fs::read(self.registry.storage().join(path)).unwrap()
    }
}

/// Puts a manifest that refers to an image into its layout, as a scanner does.
fn attach(workshop: &Workshop, layout: &str, subject: &str) -> String {
    let folder = workshop.project.join(layout);
    let blobs = folder.join("blobs/sha256");
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let (empty, size) = put(b"{}");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let size_of_subject = fs::metadata(blobs.join(&subject["sha256:".len()..]))
        .unwrap()
        .len();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": size},
        "layers": [],
        "subject": {"mediaType": media_type, "digest": subject, "size": size_of_subject},
    });
    let (digest, size) = put(manifest.to_string().as_bytes());
    let index_path = folder.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
    let listed = json!({"mediaType": media_type, "digest": digest, "size": size});
    index["manifests"].as_array_mut().unwrap().push(listed);
    fs::write(index_path, index.to_string()).unwrap();
    digest
}

#[tokio::test]
async fn layouts_of_single_platforms_become_one_index() {
    let workshop = Workshop::open().await;
    let amd = workshop.layout("one", "amd64", COMMIT).await;
    let arm = workshop.layout("two", "arm64", COMMIT).await;
    let list = attach(&workshop, "two", &arm);

    let planned = workshop
        .run(&["push", "one", "two", "--tag", "test", "--dry-run"])
        .await;
    assert_eq!(
        (&planned.done()["changed"], &planned.report["dry_run"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(workshop.tagged("test"), None);

    let handoff = workshop.project.join("handoff.env");
    let ran = workshop
        .run(&[
            "push",
            "one",
            "two",
            "--tag",
            "test",
            "--digest",
            &arm,
            "--handoff",
            "handoff.env",
        ])
        .await;
    let digest = ran.done()["digest"].as_str().unwrap().to_owned();
    assert_eq!(planned.report["digest"], digest.as_str(), "foretold");
    assert_eq!(
        ran.report["platforms"],
        json!({"linux/amd64": amd, "linux/arm64": arm})
    );
    assert_eq!(workshop.tagged("test"), Some(digest.clone()));
    assert!(
        fs::read_to_string(handoff)
            .unwrap()
            .contains(&format!("IMAGE_DIGEST={digest}\n"))
    );

    let manifest = |digest: &str, layout: &str| {
        let own = fs::read(
            workshop
                .project
                .join(layout)
                .join("blobs/sha256")
                .join(&digest["sha256:".len()..]),
        )
        .unwrap();
        assert_eq!(workshop.stored(digest), own, "the very bytes");
        own.len()
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let expected = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": media_type, "digest": amd, "size": manifest(&amd, "one"),
                "platform": {"architecture": "amd64", "os": "linux"}},
            {"mediaType": media_type, "digest": arm, "size": manifest(&arm, "two"),
                "platform": {"architecture": "arm64", "os": "linux"}},
        ],
        "annotations": {"org.opencontainers.image.revision": COMMIT},
    });
    assert_eq!(
        serde_json::from_slice::<Value>(&workshop.stored(&digest)).unwrap(),
        expected
    );
    assert!(
        !workshop.stored(&list).is_empty(),
        "what refers to an image goes along"
    );

    // In whatever order they are named, and from the variable too.
    let again = workshop.run(&["push", "two", "one", "--tag", "test"]).await;
    assert_eq!(
        (&again.done()["changed"], &again.report["digest"]),
        (&json!(false), &json!(digest))
    );
    let mut command = workshop.command(&["push", "--tag", "test", "--digest", &digest]);
    command.env("TOWPATH_OCI_LAYOUT", "one\ntwo\n");
    let again = crate::workshop::Ran::of(command.output().await.unwrap());
    assert_eq!(again.done()["digest"], digest.as_str());
    workshop.close().await;
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused_and_nothing_written() {
    let workshop = Workshop::open().await;
    workshop.layout("amd", "amd64", COMMIT).await;
    workshop.layout("amd-too", "amd64", COMMIT).await;
    let arm = workshop.layout("arm", "arm64", COMMIT).await;
    workshop.layout("late", "arm64", OTHER_COMMIT).await;
    let elsewhere = Digest::of(b"elsewhere").to_string();
    for (arguments, code, words) in [
        (&["amd", "amd"][..], 6, "are both for linux/amd64: the same image"),
        (
            &["amd", "arm", "amd-too"],
            6,
            "are both for linux/amd64: another image",
        ),
        (
            &["amd", "late"],
            6,
            "was built from 9876543210987654321098765432109876543210",
        ),
        (
            &["amd", "arm", "--digest", &elsewhere],
            6,
            "none of the layouts holds",
        ),
        (&["amd", "nowhere"], 5, "nowhere"),
    ] {
        let ran = workshop
            .run(&[&["push", "--tag", "test"], arguments].concat())
            .await;
        let last = ran.failed(code);
        assert!(last.contains(words), "{arguments:?}: {last}");
    }
    assert_eq!(workshop.tagged("test"), None);
    // An index is no image for one platform.
    workshop
        .run(&["push", "amd", "arm", "--tag", "test"])
        .await
        .done();
    let mut damaged = fs::OpenOptions::new()
        .write(true)
        .open(
            workshop
                .project
                .join("arm/blobs/sha256")
                .join(&arm["sha256:".len()..]),
        )
        .unwrap();
    std::io::Write::write_all(&mut damaged, b"[").unwrap();
    let ran = workshop.run(&["push", "amd", "arm", "--tag", "other"]).await;
    assert!(ran.failed(3).contains("damaged"), "{}", ran.log);
    workshop.close().await;
}

#[tokio::test]
async fn a_builder_that_builds_for_another_platform_is_caught() {
    let workshop = Workshop::open().await;
    workshop.image_for("amd64", COMMIT, "one");
    let ran = workshop
        .run(&["--tag", "test", "--platform", "linux/arm64"])
        .await;
    let last = ran.failed(8);
    assert!(
        last.contains("the image is for linux/amd64, where linux/arm64 was asked for"),
        "{last}"
    );
    assert_eq!(workshop.tagged("test"), None);
    for wrong in ["arm64", "linux", "linux/arm64/v8/x", ""] {
        workshop
            .run(&["--tag", "test", "--platform", wrong])
            .await
            .failed(2);
    }
    workshop.close().await;
}
