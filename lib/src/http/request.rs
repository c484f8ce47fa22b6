//! One request, with what may be repeated and where its answer may come from.

use std::time::Duration;

use backon::BackoffBuilder as _;
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::time::Instant;

use super::pace::{LONGEST_PAUSE, Pass, REPETITIONS, Refusals, pauses};
use super::unanswered::tls_error;
use super::{Body, Client, Response, Unanswered, authority};
use crate::deadline::Deadline;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

/// How many redirects one request follows.
const REDIRECTS: usize = 5;

/// Whether a request may be sent again when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Sending it twice leaves the same state as sending it once.
    Safe,
    /// Sending it twice might act twice. It is only sent again when it surely did not arrive, or was turned away
    /// by a rate limit.
    Unsafe,
}

/// A request that is being put together. See [`Client::request`].
#[derive(Debug)]
pub struct Request<'client> {
    client: &'client Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Body,
    repeat: Repeat,
    repeat_on: &'static [StatusCode],
    timeout: Duration,
    streams: bool,
    answered_elsewhere: bool,
    urgent: bool,
    broken: Option<Failure>,
}

impl<'client> Request<'client> {
    pub(super) fn new(client: &'client Client, method: Method, url: Url) -> Self {
        let repeat = match method {
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS => Repeat::Safe,
            _ => Repeat::Unsafe,
        };
        let timeout = client.settings.request_timeout;
        Request {
            client,
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            repeat,
            repeat_on: &[],
            timeout,
            streams: false,
            answered_elsewhere: false,
            urgent: false,
            broken: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.headers.append(name, value);
            }
            Err(_) => self.break_off(&name),
        }
        self
    }

    /// Adds a header whose value is a secret. It is marked so that no layer below prints or indexes it.
    #[must_use]
    pub fn secret_header(self, name: HeaderName, value: &Secret) -> Self {
        self.sensitive(name, value.expose())
    }

    fn sensitive(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(name, value);
            }
            Err(_) => self.break_off(&name),
        }
        self
    }

    /// Adds `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, token: &Secret) -> Self {
        self.sensitive(header::AUTHORIZATION, &format!("Bearer {}", token.expose()))
    }

    /// Adds `Authorization: Basic`.
    #[must_use]
    pub fn basic(self, user: &str, password: &Secret) -> Self {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose()));
        // As good as the password, and nothing that a search for the password alone would find.
        let pair = Secret::new(pair);
        self.sensitive(header::AUTHORIZATION, &format!("Basic {}", pair.expose()))
    }

    /// Adds a query parameter. Never a secret: queries end up in servers' access logs.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// Carries a JSON document.
    #[must_use]
    pub fn json(mut self, document: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(document) {
            Ok(bytes) => {
                self.headers
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                self.body = Body::Bytes(bytes.into());
            }
            Err(error) => {
                self.broken = Some(Failure::internal("cannot write a request as JSON").because(error));
            }
        }
        self
    }

    /// Carries a URL-encoded form.
    #[must_use]
    pub fn form(mut self, pairs: &[(&str, &str)]) -> Self {
        let text = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        self.body = Body::Bytes(text.into());
        self
    }

    /// Carries a body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Overrides what the method says about repeating.
    #[must_use]
    pub fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    /// Also repeats the request, whatever its method, when it is answered with one of these: statuses with which the
    /// system says that it did nothing and that trying again may help.
    #[must_use]
    pub fn repeat_on(mut self, statuses: &'static [StatusCode]) -> Self {
        self.repeat_on = statuses;
        self
    }

    /// Overrides how long the request may take until its headers are there, and its body read.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The body of the answer takes as long as it takes: the timeout covers the way to the headers alone. Whoever reads
    /// the body has to notice when it stalls; the run's deadline still holds.
    #[must_use]
    pub fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Follows a redirect to another origin, leaving credentials behind: registries keep blobs in object storage.
    #[must_use]
    pub fn answered_elsewhere(mut self) -> Self {
        self.answered_elsewhere = true;
        self
    }

    /// Does not queue behind other requests to a server that limits our rate: one of those under way waits for this.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// Sends it and gives back the answer, whatever its status, once repeating cannot help any more.
    ///
    /// # Errors
    /// Unavailable (exit 7) when the other side cannot be reached; deadline (exit 9) when the run's time is up;
    /// denied (exit 4) for a redirect to another origin or plain http that leaves the machine.
    pub async fn send(mut self) -> Result<Response> {
        if let Some(failure) = self.broken.take() {
            return Err(failure);
        }
        self.client.check_url(&self.url)?;
        let mut pauses = pauses().with_max_times(REPETITIONS).build();
        let mut refusals = Refusals::new(self.client.settings.patience);
        let mut redirects = 0;
        loop {
            if self.client.deadline.passed() {
                return Err(
                    Failure::deadline(format!("the deadline passed before {}", self.shown()))
                        .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow"),
                );
            }
            let pass = self.pass().await?;
            let repeatable_body = !matches!(self.body, Body::Stream(..));
            let outcome = self.send_once().await;
            let (pause, failure) = match outcome {
                Ok(response) => {
                    if let Some(target) = self.redirect_target(&response)? {
                        redirects += 1;
                        if redirects > REDIRECTS {
                            return Err(Failure::unavailable(format!(
                                "{} redirects in circles",
                                self.shown()
                            )));
                        }
                        self.follow(target);
                        continue;
                    }
                    let asked = response.retry_after();
                    let again = match response.status() {
                        StatusCode::TOO_MANY_REQUESTS => true,
                        StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                            if self.repeat == Repeat::Safe =>
                        {
                            true
                        }
                        status => self.repeat_on.contains(&status),
                    };
                    let pause = if response.is_turned_away() {
                        let pause = refusals.next(asked);
                        if let Some(pass) = pass {
                            pass.turned_away(pause.unwrap_or(Duration::ZERO));
                        }
                        pause
                    } else {
                        if let Some(pass) = pass {
                            pass.went_well();
                        }
                        pauses.next().map(|own| asked.map_or(own, |asked| asked.max(own)))
                    };
                    match pause.filter(|_| again && repeatable_body) {
                        Some(pause) => (pause, None),
                        None => return Ok(response),
                    }
                }
                Err(error) => {
                    drop(pass);
                    if self.client.deadline.passed() {
                        return Err(self.too_late(error.as_ref()));
                    }
                    let never_arrived = error.as_ref().is_some_and(reqwest::Error::is_connect);
                    let again = repeatable_body && (never_arrived || self.repeat == Repeat::Safe);
                    let failure = self.unreachable(error);
                    let again = again && failure.kind() == Kind::Unavailable;
                    match pauses.next().filter(|_| again) {
                        Some(pause) => (pause, Some(failure)),
                        None => return Err(failure),
                    }
                }
            };
            let reason = failure
                .as_ref()
                .map_or_else(|| "busy".to_owned(), |f| format!("{f:?}"));
            if pause > LONGEST_PAUSE || pause >= self.client.deadline.remaining() {
                return Err(failure.unwrap_or_else(|| self.busy(pause)));
            }
            tracing::debug!(
                action = "retry",
                object = self.shown(),
                reason,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "sending again"
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits for its turn, where the client keeps a pace.
    async fn pass(&self) -> Result<Option<Pass>> {
        if self.client.settings.patience.is_none() {
            return Ok(None);
        }
        let pace = self.client.paces.of(&self.url);
        match pace.enter(self.client.deadline, self.urgent).await {
            Ok(pass) => Ok(Some(pass)),
            Err(pause) => Err(self.busy(pause)),
        }
    }

    fn busy(&self, pause: Duration) -> Failure {
        Failure::unavailable(format!(
            "{} is busy, and asking again in {} s is too late for this run",
            self.shown(),
            pause.as_secs()
        ))
        .hint("try again later, or raise --timeout (TOWPATH_TIMEOUT)")
    }

    /// An error of none says that the headers did not come in time.
    async fn send_once(&mut self) -> std::result::Result<Response, Option<reqwest::Error>> {
        let limit: Deadline = self.client.deadline.within(self.timeout);
        let whole = if self.streams { self.client.deadline } else { limit };
        let mut builder = self
            .client
            .transport
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone())
            .timeout(whole.remaining());
        builder = match std::mem::replace(&mut self.body, Body::Empty) {
            Body::Empty => {
                // Some servers answer 411 to a POST or PUT that does not say its length.
                if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) {
                    builder.header(header::CONTENT_LENGTH, "0")
                } else {
                    builder
                }
            }
            Body::Bytes(bytes) => {
                self.body = Body::Bytes(bytes.clone());
                builder.body(bytes)
            }
            Body::Stream(stream, length) => {
                // Taken for good: whatever happens now, the request is not sent again.
                self.body = Body::Stream(reqwest::Body::from(Bytes::new()), None);
                match length {
                    Some(length) => builder.header(header::CONTENT_LENGTH, length).body(stream),
                    None => builder.body(stream),
                }
            }
        };
        let started = Instant::now();
        self.client.count();
        let outcome = match tokio::time::timeout(limit.remaining(), builder.send()).await {
            Ok(outcome) => outcome.map_err(|error| Some(error.without_url())),
            Err(_elapsed) => Err(None),
        };
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(response) => {
                tracing::debug!(
                    action = "http",
                    object = self.shown(),
                    status = response.status().as_u16(),
                    milliseconds,
                    "answered"
                );
                Ok(Response::new(response, self.shown(), self.client.deadline))
            }
            Err(error) => Err(error),
        }
    }

    /// Where to go next, when the answer is a redirect that may be followed.
    fn redirect_target(&self, response: &Response) -> Result<Option<Url>> {
        let may_follow = matches!(self.method, Method::GET | Method::HEAD);
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        if !may_follow || !is_redirect {
            return Ok(None);
        }
        let Some(location) = response.header(&header::LOCATION) else {
            return Ok(None);
        };
        let target = self.url.join(location).map_err(|_| {
            Failure::unavailable(format!("{} redirects to something that is no URL", self.shown()))
        })?;
        self.client.check_url(&target)?;
        if same_origin(&self.url, &target) || self.answered_elsewhere {
            return Ok(Some(target));
        }
        Err(Failure::denied(format!(
            "{} redirects to another host, {}",
            self.shown(),
            authority(&target)
        ))
        .hint("set the address to where it redirects, if that is the right place"))
    }

    fn follow(&mut self, target: Url) {
        if !same_origin(&self.url, &target) {
            // Whatever authenticates us here is none of the other host's business.
            let sensitive: Vec<HeaderName> = self
                .headers
                .iter()
                .filter(|(name, value)| value.is_sensitive() || **name == header::AUTHORIZATION)
                .map(|(name, _)| name.clone())
                .collect();
            for name in sensitive {
                self.headers.remove(name);
            }
        }
        self.url = target;
    }

    /// The run's own time is up while an answer is waited for: what was asked may have been done.
    fn too_late(&self, error: Option<&reqwest::Error>) -> Failure {
        Failure::deadline(format!("the deadline passed while waiting for {}", self.shown()))
            .because(Unanswered::new(error))
            .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow")
    }

    fn unreachable(&self, error: Option<reqwest::Error>) -> Failure {
        let shown = self.shown();
        let system = self.client.settings.system;
        let unanswered = Unanswered::new(error.as_ref());
        let check_address = format!("check that the {system} address is right and reachable from here");
        match &error {
            Some(error) if !error.is_timeout() => match tls_error(error) {
                Some(rustls::Error::InvalidCertificate(_)) => Failure::denied(format!(
                    "the certificate of {} ({system}) is not to be trusted",
                    authority(&self.url)
                ))
                .hint(
                    "give the authority that signed it as a PEM file, or check that this is the right host",
                ),
                Some(_) => Failure::unavailable(format!("no TLS with {shown}")).hint(format!(
                    "check that the {system} address has the right port and scheme"
                )),
                None => Failure::unavailable(format!("cannot reach {shown}")).hint(check_address),
            },
            _ => Failure::unavailable(format!("{shown} did not answer in time")).hint(check_address),
        }
        .because(unanswered)
    }

    /// Method, system, host and path: what may be shown of a request.
    fn shown(&self) -> String {
        format!(
            "{} {}{} ({})",
            self.method,
            authority(&self.url),
            self.url.path(),
            self.client.settings.system
        )
    }

    fn break_off(&mut self, name: &HeaderName) {
        let system = self.client.settings.system;
        self.broken = Some(
            Failure::usage(format!(
                "a value for the {system} header {name} holds a control character"
            ))
            .hint("check the token or value for line breaks"),
        );
    }
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        assert!(same_origin(
            &url("https://a.example/x"),
            &url("https://a.example:443/y")
        ));
        assert!(!same_origin(
            &url("https://a.example/"),
            &url("http://a.example/")
        ));
        assert!(!same_origin(
            &url("https://a.example/"),
            &url("https://a.example:8443/")
        ));
        assert!(!same_origin(
            &url("https://a.example/"),
            &url("https://b.example/")
        ));
    }
}
