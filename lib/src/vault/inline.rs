//! Reading a secret with the login in the same request: no token is ever issued, and none can be left behind.
//!
//! Source: OpenBao, "Inline authentication". It answers a request whose headers carry the parameters of a login, each as
//! unpadded base64url of a small JSON object. What such a request may not do was looked up in OpenBao 2.7's answers: ask for
//! the mount of a path, and get anything with a lease. Vault does not know it and sees a request without a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::kv::{KvVersion, VersionedAnswer, texts};
use super::login::Parameters;
use super::refusal::Asked;
use super::{BUSY_BUT_ALIVE, Login, Mount, REQUEST, Reading, SecretPath, Vault};
use crate::failure::{Kind, Result};
use crate::http::StatusCode;
use crate::http::header::HeaderName;
use crate::secret::Secret;

const PATH: HeaderName = HeaderName::from_static("x-vault-inline-auth-path");
/// Servers and proxies refuse heads above 8 KiB (nginx, `large_client_header_buffers`), of which base64 takes its part.
const LONGEST_PARAMETER: usize = 5 * 1024;

impl Vault {
    /// Reads a secret of a KV v2 engine by a login of this request alone. None when it cannot be had like this: the
    /// server does not know how, the engine's name has a slash or keeps no versions, or something was refused. Then
    /// whoever asks logs in, and learns the reason.
    ///
    /// # Errors
    /// Usage (exit 2) when a file of the login cannot be read; unavailable (exit 7) or deadline (exit 9) when the server
    /// cannot be reached.
    pub async fn read_inline(
        &self,
        login: &Login,
        secret: &SecretPath,
        version: Option<u64>,
    ) -> Result<Option<Reading>> {
        let Some(Parameters { mount, parameters }) = login.parameters()? else {
            return Ok(None);
        };
        if parameters
            .iter()
            .any(|(_, value)| value.expose().len() > LONGEST_PARAMETER)
        {
            return Ok(None);
        }
        let guess = Mount::first_segment(secret);
        debug_assert_eq!(guess.version, KvVersion::Two);
        let url = self.url(&format!("{}/data/{}", guess.path, guess.below))?;
        let mut request = self
            .http()
            .get(url)
            .header(REQUEST, "true")
            .repeat_on(BUSY_BUT_ALIVE)
            .header(PATH, &format!("auth/{mount}/login"));
        if let Some(version) = version {
            request = request.query("version", &version.to_string());
        }
        if let Some(namespace) = self.namespace() {
            request = request.header(super::NAMESPACE, namespace);
        }
        for (name, value) in &parameters {
            let header = format!("x-vault-inline-auth-parameter-{name}");
            let Ok(header) = HeaderName::try_from(header) else {
                return Ok(None);
            };
            let document = json!({"key": name, "value": value.expose()}).to_string();
            request = request.secret_header(header, &Secret::new(URL_SAFE_NO_PAD.encode(document)));
        }
        let answer = match super::Answer::of(request).await {
            Ok(answer) => answer,
            // A proxy between us may take offence at the headers in ways that are no answer at all.
            Err(failure) if failure.kind() == Kind::Denied => return Ok(None),
            Err(failure) => return Err(self.explain(failure).await),
        };
        if answer.status == StatusCode::TOO_MANY_REQUESTS || BUSY_BUT_ALIVE.contains(&answer.status) {
            // A login would fare no better.
            let asked = Asked::Read {
                mount: &guess,
                version,
                policies: &[],
                uses: 0,
            };
            return Err(asked.refused(&answer));
        }
        if answer.status != StatusCode::OK {
            tracing::debug!(
                action = "read",
                object = secret.as_str(),
                status = answer.status.as_u16(),
                "not without a token"
            );
            return Ok(None);
        }
        let Ok(found) = answer.parse::<super::Envelope<VersionedAnswer>>() else {
            return Ok(None);
        };
        Ok(found
            .data
            .map(|data| Reading::new(Some(data.metadata.version), texts(data.data))))
    }
}
