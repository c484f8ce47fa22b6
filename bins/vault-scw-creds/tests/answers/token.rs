//! Tokens and leases that cannot be given back, or do not last.

use std::time::Duration;

use serde_json::json;

use crate::Case;
use crate::world::engine::{CREDS, Engine};

#[tokio::test]
async fn revoking_a_lease_with_the_default_policy_is_403_and_its_token_takes_it_along() {
    let case = Case::start().await;
    let engine = Engine::mount(&case.world, 3600, 3600).await;
    let ran = case
        .exec(&["--dynamic", CREDS], &[("VAULT_ADDR", &engine.address)])
        .await;
    for _ in 0..12000 {
        if case.world.leases().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(case.world.leases().await, [""; 0], "a lease is left");
    case.refused(&ran, 42, &["revoked with its token"]).await;
}

#[tokio::test]
async fn a_given_token_that_may_not_revoke_its_lease_is_told_of() {
    let case = Case::start().await;
    let engine = Engine::mount(&case.world, 3600, 3600).await;
    let body = json!({"policies": ["ci"], "ttl": "10m", "no_parent": true});
    let token = case.write("auth/token/create", body).await["auth"]["client_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let variables = [
        ("VAULT_ADDR", engine.address.as_str()),
        ("VAULT_TOKEN", token.as_str()),
    ];
    let flags = ["--auth", "token", "--dynamic", CREDS];
    let ran = case.exec(&flags, &variables).await;
    assert_eq!(ran.code, 42, "{ran:?}");
    assert!(ran.stderr.contains("lives on until it ends"), "{ran:?}");
    assert_eq!(
        case.world.leases().await.len(),
        1,
        "the token was not ours to end"
    );
    // Where the policy lets it, the lease is ended and the token is left alone.
    engine
        .allow(
            &case.world,
            r#"path "sys/leases/revoke" { capabilities = ["update"] }"#,
        )
        .await;
    let ran = case.exec(&flags, &variables).await;
    assert_eq!(ran.code, 42, "{ran:?}");
    assert_eq!(case.world.leases().await.len(), 1);
    case.world.stop().await;
}

#[tokio::test]
async fn revoking_a_batch_token_is_400_and_it_expires() {
    let case = Case::start().await;
    let role = case
        .world
        .server
        .make_approle("approle", "ci", &["ci"])
        .await
        .unwrap();
    let body = json!({"token_policies": ["ci"], "token_type": "batch", "token_ttl": "5m"});
    case.write("auth/approle/role/ci", body).await;
    let (id, secret) = (case.world.path("role-id"), case.world.path("secret-id"));
    std::fs::write(&id, role.role_id).unwrap();
    std::fs::write(&secret, role.secret_id).unwrap();
    let variables = [
        ("VAULT_ROLE_ID_FILE", id.to_str().unwrap()),
        ("VAULT_SECRET_ID_FILE", secret.to_str().unwrap()),
    ];
    let ran = case.exec(&["--auth", "approle", "--dry-run"], &variables).await;
    assert_eq!(ran.json()["token"], "expires", "{ran:?}");
    case.refused(&ran, 0, &[]).await;
}

#[tokio::test]
async fn a_token_without_uses_left_is_403() {
    let case = Case::start().await;
    let body = json!({"policies": ["ci"], "ttl": "10m", "no_parent": true, "num_uses": 1});
    let token = case.write("auth/token/create", body).await["auth"]["client_token"]
        .as_str()
        .unwrap()
        .to_owned();
    // Looking it up is the one use that it has.
    let ran = case.exec(&["--auth", "token"], &[("VAULT_TOKEN", &token)]).await;
    case.refused(&ran, 4, &["good for one request", "token_num_uses"])
        .await;
}

#[tokio::test]
async fn a_login_whose_token_has_few_uses_is_told_what_that_does_to_a_lease() {
    let case = Case::start().await;
    let engine = Engine::mount(&case.world, 3600, 3600).await;
    let role = case
        .world
        .server
        .make_approle("approle", "ci", &["ci"])
        .await
        .unwrap();
    let body = json!({"token_policies": ["ci"], "token_num_uses": 3});
    case.write("auth/approle/role/ci", body).await;
    let (id, secret) = (case.world.path("role-id"), case.world.path("secret-id"));
    std::fs::write(&id, role.role_id).unwrap();
    std::fs::write(&secret, role.secret_id).unwrap();
    let variables = [
        ("VAULT_ADDR", engine.address.as_str()),
        ("VAULT_ROLE_ID_FILE", id.to_str().unwrap()),
        ("VAULT_SECRET_ID_FILE", secret.to_str().unwrap()),
    ];
    let ran = case
        .exec(&["--auth", "approle", "--dynamic", CREDS], &variables)
        .await;
    case.refused(&ran, 42, &["good for 3 requests", "token_num_uses"])
        .await;
}
