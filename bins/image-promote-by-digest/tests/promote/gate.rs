//! A gate in front of a real registry, with a token server of its own: who may do what is for a test to say.
//!
//! It keeps to the distribution project's "Token Authentication Specification" and "OAuth2 Token Authentication". What
//! it does otherwise on purpose, each field of [`Rules`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use towpath::http::Url;
use towpath_sandbox::servers::{Certificate, http_client};

/// How a gate asks for tokens and gives them.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Reading takes no token.
    pub(crate) reading_is_free: bool,
    /// Whoever shows no token is told that nothing is there, or that it may not be written, but at `/v2/`.
    pub(crate) hides: bool,
    /// What a token may not read is not there to be mounted from.
    pub(crate) hides_sources: bool,
    /// The values of `WWW-Authenticate`, for `HOST` and `SCOPE`.
    pub(crate) challenges: Vec<&'static str>,
    /// Says in its challenge why a token was refused.
    pub(crate) explains: bool,
    /// Whether a user (none is anonymous) gets an action (`pull`, `push`) on a repository.
    pub(crate) grants: fn(Option<&str>, &str, &str) -> bool,
    /// The token server refuses the whole when it would refuse a part, instead of leaving it out.
    pub(crate) all_or_nothing: bool,
    /// The token server sees the last scope that is asked for, and no other.
    pub(crate) last_scope_alone: bool,
    /// The token server does not know `GET`.
    pub(crate) post_alone: bool,
    /// Scopes name repositories with this before them.
    pub(crate) prefix: &'static str,
    /// Each token is good for so many requests.
    pub(crate) token_uses: Option<u32>,
    /// Tokens are signed with this, for a registry that checks them by itself.
    pub(crate) signer: Option<Certificate>,
    /// Nothing takes a token.
    pub(crate) is_open: bool,
    /// A tag that is written is refused so.
    pub(crate) keeps_tags: Option<Refused>,
    /// Answers carry these headers too.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

/// How a tag is refused.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: &'static str,
    /// The tag is written all the same, as somebody else would who was a little quicker.
    pub(crate) too_late: bool,
}

pub(crate) const BEARER: &str = "Bearer realm=\"http://HOST/token\",service=\"gate\",scope=\"SCOPE\"";

impl Default for Rules {
    fn default() -> Self {
        Rules {
            reading_is_free: false,
            hides: false,
            hides_sources: false,
            challenges: vec![BEARER],
            explains: true,
            grants: |user, _, _| user.is_some(),
            all_or_nothing: false,
            last_scope_alone: false,
            post_alone: false,
            prefix: "",
            token_uses: None,
            signer: None,
            is_open: false,
            keeps_tags: None,
            headers: Vec::new(),
        }
    }
}

/// A running gate. It ends with the test's runtime.
pub(crate) struct Gate {
    pub(crate) host: String,
    state: Arc<Inner>,
}

struct Inner {
    host: String,
    registry: String,
    rules: Rules,
    /// The password of each user. An identity token is a user's too.
    logins: BTreeMap<String, String>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    tokens: BTreeMap<String, Token>,
    asked: Vec<Asked>,
    refused: u32,
}

#[derive(Default)]
struct Token {
    granted: BTreeSet<(String, String)>,
    uses: u32,
}

impl Token {
    /// Whether it may write where it is to be written, and lacks what is to be read elsewhere.
    fn lacks_sources_alone(&self, needed: &BTreeSet<(String, String)>) -> bool {
        let written = needed.iter().find(|(_, action)| action == "push");
        needed
            .difference(&self.granted)
            .all(|(repository, _)| written.is_some_and(|(target, _)| target != repository))
    }
}

/// A token that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) user: Option<String>,
    pub(crate) scopes: Vec<String>,
}

impl Gate {
    pub(crate) async fn start(registry: &str, logins: &[(&str, &str)], rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let logins = logins
            .iter()
            .map(|(user, password)| ((*user).to_owned(), (*password).to_owned()));
        let state = Arc::new(Inner {
            host: host.clone(),
            registry: registry.to_owned(),
            rules,
            logins: logins.collect(),
            memory: Mutex::default(),
        });
        let app = axum::Router::new().fallback(answer).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Gate { host, state }
    }

    /// The tokens that were asked for so far, in their order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.memory.lock().unwrap().asked.clone()
    }

    /// How many requests were refused for want of a token that allows them.
    pub(crate) fn refused(&self) -> u32 {
        self.state.memory.lock().unwrap().refused
    }
}

async fn answer(State(state): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if parts.uri.path() == "/token" {
        return state.token(&parts.method, &parts.uri, &parts.headers, &body);
    }
    let mut response = match state.refusal(&parts.method, &parts.uri, &parts.headers) {
        Some(refusal) => refusal,
        None => state.admit(parts.method, &parts.uri, parts.headers, body).await,
    };
    for (name, value) in &state.rules.headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let url = Url::parse(&format!("http://x/?{query}")).unwrap();
    url.query_pairs()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

fn error(status: u16, code: &str) -> Response {
    let body = json!({"errors": [{"code": code, "message": "as the rules say"}]}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("authorization")?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

impl Inner {
    fn token(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
        let is_post = *method == Method::POST;
        if self.rules.post_alone && !is_post {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let given = if is_post {
            std::str::from_utf8(body).unwrap()
        } else {
            uri.query().unwrap_or_default()
        };
        let given = pairs(given);
        let one = |name: &str| {
            given
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let scopes: Vec<String> = given
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, value)| value.split(' '))
            .map(str::to_owned)
            .collect();
        assert_eq!(one("service"), Some("gate"));
        let user = match self.user(is_post, headers, &one) {
            Ok(user) => user,
            Err(()) => return error(401, "UNAUTHORIZED"),
        };
        let mut memory = self.memory.lock().unwrap();
        memory.asked.push(Asked {
            method: method.clone(),
            user: user.clone(),
            scopes: scopes.clone(),
        });
        let seen = if self.rules.last_scope_alone {
            &scopes[scopes.len() - 1..]
        } else {
            &scopes[..]
        };
        let mut granted = BTreeSet::new();
        for scope in seen {
            let mut parts = scope.splitn(3, ':').skip(1);
            let (repository, actions) = (parts.next().unwrap(), parts.next().unwrap());
            for action in actions.split(',') {
                let known = repository.strip_prefix(self.rules.prefix);
                match known.filter(|name| (self.rules.grants)(user.as_deref(), name, action)) {
                    Some(name) => {
                        granted.insert((name.to_owned(), action.to_owned()));
                    }
                    None if self.rules.all_or_nothing => return error(401, "UNAUTHORIZED"),
                    None => {}
                }
            }
        }
        let value = match &self.rules.signer {
            Some(signer) => signer.sign_token(&claims(&granted)).unwrap(),
            None => format!("canary-token-of-the-gate-{}", memory.tokens.len()),
        };
        memory.tokens.insert(value.clone(), Token { granted, uses: 0 });
        // The two specifications name it differently.
        let name = if is_post { "access_token" } else { "token" };
        json!({name: value, "expires_in": 300})
            .to_string()
            .into_response()
    }

    fn user<'a>(
        &self,
        is_post: bool,
        headers: &HeaderMap,
        one: &impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Option<String>, ()> {
        let owns = |password: &str| self.logins.iter().find(|(_, own)| *own == password);
        if is_post {
            let secret = match one("grant_type") {
                Some("password") => one("password"),
                Some("refresh_token") => one("refresh_token"),
                _ => None,
            };
            let (user, _) = secret.and_then(owns).ok_or(())?;
            return if one("username").is_none_or(|name| name == user) {
                Ok(Some(user.clone()))
            } else {
                Err(())
            };
        }
        let Some(shown) = headers.get("authorization") else {
            return Ok(None);
        };
        let logins = self.logins.iter();
        let mut named = logins.filter(|(user, password)| *shown == basic(user, password));
        named.next().map(|(user, _)| Some(user.clone())).ok_or(())
    }

    /// The answer to a request that may not pass.
    fn refusal(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        let needed = needed(method, uri);
        if self.rules.is_open {
            return None;
        }
        let reads = !needed.is_empty() && needed.iter().all(|(_, action)| action == "pull");
        if self.rules.reading_is_free && reads {
            return None;
        }
        if self
            .rules
            .challenges
            .iter()
            .any(|challenge| challenge.starts_with("Basic"))
        {
            let shown = headers.get("authorization");
            if self
                .logins
                .iter()
                .any(|(user, password)| shown.is_some_and(|shown| *shown == basic(user, password)))
            {
                return None;
            }
        }
        let mut memory = self.memory.lock().unwrap();
        let mut why = "";
        if let Some(value) = bearer(headers) {
            let uses = self.rules.token_uses;
            let token = memory
                .tokens
                .get_mut(value)
                .filter(|token| uses.is_none_or(|uses| token.uses < uses));
            why = match token {
                Some(token) if needed.is_subset(&token.granted) => {
                    token.uses += 1;
                    return None;
                }
                Some(token) if self.rules.hides_sources && token.lacks_sources_alone(&needed) => {
                    return Some(error(404, "NAME_UNKNOWN"));
                }
                Some(_) => ",error=\"insufficient_scope\"",
                None => ",error=\"invalid_token\"",
            };
        }
        memory.refused += 1;
        if self.rules.hides && bearer(headers).is_none() && uri.path() != "/v2/" {
            let is_read = needed.iter().all(|(_, action)| action == "pull");
            return Some(if is_read {
                error(404, "NAME_UNKNOWN")
            } else {
                error(403, "DENIED")
            });
        }
        let mut by_repository: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (repository, action) in needed {
            by_repository.entry(repository).or_default().push(action);
        }
        let scope: Vec<String> = by_repository
            .into_iter()
            .map(|(name, actions)| format!("repository:{}{name}:{}", self.rules.prefix, actions.join(",")))
            .collect();
        let mut response = error(401, "UNAUTHORIZED");
        for challenge in &self.rules.challenges {
            let mut value = challenge
                .replace("HOST", &self.host)
                .replace("SCOPE", &scope.join(" "));
            if self.rules.explains {
                value.push_str(why);
            }
            response
                .headers_mut()
                .append("www-authenticate", value.parse().unwrap());
        }
        Some(response)
    }

    /// The answer to a request that may pass, unless it writes a tag that is to be kept.
    async fn admit(&self, method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> Response {
        let tag = uri
            .path()
            .rsplit_once("/manifests/")
            .filter(|(_, name)| !name.contains(':'));
        let Some(refused) = self
            .rules
            .keeps_tags
            .as_ref()
            .filter(|_| tag.is_some() && method == Method::PUT)
        else {
            return self.pass(method, uri, headers, body).await;
        };
        if refused.too_late {
            self.pass(method, uri, headers, body).await;
        }
        let body = json!({"errors": [{"code": refused.code, "message": refused.message}]}).to_string();
        (StatusCode::from_u16(refused.status).unwrap(), body).into_response()
    }

    /// Hands a request on as it is, and its answer back.
    async fn pass(&self, method: Method, uri: &Uri, mut headers: HeaderMap, body: Bytes) -> Response {
        headers.remove("authorization");
        let answer = http_client()
            .unwrap()
            .request(method, format!("http://{}{uri}", self.registry))
            .headers(headers)
            .body(body)
            .send()
            .await
            .unwrap();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        for (name, value) in answer.headers() {
            let of_this_hop = [
                HeaderName::from_static("content-length"),
                HeaderName::from_static("connection"),
            ];
            if !of_this_hop.contains(name) {
                response.headers_mut().append(name, value.clone());
            }
        }
        *response.body_mut() = answer.bytes().await.unwrap().into();
        response
    }
}

/// What a token says that is signed (the distribution project's "Token Authentication Implementation").
fn claims(granted: &BTreeSet<(String, String)>) -> Value {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let access =
        |(name, action): &(String, String)| json!({"type": "repository", "name": name, "actions": [action]});
    json!({
        "iss": "gate",
        "aud": "gate",
        "sub": "somebody",
        "nbf": now - 60,
        "iat": now,
        "exp": now + 300,
        "jti": "1",
        "access": granted.iter().map(access).collect::<Vec<_>>(),
    })
}

fn basic(user: &str, password: &str) -> String {
    let config = towpath_sandbox::servers::docker_config(&[("host", user, password)]);
    format!("Basic {}", config["auths"]["host"]["auth"].as_str().unwrap())
}

/// What a request does to which repositories.
fn needed(method: &Method, uri: &Uri) -> BTreeSet<(String, String)> {
    let path = uri.path().strip_prefix("/v2/").unwrap_or_default();
    let places = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let Some(repository) = places
        .iter()
        .find_map(|place| path.split_once(place))
        .map(|(name, _)| name)
    else {
        return BTreeSet::new();
    };
    let pair = |repository: &str, action: &str| (repository.to_owned(), action.to_owned());
    let mut needed = BTreeSet::from([pair(repository, "pull")]);
    if !matches!(*method, Method::GET | Method::HEAD) {
        needed.insert(pair(repository, "push"));
    }
    let query = pairs(uri.query().unwrap_or_default());
    needed.extend(
        query
            .iter()
            .filter(|(name, _)| name == "from")
            .map(|(_, from)| pair(from, "pull")),
    );
    needed
}
