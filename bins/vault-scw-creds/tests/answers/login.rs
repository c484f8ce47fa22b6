//! Refused logins.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use towpath_sandbox::jwt::Signer;
use towpath_sandbox::servers::{JwtRole, KubernetesRole};

use crate::Case;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn kubernetes_token_review_down_is_403_and_named_as_a_possibility() {
    let case = Case::start().await;
    let server = &case.world.server;
    server
        .enable_kubernetes_auth("down", "http://127.0.0.1:9")
        .await
        .unwrap();
    let role = KubernetesRole {
        service_accounts: vec!["deployer".to_owned()],
        namespaces: vec!["gitlab-ci".to_owned()],
        audience: Some("vault".to_owned()),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    server.write_kubernetes_role("down", "ci", &role).await.unwrap();
    let ran = case.exec(&["--auth-mount", "down"], &[]).await;
    case.refused(
        &ran,
        4,
        &[
            "can the server ask the cluster's TokenReview",
            "namespace gitlab-ci, service account deployer",
            "as role ci",
        ],
    )
    .await;
}

#[tokio::test]
async fn kubernetes_garbage_instead_of_a_jwt_is_403() {
    let case = Case::start().await;
    case.present("e30.e30.c2ln");
    let ran = case.exec(&[], &[]).await;
    case.refused(&ran, 4, &["TokenReview"]).await;
}

#[tokio::test]
async fn kubernetes_wrong_role_is_400() {
    let case = Case::start().await;
    let ran = case.exec(&["--role", "nobody"], &[]).await;
    case.refused(&ran, 4, &["as role nobody", "the role exists", "--role"])
        .await;
}

#[tokio::test]
async fn kubernetes_wrong_audience_is_403() {
    let case = Case::start().await;
    let jwt = case
        .world
        .cluster
        .mint_service_account_token("gitlab-ci", "deployer", &["https://elsewhere.example"], HOUR)
        .unwrap();
    case.present(&jwt);
    let ran = case.exec(&[], &[]).await;
    ran.assert_discreet(&[&jwt]);
    case.refused(
        &ran,
        4,
        &["audience https://elsewhere.example", "the role's audience"],
    )
    .await;
}

#[tokio::test]
async fn kubernetes_wrong_namespace_is_403() {
    let case = Case::start().await;
    let cluster = &case.world.cluster;
    cluster.create_service_account("elsewhere", "deployer");
    cluster.bind_auth_delegator("elsewhere", "deployer");
    let jwt = cluster
        .mint_service_account_token("elsewhere", "deployer", &["vault"], HOUR)
        .unwrap();
    case.present(&jwt);
    let ran = case.exec(&[], &[]).await;
    case.refused(
        &ran,
        4,
        &[
            "namespace elsewhere, service account deployer",
            "bound_service_account_namespaces",
        ],
    )
    .await;
}

#[tokio::test]
async fn kubernetes_expired_is_403() {
    let case = Case::start().await;
    let jwt = case
        .world
        .cluster
        .mint_expired_service_account_token("gitlab-ci", "deployer", &["vault"])
        .unwrap();
    case.present(&jwt);
    let ran = case.exec(&[], &[]).await;
    case.refused(&ran, 4, &["the token has ended", "expired"]).await;
}

#[tokio::test]
async fn jwt_wrong_audience_expiry_or_claim_is_400() {
    let case = Case::start().await;
    let signer = Signer::generate("gitlab");
    let issuer = "https://gitlab.example.com";
    let server = &case.world.server;
    server
        .enable_jwt_auth("gitlab", &signer.public_key_pem(), issuer)
        .await
        .unwrap();
    let role = JwtRole {
        user_claim: "sub".to_owned(),
        bound_audiences: vec!["vault".to_owned()],
        bound_claims: [("project_path".to_owned(), json!("team/infra"))]
            .into_iter()
            .collect(),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    server.write_jwt_role("gitlab", "ci", &role).await.unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = |audience: &str, project: &str, end: u64| {
        signer.sign(&json!({
            "iss": issuer, "sub": format!("project_path:{project}"), "aud": audience, "project_path": project,
            "iat": now - 900, "nbf": now - 900, "exp": end,
        }))
    };
    let flags = ["--auth", "jwt", "--auth-mount", "gitlab"];
    let good = token("vault", "team/infra", now + 300);
    let ran = case.exec(&flags, &[("VAULT_ID_TOKEN", &good)]).await;
    assert_eq!(ran.code, 42, "{ran:?}");
    let mut last = ran;
    for (jwt, words) in [
        (token("other", "team/infra", now + 300), "bound_audiences"),
        (token("vault", "team/infra", now - 300), "the token has ended"),
        (token("vault", "team/other", now + 300), "project_path:team/other"),
    ] {
        last = case.exec(&flags, &[("VAULT_ID_TOKEN", &jwt)]).await;
        assert_eq!(last.code, 4, "{last:?}");
        assert!(last.stderr.contains(words), "{last:?}");
        last.assert_discreet(&[&jwt]);
    }
    case.refused(&last, 4, &["project_path"]).await;
}

/// The role's id in a file, and a secret id wrapped in a token in another.
async fn wrapped(case: &Case) -> [(&'static str, String); 2] {
    let role = case
        .world
        .server
        .make_approle("approle", "ci", &["ci"])
        .await
        .unwrap();
    let (id, wrapped) = (case.world.path("role-id"), case.world.path("wrapped"));
    std::fs::write(&id, role.role_id).unwrap();
    std::fs::write(&wrapped, wrap(case, "auth/approle/role/ci/secret-id").await).unwrap();
    [
        ("VAULT_ROLE_ID_FILE", id.display().to_string()),
        ("VAULT_SECRET_ID_FILE", wrapped.display().to_string()),
    ]
}

/// A wrapping token around what a write answers.
async fn wrap(case: &Case, path: &str) -> String {
    let output = Command::new("curl")
        .args(["-sS", "-X", "POST", "-H", "X-Vault-Wrap-TTL: 300", "-H"])
        .arg(format!("X-Vault-Token: {}", case.world.server.root_token()))
        .arg(format!("{}/v1/{path}", case.world.server.address()))
        .output()
        .await
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["wrap_info"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn unwrapping_twice_is_400_and_may_be_an_interception() {
    let case = Case::start().await;
    let variables = wrapped(&case).await;
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let flags = ["--auth", "approle", "--wrapped-secret-id"];
    let (proxy, address) = case.behind(Vec::new()).await;
    let counted = [&variables[..], &[("VAULT_ADDR", &address)]].concat();
    let first = case.exec(&flags, &counted).await;
    assert_eq!(first.code, 42, "{first:?}");
    // See what is wrapped, unwrap it, log in, read, revoke.
    assert_eq!(proxy.exchanges().len(), 5, "{:?}", proxy.exchanges());
    let second = case.exec(&flags, &variables).await;
    case.refused(
        &second,
        4,
        &["not there to be unwrapped any more", "intercepted", "audit log"],
    )
    .await;
}

#[tokio::test]
async fn a_wrapping_token_of_something_else_is_not_unwrapped() {
    let case = Case::start().await;
    let variables = wrapped(&case).await;
    let foreign = wrap(&case, "sys/wrapping/wrap").await;
    std::fs::write(&variables[1].1, &foreign).unwrap();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let ran = case
        .exec(&["--auth", "approle", "--wrapped-secret-id"], &variables)
        .await;
    ran.assert_discreet(&[&foreign]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.stderr.contains("was made at \"sys/wrapping/wrap\""),
        "{ran:?}"
    );
    case.world.stop().await;
}

#[tokio::test]
async fn an_unknown_namespace_is_404() {
    let case = Case::start().await;
    let ran = case.exec(&[], &[("VAULT_NAMESPACE", "nowhere")]).await;
    case.refused(&ran, 5, &["namespace nowhere", "VAULT_NAMESPACE"])
        .await;
}
