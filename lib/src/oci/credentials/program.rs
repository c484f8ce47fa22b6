//! Credential helpers: programs that know a login.
//!
//! Source: the protocol of docker-credential-helpers: `docker-credential-X get`, the server on standard input, a JSON
//! document on standard output.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::Credential;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;
use crate::secret::Secret;

/// A helper that asks a keyring or a metadata server needs moments; one that hangs must not hold the run.
const LIMIT: Duration = Duration::from_secs(30);
/// The protocol has no other sign for "I know nothing of this server" than these words on standard output.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name under which helpers keep an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper for its credential.
pub(super) async fn get(program: &Path, server: &str, deadline: Deadline) -> Result<Option<Credential>> {
    let command = Command::new(program).arg("get").input(server.as_bytes());
    let name = command.name();
    let ended = command.capture(deadline.within(LIMIT)).await?;
    if !ended.success() {
        if ended.text() == NOT_FOUND {
            return Ok(None);
        }
        return Err(Failure::denied(format!(
            "{name} gives no credential for {server}: it ended with code {}",
            ended.code()
        ))
        .hint(format!("run `echo {server} | {name} get` by hand to see why")));
    }
    // What it printed may hold the secret in any form, so none of it is shown.
    let answer: Answer = serde_json::from_slice(&ended.stdout).map_err(|_| {
        Failure::input(format!(
            "{name} gives something for {server} that is not a credential"
        ))
        .hint(format!("run `echo {server} | {name} get` by hand to see what"))
    })?;
    let secret = Secret::new(answer.secret);
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if answer.username == TOKEN_USER {
        Credential::IdentityToken(secret)
    } else {
        Credential::Password {
            user: answer.username,
            password: secret,
        }
    }))
}
