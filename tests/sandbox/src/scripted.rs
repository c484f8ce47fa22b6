//! A server that answers by script, for what no real one can be brought to say: refusals, answers that break off, come in pieces or
//! never end.
//!
//! It listens on loopback, keeps what it was asked, and ends when it is dropped.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The most of a request's body that is read, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// One answer: a status, headers, and a body in pieces.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pause: Duration,
    pieces: Vec<Bytes>,
    /// Between two pieces.
    between: Duration,
    end: End,
}

/// What comes after the last piece.
#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    BreaksOff,
    StaysOpen,
}

/// A JSON answer with status 200.
pub fn ok(body: impl Borrow<Value>) -> Reply {
    status(200, body)
}

/// A JSON answer.
pub fn status(status: u16, body: impl Borrow<Value>) -> Reply {
    text(status, &body.borrow().to_string())
}

/// An answer of any bytes.
#[must_use]
pub fn text(status: u16, body: &str) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        pause: Duration::ZERO,
        pieces: vec![Bytes::copy_from_slice(body.as_bytes())],
        between: Duration::ZERO,
        end: End::Whole,
    }
}

/// A JSON document a line, and then nothing: it stays open.
#[must_use]
pub fn lines(documents: impl IntoIterator<Item = Value>) -> Reply {
    let lines = documents.into_iter().map(|line| format!("{line}\n").into());
    Reply {
        pieces: lines.collect(),
        end: End::StaysOpen,
        ..text(200, "")
    }
}

impl Reply {
    /// With another header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The connection breaks off in the middle of the body.
    #[must_use]
    pub fn broken(mut self) -> Self {
        let whole = self.pieces.concat();
        self.pieces = vec![Bytes::copy_from_slice(&whole[..whole.len() / 2])];
        self.cut_off()
    }

    /// The connection breaks off behind what is there of the body.
    #[must_use]
    pub fn cut_off(mut self) -> Self {
        self.end = End::BreaksOff;
        self
    }

    /// It comes after this long.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// In pieces of so many bytes, a millisecond apart.
    #[must_use]
    pub fn in_pieces(mut self, of: usize) -> Self {
        let whole = self.pieces.concat();
        self.pieces = whole.chunks(of).map(Bytes::copy_from_slice).collect();
        self.between = Duration::from_millis(1);
        self
    }

    fn response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("the script has a status of three digits");
        let mut response = Response::builder().status(status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let (between, end) = (self.between, self.end);
        let body = match end {
            // Its length is announced, as most servers do.
            End::Whole if between.is_zero() => Body::from(self.pieces.concat()),
            _ => {
                let pieces = stream::iter(self.pieces).then(move |piece| async move {
                    tokio::time::sleep(between).await;
                    Ok::<_, std::io::Error>(piece)
                });
                let end = stream::once(async move {
                    match end {
                        End::Whole => Ok(Bytes::new()),
                        End::BreaksOff => Err(std::io::Error::other("scripted to break off")),
                        End::StaysOpen => std::future::pending().await,
                    }
                });
                Body::from_stream(pieces.chain(end))
            }
        };
        response.body(body).expect("the script's headers are headers")
    }
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and address, as routes are known by.
    pub what: String,
    /// What stood behind the question mark, encoded.
    pub query: String,
    /// The headers, names in lowercase.
    pub headers: BTreeMap<String, String>,
    /// The body; null when it is no JSON.
    pub body: Value,
}

/// What a route is known by besides its method.
#[derive(Clone, Copy, Debug)]
enum Routes {
    PathAndQuery,
    PathBelow(&'static str),
}

#[derive(Debug)]
struct Script {
    routes: Routes,
    replies: BTreeMap<String, VecDeque<Reply>>,
    asked: Vec<Asked>,
}

/// The server. Each route answers its replies in turn, the last one for ever; other routes answer 404.
#[derive(Debug)]
pub struct Scripted {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scripted {
    /// Starts one whose routes are a method, a path and a query: `GET /api/version?short=1`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start() -> Result<Self> {
        Self::serve(Routes::PathAndQuery).await
    }

    /// Starts one whose routes are a method and a path below this one, whatever the query; outside of it the path has another
    /// slash before it.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start_below(path: &'static str) -> Result<Self> {
        Self::serve(Routes::PathBelow(path)).await
    }

    async fn serve(routes: Routes) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("listening on loopback")?;
        let url = format!("http://{}", listener.local_addr()?);
        let script = Arc::new(Mutex::new(Script {
            routes,
            replies: BTreeMap::new(),
            asked: Vec::new(),
        }));
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&script));
        let server = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Scripted { url, script, server })
    }

    /// What a route answers from now on.
    pub fn on(&self, what: &str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        let replies = replies.into_iter().collect();
        lock(&self.script).replies.insert(what.to_owned(), replies);
        self
    }

    /// Everything that was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.script).asked.clone()
    }

    /// What was asked of one route.
    #[must_use]
    pub fn asked_for(&self, what: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.what == what);
        asked
    }
}

/// A script that no panic can leave half written.
fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap_or_default();
        (name.to_string(), value.to_owned())
    });
    let reply = {
        let mut script = lock(&script);
        let address = match script.routes {
            Routes::PathAndQuery if query.is_empty() => path.to_owned(),
            Routes::PathAndQuery => format!("{path}?{query}"),
            Routes::PathBelow(base) => match path.strip_prefix(base) {
                Some(below) => below.to_owned(),
                None => format!("/{path}"),
            },
        };
        let what = format!("{} {address}", parts.method);
        script.asked.push(Asked {
            what: what.clone(),
            query: query.to_owned(),
            headers: headers.collect(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        match script.replies.get_mut(&what) {
            Some(replies) if replies.len() > 1 => replies.pop_front(),
            Some(replies) => replies.front().cloned(),
            None => None,
        }
    };
    let reply = reply.unwrap_or_else(|| status(404, json!({"code": 5, "message": "404 Not Found"})));
    tokio::time::sleep(reply.pause).await;
    reply.response()
}
