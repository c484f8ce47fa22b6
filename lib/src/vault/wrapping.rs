//! A secret id that was handed over in a wrapping token, which gives it once.
//!
//! Source: "Response wrapping" in the concepts of Vault and OpenBao, section "Response wrapping token validation"; API
//! reference, "/sys/wrapping/lookup" and "/sys/wrapping/unwrap".

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::Vault;
use super::refusal::Asked;
use crate::failure::{Failure, Result};
use crate::http::Repeat;
use crate::secret::Secret;

#[derive(Deserialize)]
struct Wrapping {
    #[serde(default)]
    creation_path: String,
}

#[derive(Deserialize)]
struct Unwrapped {
    #[serde(deserialize_with = "secret")]
    secret_id: Secret,
}

impl Vault {
    /// Takes the secret id of an AppRole at `mount` out of the wrapping token in `file`, after a look at where the token
    /// is from: one that somebody put in its place would give a secret id of theirs.
    ///
    /// # Errors
    /// Usage (exit 2) when the file cannot be read; denied (exit 4) when the token is used up or gone, or was not
    /// made by that method; unavailable (exit 7) when the server cannot be asked.
    pub(super) async fn unwrap_secret_id(&self, mount: &str, file: &Path) -> Result<Secret> {
        let token = Secret::from_file(file, "wrapped AppRole secret id")?;
        let asked = Asked::Unwrap { file };
        let nothing = |shown: &str| Failure::input(format!("the answer to {shown} holds no data"));
        let body = json!({});
        let answer = self
            .post("sys/wrapping/lookup", &body, &token, Repeat::Safe)
            .await?;
        let wrapping: Wrapping = answer.read(&asked)?.data.ok_or_else(|| nothing(&answer.shown))?;
        let path = wrapping.creation_path;
        let is_ours = path
            .strip_prefix(&format!("auth/{mount}/role/"))
            .and_then(|rest| rest.strip_suffix("/secret-id"))
            .is_some_and(|role| !role.is_empty());
        if !is_ours {
            return Err(Failure::denied(format!(
                "what is wrapped in {} was made at {path:?}, not as a secret id of auth/{mount}",
                file.display()
            ))
            .hint("if the mount (--auth-mount) is right, somebody has put another token in its place"));
        }
        // Nobody can have it a second time, so a lost answer is a lost secret id.
        let answer = self
            .post("sys/wrapping/unwrap", &body, &token, Repeat::Unsafe)
            .await?;
        let unwrapped: Unwrapped = answer.read(&asked)?.data.ok_or_else(|| nothing(&answer.shown))?;
        Ok(unwrapped.secret_id)
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}
