//! Argo CD behind TLS of an authority that only the company knows. What answers here is a registry: that it answers at all is
//! what tells.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test runs the binary as a process and may panic anywhere"
)]

use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{GuardedRegistry, Validity};
use towpath_sandbox::tool_run::Tool;
use towpath_sandbox::tools::{Progress, Tools};

const TOKEN: &str = "canary-argocd-token-4711";

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_is_given() {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let guarded = GuardedRegistry::start(&guardian, &tools, &[], Validity::Now, false)
        .await
        .unwrap();
    let wait = || {
        let tool = Tool::new(env!("CARGO_BIN_EXE_argocd-wait"), &[TOKEN]);
        tool.env("ARGOCD_SERVER", guarded.registry.host())
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
    let known = wait()
        .env("ARGOCD_CA_FILE", &guarded.ca_file)
        .run()
        .await
        .unwrap();
    // It is asked, and has no such application.
    assert_eq!(known.code, 5, "{known}");
    drop(guarded);
    guardian.stop().await.unwrap();
}
