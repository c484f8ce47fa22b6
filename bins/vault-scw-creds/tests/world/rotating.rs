//! A secret whose key is rotated, and an IAM beside the server.

use serde_json::{Value, json};
use towpath_sandbox::scaleway::{ApiKey, Iam, Settings};

use super::{Ran, World, run};

pub(crate) const DAY: i64 = 86_400;
pub(crate) const POLICY: &str = r#"
path "secret/data/ci/*" { capabilities = ["read", "update"] }
path "secret/metadata/ci/*" { capabilities = ["read", "update"] }
"#;

/// A world with an IAM beside it.
pub(crate) struct Rotating {
    pub(crate) world: World,
    pub(crate) iam: Iam,
}

/// A secret whose key may manage its bearer's keys.
pub(crate) struct Kept {
    pub(crate) path: String,
    pub(crate) application: String,
    pub(crate) first: ApiKey,
}

impl Rotating {
    pub(crate) async fn start(settings: Settings) -> Self {
        let world = World::start().await;
        world.server.write_policy("ci", POLICY).await.unwrap();
        let iam = Iam::start(settings).await.unwrap();
        Rotating { world, iam }
    }

    /// A secret with a key that was made so many days ago.
    pub(crate) async fn keep(&self, name: &str, days: i64) -> Kept {
        let application = self.iam.create_application(true, true);
        let key = self.iam.create_key(&application, "made by hand");
        self.iam.age(&key.access_key, days * DAY);
        let data = json!({"access_key": key.access_key, "secret_key": key.secret_key, "region": "fr-par",
                          "note": {"kept": [1, true, null]}});
        self.world
            .server
            .write_secret("secret", &format!("ci/{name}"), &data)
            .await
            .unwrap();
        Kept {
            path: format!("ci/{name}"),
            application,
            first: key,
        }
    }

    pub(crate) fn command(&self, kept: &Kept, flags: &[&str]) -> tokio::process::Command {
        let mut command = self.world.tool();
        command
            .env("SCW_API_URL", self.iam.url())
            .env("TOWPATH_SECRET", format!("secret/{}", kept.path))
            .env("TOWPATH_PROOF_PAUSE", "5ms")
            .env("TOWPATH_PROOFS", "3")
            .arg("rotate")
            .args(flags);
        command
    }

    pub(crate) async fn rotate(&self, kept: &Kept, flags: &[&str]) -> Ran {
        let ran = run(self.command(kept, flags)).await;
        let keys = self.iam.keys();
        let secrets: Vec<&str> = keys.iter().map(|key| key.secret_key.as_str()).collect();
        ran.assert_discreet(&secrets);
        ran
    }

    /// The latest version of the secret.
    pub(crate) async fn stored(&self, kept: &Kept) -> Value {
        let path = format!("secret/data/{}", kept.path);
        self.world.server.read(&path).await.unwrap()["data"].clone()
    }

    pub(crate) async fn custom(&self, kept: &Kept) -> Value {
        let path = format!("secret/metadata/{}", kept.path);
        self.world.server.read(&path).await.unwrap()["data"]["custom_metadata"].clone()
    }

    /// The bearer's keys besides the one in the secret, which has to be good.
    pub(crate) async fn others(&self, kept: &Kept) -> Vec<ApiKey> {
        let stored = self.stored(kept).await;
        let secret_key = stored["data"]["secret_key"].as_str().unwrap();
        assert!(self.iam.is_good(secret_key), "the secret holds a dead key");
        let mut keys = self.iam.keys();
        keys.retain(|key| key.application_id == kept.application);
        let at = keys.iter().position(|key| key.secret_key == secret_key).unwrap();
        assert_eq!(
            stored["data"]["access_key"],
            json!(keys.remove(at).access_key),
            "halves of two keys"
        );
        keys
    }
}

pub(crate) fn steps(ran: &Ran) -> Vec<String> {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()["rotation"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap().to_owned())
        .collect()
}
