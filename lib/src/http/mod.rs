//! The only HTTP client.
//!
//! Every request has a timeout and ends before the run's deadline. Requests that are safe to repeat are repeated a
//! bounded number of times with jittered pauses that honour `Retry-After`. Redirects stay on their origin, unless a
//! request says that it may be answered from elsewhere, and then no credential goes along. Plain `http` is refused
//! outside loopback unless allowed. Errors and logs show method, host and path, never a query, header or body.
//!
//! Deliberately absent: what a status means. Each system's module knows that, and turns it into a
//! [`Failure`].

mod ahead;
mod body;
mod certificates;
mod lines;
mod pace;
mod request;
mod response;
mod unanswered;

pub use body::Body;
pub use certificates::ClientIdentity;
pub use lines::Lines;
pub(crate) use pace::{LONGEST_PAUSE, Refusals};
pub use request::{Repeat, Request};
/// The parts of the HTTP vocabulary that callers need, so that they need no dependency of their own.
pub use reqwest::{Method, StatusCode, Url, header};
pub use response::Response;
pub use unanswered::Unanswered;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::failure::{Failure, Result};

/// How often a server that breaks off is asked whether it is for our certificate.
const CERTIFICATE_CHECKS: usize = 3;

/// How a client reaches its system.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the system is called in messages: `registry`, `vault`, `gitlab`.
    pub system: &'static str,
    /// A PEM file with certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// More such files.
    pub more_ca_files: Vec<PathBuf>,
    /// What is shown to servers that ask for a client's certificate.
    pub client_identity: Option<ClientIdentity>,
    /// Whether plain `http` may leave the machine.
    pub plain_http: PlainHttp,
    /// How long one request may take, connecting included. Bodies that stream for long raise it per request.
    pub request_timeout: Duration,
    /// How long one connection may take to open.
    pub connect_timeout: Duration,
    /// How long a server may go on turning a request away (429) before we give up. With it, all requests to one server
    /// keep one pace: they hold back together, and fewer run at once. Without, each minds itself for a few times.
    pub patience: Option<Duration>,
    /// Whether connections can be opened before they are needed: see [`Client::open_ahead`].
    pub opens_ahead: bool,
}

impl Settings {
    /// The settings that fit most systems: 30 s a request, 10 s to connect, plain `http` on loopback only.
    #[must_use]
    pub fn new(system: &'static str) -> Self {
        Settings {
            system,
            ca_file: None,
            more_ca_files: Vec::new(),
            client_identity: None,
            plain_http: PlainHttp::LoopbackOnly,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            patience: None,
            opens_ahead: false,
        }
    }
}

/// Where plain `http` may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// To 127.0.0.0/8, `::1` and `localhost` only.
    LoopbackOnly,
    /// Anywhere: the user asked for it.
    Allowed,
}

/// A connection pool to one system, bound to the run's deadline. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Client {
    transport: reqwest::Client,
    /// Lays connections ready for the transport; its requests are never sent.
    ahead: Option<Arc<ahead::Opener>>,
    settings: Settings,
    deadline: Deadline,
    sent: Arc<AtomicU64>,
    paces: Arc<pace::Paces>,
}

impl Client {
    /// Opens a pool. Nothing is sent yet.
    ///
    /// # Errors
    /// Usage (exit 2) when a file with certificates or the key cannot be read or is not what it should be; internal
    /// when TLS cannot be set up.
    pub fn new(settings: Settings, deadline: Deadline) -> Result<Self> {
        Self::counting(settings, deadline, Arc::new(AtomicU64::new(0)))
    }

    /// Opens another pool with settings of its own, whose requests count as this one's.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn beside(&self, settings: Settings) -> Result<Self> {
        Self::counting(settings, self.deadline, self.sent.clone())
    }

    fn counting(settings: Settings, deadline: Deadline, sent: Arc<AtomicU64>) -> Result<Self> {
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| {
                let refused = |identity: &ClientIdentity| identity.refused(&error);
                settings
                    .client_identity
                    .as_ref()
                    .and_then(refused)
                    .unwrap_or_else(|| {
                        Failure::internal(format!("cannot set up the {} client", settings.system))
                    })
                    .because(error.without_url())
            })
        };
        let (transport, ahead) = if settings.opens_ahead {
            let (hands_out, lays_ready) = ahead::Ahead::pair();
            let alike = settings.clone();
            // Not before it is asked for: many runs have nothing to do.
            let layer = move || {
                let builder = builder(&alike).ok()?.connector_layer(lays_ready.clone());
                builder.build().ok()
            };
            (
                build(builder(&settings)?.connector_layer(hands_out))?,
                Some(Arc::new(ahead::Opener::new(layer))),
            )
        } else {
            (build(builder(&settings)?)?, None)
        };
        Ok(Client {
            transport,
            ahead,
            settings,
            deadline,
            sent,
            paces: Arc::default(),
        })
    }

    /// Begins to open connections to a URL's host, for requests that are about to be sent at once. Does nothing unless
    /// [`Settings::opens_ahead`] is set. One that is not used within seconds is closed again.
    pub fn open_ahead(&self, url: &Url, count: usize) {
        if let Some(ahead) = &self.ahead
            && self.check_url(url).is_ok()
        {
            ahead.open(url, count);
        }
    }

    /// A request to `url`.
    #[must_use]
    pub fn request(&self, method: Method, url: Url) -> Request<'_> {
        Request::new(self, method, url)
    }

    /// A `GET` of `url`.
    #[must_use]
    pub fn get(&self, url: Url) -> Request<'_> {
        self.request(Method::GET, url)
    }

    /// A `POST` to `url`.
    #[must_use]
    pub fn post(&self, url: Url) -> Request<'_> {
        self.request(Method::POST, url)
    }

    /// A `PUT` to `url`.
    #[must_use]
    pub fn put(&self, url: Url) -> Request<'_> {
        self.request(Method::PUT, url)
    }

    /// The same pool under another deadline: for cleaning up, which must also happen once the run's own time is over.
    #[must_use]
    pub fn with_deadline(&self, deadline: Deadline) -> Self {
        Client {
            deadline,
            ..self.clone()
        }
    }

    /// The run's deadline.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// How many requests went out so far, repetitions and redirects included.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Refuses a URL that would send credentials or payload over the network in the clear.
    ///
    /// # Errors
    /// Denied (exit 4) for plain `http` to another machine; usage (exit 2) for another scheme or a URL that carries
    /// credentials.
    pub fn check_url(&self, url: &Url) -> Result<()> {
        let system = self.settings.system;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                Failure::usage(format!("the {system} address carries credentials in the URL"))
                    .hint("take them out of the URL and give them by file or variable"),
            );
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.settings.plain_http == PlainHttp::Allowed || is_loopback(url) => Ok(()),
            "http" => Err(
                Failure::denied(format!("plain http to {system} {} is refused", authority(url))).hint(
                    "use https, or pass --plain-http (TOWPATH_PLAIN_HTTP=true) if that network is trusted",
                ),
            ),
            other => {
                Err(Failure::usage(format!("{system} address with scheme {other:?}")).hint("use https://"))
            }
        }
    }

    /// Finds out whether a server that gave no answer broke off because of the client's certificate: for want of one, or
    /// since it does not accept the one that it was shown. HTTP/2 loses the reason, so it is asked once more by
    /// HTTP/1.1, with nothing that would authenticate us otherwise.
    ///
    /// # Errors
    /// Denied (exit 4) when that is why. What else may be wrong is for the request that failed to tell.
    pub async fn check_client_certificate(&self, url: &Url) -> Result<()> {
        if url.scheme() != "https" {
            return Ok(());
        }
        let Ok(transport) = builder(&self.settings)?.http1_only().build() else {
            return Ok(());
        };
        // The reason may be overtaken by the end of the connection, so one answer without it means little.
        for _ in 0..CERTIFICATE_CHECKS {
            let limit = self.deadline.within(self.settings.request_timeout).remaining();
            self.count();
            let Err(error) = transport.head(url.clone()).timeout(limit).send().await else {
                return Ok(());
            };
            if certificates::is_refusal(&error) {
                let (system, host) = (self.settings.system, authority(url));
                return Err(match &self.settings.client_identity {
                    None => Failure::denied(format!("{host} ({system}) wants a client certificate"))
                        .hint("give the certificate that it knows us by, and its key"),
                    Some(identity) => Failure::denied(format!(
                        "{host} ({system}) does not accept the client certificate {}",
                        identity.certificate.display()
                    ))
                    .hint("check who signed it, and until when it is valid"),
                }
                .because(error.without_url()));
            }
        }
        Ok(())
    }

    fn count(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

fn builder(settings: &Settings) -> Result<reqwest::ClientBuilder> {
    // Another part of the process may have done it already; then that one stands, and it is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .referer(false);
    for path in settings.ca_file.iter().chain(&settings.more_ca_files) {
        builder = builder.tls_certs_merge(certificates::read_trusted(path)?);
    }
    if let Some(identity) = &settings.client_identity {
        builder = builder.identity(identity.read()?);
    }
    Ok(builder)
}

/// Parses the base address of a system.
///
/// # Errors
/// Usage (exit 2), naming the flag, when it is not an absolute http(s) URL, or has a query or a fragment: joining a path
/// would drop them without a word.
pub fn parse_base_url(flag: &str, value: &str) -> Result<Url> {
    let hint = format!("give {flag} as https://HOST[:PORT][/PATH]");
    // Without a scheme, a user name and password before the host would not be known for what they are.
    let shown = if value.contains('@') {
        String::new()
    } else {
        format!(": {value:?}")
    };
    let mut url = Url::parse(value).map_err(|error| {
        Failure::usage(format!("{flag} is not a URL{shown}"))
            .because(error)
            .hint(&hint)
    })?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Failure::usage(format!("{flag} is not an http(s) URL{shown}")).hint(hint));
    }
    if url.query().is_some() || url.fragment().is_some() {
        // It is not repeated: who puts something there may mean it for a key.
        return Err(Failure::usage(format!(
            "{flag} has a part after '?' or '#', which no base address has"
        ))
        .hint(hint));
    }
    // Joining relative paths drops the last segment of a base that does not end in a slash.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// A path below a system's base address, which is what [`parse_base_url`] gave.
///
/// # Errors
/// Internal (exit 1) when the two make no URL.
pub fn below(base: &Url, path: &str) -> Result<Url> {
    base.join(path)
        .map_err(|error| Failure::internal(format!("cannot make a URL of {path}")).because(error))
}

/// Whether the URL's host is this machine, by address or by the name `localhost`.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

/// Whether `host` (without a port) is this machine, by address or by the name `localhost`.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Host and port of a URL, as shown in messages.
#[must_use]
pub fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "unknown host".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn client(plain_http: PlainHttp) -> Client {
        let settings = Settings {
            plain_http,
            ..Settings::new("registry")
        };
        Client::new(settings, Deadline::after(Duration::from_secs(5))).expect("a client")
    }

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[tokio::test]
    async fn plain_http_stays_on_this_machine_unless_allowed() {
        let careful = client(PlainHttp::LoopbackOnly);
        for local in [
            "http://127.0.0.1:5000/",
            "http://localhost/",
            "http://[::1]:80/",
            "https://example.com/",
        ] {
            careful.check_url(&url(local)).unwrap();
        }
        let refused = careful
            .check_url(&url("http://registry.internal/"))
            .expect_err("plain http");
        assert_eq!(refused.kind(), Kind::Denied);
        client(PlainHttp::Allowed)
            .check_url(&url("http://registry.internal/"))
            .unwrap();
    }

    #[tokio::test]
    async fn credentials_in_a_url_are_refused_without_repeating_them() {
        let failure = client(PlainHttp::Allowed)
            .check_url(&url("https://user:canary-url-password@example.com/"))
            .expect_err("credentials");
        assert!(!format!("{failure:?}").contains("canary-url-password"));
    }

    #[test]
    fn a_base_url_with_a_query_is_refused_without_repeating_it() {
        for wrong in [
            "https://example.com/?key=canary",
            "https://example.com/api#canary",
        ] {
            let failure = parse_base_url("--server", wrong).expect_err(wrong);
            assert_eq!(failure.kind(), Kind::Usage);
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }

    #[test]
    fn base_urls_end_in_a_slash_so_that_joining_keeps_their_path() {
        let base = parse_base_url("--gitlab-url", "https://git.example.com/api/v4").unwrap();
        assert_eq!(
            base.join("projects/1").unwrap().as_str(),
            "https://git.example.com/api/v4/projects/1"
        );
        for wrong in ["", "git.example.com", "ftp://git.example.com", "https://"] {
            assert_eq!(
                parse_base_url("--gitlab-url", wrong).expect_err(wrong).kind(),
                Kind::Usage
            );
        }
    }
}
