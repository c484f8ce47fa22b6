//! Secrets that are not there, and versions that somebody else wrote.

use std::time::Duration;

use serde_json::json;
use towpath::deadline::Deadline;
use towpath::http::{Client, Settings, parse_base_url};
use towpath::vault::{Login, Replaced, Session, Vault};

use crate::Case;

#[tokio::test]
async fn a_v1_style_path_on_v2_is_404_with_warnings() {
    let case = Case::start().await;
    let policy = r#"path "secret/*" { capabilities = ["read"] }"#;
    case.world.server.write_policy("ci", policy).await.unwrap();
    // What is given to --secret is put together for its engine, so only here a path goes out as it stands.
    let ran = case.exec(&["--dynamic", "secret/ci/scw"], &[]).await;
    case.refused(
        &ran,
        5,
        &[
            "there is nothing at secret/ci/scw",
            "Invalid path for a versioned K/V",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_deleted_version_is_404_with_metadata() {
    let case = Case::start().await;
    case.write("secret/delete/ci/scw", json!({"versions": [2]})).await;
    let ran = case.exec(&[], &[]).await;
    case.refused(
        &ran,
        5,
        &["version 2 of secret/ci/scw was deleted at", "undelete"],
    )
    .await;
}

#[tokio::test]
async fn a_destroyed_version_is_404_with_metadata() {
    let case = Case::start().await;
    case.write("secret/destroy/ci/scw", json!({"versions": [1]}))
        .await;
    let ran = case.exec(&["--secret-version", "1"], &[]).await;
    case.refused(&ran, 5, &["version 1 of secret/ci/scw was destroyed"])
        .await;
}

#[tokio::test]
async fn a_missing_secret_is_404() {
    let case = Case::start().await;
    let ran = case.exec(&["--secret", "secret/ci/none"], &[]).await;
    case.refused(&ran, 5, &["there is no secret secret/ci/none"])
        .await;
}

#[tokio::test]
async fn a_missing_version_is_404() {
    let case = Case::start().await;
    let ran = case.exec(&["--secret-version", "9"], &[]).await;
    case.refused(&ran, 5, &["there is no version 9 of secret/ci/scw"])
        .await;
}

/// A session of the service account, which may write as well.
async fn writer(case: &Case) -> Session {
    let policy = r#"path "secret/data/ci/*" { capabilities = ["read", "update"] }"#;
    case.world.server.write_policy("ci", policy).await.unwrap();
    let client = Client::new(Settings::new("vault"), Deadline::after(Duration::from_secs(60))).unwrap();
    let address = parse_base_url("--vault-addr", case.world.server.address()).unwrap();
    let login = Login::Kubernetes {
        mount: "kubernetes".to_owned(),
        role: "ci".to_owned(),
        jwt_file: case.world.jwt_file(),
    };
    let vault = Vault::new(client, address, None).unwrap();
    vault.login(&login).await.unwrap()
}

#[tokio::test]
async fn a_check_and_set_that_does_not_match_is_400_and_writes_nothing() {
    let case = Case::start().await;
    let session = writer(&case).await;
    let mount = session.mount_of(&"secret/ci/scw".parse().unwrap()).await.unwrap();
    let original = session.original(&mount).await.unwrap();
    let theirs = json!({"data": {"access_key": "SCWTHEIRS00000000000"}, "options": {"cas": 2}});
    case.write("secret/data/ci/scw", theirs.clone()).await;
    let again = case.world.server.write("secret/data/ci/scw", &theirs).await;
    let words = format!("{:#}", again.unwrap_err());
    assert!(words.contains("check-and-set parameter did not match"), "{words}");
    let written = session
        .replace(&mount, &original, &[("access_key", "SCWX")])
        .await;
    assert_eq!(written.unwrap(), Replaced::Refused);
    let there = session.original(&mount).await.unwrap();
    assert_eq!(
        (there.version, there.field("access_key").as_deref()),
        (3, Some("SCWTHEIRS00000000000"))
    );
    case.world.stop().await;
}

#[tokio::test]
async fn a_check_and_set_that_a_mount_demands_is_given() {
    let case = Case::start().await;
    let session = writer(&case).await;
    case.write("secret/config", json!({"cas_required": true})).await;
    let without = json!({"data": {"access_key": "SCWTHEIRS00000000000"}});
    let refused = case.world.server.write("secret/data/ci/scw", &without).await;
    let words = format!("{:#}", refused.unwrap_err());
    assert!(
        words.contains("check-and-set parameter required for this call"),
        "{words}"
    );
    let mount = session.mount_of(&"secret/ci/scw".parse().unwrap()).await.unwrap();
    let original = session.original(&mount).await.unwrap();
    let written = session
        .replace(&mount, &original, &[("access_key", "SCWX")])
        .await;
    assert_eq!(written.unwrap(), Replaced::Version(3));
    case.world.stop().await;
}
