//! A started OpenBao keeps secrets and lets in whom its roles name.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use axum::extract::Json;
use axum::http::StatusCode;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{JwtRole, KubernetesRole, OpenBao, http_client};
use towpath_sandbox::tools::{Progress, Tools};

const CANARY: &str = "canary-5f1a";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjt6B2PsHgJnn41AJv0wqeRQiX9NR
JtfBQyKftOnqtUxqLFV+aLLZwo7NJIyhFssDUu0eqgKvkeBAxzEvv1GKQQ==
-----END PUBLIC KEY-----
";

async fn start() -> (Guardian, OpenBao) {
    let tools = Tools::find_or_install(&Progress::lines()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let bao = OpenBao::start(&guardian, &tools).await.unwrap();
    (guardian, bao)
}

/// Logs in as a client would: without the root token.
async fn log_in(bao: &OpenBao, mount: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/v1/auth/{mount}/login", bao.address());
    let answer = http_client().unwrap().post(url).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn read_as(bao: &OpenBao, login: &Value, path: &str) -> (u16, Value) {
    let token = login["auth"]["client_token"].as_str().unwrap();
    let url = format!("{}/v1/{path}", bao.address());
    let answer = http_client()
        .unwrap()
        .get(url)
        .header("X-Vault-Token", token)
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn text_of(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_secret_is_kept_in_versions_and_shown_to_no_log() {
    let (guardian, bao) = start().await;
    bao.enable_kv("team/secret").await.unwrap();
    bao.write_secret("team/secret", "app/db", &json!({"password": "first"}))
        .await
        .unwrap();
    bao.write_secret("team/secret", "app/db", &json!({"password": CANARY}))
        .await
        .unwrap();
    let read = bao.read("team/secret/data/app/db").await.unwrap();
    assert_eq!(read["data"]["data"], json!({"password": CANARY}));
    assert_eq!(read["data"]["metadata"]["version"], 2);

    let audited = text_of(bao.audit_log());
    assert!(
        audited.contains("team/secret/data/app/db"),
        "the audit log holds the requests"
    );
    for log in [audited, text_of(bao.log())] {
        assert!(!log.contains(CANARY) && !log.contains(bao.root_token()));
    }
    let missing = bao.read("team/secret/data/absent").await.unwrap_err().to_string();
    assert_eq!(
        missing,
        "reading team/secret/data/absent on OpenBao: 404 Not Found: []"
    );
    guardian.stop().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn an_approle_reads_what_its_policy_allows() {
    let (guardian, bao) = start().await;
    bao.enable_kv("secret").await.unwrap();
    bao.write_secret("secret", "mine", &json!({"key": "value"}))
        .await
        .unwrap();
    bao.write_secret("secret", "theirs", &json!({"key": "value"}))
        .await
        .unwrap();
    bao.write_policy("mine", r#"path "secret/data/mine" { capabilities = ["read"] }"#)
        .await
        .unwrap();
    let role = bao.make_approle("approle", "ci", &["mine"]).await.unwrap();
    let again = bao.make_approle("approle", "other", &["mine"]).await.unwrap();
    assert_ne!(role.role_id, again.role_id);

    let credentials = json!({"role_id": role.role_id, "secret_id": role.secret_id});
    let (status, login) = log_in(&bao, "approle", credentials).await;
    assert_eq!(status, 200, "{login}");
    assert_eq!(read_as(&bao, &login, "secret/data/mine").await.0, 200);
    assert_eq!(read_as(&bao, &login, "secret/data/theirs").await.0, 403);
    let (status, _) = log_in(
        &bao,
        "approle",
        json!({"role_id": role.role_id, "secret_id": "wrong"}),
    )
    .await;
    assert_eq!(status, 400);
    guardian.stop().await.unwrap();
}

/// A token of the shape that Kubernetes issues. Nobody checks its signature here: the reviewer below stands for that.
fn service_account_token(namespace: &str, name: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "aud": ["vault"], "iat": 1_700_000_000_u64, "nbf": 1_700_000_000_u64, "exp": 4_102_444_800_u64, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "u-1"}},
    });
    format!(
        "{}.{}.c2ln",
        part(json!({"alg": "RS256", "typ": "JWT"})),
        part(claims)
    )
}

async fn review(Json(review): Json<Value>) -> (StatusCode, Json<Value>) {
    let token = review["spec"]["token"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let status = json!({
        "authenticated": true, "audiences": ["vault"], "user": {"username": claims["sub"], "uid": "u-1"},
    });
    let answer = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status});
    (StatusCode::CREATED, Json(answer))
}

#[tokio::test(flavor = "current_thread")]
async fn a_service_account_logs_in_when_its_token_is_reviewed() {
    let (guardian, bao) = start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubernetes = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    bao.enable_kubernetes_auth("kubernetes", &kubernetes)
        .await
        .unwrap();
    let role = KubernetesRole {
        service_accounts: vec!["app-deployer".to_owned()],
        namespaces: vec!["gitlab-ci".to_owned()],
        audience: Some("vault".to_owned()),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    bao.write_kubernetes_role("kubernetes", "ci", &role)
        .await
        .unwrap();
    let login = async |namespace| {
        let jwt = service_account_token(namespace, "app-deployer");
        log_in(&bao, "kubernetes", json!({"role": "ci", "jwt": jwt})).await
    };
    let (status, answer) = login("gitlab-ci").await;
    assert_eq!(
        (status, &answer["auth"]["token_policies"]),
        (200, &json!(["ci", "default"])),
        "{answer}"
    );
    assert_eq!(answer["auth"]["lease_duration"], 900);
    assert_eq!(login("elsewhere").await.0, 403);
    guardian.stop().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_jwt_that_the_key_did_not_sign_is_refused() {
    let (guardian, bao) = start().await;
    bao.enable_jwt_auth("gitlab", PUBLIC_KEY, "https://gitlab.example.com")
        .await
        .unwrap();
    let role = JwtRole {
        user_claim: "sub".to_owned(),
        bound_audiences: vec!["https://vault.example.com".to_owned()],
        bound_claims: json!({"project_path": "group/app"}).as_object().unwrap().clone(),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    bao.write_jwt_role("gitlab", "ci", &role).await.unwrap();
    let stored = bao.read("auth/gitlab/role/ci").await.unwrap();
    assert_eq!(
        stored["data"]["bound_claims"],
        json!({"project_path": "group/app"})
    );
    let (status, answer) = log_in(
        &bao,
        "gitlab",
        json!({"role": "ci", "jwt": service_account_token("n", "s")}),
    )
    .await;
    assert_eq!(status, 400, "{answer}");
    guardian.stop().await.unwrap();
}
