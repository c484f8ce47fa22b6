//! What the servers answer, case by case, and what we make of it: a test for each row of their refusals.
//!
//! The server is a real OpenBao. Where it cannot be brought to answer so by itself (a standby behind its active server,
//! a proxy without one), what stands before it answers in its place.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use towpath_sandbox::jwt::Signer;
use towpath_sandbox::servers::{Canned, Fault, JwtRole, KubernetesRole, Proxy, Rule};
use world::engine::{CREDS, Engine};
use world::{Ran, SECRET_KEY, World, run};

const HOUR: Duration = Duration::from_secs(3600);

struct Case {
    world: World,
    tokens: Vec<String>,
}

impl Case {
    async fn start() -> Case {
        let world = World::start().await;
        let tokens = world.tokens().await;
        Case { world, tokens }
    }

    /// Runs `exec` with these flags and variables, and a command that ends with 42.
    async fn exec(&self, flags: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.world.tool();
        command
            .envs(variables.iter().copied())
            .arg("exec")
            .args(flags)
            .args(["--", "sh", "-c", "exit 42"]);
        run(command).await
    }

    /// Ends with `code`, says `words`, shows no secret and leaves no token.
    async fn refused(self, ran: &Ran, code: i32, words: &[&str]) {
        assert_eq!(ran.code, code, "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
        }
        ran.assert_discreet(&[SECRET_KEY, &self.world.jwt]);
        assert_eq!(self.world.tokens().await, self.tokens, "a token is left");
        self.world.stop().await;
    }

    /// Logs in as the service account with this token.
    fn present(&self, jwt: &str) {
        std::fs::write(self.world.jwt_file(), jwt).unwrap();
    }

    async fn write(&self, path: &str, body: Value) -> Value {
        self.world.server.write(path, &body).await.unwrap()
    }

    /// A proxy before the server, with these rules.
    async fn behind(&self, rules: Vec<Rule>) -> (Proxy, String) {
        let proxy = Proxy::start(self.world.server.address().trim_start_matches("http://"))
            .await
            .unwrap();
        rules.into_iter().for_each(|rule| proxy.add(rule));
        let address = format!("http://{}", proxy.host());
        (proxy, address)
    }
}

fn canned(status: u16, body: &str) -> Fault {
    Fault::Answer(Canned {
        status,
        body: body.to_owned(),
        ..Canned::default()
    })
}

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

#[tokio::test]
async fn sealed_is_503_for_as_long_as_it_lasts() {
    let case = Case::start().await;
    let sealed = r#"{"errors":["Vault is sealed"]}"#;
    let (_proxy, address) = case
        .behind(vec![
            Rule::on("GET", "/v1/secret/data", canned(503, sealed)).times(1),
            Rule::on("POST", "/login", canned(503, sealed)).times(2),
        ])
        .await;
    let ran = case.exec(&[], &[("VAULT_ADDR", &address)]).await;
    assert_eq!(ran.code, 42, "it was unsealed in time: {ran:?}");
    let again = case
        .exec(&["--inline-auth", "never"], &[("VAULT_ADDR", &address)])
        .await;
    assert_eq!(again.code, 42, "{again:?}");

    // Sealing answers before it is done, and nobody can ask for tokens afterwards.
    case.write("sys/seal", json!({})).await;
    let ran = case.exec(&[], &[]).await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stderr.contains("sealed"), "{ran:?}");
    case.world.stop().await;
}

#[tokio::test]
async fn uninitialised_is_501_of_its_health_and_503_of_all_else() {
    let case = Case::start().await;
    let health =
        r#"{"initialized":false,"sealed":true,"standby":true,"server_time_utc":1,"version":"2.7.2"}"#;
    let sealed = r#"{"errors":["Vault is sealed"]}"#;
    let (_proxy, address) = case
        .behind(vec![
            Rule::on("GET", "/v1/sys/health", canned(200, health)),
            Rule::on("GET", "/v1/", canned(503, sealed)),
            Rule::on("POST", "/v1/", canned(503, sealed)),
        ])
        .await;
    let mut command = case.world.tool();
    command
        .env("VAULT_ADDR", &address)
        .args(["doctor", "--output", "json"]);
    let doctor = run(command).await;
    assert_eq!(doctor.code, 7, "{doctor:?}");
    assert!(doctor.stdout.contains("not set up yet"), "{doctor:?}");
    let ran = case.exec(&[], &[("VAULT_ADDR", &address)]).await;
    case.refused(&ran, 7, &["503"]).await;
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
    let first = case.exec(&flags, &variables).await;
    assert_eq!(first.code, 42, "{first:?}");
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

#[tokio::test]
async fn revoking_a_lease_with_the_default_policy_is_403_and_its_token_takes_it_along() {
    let case = Case::start().await;
    let engine = Engine::mount(&case.world, 3600, 3600).await;
    let ran = case
        .exec(&["--dynamic", CREDS], &[("VAULT_ADDR", &engine.address)])
        .await;
    for _ in 0..3000 {
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

#[tokio::test]
async fn a_standby_that_lags_behind_is_412_and_asked_again() {
    let case = Case::start().await;
    let lagging = r#"{"errors":["required index state not present"]}"#;
    let (proxy, address) = case
        .behind(vec![
            Rule::on("GET", "/v1/sys/internal/ui/mounts", canned(412, lagging)).times(2),
        ])
        .await;
    let ran = case
        .exec(&["--inline-auth", "never"], &[("VAULT_ADDR", &address)])
        .await;
    assert!(proxy.exchanges().len() >= 6, "{:?}", proxy.exchanges());
    case.refused(&ran, 42, &[]).await;
}

#[tokio::test]
async fn a_rate_limit_is_429_and_waited_for_as_it_says() {
    let case = Case::start().await;
    case.write(
        "sys/quotas/config",
        json!({"enable_rate_limit_response_headers": true}),
    )
    .await;
    let body = json!({"rate": 1, "interval": "2s", "path": "secret/"});
    case.write("sys/quotas/rate-limit/narrow", body).await;
    for _ in 0..3 {
        let ran = case.exec(&[], &[]).await;
        assert_eq!(ran.code, 42, "{ran:?}");
    }
    let ran = case.exec(&["--timeout", "60s"], &[]).await;
    case.refused(&ran, 42, &[]).await;
}

#[tokio::test]
async fn a_proxy_without_a_server_is_502_or_504_and_asked_again() {
    let case = Case::start().await;
    let (_proxy, address) = case
        .behind(vec![
            Rule::on("POST", "/login", canned(502, "<html>no upstream</html>")).times(1),
            Rule::on("GET", "/v1/secret/data", canned(504, "<html>too slow</html>")).times(1),
            Rule::on("POST", "/revoke-self", canned(502, "")).times(1),
        ])
        .await;
    let ran = case
        .exec(&["--inline-auth", "never"], &[("VAULT_ADDR", &address)])
        .await;
    case.refused(&ran, 42, &[]).await;
}

#[tokio::test]
async fn a_server_that_knows_no_inline_authentication_is_logged_in_to_within_four_requests() {
    let case = Case::start().await;
    // As Vault answers a request without a token.
    let denied = r#"{"errors":["permission denied"]}"#;
    let (proxy, address) = case
        .behind(vec![
            Rule::on("GET", "/v1/secret/data", canned(403, denied)).times(1),
        ])
        .await;
    let ran = case.exec(&[], &[("VAULT_ADDR", &address)]).await;
    assert_eq!(proxy.exchanges().len(), 4, "{:?}", proxy.exchanges());
    case.refused(&ran, 42, &[]).await;
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_refused_with_all_that_would_go_along() {
    let case = Case::start().await;
    let (_proxy, address) = case
        .behind(vec![
            Rule::on("GET", "/v1/", Fault::Redirect("127.0.0.1:9".to_owned())),
            Rule::on("POST", "/v1/", Fault::Redirect("127.0.0.1:9".to_owned())),
        ])
        .await;
    let ran = case.exec(&[], &[("VAULT_ADDR", &address)]).await;
    case.refused(&ran, 4, &["redirects to 127.0.0.1:9"]).await;
}
