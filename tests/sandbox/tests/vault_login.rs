//! The tokens of the stand-ins open a real OpenBao, and only where its roles say so.

#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

use std::time::Duration;

use serde_json::{Value, json};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::jwt::Signer;
use towpath_sandbox::kubernetes::ApiServer;
use towpath_sandbox::servers::{JwtRole, KubernetesRole, OpenBao, http_client};
use towpath_sandbox::tools::{Progress, Tools};

const HOUR: Duration = Duration::from_secs(3600);

/// A real OpenBao in a world of its own.
struct Vault {
    server: OpenBao,
    http: reqwest::Client,
    guardian: Guardian,
}

impl Vault {
    async fn start() -> Vault {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        let server = OpenBao::start(&guardian, &tools).await.unwrap();
        Vault {
            server,
            http: http_client().unwrap(),
            guardian,
        }
    }

    async fn stop(self) {
        self.guardian.stop().await.unwrap();
    }

    /// Logs in, and returns the policies of the token, or the status and the first error.
    async fn log_in(&self, path: &str, role: &str, jwt: &str) -> Result<Value, (u16, String)> {
        let request = self
            .http
            .post(format!("{}/v1/auth/{path}/login", self.server.address()));
        let response = request
            .json(&json!({"role": role, "jwt": jwt}))
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        match body["errors"][0].as_str() {
            None => Ok(body["auth"]["policies"].clone()),
            Some(error) => Err((status, error.to_owned())),
        }
    }
}

/// A cluster and a Vault that trusts it. Tokens are reviewed with themselves, as without a reviewer's token they are.
async fn vault_with_kubernetes() -> (ApiServer, Vault) {
    let cluster = ApiServer::start().await.unwrap();
    for (namespace, name) in [
        ("gitlab-ci", "app-deployer"),
        ("gitlab-ci", "other"),
        ("elsewhere", "app-deployer"),
    ] {
        cluster.create_service_account(namespace, name);
        cluster.bind_auth_delegator(namespace, name);
    }
    let vault = Vault::start().await;
    vault
        .server
        .enable_kubernetes_auth("kubernetes", &cluster.url())
        .await
        .unwrap();
    let role = KubernetesRole {
        service_accounts: vec!["app-deployer".to_owned()],
        namespaces: vec!["gitlab-ci".to_owned()],
        audience: Some("vault".to_owned()),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    vault
        .server
        .write_kubernetes_role("kubernetes", "ci", &role)
        .await
        .unwrap();
    (cluster, vault)
}

#[tokio::test]
async fn a_service_account_logs_in_where_its_role_allows() {
    let (cluster, vault) = vault_with_kubernetes().await;
    let mint = |namespace: &str, name: &str, audience: &str| {
        cluster
            .mint_service_account_token(namespace, name, &[audience], HOUR)
            .unwrap()
    };
    let expired = cluster
        .mint_expired_service_account_token("gitlab-ci", "app-deployer", &["vault"])
        .unwrap();
    let good = mint("gitlab-ci", "app-deployer", "vault");
    assert_eq!(
        vault.log_in("kubernetes", "ci", &good).await,
        Ok(json!(["ci", "default"]))
    );

    let refused = [
        ("unknown role", "nobody", good.clone(), 400, "invalid role name"),
        (
            "audience",
            "ci",
            mint("gitlab-ci", "app-deployer", "elsewhere"),
            403,
            "audience",
        ),
        (
            "namespace",
            "ci",
            mint("elsewhere", "app-deployer", "vault"),
            403,
            "namespace not authorized",
        ),
        (
            "name",
            "ci",
            mint("gitlab-ci", "other", "vault"),
            403,
            "service account name not authorized",
        ),
        ("expired", "ci", expired, 403, "expired"),
        ("garbage", "ci", "garbage".to_owned(), 403, "permission denied"),
    ];
    for (case, role, jwt, status, words) in refused {
        let (found, error) = vault.log_in("kubernetes", role, &jwt).await.unwrap_err();
        assert!(
            found == status && error.contains(words),
            "{case}: {found} {error}"
        );
    }
    vault.stop().await;
}

#[tokio::test]
async fn a_deleted_service_account_logs_in_no_more() {
    let (cluster, vault) = vault_with_kubernetes().await;
    let token = cluster
        .mint_service_account_token("gitlab-ci", "app-deployer", &["vault"], HOUR)
        .unwrap();
    assert!(vault.log_in("kubernetes", "ci", &token).await.is_ok());
    cluster.delete_service_account("gitlab-ci", "app-deployer");
    let refusal = vault.log_in("kubernetes", "ci", &token).await.unwrap_err();
    assert_eq!(refusal, (403, "permission denied".to_owned()));
    vault.stop().await;
}

#[tokio::test]
async fn a_signed_identity_logs_in_with_its_claims() {
    let signer = Signer::generate("jobs");
    let vault = Vault::start().await;
    let issuer = "https://gitlab.example.com";
    vault
        .server
        .enable_jwt_auth("gitlab", &signer.public_key_pem(), issuer)
        .await
        .unwrap();
    let claims = json!({"project_path": "shop/web", "ref_protected": "true"});
    let role = JwtRole {
        user_claim: "sub".to_owned(),
        bound_audiences: vec!["vault".to_owned()],
        bound_claims: claims.as_object().unwrap().clone(),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    vault.server.write_jwt_role("gitlab", "ci", &role).await.unwrap();

    let claims = |change: &[(&str, Value)]| {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": issuer,
            "sub": "project_path:shop/web:ref_type:tag:ref:v1",
            "aud": "vault",
            "project_path": "shop/web",
            "ref_protected": "true",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        claims
    };
    let good = signer.sign(&claims(&[]));
    assert_eq!(
        vault.log_in("gitlab", "ci", &good).await,
        Ok(json!(["ci", "default"]))
    );
    let long_ago = jiff::Timestamp::now().as_second() - 3600;
    let refused = [
        ("audience", signer.sign(&claims(&[("aud", json!("elsewhere"))]))),
        (
            "project",
            signer.sign(&claims(&[("project_path", json!("shop/other"))])),
        ),
        (
            "branch",
            signer.sign(&claims(&[("ref_protected", json!("false"))])),
        ),
        (
            "issuer",
            signer.sign(&claims(&[("iss", json!("https://elsewhere.example.com"))])),
        ),
        (
            "expired",
            signer.sign(&claims(&[
                ("exp", json!(long_ago)),
                ("nbf", json!(long_ago - 60)),
            ])),
        ),
        ("foreign", Signer::generate("jobs").sign(&claims(&[]))),
    ];
    for (case, jwt) in refused {
        let (status, error) = vault.log_in("gitlab", "ci", &jwt).await.unwrap_err();
        assert_eq!(status, 400, "{case}: {error}");
    }
    vault.stop().await;
}
