//! Reading a secret with the login in the same request: no token is ever issued, and none can be left behind.
//!
//! Source: OpenBao, "Inline authentication". It answers a request whose headers carry the parameters of a login, each as
//! unpadded base64url of a small JSON object. What such a request may not do was looked up in OpenBao 2.7's answers: ask for
//! the mount of a path, and get anything with a lease. Vault does not know it and sees a request without a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::kv::{KvVersion, VersionedAnswer, texts};
use super::login::Parameters;
use super::refusal::Asked;
use super::{BUSY_BUT_ALIVE, Login, Mount, REQUEST, Reading, Vault};
use crate::failure::{Kind, Result};
use crate::http::StatusCode;
use crate::http::header::HeaderName;
use crate::secret::Secret;

const PATH: HeaderName = HeaderName::from_static("x-vault-inline-auth-path");
/// Servers and proxies refuse heads above 8 KiB (nginx, `large_client_header_buffers`), of which base64 takes its part.
const LONGEST_PARAMETER: usize = 5 * 1024;

/// What comes of reading without a token.
#[derive(Debug)]
pub enum Inline {
    /// The secret.
    Read(Reading),
    /// The server knows how and would have allowed it, and there is no such secret at this place.
    Absent,
    /// It cannot be had like this: the server does not know how, the secret is elsewhere, or something was refused. Whoever
    /// logs in learns the reason.
    Refused,
}

impl Vault {
    /// Reads a secret at `place` by a login of this request alone.
    ///
    /// # Errors
    /// Usage (exit 2) when a file of the login cannot be read; unavailable (exit 7) or deadline (exit 9) when the server
    /// cannot be reached.
    pub async fn read_inline(&self, login: &Login, place: &Mount, version: Option<u64>) -> Result<Inline> {
        let Some(Parameters { mount, parameters }) = login.parameters()? else {
            return Ok(Inline::Refused);
        };
        if parameters
            .iter()
            .any(|(_, value)| value.expose().len() > LONGEST_PARAMETER)
        {
            return Ok(Inline::Refused);
        }
        // An engine without versions is not asked for one; who logs in is told so.
        if place.version == KvVersion::One && version.is_some() {
            return Ok(Inline::Refused);
        }
        let url = self.url(&place.values_path())?;
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
                return Ok(Inline::Refused);
            };
            let document = json!({"key": name, "value": value.expose()}).to_string();
            request = request.secret_header(header, &Secret::new(URL_SAFE_NO_PAD.encode(document)));
        }
        let answer = match super::Answer::of(request).await {
            Ok(answer) => answer,
            // A proxy between us may take offence at the headers in ways that are no answer at all.
            Err(failure) if failure.kind() == Kind::Denied => return Ok(Inline::Refused),
            Err(failure) => return Err(self.explain(failure).await),
        };
        if answer.status == StatusCode::TOO_MANY_REQUESTS || BUSY_BUT_ALIVE.contains(&answer.status) {
            // A login would fare no better.
            let asked = Asked::Read {
                mount: place,
                version,
                policies: &[],
                uses: 0,
            };
            return Err(asked.refused(&answer));
        }
        if answer.status != StatusCode::OK {
            tracing::debug!(
                action = "read",
                object = place.values_path(),
                status = answer.status.as_u16(),
                "not without a token"
            );
            // Without a login nobody is told that there is nothing.
            return Ok(match answer.status {
                StatusCode::NOT_FOUND => Inline::Absent,
                _ => Inline::Refused,
            });
        }
        let reading = match place.version {
            KvVersion::One => answer
                .parse::<super::Envelope<Map<String, Value>>>()
                .ok()
                .and_then(|found| found.data)
                .map(|data| Reading::new(None, texts(data))),
            KvVersion::Two => answer
                .parse::<super::Envelope<VersionedAnswer>>()
                .ok()
                .and_then(|found| found.data)
                .map(|data| Reading::new(Some(data.metadata.version), texts(data.data))),
        };
        Ok(reading.map_or(Inline::Refused, Inline::Read))
    }
}
