//! Servers behind TLS: whom we trust, and what we show them. What answers there is no Vault, but a server that wants
//! certificates in the same way; that it answers at all is what it takes one for.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::path::PathBuf;

use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{GuardedRegistry, Validity};
use towpath_sandbox::tools::{Progress, Tools};
use world::{Ran, run, tool};

struct Guarded {
    guardian: Guardian,
    server: GuardedRegistry,
}

impl Guarded {
    async fn start() -> Self {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        let server = GuardedRegistry::start(&guardian, &tools, &[], Validity::Now, true)
            .await
            .unwrap();
        std::fs::write(guardian.dir().join("jwt"), "e30.e30.c2ln").unwrap();
        Guarded { guardian, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.guardian.dir().join(name)
    }

    async fn exec(&self, variables: &[(&str, PathBuf)]) -> Ran {
        let mut command = tool();
        command
            .env("VAULT_ADDR", format!("https://{}", self.server.registry.host()))
            .env("TOWPATH_JWT_FILE", self.path("jwt"))
            .envs(variables.iter().cloned())
            .args(["exec", "--role", "ci", "--secret", "secret/ci/scw", "--", "true"]);
        run(command).await
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_shown_the_certificate_that_it_wants() {
    let guarded = Guarded::start().await;
    let stranger = guarded.exec(&[]).await;
    assert_eq!(stranger.code, 4, "{stranger:?}");
    assert!(stranger.stderr.contains("is not to be trusted"), "{stranger:?}");

    let ca = ("VAULT_CACERT", guarded.server.ca_file.clone());
    let nameless = guarded.exec(std::slice::from_ref(&ca)).await;
    assert_eq!(nameless.code, 4, "{nameless:?}");
    assert!(
        nameless.stderr.contains("wants a client certificate"),
        "{nameless:?}"
    );
    assert!(nameless.stderr.contains("VAULT_CLIENT_CERT"), "{nameless:?}");

    let client = guarded.server.authority.issue(&["job"], Validity::Now).unwrap();
    let (certificate, key) = client.write_to(&guarded.path("client")).unwrap();
    let known = guarded
        .exec(&[
            ca.clone(),
            ("VAULT_CLIENT_CERT", certificate.clone()),
            ("VAULT_CLIENT_KEY", key),
        ])
        .await;
    // It is let in, and finds that there is no Vault.
    assert_eq!(known.code, 5, "{known:?}");

    let half = guarded.exec(&[ca, ("VAULT_CLIENT_CERT", certificate)]).await;
    assert_eq!(half.code, 2, "{half:?}");
    assert!(half.stderr.contains("--vault-client-key"), "{half:?}");
    guarded.guardian.stop().await.unwrap();
}
