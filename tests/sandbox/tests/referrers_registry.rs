//! The registry with the referrers API answers as the specification says, and logs what it answered.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Logged, ReferrersRegistry, http_client};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &[u8] = b"{}";

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Starts two at once, so that where it is built both ask for it.
#[tokio::test]
async fn what_refers_to_a_manifest_is_listed_and_requests_are_logged() {
    let guardian = Guardian::start().unwrap();
    let (one, two) = tokio::join!(
        ReferrersRegistry::start(&guardian, "one"),
        ReferrersRegistry::start(&guardian, "two")
    );
    let (Some(registry), Some(other)) = (one.unwrap(), two.unwrap()) else {
        return;
    };
    assert_ne!(registry.host(), other.host());
    let client = http_client().unwrap();
    let url = |path: &str| format!("http://{}/v2/team/app/{path}", registry.host());

    let session = client.post(url("blobs/uploads/")).send().await.unwrap();
    assert_eq!(session.status(), 202);
    let location = session.headers()["location"].to_str().unwrap().to_owned();
    let place = format!("http://{}{location}?digest={}", registry.host(), digest_of(EMPTY));
    let put = client.put(place).body(EMPTY).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let blob = client
        .get(url(&format!("blobs/{}", digest_of(EMPTY))))
        .send()
        .await
        .unwrap();
    assert_eq!(blob.bytes().await.unwrap(), EMPTY);

    let config =
        json!({"mediaType": "application/vnd.example.sbom", "digest": digest_of(EMPTY), "size": EMPTY.len()});
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let put = async |manifest: &Value| {
        let text = manifest.to_string();
        let digest = digest_of(text.as_bytes());
        let answer = client
            .put(url(&format!("manifests/{digest}")))
            .header("content-type", MANIFEST)
            .body(text.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        json!({"mediaType": MANIFEST, "digest": digest, "size": text.len()})
    };
    let subject = put(&manifest).await;
    manifest["subject"] = subject.clone();
    let referrer = put(&manifest).await;

    let path = format!("referrers/{}", subject["digest"].as_str().unwrap());
    let listed = client.get(url(&path)).send().await.unwrap();
    assert_eq!(listed.status(), 200);
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(listed["manifests"][0]["digest"], referrer["digest"]);
    assert_eq!(
        listed["manifests"][0]["artifactType"],
        "application/vnd.example.sbom"
    );

    let requests = registry.requests().unwrap();
    assert_eq!(requests.len(), 6, "{requests:?}");
    assert_eq!(
        requests.last(),
        Some(&Logged {
            method: "GET".to_owned(),
            uri: format!("/v2/team/app/{path}"),
            status: 200
        })
    );
    assert_eq!(other.requests().unwrap(), []);
    drop((registry, other));
    guardian.stop().await.unwrap();
}

#[test]
fn where_there_is_no_go_a_test_says_what_it_leaves_out() {
    let (cache, path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The world's folder is watched over by a shell.
    let sh = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("sh"))
        .find(|file| file.is_file())
        .unwrap();
    std::os::unix::fs::symlink(sh, path.path().join("sh")).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_refers_to_a_manifest_is_listed_and_requests_are_logged",
        ])
        .arg("--nocapture")
        .env("TOWPATH_CACHE", cache.path())
        .env("PATH", path.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no Go is on PATH"), "{said}");
    assert!(said.contains("install Go"), "{said}");
}
