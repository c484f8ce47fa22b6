//! Vault and OpenBao: log in, read a secret, give the token back.
//!
//! Source: the "HTTP API" reference of HashiCorp Vault and of OpenBao, which agree in all that is used here; what they
//! leave open was looked up in OpenBao 2.7's answers.
//!
//! `vaultrs` knows the requests, our own [client](crate::http) sends them. So they share its deadline, its repetitions
//! and its refusal to follow a redirect with a token, none of which `vaultrs` has; the token travels in a header that
//! is marked as secret, where `vaultrs` would panic on a stray newline. Answers are read into types of our own, since
//! those of `vaultrs` print secrets and drop leases, versions and the reasons of a 404.
//!
//! Deliberately absent: whatever a job has no business with (policies, mounts, unsealing), and any reading of
//! `VAULT_*` variables.

mod hold;
mod inline;
mod jwt;
mod kv;
mod kv_write;
mod lease;
mod login;
mod refusal;
mod session;
mod wrapping;

pub use hold::Released;
pub use inline::Inline;
pub use jwt::{Claims, claims, seconds_since_epoch};
pub use kv::{KvVersion, Mount, Reading, SecretPath};
pub use kv_write::{Original, Replaced, SecretMetadata};
pub use lease::Lease;
pub use login::{Login, SERVICE_ACCOUNT_TOKEN, looks_like_token};
pub use session::{Revocation, Session};

use std::time::Duration;

use bytes::Bytes;
use rustify::endpoint::Endpoint;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vaultrs::api::EndpointMiddleware;

use self::refusal::Asked;
use crate::failure::{Failure, Kind, Result};
use crate::http::header::HeaderName;
use crate::http::{self, Body, Client, Method, Repeat, StatusCode, Url};
use crate::secret::Secret;

/// What the server answers when it did nothing and may do it later: a standby that has not caught up with a fresh
/// token (412), an error of its own (500), and a proxy without a server or a sealed server (502 to 504).
const BUSY: &[StatusCode] = &[
    StatusCode::PRECONDITION_FAILED,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];
/// The same but for errors of its own: among those may be that it does not understand how it is asked.
const BUSY_BUT_ALIVE: &[StatusCode] = &[
    StatusCode::PRECONDITION_FAILED,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];
/// No answer that we ask for is anywhere near this many bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// How long one request that gives something back may take.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Set by every client, so that a forged request of a browser can be told from ours.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// A Vault or OpenBao server. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Vault {
    http: Client,
    address: Url,
    namespace: Option<String>,
    /// How long one request may take, when that is less than usual.
    answer_within: Option<Duration>,
}

/// What a server says about itself without a login.
#[derive(Clone, Debug, Deserialize)]
pub struct Health {
    /// Whether it was ever set up.
    pub initialized: bool,
    /// Whether it waits to be unsealed, and answers nothing else until then.
    pub sealed: bool,
    /// Whether another server of the cluster is the active one.
    #[serde(default)]
    pub standby: bool,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its clock, in seconds since the epoch.
    pub server_time_utc: i64,
}

/// The frame around every answer; only the parts that are used.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Envelope<T> {
    data: Option<T>,
    #[serde(default)]
    auth: Option<session::Auth>,
    #[serde(default)]
    lease_id: String,
    /// Seconds.
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// An answer of any status, read to its end.
struct Answer {
    status: StatusCode,
    body: Bytes,
    /// Method, host and path of the request.
    shown: String,
    location: Option<String>,
}

impl Vault {
    /// A server at `address`, which may have a path if the server sits behind a proxy that adds one.
    ///
    /// # Errors
    /// Denied (exit 4) for plain http to another machine; usage (exit 2) when the address carries credentials.
    pub fn new(http: Client, address: Url, namespace: Option<String>) -> Result<Self> {
        http.check_url(&address)?;
        Ok(Vault {
            http,
            address,
            namespace,
            answer_within: None,
        })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        http::authority(&self.address)
    }

    /// How many requests went out so far.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.http.requests_sent()
    }

    /// The same server under another deadline, to give a token back when the run's own time is over.
    #[must_use]
    pub fn with_deadline(&self, deadline: crate::deadline::Deadline) -> Self {
        Vault {
            http: self.http.with_deadline(deadline),
            ..self.clone()
        }
    }

    /// The same server for giving back: under another deadline, for which a server that does not answer is not waited.
    fn for_release(&self, deadline: crate::deadline::Deadline) -> Self {
        Vault {
            answer_within: Some(RELEASED_WITHIN),
            ..self.with_deadline(deadline)
        }
    }

    /// Asks how the server is. Sealed and standby servers answer this too.
    ///
    /// # Errors
    /// Unavailable (exit 7) when it cannot be reached or something else answers in its place.
    pub async fn health(&self) -> Result<Health> {
        let url = self.url("sys/health")?;
        let response = self
            .http
            .get(url)
            .query("standbyok", "true")
            .query("perfstandbyok", "true")
            .query("sealedcode", "200")
            .query("uninitcode", "200")
            .send()
            .await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(
                Failure::unavailable(format!("{} answers {status}", response.shown()))
                    .hint("is the address (VAULT_ADDR) really that of Vault or OpenBao?"),
            );
        }
        let shown = response.shown().to_owned();
        response.json(ANSWER_LIMIT).await.map_err(|failure| {
            Failure::unavailable(format!("{shown} is answered by something else than Vault"))
                .because(failure)
                .hint("is the address (VAULT_ADDR) really that of Vault or OpenBao?")
        })
    }

    /// Sends a request that `vaultrs` describes.
    async fn call(&self, endpoint: impl Endpoint, token: Option<&Secret>) -> Result<Answer> {
        // The path of the address has to stand before the version, which the middleware puts first.
        let version = format!("{}v1", self.address.path().trim_start_matches('/'));
        let middleware = EndpointMiddleware {
            token: String::new(),
            version,
            wrap: None,
            namespace: None,
        };
        let mut origin = self.address.clone();
        origin.set_path("/");
        let built = endpoint
            .with_middleware(&middleware)
            .request(origin.as_str())
            .map_err(|error| Failure::internal("cannot put a request to vault together").because(error))?;
        let url = Url::parse(&built.uri().to_string())
            .map_err(|error| Failure::internal("cannot put a request to vault together").because(error))?;
        let method = built.method().clone();
        // A second login would leave a token behind that nobody knows and gives back, so what is not known to have
        // failed is not sent again, unless it only reads.
        let repeat = if method == Method::GET {
            Repeat::Safe
        } else {
            Repeat::Unsafe
        };
        let body = Body::Bytes(built.into_body().into());
        self.send(method, url, token, body, repeat).await
    }

    /// Sends a `GET` that `vaultrs` does not know.
    async fn get(&self, path: &str, token: Option<&Secret>) -> Result<Answer> {
        self.get_as(path, token, Repeat::Safe).await
    }

    /// Sends a `GET` that may do more than read.
    async fn get_as(&self, path: &str, token: Option<&Secret>, repeat: Repeat) -> Result<Answer> {
        self.send(Method::GET, self.url(path)?, token, Body::Empty, repeat)
            .await
    }

    /// Sends a `POST` that `vaultrs` does not know, or cannot be had with all of its fields.
    async fn post(&self, path: &str, body: &Value, token: &Secret, repeat: Repeat) -> Result<Answer> {
        let body = Body::Bytes(body.to_string().into());
        self.send(Method::POST, self.url(path)?, Some(token), body, repeat)
            .await
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        token: Option<&Secret>,
        body: Body,
        repeat: Repeat,
    ) -> Result<Answer> {
        let mut request = self
            .http
            .request(method, url)
            .header(REQUEST, "true")
            .repeat(repeat)
            .repeat_on(BUSY)
            .body(body);
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        if let Some(token) = token {
            request = request.secret_header(TOKEN, token);
        }
        if let Some(limit) = self.answer_within {
            request = request.timeout(limit);
        }
        match Answer::of(request).await {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    /// A server that breaks off may want to know first who we are.
    async fn explain(&self, failure: Failure) -> Failure {
        let never_arrived = std::error::Error::source(&failure)
            .and_then(|source| source.downcast_ref::<http::Unanswered>())
            .is_none_or(http::Unanswered::never_arrived);
        if failure.kind() != Kind::Unavailable || never_arrived {
            return failure;
        }
        match self.http.check_client_certificate(&self.address).await {
            Ok(()) => failure,
            Err(refused) => refused.hint(
                "give the certificate that the server knows us by, and its key, with --vault-client-cert \
                 (VAULT_CLIENT_CERT) and --vault-client-key (VAULT_CLIENT_KEY)",
            ),
        }
    }

    fn http(&self) -> &Client {
        &self.http
    }

    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn url(&self, path: &str) -> Result<Url> {
        let mut url = self.address.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::usage("the address of vault cannot be extended by a path"))?
            .pop_if_empty()
            .push("v1")
            .extend(path.split('/'));
        Ok(url)
    }
}

impl Answer {
    async fn of(request: http::Request<'_>) -> Result<Self> {
        let response = request.send().await?;
        let status = response.status();
        let shown = response.shown().to_owned();
        let location = response.header(&http::header::LOCATION).map(str::to_owned);
        let body = response.bytes(ANSWER_LIMIT).await?;
        Ok(Answer {
            status,
            body,
            shown,
            location,
        })
    }

    /// The document, or the failure that the status stands for.
    fn read<T: DeserializeOwned>(&self, asked: &Asked<'_>) -> Result<Envelope<T>> {
        if self.status != StatusCode::OK {
            return Err(asked.refused(self));
        }
        self.parse()
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // What serde says may quote the value it stumbled over.
            Failure::input(format!(
                "the answer to {} is not the JSON that was expected, at line {}, column {}",
                self.shown,
                error.line(),
                error.column()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::deadline::Deadline;

    const LOGGED_IN: &str =
        r#"{"data":null,"auth":{"client_token":"s.canary-token-of-the-vault-test","lease_duration":900}}"#;

    /// Answers one request a connection, in this order, and gives back the heads of the requests.
    async fn scripted(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let heads = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = vec![0; 16 * 1024];
                let size = stream.read(&mut request).await.expect("a request");
                heads.push(String::from_utf8_lossy(&request[..size]).into_owned());
                stream.write_all(answer.as_bytes()).await.expect("it is sent");
            }
            heads
        });
        (address, heads)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
    }

    fn login() -> Login {
        Login::Jwt {
            mount: "team/jwt".to_owned(),
            role: None,
            jwt: Secret::new("canary-jwt-of-the-vault-test"),
        }
    }

    fn vault(address: &str) -> Vault {
        let http = Client::new(
            http::Settings::new("vault"),
            Deadline::after(Duration::from_secs(60)),
        )
        .expect("a client");
        let address = http::parse_base_url("--vault-addr", address).expect("a URL");
        Vault::new(http, address, None).expect("a vault")
    }

    #[tokio::test]
    async fn an_address_keeps_its_path_and_names_are_encoded() {
        let url = |address: &str, path: &str| vault(address).url(path).expect("a URL").to_string();
        assert_eq!(
            url("https://a.example/vault", "sys/health"),
            "https://a.example/vault/v1/sys/health"
        );
        assert_eq!(
            url("https://a.example", "sys/internal/ui/mounts/kv/a b?c"),
            "https://a.example/v1/sys/internal/ui/mounts/kv/a%20b%3Fc"
        );
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_as_it_says() {
        let (address, heads) = scripted(vec![
            answer(
                "412 Precondition Failed",
                "",
                r#"{"errors":["required index state not present"]}"#,
            ),
            answer(
                "429 Too Many Requests",
                "retry-after: 0\r\n",
                r#"{"errors":["rate limit"]}"#,
            ),
            answer("200 OK", "", LOGGED_IN),
            answer("204 No Content", "", ""),
        ])
        .await;
        let session = vault(&format!("{address}/behind/a/proxy"))
            .login(&login())
            .await
            .expect("the third answer");
        assert_eq!(session.lease(), Duration::from_secs(900));
        let deadline = Deadline::after(Duration::from_secs(60));
        assert_eq!(
            session.revoke(deadline).await.expect("an answer"),
            Revocation::Revoked
        );
        let heads = heads.await.expect("four requests");
        for head in &heads[..3] {
            assert!(
                head.starts_with("POST /behind/a/proxy/v1/auth/team/jwt/login "),
                "{head}"
            );
            assert!(!head.contains("x-vault-token"), "{head}");
        }
        assert!(
            heads[3].starts_with("POST /behind/a/proxy/v1/auth/token/revoke-self "),
            "{}",
            heads[3]
        );
        assert!(
            heads[3].contains("x-vault-token: s.canary-token-of-the-vault-test"),
            "{}",
            heads[3]
        );
        let shown = format!("{session:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[tokio::test]
    async fn credentials_follow_no_redirect() {
        let elsewhere = "location: https://elsewhere.example/v1/auth/jwt/login?x=1\r\n";
        let (address, heads) = scripted(vec![answer("307 Temporary Redirect", elsewhere, "")]).await;
        let failure = vault(&address).login(&login()).await.expect_err("a redirect");
        assert_eq!(failure.kind(), Kind::Denied);
        assert!(
            failure.message().ends_with("redirects to elsewhere.example"),
            "{failure}"
        );
        assert_eq!(heads.await.expect("one request").len(), 1);
    }
}
