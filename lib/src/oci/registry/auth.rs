//! One login at one registry: what it asks for, and the tokens we have for it.
//!
//! Source: the distribution project's "Token Authentication Specification".
//!
//! The first request goes out bare and finds out what the registry asks for; the others wait for that, so there is no
//! separate ping and no burst of 401s. A token is asked for with every scope that the run is known to need, once, and
//! again shortly before it expires. Where the server gives no such token, or one that the registry does not take, each
//! request's own scopes are asked for, in the registry's own words where it gave them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;

use super::challenge::{self, Challenge};
use super::notices::Notices;
use super::reach::Way;
pub use super::scopes::Access;
pub(super) use super::scopes::Scopes;
use super::token::{Asker, Given, Token, TokenServer, TokenValue};
use crate::failure::{Failure, Kind, Result};
use crate::http::{Client, Request, Response, StatusCode, Url, authority, header, is_loopback};
use crate::oci::{Credential, Login};
use crate::secret::Secret;

/// How often a request is sent again with another proof. One for what the registry asks for, one for a token that ran
/// out, one for narrower scopes.
const OTHER_PROOFS: usize = 3;

/// One login at one registry. Shared by all repositories that use it.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    endpoint: String,
    over_tls: bool,
    /// The hosts that may be spoken to in the clear, when the registry is one of them.
    plain_http_hosts: Vec<String>,
    credential: Option<Credential>,
    origin: Option<String>,
    notices: Arc<Notices>,
    scheme: Mutex<Scheme>,
    expected: std::sync::Mutex<Scopes>,
    /// Whether its last answer came by HTTP/1.
    speaks_http1: AtomicBool,
}

#[derive(Debug)]
enum Scheme {
    Unknown,
    Open,
    Basic,
    Bearer(Box<Tokens>),
}

/// The tokens of a login.
#[derive(Debug)]
struct Tokens {
    server: TokenServer,
    held: Vec<Token>,
    /// Whether tokens for all that the run needs are of no use here.
    narrow: bool,
    /// In which words the registry wants which scopes, as it said last.
    hint: Option<(Scopes, Vec<String>)>,
    /// What the token server refused, and how it put it.
    refused: Vec<(Vec<String>, String)>,
}

/// What a request is authenticated with.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Nothing,
    Password { user: String, password: Secret },
    Token(TokenValue),
}

impl Proof {
    pub(super) fn on<'a>(&self, request: Request<'a>) -> Request<'a> {
        match self {
            Proof::Nothing => request,
            Proof::Password { user, password } => request.basic(user, password),
            Proof::Token(token) => request.bearer(&token.secret),
        }
    }
}

impl Session {
    pub(super) fn new(way: &Way, endpoint: &str, login: Option<Login>) -> Self {
        let (credential, origin) = login.map(|login| (login.credential, login.origin)).unzip();
        Session {
            client: way.client.clone(),
            endpoint: endpoint.to_owned(),
            over_tls: way.scheme == "https",
            plain_http_hosts: way.plain_http_hosts.clone(),
            credential,
            origin,
            notices: way.notices.clone(),
            scheme: Mutex::new(Scheme::Unknown),
            expected: std::sync::Mutex::new(Scopes::default()),
            // Nobody speaks HTTP/2 without TLS unless told to.
            speaks_http1: AtomicBool::new(way.scheme == "http"),
        }
    }

    pub(super) fn is(&self, endpoint: &str, login: Option<&Login>) -> bool {
        self.endpoint == endpoint && self.credential.as_ref() == login.map(|login| &login.credential)
    }

    /// Where the login came from, where there is one.
    pub(super) fn login_origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Whether it answers by HTTP/1, as far as is known.
    pub(super) fn speaks_http1(&self) -> bool {
        self.speaks_http1.load(Ordering::Relaxed)
    }

    /// Says which scopes this run is going to need, so that one token serves them all.
    pub(super) fn expect(&self, scopes: &Scopes) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        *expected = std::mem::take(&mut *expected).and(scopes);
    }

    /// Sends a request, built anew for each try, with what the registry asks for.
    ///
    /// # Errors
    /// As [`Request::send`]; denied (exit 4) when the token server refuses. A 401 that cannot be met is an answer.
    pub(super) async fn send<'a>(
        &self,
        needed: &Scopes,
        build: impl Fn() -> Request<'a>,
    ) -> Result<Response> {
        let response = self.send_proved(needed, build).await?;
        self.notices.tell(&self.endpoint, &response);
        self.speaks_http1.store(response.is_http1(), Ordering::Relaxed);
        Ok(response)
    }

    async fn send_proved<'a>(&self, needed: &Scopes, build: impl Fn() -> Request<'a>) -> Result<Response> {
        {
            let mut scheme = self.scheme.lock().await;
            if matches!(*scheme, Scheme::Unknown) {
                // Who is nobody there is most likely let in as such, and need not wait for the first answer.
                if self.credential.is_none() {
                    drop(scheme);
                    let response = self.send_bare(&build).await?;
                    let asked = self.learn(&response).await?;
                    scheme = self.scheme.lock().await;
                    let is_unknown = matches!(*scheme, Scheme::Unknown);
                    match asked {
                        Some(asked) if is_unknown => *scheme = asked,
                        // Another request has learned it meanwhile, and may have its token.
                        Some(_) => {}
                        None => {
                            if is_unknown && response.status() != StatusCode::UNAUTHORIZED {
                                *scheme = Scheme::Open;
                            }
                            return Ok(response);
                        }
                    }
                } else {
                    let response = self.send_bare(&build).await?;
                    match self.learn(&response).await? {
                        Some(asked) => *scheme = asked,
                        None => {
                            if response.status() != StatusCode::UNAUTHORIZED {
                                *scheme = Scheme::Open;
                            }
                            return Ok(response);
                        }
                    }
                }
            }
        }
        for _ in 0..OTHER_PROOFS {
            let proof = self.proof(needed).await?;
            let response = proof.on(build()).send().await?;
            let is_refusal = match &proof {
                // What was open so far may be closed here, to strangers.
                Proof::Nothing => matches!(
                    response.status(),
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                ),
                _ => response.status() == StatusCode::UNAUTHORIZED,
            };
            if !is_refusal {
                if let Proof::Token(token) = &proof {
                    token.accept();
                }
                return Ok(response);
            }
            if !self.reconsider_for(Some(needed), &proof, &response).await? {
                return Ok(response);
            }
        }
        self.proof(needed).await?.on(build()).send().await
    }

    async fn send_bare<'a>(&self, build: &impl Fn() -> Request<'a>) -> Result<Response> {
        match build().send().await {
            Ok(response) => Ok(response),
            Err(failure) => {
                self.check_certificate(&failure).await?;
                Err(failure)
            }
        }
    }

    /// What the registry asks for, going by its answer to a request without a proof.
    ///
    /// # Errors
    /// As [`Session::scheme_for`].
    async fn learn(&self, response: &Response) -> Result<Option<Scheme>> {
        let status = response.status();
        let may_hide = matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
        if status != StatusCode::UNAUTHORIZED && !may_hide {
            return Ok(None);
        }
        if let Some(asked) = self.scheme_for(response)? {
            return Ok(Some(asked));
        }
        // Some registries hide from strangers what they have, instead of asking who it is. Where we are somebody, it
        // is worth a request to ask at the one address that has to say how.
        if self.credential.is_none() {
            return Ok(None);
        }
        let scheme = if self.over_tls { "https" } else { "http" };
        let address = Url::parse(&format!("{scheme}://{}/v2/", self.endpoint))
            .map_err(|error| Failure::internal(format!("{} makes no URL", self.endpoint)).because(error))?;
        match self.client.get(address).send().await {
            Ok(asked) if asked.status() == StatusCode::UNAUTHORIZED => self.scheme_for(&asked),
            // What the registry answered before stands.
            _ => Ok(None),
        }
    }

    /// A registry that never answered may want to know first who we are.
    async fn check_certificate(&self, failure: &Failure) -> Result<()> {
        match Url::parse(&format!("https://{}/v2/", self.endpoint)) {
            Ok(url) if failure.kind() == Kind::Unavailable && self.over_tls => {
                let refused = self.client.check_client_certificate(&url).await;
                refused.map_err(|failure| {
                    failure.hint(
                        "give the certificate that it knows us by with --client-certificate and --client-key, or --certs-dir",
                    )
                })
            }
            _ => Ok(()),
        }
    }

    /// What to show for these scopes, by what the registry asked for so far.
    ///
    /// # Errors
    /// Denied (exit 4) when the token server refuses.
    pub(super) async fn proof(&self, needed: &Scopes) -> Result<Proof> {
        let mut scheme = self.scheme.lock().await;
        match &mut *scheme {
            Scheme::Unknown | Scheme::Open => Ok(Proof::Nothing),
            Scheme::Basic => Ok(match &self.credential {
                Some(Credential::Password { user, password }) => Proof::Password {
                    user: user.clone(),
                    password: password.clone(),
                },
                _ => Proof::Nothing,
            }),
            Scheme::Bearer(tokens) => {
                if let Some(Credential::RegistryToken(token)) = &self.credential {
                    return Ok(Proof::Token(TokenValue::new(token.clone())));
                }
                tokens.held.retain(|token| !token.is_stale());
                if let Some(token) = tokens.held.iter().find(|token| token.scopes.covers(needed)) {
                    return Ok(Proof::Token(token.value.clone()));
                }
                // Whoever else needs one waits here for this one.
                let token = self.fetch_token(tokens, needed).await?;
                let value = token.value.clone();
                tokens.held.push(token);
                Ok(Proof::Token(value))
            }
        }
    }

    /// Whether another try with something else can help after a 401 to a request that cannot be sent again as it is.
    pub(super) async fn reconsider(&self, proof: &Proof, response: &Response) -> Result<bool> {
        self.reconsider_for(None, proof, response).await
    }

    /// Whether another try with something else can help after a 401 to a request for these scopes, or all of its
    /// token's.
    async fn reconsider_for(
        &self,
        needed: Option<&Scopes>,
        proof: &Proof,
        response: &Response,
    ) -> Result<bool> {
        let mut scheme = self.scheme.lock().await;
        match (proof, &mut *scheme) {
            // What is open for reading may ask for a login when written to.
            (Proof::Nothing, Scheme::Unknown | Scheme::Open) => Ok(match self.learn(response).await? {
                Some(asked) => {
                    *scheme = asked;
                    true
                }
                None => false,
            }),
            // Another request found out meanwhile.
            (Proof::Nothing, Scheme::Basic | Scheme::Bearer(_)) => Ok(true),
            // There is but one of its kind.
            (Proof::Token(_), _) if matches!(self.credential, Some(Credential::RegistryToken(_))) => {
                Ok(false)
            }
            (Proof::Token(refused), Scheme::Bearer(tokens)) => {
                Ok(tokens.give_up(needed, refused, &challenges(response)))
            }
            _ => Ok(false),
        }
    }

    fn scheme_for(&self, response: &Response) -> Result<Option<Scheme>> {
        let mut unusable = None;
        for challenge in challenges(response) {
            match challenge {
                Challenge::Basic if matches!(self.credential, Some(Credential::Password { .. })) => {
                    return Ok(Some(Scheme::Basic));
                }
                Challenge::Basic => {}
                Challenge::Bearer { realm, service, .. } => match self.check_realm(&realm) {
                    Ok(realm) => {
                        return Ok(Some(Scheme::Bearer(Box::new(Tokens {
                            server: TokenServer { realm, service },
                            held: Vec::new(),
                            narrow: false,
                            hint: None,
                            refused: Vec::new(),
                        }))));
                    }
                    Err(failure) => {
                        unusable.get_or_insert(failure);
                    }
                },
            }
        }
        unusable.map_or(Ok(None), Err)
    }

    /// The registry names the address that gets our password, so a registry behind TLS must name one behind TLS, and
    /// one that may be spoken to in the clear speaks for itself alone.
    fn check_realm(&self, realm: &str) -> Result<Url> {
        let url = Url::parse(realm).map_err(|error| {
            Failure::unavailable(format!(
                "the registry {} names a token server that is no URL",
                self.endpoint
            ))
            .because(error)
        })?;
        let own = Url::parse(&format!("http://{}/", self.endpoint)).ok();
        // What listens on this machine's loopback is no business of a registry elsewhere.
        let stays_here = is_loopback(&url) && own.as_ref().is_some_and(is_loopback);
        let is_own = own.is_some_and(|own| own.host_str() == url.host_str());
        let is_named = self.plain_http_hosts.iter().any(|host| *host == authority(&url));
        let may_be_plain = !self.plain_http_hosts.is_empty() && (is_own || is_named);
        if url.scheme() == "http" && !stays_here && !may_be_plain {
            return Err(Failure::denied(format!(
                "the registry {} names a token server without TLS, {}",
                self.endpoint,
                authority(&url)
            ))
            .hint("ask the registry's operator to serve tokens over https"));
        }
        Ok(url)
    }

    async fn fetch_token(&self, tokens: &mut Tokens, needed: &Scopes) -> Result<Token> {
        let asker = Asker {
            client: &self.client,
            endpoint: &self.endpoint,
            credential: self.credential.as_ref(),
            origin: self.login_origin(),
        };
        let mut wide = None;
        if !tokens.narrow {
            let expected = self
                .expected
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let scopes = needed.widened(&expected, tokens.held.iter().map(|token| &token.scopes));
            let words = scopes.words();
            match tokens.ask(&asker, &scopes, words.clone()).await? {
                Given::Token(token) => return Ok(token),
                Given::Refused(why) => wide = Some((words, why)),
            }
        }
        // Some token servers refuse the whole when they refuse a part.
        let words = tokens.words(needed);
        match tokens.ask(&asker, needed, words.clone()).await? {
            Given::Token(token) => {
                // The whole is not worth asking for again.
                tokens.narrow |= wide.is_some();
                Ok(token)
            }
            // The part was not to blame then, and the whole says more about what the run needs.
            Given::Refused(why) => {
                let (words, why) = wide.unwrap_or((words, why));
                Err(asker.refused(&tokens.server, &why, &words))
            }
        }
    }
}

impl Tokens {
    /// Asks the token server, unless it refused the same already.
    async fn ask(&mut self, asker: &Asker<'_>, scopes: &Scopes, words: Vec<String>) -> Result<Given> {
        if let Some((_, why)) = self.refused.iter().find(|(refused, _)| *refused == words) {
            return Ok(Given::Refused(why.clone()));
        }
        let given = asker.token(&self.server, scopes, words.clone()).await?;
        if let Given::Refused(why) = &given {
            self.refused.push((words, why.clone()));
        }
        Ok(given)
    }

    /// How to ask for these scopes and no others.
    fn words(&self, needed: &Scopes) -> Vec<String> {
        match &self.hint {
            Some((scopes, words)) if scopes == needed => words.clone(),
            _ => needed.words(),
        }
    }

    /// Lets go of a token that the registry refused for these scopes; whether another one may do better.
    fn give_up(&mut self, needed: Option<&Scopes>, refused: &TokenValue, challenges: &[Challenge]) -> bool {
        let at = self
            .held
            .iter()
            .position(|token| token.value.secret == refused.secret);
        let Some(at) = at else {
            // Another request did so already, and there may be a newer one.
            return true;
        };
        let needed = needed.unwrap_or(&self.held[at].scopes).clone();
        let mut lacks_scope = false;
        for challenge in challenges {
            if let Challenge::Bearer { scope, error, .. } = challenge {
                lacks_scope |= error.as_deref() == Some("insufficient_scope");
                if let Some(scope) = scope {
                    self.hint = Some((
                        needed.clone(),
                        scope.split_ascii_whitespace().map(str::to_owned).collect(),
                    ));
                }
            }
        }
        let token = &self.held[at];
        // A token that was good for something and now is not has run out, whatever its server promised.
        let ran_out = token.value.was_accepted() && !lacks_scope;
        let asks_otherwise = token.words != self.words(&needed);
        if ran_out || asks_otherwise {
            self.narrow |= !ran_out;
            self.held.remove(at);
        }
        ran_out || asks_otherwise
    }
}

fn challenges(response: &Response) -> Vec<Challenge> {
    let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
    challenge::parse(headers.iter().filter_map(|value| value.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;
    use crate::oci::registry::RegistrySettings;
    use crate::oci::registry::reach::Reach;

    #[tokio::test]
    async fn a_password_goes_to_another_host_only_over_tls() {
        let settings = RegistrySettings {
            plain_http_hosts: vec![
                "plain.example.com:5000".to_owned(),
                "named.example.com:5001".to_owned(),
            ],
            ..RegistrySettings::default()
        };
        let reach = Reach::new(settings, Deadline::after(Duration::from_secs(5))).unwrap();
        for (registry, realm, allowed) in [
            ("registry.example.com", "https://tokens.example.com/token", true),
            ("registry.example.com", "http://registry.example.com/token", false),
            (
                "registry.example.com",
                "http://named.example.com:5001/token",
                false,
            ),
            ("registry.example.com", "http://127.0.0.1:5001/token", false),
            ("registry.example.com", "token", false),
            ("127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("127.0.0.1:5000", "http://tokens.example.com/token", false),
            (
                "plain.example.com:5000",
                "http://plain.example.com:5001/token",
                true,
            ),
            (
                "plain.example.com:5000",
                "http://named.example.com:5001/token",
                true,
            ),
            ("plain.example.com:5000", "http://tokens.example.com/token", false),
            ("plain.example.com:5000", "http://127.0.0.1/token", false),
            ("plain.example.com:5000", "https://tokens.example.com/token", true),
        ] {
            let reference = format!("{registry}/app").parse().unwrap();
            let session = Session::new(&reach.way(&reference).unwrap(), registry, None);
            assert_eq!(session.check_realm(realm).is_ok(), allowed, "{registry}: {realm}");
        }
    }
}
