//! A registry in memory that does what a test tells it to: break off, lie, redirect, ask for tokens, steal tags.
//!
//! It keeps the parts of the distribution specification that a promotion uses. What it keeps on purpose badly, each
//! field of [`Script`] says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::net::TcpListener;
use towpath::oci::Digest;

use crate::image::Image;

/// The token server takes this login alone.
pub(crate) const LOGIN: (&str, &str) = ("robot", "canary-robot-password");

/// What goes wrong with a blob that is read.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Half of it comes, and then the connection breaks.
    BreaksOff,
    /// Half of it comes, and then nothing.
    Stalls,
    /// As many bytes, but others.
    WrongBytes,
    /// It is at this other host.
    IsElsewhere(String),
}

/// What a registry does otherwise than it should.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Asks for tokens.
    pub(crate) bearer: bool,
    /// Each token is good for so many requests.
    pub(crate) token_uses: Option<u32>,
    /// The fault of each blob, so many times.
    pub(crate) blobs: Option<(Fault, u32)>,
    /// Gives other bytes for manifests.
    pub(crate) wrong_manifests: bool,
    /// So many requests are turned away with 429 and a second to wait.
    pub(crate) busy: u32,
    /// Tags that exist are refused with this status and code.
    pub(crate) refuses_tags: Option<(u16, &'static str)>,
    /// Somebody else writes this digest to every tag once it was asked for.
    pub(crate) thief: Option<String>,
    /// Mount requests are answered with an upload session, whatever is there.
    pub(crate) ignores_mounts: bool,
}

/// A running scripted registry. It ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) host: String,
    state: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    script: Script,
    host: String,
    blobs: BTreeMap<(String, String), Bytes>,
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    tags: BTreeMap<(String, String), String>,
    faults: BTreeMap<String, u32>,
    sessions: u32,
    token: u32,
    uses: u32,
    log: Vec<Line>,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) authorized: bool,
}

impl Scripted {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(Memory {
            script,
            host: host.clone(),
            ..Memory::default()
        }));
        let app = axum::Router::new().fallback(answer).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Scripted { host, state }
    }

    /// Puts an image into a repository under a tag.
    pub(crate) fn hold(&self, repository: &str, tag: &str, image: &Image) {
        let mut memory = self.state.lock().unwrap();
        for (digest, bytes) in &image.blobs {
            let key = (repository.to_owned(), digest.clone());
            memory.blobs.insert(key, bytes.clone().into());
        }
        for (digest, (media_type, bytes)) in &image.manifests {
            let key = (repository.to_owned(), digest.clone());
            memory
                .manifests
                .insert(key, (media_type.clone(), bytes.clone().into()));
        }
        memory
            .tags
            .insert((repository.to_owned(), tag.to_owned()), image.root.clone());
    }

    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        let key = (repository.to_owned(), tag.to_owned());
        self.state.lock().unwrap().tags.get(&key).cloned()
    }

    pub(crate) fn has_all(&self, repository: &str, image: &Image) -> bool {
        let memory = self.state.lock().unwrap();
        let key = |digest: &String| (repository.to_owned(), digest.clone());
        image
            .blobs
            .keys()
            .all(|digest| memory.blobs.contains_key(&key(digest)))
            && image
                .manifests
                .keys()
                .all(|digest| memory.manifests.contains_key(&key(digest)))
    }

    pub(crate) fn log(&self) -> Vec<Line> {
        self.state.lock().unwrap().log.clone()
    }

    pub(crate) fn rewrite(&self, script: Script) {
        self.state.lock().unwrap().script = script;
    }
}

async fn answer(State(state): State<Arc<Mutex<Memory>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // An upload that breaks off has no answer that anybody would read.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut memory = state.lock().unwrap();
    memory.log.push(Line {
        method: parts.method.clone(),
        uri: parts.uri.to_string(),
        authorized: parts.headers.contains_key("authorization"),
    });
    memory.answer(&parts.method, &parts.uri, &parts.headers, body)
}

fn error(status: u16, code: &str) -> Response {
    let body = json!({"errors": [{"code": code, "message": "as the script says"}]}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let url = towpath::http::Url::parse(&format!("http://x{uri}")).unwrap();
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

impl Memory {
    fn answer(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        if uri.path() == "/token" {
            return self.token(headers);
        }
        if self.script.busy > 0 {
            self.script.busy -= 1;
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
        }
        if self.script.bearer && !self.admits(headers) {
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"scripted\"", self.host);
            let answer = error(401, "UNAUTHORIZED");
            return ([("www-authenticate", challenge)], answer).into_response();
        }
        let path = uri.path().strip_prefix("/v2/").unwrap_or_default();
        for (kind, act) in [
            (
                "/blobs/uploads/",
                Self::upload as fn(&mut Self, &Method, &Uri, &str, &str, Bytes) -> Response,
            ),
            ("/blobs/", Self::blob),
            ("/manifests/", |memory, method, _, repository, name, body| {
                memory.manifest(method, repository, name, body)
            }),
            ("/tags/", |memory, _, uri, repository, _, _| {
                memory.tags(uri, repository)
            }),
        ] {
            if let Some((repository, name)) = path.split_once(kind) {
                if kind == "/manifests/" && *method == Method::PUT {
                    let media_type = headers["content-type"].to_str().unwrap();
                    return self.put_manifest(repository, name, media_type, body);
                }
                return act(self, method, uri, repository, name, body);
            }
        }
        error(404, "NAME_UNKNOWN")
    }

    fn token(&mut self, headers: &HeaderMap) -> Response {
        use axum::http::HeaderValue;
        // Basic robot:canary-robot-password
        let expected = HeaderValue::from_static("Basic cm9ib3Q6Y2FuYXJ5LXJvYm90LXBhc3N3b3Jk");
        if headers.get("authorization") != Some(&expected) {
            return error(401, "UNAUTHORIZED");
        }
        self.token += 1;
        self.uses = 0;
        json!({"token": format!("canary-token-{}", self.token), "expires_in": 300})
            .to_string()
            .into_response()
    }

    fn admits(&mut self, headers: &HeaderMap) -> bool {
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        self.uses += 1;
        shown == Some(&format!("Bearer canary-token-{}", self.token))
            && self.script.token_uses.is_none_or(|uses| self.uses <= uses)
    }

    fn upload(&mut self, method: &Method, uri: &Uri, repository: &str, _: &str, body: Bytes) -> Response {
        match *method {
            Method::POST => {
                let wanted = parameter(uri, "mount").zip(parameter(uri, "from"));
                if let Some((digest, from)) = wanted.filter(|_| !self.script.ignores_mounts)
                    && let Some(bytes) = self.blobs.get(&(from, digest.clone())).cloned()
                {
                    self.blobs.insert((repository.to_owned(), digest), bytes);
                    return StatusCode::CREATED.into_response();
                }
                self.sessions += 1;
                let location = format!("/v2/{repository}/blobs/uploads/{}?state=x", self.sessions);
                (StatusCode::ACCEPTED, [("location", location)]).into_response()
            }
            Method::PUT => {
                let digest = parameter(uri, "digest").unwrap();
                if Digest::of(&body).as_str() != digest {
                    return error(400, "DIGEST_INVALID");
                }
                self.blobs.insert((repository.to_owned(), digest), body);
                StatusCode::CREATED.into_response()
            }
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    }

    fn blob(&mut self, method: &Method, _: &Uri, repository: &str, digest: &str, _: Bytes) -> Response {
        let Some(bytes) = self
            .blobs
            .get(&(repository.to_owned(), digest.to_owned()))
            .cloned()
        else {
            return error(404, "BLOB_UNKNOWN");
        };
        if *method == Method::HEAD {
            return StatusCode::OK.into_response();
        }
        let fault = match &self.script.blobs {
            Some((fault, times)) => {
                let so_far = self.faults.entry(digest.to_owned()).or_default();
                *so_far += 1;
                (*so_far <= *times).then(|| fault.clone())
            }
            None => None,
        };
        let half = bytes.slice(..bytes.len() / 2);
        let length = [("content-length", bytes.len().to_string())];
        match fault {
            None => bytes.into_response(),
            Some(Fault::WrongBytes) => vec![b'?'; bytes.len()].into_response(),
            Some(Fault::IsElsewhere(host)) => {
                let location = format!("http://{host}/v2/{repository}/blobs/{digest}");
                (StatusCode::TEMPORARY_REDIRECT, [("location", location)]).into_response()
            }
            Some(Fault::BreaksOff) => {
                let first = stream::iter([Ok(half)]);
                // Time for the half to leave, or the answer would break off before it began.
                let broken = stream::once(async {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    Err(std::io::Error::other("as the script says"))
                });
                (length, Body::from_stream(first.chain(broken))).into_response()
            }
            Some(Fault::Stalls) => {
                let first = stream::iter([Ok::<_, std::io::Error>(half)]);
                (length, Body::from_stream(first.chain(stream::pending()))).into_response()
            }
        }
    }

    fn manifest(&mut self, method: &Method, repository: &str, name: &str, _: Bytes) -> Response {
        let tag = (repository.to_owned(), name.to_owned());
        let digest = self.tags.get(&tag).cloned().unwrap_or_else(|| name.to_owned());
        if let Some(thief) = self.script.thief.clone()
            && !name.starts_with("sha256:")
        {
            self.tags.insert(tag, thief);
        }
        match self.manifests.get(&(repository.to_owned(), digest.clone())) {
            None if *method == Method::HEAD && digest.starts_with("sha256:") && digest != name => {
                [("docker-content-digest", digest)].into_response()
            }
            None => error(404, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => {
                let bytes = if self.script.wrong_manifests {
                    Bytes::from_static(b"{\"schemaVersion\":2,\"config\":{}}")
                } else {
                    bytes.clone()
                };
                let headers = [
                    ("content-type", media_type.clone()),
                    ("docker-content-digest", digest),
                ];
                (headers, bytes).into_response()
            }
        }
    }

    fn put_manifest(&mut self, repository: &str, name: &str, media_type: &str, body: Bytes) -> Response {
        let digest = Digest::of(&body).to_string();
        if !name.starts_with("sha256:") {
            if let Some((status, code)) = self.script.refuses_tags {
                return error(status, code);
            }
            self.tags
                .insert((repository.to_owned(), name.to_owned()), digest.clone());
        }
        self.manifests
            .insert((repository.to_owned(), digest), (media_type.to_owned(), body));
        StatusCode::CREATED.into_response()
    }

    /// Two tags a page, whatever is asked for.
    fn tags(&mut self, uri: &Uri, repository: &str) -> Response {
        let last = parameter(uri, "last").unwrap_or_default();
        let all = self
            .tags
            .keys()
            .filter(|(held, tag)| held == repository && *tag > last);
        let page: Vec<&String> = all.map(|(_, tag)| tag).take(2).collect();
        let link = format!(
            "</v2/{repository}/tags/list?last={}>; rel=\"next\"",
            page.last().map_or("", |tag| tag)
        );
        let body = json!({"name": repository, "tags": page}).to_string();
        if page.len() == 2 {
            ([("link", link)], body).into_response()
        } else {
            body.into_response()
        }
    }
}
