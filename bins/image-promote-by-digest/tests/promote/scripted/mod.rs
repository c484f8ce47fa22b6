//! A registry in memory that does what a test tells it to: break off, lie, redirect, ask for tokens, steal tags.
//!
//! It keeps the parts of the distribution specification that a promotion uses. What it keeps on purpose badly, each
//! field of [`Script`] says.

mod blobs;
mod connections;
mod manifests;
mod uploads;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;

pub(crate) use self::blobs::{Fault, Ranges};
pub(crate) use self::uploads::UploadFault;

use self::connections::{Breakable, Cut};
use self::uploads::Session;

use crate::image::Image;

/// The token server takes this login alone.
pub(crate) const LOGIN: (&str, &str) = ("robot", "canary-robot-password");

/// What a registry does otherwise than it should.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Asks for tokens.
    pub(crate) bearer: bool,
    /// Each token is good for so many requests.
    pub(crate) token_uses: Option<u32>,
    /// The fault of each blob, so many times.
    pub(crate) blobs: Option<(Fault, u32)>,
    /// What it makes of `Range`.
    pub(crate) ranges: Ranges,
    /// The fault of requests that send a part of a blob or all of it, so many times.
    pub(crate) uploads: Option<(UploadFault, u32)>,
    /// Keeps what it got of an upload that broke off, and says how much.
    pub(crate) resumes: bool,
    /// Takes nothing but whole blobs.
    pub(crate) refuses_parts: bool,
    /// Has uploads sent to this other host.
    pub(crate) uploads_at: Option<String>,
    /// Gives other bytes for manifests.
    pub(crate) wrong_manifests: bool,
    /// So many requests are turned away with 429 and this to wait, where it says.
    pub(crate) busy: u32,
    pub(crate) wait: Option<&'static str>,
    /// More requests at once than this are turned away with 429.
    pub(crate) takes_at_once: Option<usize>,
    /// Tags that exist are refused with this status and code.
    pub(crate) refuses_tags: Option<(u16, &'static str)>,
    /// Somebody else writes this digest to every tag once it was asked for.
    pub(crate) thief: Option<String>,
    /// Somebody else writes an older list of referrers to this repository, once, after the newer one was read.
    pub(crate) loses_list: Option<&'static str>,
    /// Lists of tags are refused with this status.
    pub(crate) lists_no_tags: Option<u16>,
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
    sessions: BTreeMap<String, Session>,
    opened: u32,
    token: u32,
    uses: u32,
    under_way: usize,
    turned_away: usize,
    log: Vec<Line>,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) authorized: bool,
    /// What the header `Range` or `Content-Range` says.
    pub(crate) range: Option<String>,
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
        let app = app.into_make_service_with_connect_info::<Cut>();
        tokio::spawn(async move { axum::serve(Breakable(listener), app).await });
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

    /// How many requests came while too many others were under way.
    pub(crate) fn turned_away(&self) -> usize {
        self.state.lock().unwrap().turned_away
    }

    /// How many requests of this method went to uploads.
    pub(crate) fn uploads(&self, method: &Method) -> usize {
        self.lines("/blobs/uploads/", method).len()
    }

    /// The requests of a method for what has this in its address.
    pub(crate) fn lines(&self, part: &str, method: &Method) -> Vec<Line> {
        let mut log = self.log();
        log.retain(|line| line.method == *method && line.uri.contains(part));
        log
    }

    /// How many uploads were neither finished nor given back.
    pub(crate) fn open_uploads(&self) -> usize {
        self.state.lock().unwrap().sessions.len()
    }

    pub(crate) fn rewrite(&self, script: Script) {
        self.state.lock().unwrap().script = script;
    }
}

/// Counts a request for as long as it lasts.
struct UnderWay(Arc<Mutex<Memory>>);

impl UnderWay {
    fn among(state: &Arc<Mutex<Memory>>) -> Self {
        state.lock().unwrap().under_way += 1;
        UnderWay(state.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap().under_way -= 1;
    }
}

async fn answer(
    State(state): State<Arc<Mutex<Memory>>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (method, uri, headers) = (&parts.method, &parts.uri, &parts.headers);
    let _under_way = UnderWay::among(&state);
    let lingers = {
        let mut memory = state.lock().unwrap();
        let range = headers.get("range").or(headers.get("content-range"));
        memory.log.push(Line {
            method: method.clone(),
            uri: uri.to_string(),
            authorized: headers.contains_key("authorization"),
            range: range.map(|range| range.to_str().unwrap().to_owned()),
        });
        if uri.path() == "/token" {
            return memory.token(headers);
        }
        if let Some(refusal) = memory.refusal(headers) {
            return refusal;
        }
        memory.script.takes_at_once.is_some()
    };
    if lingers {
        // Long enough for others to come meanwhile.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let path = uri.path().strip_prefix("/v2/").unwrap_or_default();
    if let Some((repository, id)) = path.split_once("/blobs/uploads/") {
        if matches!(*method, Method::PUT | Method::PATCH) {
            return uploads::receive(&state, &cut, (method, uri, headers), (repository, id), body).await;
        }
        return state.lock().unwrap().session(method, uri, repository, id);
    }
    // What breaks off has no answer that anybody would read.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    state.lock().unwrap().answer(method, uri, headers, body)
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
    /// Why a request is not looked at, if so.
    fn refusal(&mut self, headers: &HeaderMap) -> Option<Response> {
        if self.script.busy > 0 {
            self.script.busy = self.script.busy.saturating_sub(1);
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Some(match self.script.wait {
                Some(wait) => (status, [("retry-after", wait)]).into_response(),
                None => status.into_response(),
            });
        }
        if self
            .script
            .takes_at_once
            .is_some_and(|most| self.under_way > most)
        {
            self.turned_away += 1;
            return Some(StatusCode::TOO_MANY_REQUESTS.into_response());
        }
        if self.script.bearer && !self.admits(headers) {
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"scripted\"", self.host);
            let answer = error(401, "UNAUTHORIZED");
            return Some(([("www-authenticate", challenge)], answer).into_response());
        }
        None
    }

    fn answer(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let path = uri.path().strip_prefix("/v2/").unwrap_or_default();
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return self.blob(method, headers, repository, digest);
        }
        if let Some((repository, name)) = path.split_once("/manifests/") {
            if *method == Method::PUT {
                let media_type = headers["content-type"].to_str().unwrap();
                return self.put_manifest(repository, name, media_type, body);
            }
            return self.manifest(method, repository, name);
        }
        match path.split_once("/tags/") {
            Some((repository, _)) => self.tags(uri, repository),
            None => error(404, "NAME_UNKNOWN"),
        }
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
}
