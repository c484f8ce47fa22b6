//! The tokens of the stand-ins open a real OpenBao, and only where its roles say so.

#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::jwt::Signer;
use towpath_sandbox::kubernetes::ApiServer;
use towpath_sandbox::tools::{Progress, Tools};

const HOUR: Duration = Duration::from_secs(3600);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A real OpenBao with a client that holds its root token.
struct Vault {
    http: reqwest::Client,
    url: String,
    root_token: String,
    _guardian: Guardian,
}

impl Vault {
    async fn start() -> Vault {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .unwrap();
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let root_token = "root-of-this-test".to_owned();
        let mut server = guardian.command(&tools.bao);
        server.args(["server", "-dev", "-dev-no-store-token"]);
        server
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("BAO_DEV_ROOT_TOKEN_ID", &root_token);
        let mut server = server
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let vault = Vault {
            http,
            url: format!("http://127.0.0.1:{port}"),
            root_token,
            _guardian: guardian,
        };
        let ready = async {
            let health = format!("{}/v1/sys/health", vault.url);
            while !vault
                .http
                .get(&health)
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
            {
                assert!(server.try_wait().unwrap().is_none(), "OpenBao has ended");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap();
        vault
    }

    async fn write(&self, path: &str, body: Value) {
        let request = self
            .http
            .post(format!("{}/v1/{path}", self.url))
            .header("X-Vault-Token", &self.root_token);
        let response = request.json(&body).send().await.unwrap();
        let status = response.status();
        assert!(
            status.is_success(),
            "{path}: {status} {}",
            response.text().await.unwrap()
        );
    }

    /// Logs in, and returns the policies of the token, or the status and the first error.
    async fn log_in(&self, path: &str, role: &str, jwt: &str) -> Result<Value, (u16, String)> {
        let request = self.http.post(format!("{}/v1/auth/{path}/login", self.url));
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
        .write("sys/auth/kubernetes", json!({"type": "kubernetes"}))
        .await;
    let config = json!({"kubernetes_host": cluster.url(), "kubernetes_ca_cert": "unused", "disable_local_ca_jwt": true});
    vault.write("auth/kubernetes/config", config).await;
    let role = json!({
        "bound_service_account_names": "app-deployer",
        "bound_service_account_namespaces": "gitlab-ci",
        "audience": "vault",
        "policies": "ci",
        "ttl": "15m",
    });
    vault.write("auth/kubernetes/role/ci", role).await;
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
}

#[tokio::test]
async fn a_signed_identity_logs_in_with_its_claims() {
    let signer = Signer::generate("jobs");
    let vault = Vault::start().await;
    vault.write("sys/auth/gitlab", json!({"type": "jwt"})).await;
    let issuer = "https://gitlab.example.com";
    let config = json!({"jwt_validation_pubkeys": [signer.public_key_pem()], "bound_issuer": issuer});
    vault.write("auth/gitlab/config", config).await;
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "bound_claims": {"project_path": "shop/web", "ref_protected": "true"},
        "policies": "ci",
    });
    vault.write("auth/gitlab/role/ci", role).await;

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
}
