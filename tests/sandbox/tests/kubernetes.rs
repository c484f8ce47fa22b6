//! The stand-in for a Kubernetes API server, asked over HTTP as a client asks it.

#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use towpath_sandbox::kubernetes::{API_AUDIENCES, ApiServer};
use towpath_sandbox::servers::http_client;

const HOUR: Duration = Duration::from_secs(3600);

fn client() -> reqwest::Client {
    http_client().unwrap()
}

async fn cluster() -> ApiServer {
    let server = ApiServer::start().await.unwrap();
    server.create_service_account("vault", "reviewer");
    server.bind_auth_delegator("vault", "reviewer");
    server.create_service_account("gitlab-ci", "app-deployer");
    server
}

fn reviewer(server: &ApiServer) -> String {
    server
        .mint_service_account_token("vault", "reviewer", &[], HOUR)
        .unwrap()
}

fn deployer(server: &ApiServer, audiences: &[&str]) -> String {
    server
        .mint_service_account_token("gitlab-ci", "app-deployer", audiences, HOUR)
        .unwrap()
}

async fn post_review(server: &ApiServer, bearer: Option<&str>, body: &Value) -> (u16, Value) {
    let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", server.url());
    let mut request = client().post(url).json(body);
    if let Some(token) = bearer {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The `status` of a review of `token` that the reviewer may make.
async fn review(server: &ApiServer, token: &str, audiences: &[&str]) -> Value {
    let mut spec = json!({"token": token});
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    let (code, mut review) = post_review(server, Some(&reviewer(server)), &body).await;
    assert_eq!(code, 201);
    assert_eq!(review["kind"], "TokenReview");
    review["status"].take()
}

#[tokio::test]
async fn a_token_has_the_claims_of_a_projected_one() {
    let server = cluster().await;
    let token = deployer(&server, &["vault"]);
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["iss"], server.url());
    assert_eq!(claims["sub"], "system:serviceaccount:gitlab-ci:app-deployer");
    assert_eq!(claims["aud"], json!(["vault"]));
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3600
    );
    assert_eq!(claims["nbf"], claims["iat"]);
    let bound = &claims["kubernetes.io"];
    assert_eq!(bound["namespace"], "gitlab-ci");
    assert_eq!(bound["serviceaccount"]["name"], "app-deployer");
    assert_eq!(bound["serviceaccount"]["uid"].as_str().unwrap().len(), 36);
    assert!(
        bound["pod"]["name"]
            .as_str()
            .unwrap()
            .starts_with("app-deployer-")
    );
    assert_eq!(bound["pod"]["uid"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn a_review_names_the_account_and_the_common_audiences() {
    let server = cluster().await;
    let status = review(
        &server,
        &deployer(&server, &["vault", "other"]),
        &["third", "vault"],
    )
    .await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:gitlab-ci:app-deployer"
    );
    assert_eq!(
        status["user"]["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:gitlab-ci",
            "system:authenticated"
        ])
    );
    assert!(status.get("error").is_none());
}

#[tokio::test]
async fn without_audiences_a_review_asks_for_those_of_the_server() {
    let server = cluster().await;
    let status = review(&server, &deployer(&server, &[]), &[]).await;
    assert_eq!(status["audiences"], json!([API_AUDIENCES[0]]));
    let refused = review(&server, &deployer(&server, &["elsewhere"]), &[]).await;
    assert_eq!(
        refused["error"],
        "[invalid bearer token, token audiences [\"elsewhere\"] is invalid for the target audiences \
         [\"https://kubernetes.default.svc\" \"vault\"]]"
    );
}

#[tokio::test]
async fn a_token_that_fails_review_has_an_error_and_no_user() {
    let server = cluster().await;
    let expired = server
        .mint_expired_service_account_token("gitlab-ci", "app-deployer", &["vault"])
        .unwrap();
    let elsewhere = cluster().await;
    let cases = [
        (
            expired,
            "[invalid bearer token, service account token has expired]",
        ),
        (
            deployer(&elsewhere, &["vault"]),
            "[invalid bearer token, error in cryptographic primitive]",
        ),
        ("garbage".to_owned(), "invalid bearer token"),
    ];
    for (token, error) in cases {
        let status = review(&server, &token, &["vault"]).await;
        assert_eq!(status, json!({"user": {}, "error": error}));
    }
}

#[tokio::test]
async fn deleting_an_account_ends_its_tokens_for_good() {
    let server = cluster().await;
    let token = deployer(&server, &["vault"]);
    assert_eq!(review(&server, &token, &["vault"]).await["authenticated"], true);
    server.delete_service_account("gitlab-ci", "app-deployer");
    let status = review(&server, &token, &["vault"]).await;
    assert_eq!(
        status["error"],
        "[invalid bearer token, serviceaccounts \"app-deployer\" not found]"
    );
    assert!(
        server
            .mint_service_account_token("gitlab-ci", "app-deployer", &["vault"], HOUR)
            .is_err()
    );
    server.create_service_account("gitlab-ci", "app-deployer");
    let status = review(&server, &token, &["vault"]).await;
    assert!(
        status["error"].as_str().unwrap().contains("does not match claim"),
        "{status}"
    );
}

#[tokio::test]
async fn only_a_delegator_may_review() {
    let server = cluster().await;
    let body = json!({"spec": {"token": deployer(&server, &["vault"]), "audiences": ["vault"]}});
    for bearer in [
        None,
        Some("garbage".to_owned()),
        Some(deployer(&server, &["elsewhere"])),
    ] {
        let (code, status) = post_review(&server, bearer.as_deref(), &body).await;
        assert_eq!(
            (code, &status["kind"], &status["reason"]),
            (401, &json!("Status"), &json!("Unauthorized"))
        );
    }
    let own = deployer(&server, &["vault"]);
    let (code, status) = post_review(&server, Some(&own), &body).await;
    assert_eq!(
        (code, &status["kind"], &status["code"]),
        (403, &json!("Status"), &json!(403))
    );
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("system:serviceaccount:gitlab-ci:app-deployer"),
        "{message}"
    );
    server.bind_auth_delegator("gitlab-ci", "app-deployer");
    assert_eq!(post_review(&server, Some(&own), &body).await.0, 201);
}

#[tokio::test]
async fn a_review_without_a_token_is_a_bad_request() {
    let server = cluster().await;
    for body in [json!({}), json!({"spec": {"token": ""}}), json!([])] {
        let (code, status) = post_review(&server, Some(&reviewer(&server)), &body).await;
        assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")), "{body}");
    }
}

#[tokio::test]
async fn the_keys_are_published_to_service_accounts_alone() {
    let server = cluster().await;
    let version: Value = client()
        .get(format!("{}/version", server.url()))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(version["major"], "1");
    let address = format!("{}/.well-known/openid-configuration", server.url());
    assert_eq!(client().get(&address).send().await.unwrap().status(), 401);
    let token = deployer(&server, &[]);
    let discovery: Value = client()
        .get(&address)
        .bearer_auth(&token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(discovery["issuer"], server.url());
    let address = discovery["jwks_uri"].as_str().unwrap();
    let keys = client().get(address).bearer_auth(&token).send().await.unwrap();
    assert_eq!(keys.headers()["content-type"], "application/jwk-set+json");
    let keys: Value = keys.json().await.unwrap();
    assert_eq!(keys["keys"][0]["crv"], "P-256");
    assert_eq!(
        client()
            .get(format!("{}/api", server.url()))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}
