//! Argo CD behind TLS of an authority that only the company knows. What answers here is a registry: that it answers at all is
//! what tells.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test runs the binary as a process and may panic anywhere"
)]

use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Authority, Registry, Tls, Validity};
use towpath_sandbox::tool_run::Tool;
use towpath_sandbox::tools::{Progress, Tools};

const TOKEN: &str = "canary-argocd-token-4711";

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_is_given() {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let authority = Authority::new("authority").unwrap();
    let server = authority.issue(&["127.0.0.1"], Validity::Now).unwrap();
    let tls = Tls {
        server: &server,
        clients: None,
    };
    let registry = Registry::start_tls(&guardian, &tools, "guarded", &[], tls)
        .await
        .unwrap();
    let file = guardian.dir().join("ca.pem");
    std::fs::write(&file, authority.certificate()).unwrap();
    let wait = || {
        let tool = Tool::new(env!("CARGO_BIN_EXE_argocd-wait"), &[TOKEN]);
        tool.env("ARGOCD_SERVER", registry.host())
            .env("ARGOCD_AUTH_TOKEN", TOKEN)
            .args([
                "--application",
                "web",
                "--revision",
                &"a".repeat(40),
                "--timeout",
                "20s",
            ])
            .args([
                "--image",
                &format!("registry.example.com/web@sha256:{}", "d".repeat(64)),
            ])
    };
    let stranger = wait().run().await.unwrap();
    assert_eq!(stranger.code, 4, "{stranger}");
    assert!(stranger.stderr.contains("is not to be trusted"), "{stranger}");
    let known = wait().env("ARGOCD_CA_FILE", &file).run().await.unwrap();
    // It is asked, and has no such application.
    assert_eq!(known.code, 5, "{known}");
    drop(registry);
    guardian.stop().await.unwrap();
}
