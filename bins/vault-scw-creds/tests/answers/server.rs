//! Servers that cannot answer, or send us elsewhere.

use serde_json::json;
use towpath_sandbox::servers::{Fault, Rule};

use crate::world::run;
use crate::{Case, canned};

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
