//! Secrets that are not there.

use serde_json::json;

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
