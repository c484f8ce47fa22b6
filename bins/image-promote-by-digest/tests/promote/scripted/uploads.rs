//! Uploads, with what goes wrong on the way.

use std::sync::Mutex;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use towpath::oci::Digest;

use super::connections::Cut;
use super::{Memory, error, parameter};

/// What goes wrong with bytes that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UploadFault {
    /// The connection breaks after so many bytes.
    BreaksOff(usize),
    /// This status, after so many bytes.
    Status(u16, usize),
    /// This status at once, with this to wait.
    TurnsAway(u16, &'static str),
    /// All of it is taken, and then the connection breaks.
    LosesAnswer,
}

impl UploadFault {
    /// Only what is longer can break in the middle.
    fn befalls(&self, headers: &HeaderMap) -> bool {
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        match self {
            UploadFault::BreaksOff(bytes) | UploadFault::Status(_, bytes) => length > *bytes,
            UploadFault::TurnsAway(..) | UploadFault::LosesAnswer => length > 0,
        }
    }
}

/// Bytes that came in so far.
#[derive(Default)]
pub(super) struct Session(Vec<u8>);

impl Memory {
    /// A request for a session that carries nothing, or one that opens it.
    pub(super) fn session(&mut self, method: &Method, uri: &Uri, repository: &str, id: &str) -> Response {
        match *method {
            Method::POST => {
                let wanted = parameter(uri, "mount").zip(parameter(uri, "from"));
                if let Some((digest, from)) = wanted.filter(|_| !self.script.ignores_mounts)
                    && let Some(bytes) = self.blobs.get(&(from, digest.clone())).cloned()
                {
                    self.blobs.insert((repository.to_owned(), digest), bytes);
                    return StatusCode::CREATED.into_response();
                }
                let id = (self.opened + 1).to_string();
                self.opened += 1;
                self.sessions.insert(id.clone(), Session::default());
                let location = [("location", self.location(repository, &id))];
                (StatusCode::ACCEPTED, location).into_response()
            }
            Method::GET if self.script.resumes => match self.sessions.get(id) {
                Some(Session(bytes)) => {
                    let headers = [
                        ("range", format!("0-{}", bytes.len().saturating_sub(1))),
                        ("location", self.location(repository, id)),
                    ];
                    (StatusCode::NO_CONTENT, headers).into_response()
                }
                None => error(404, "BLOB_UPLOAD_UNKNOWN"),
            },
            Method::DELETE => match self.sessions.remove(id) {
                Some(_) => StatusCode::NO_CONTENT.into_response(),
                None => error(404, "BLOB_UPLOAD_UNKNOWN"),
            },
            _ => error(404, "BLOB_UPLOAD_UNKNOWN"),
        }
    }

    /// It changes with what came in, and what is sent to an old one is refused.
    fn location(&self, repository: &str, id: &str) -> String {
        let path = format!(
            "/v2/{repository}/blobs/uploads/{id}?state={}",
            self.sessions.get(id).map_or(0, |session| session.0.len())
        );
        match &self.script.uploads_at {
            Some(host) => format!("http://{host}{path}"),
            None => path,
        }
    }

    /// Whether bytes go on where this session is.
    fn goes_on(&mut self, uri: &Uri, headers: &HeaderMap, id: &str) -> bool {
        // A host that others send uploads to knows nothing of them.
        let session = self.sessions.entry(id.to_owned()).or_default();
        let offset = session.0.len().to_string();
        if parameter(uri, "state") != Some(offset.clone()) {
            return false;
        }
        let range = headers.get("content-range").map(|range| range.to_str().unwrap());
        match range.map(|range| range.split_once('-').unwrap()) {
            Some((from, last)) => {
                let length: u64 = headers["content-length"].to_str().unwrap().parse().unwrap();
                let last: u64 = last.parse().unwrap();
                assert_eq!(
                    from.parse::<u64>().unwrap() + length,
                    last + 1,
                    "the range is malformed"
                );
                from == offset
            }
            None => true,
        }
    }
}

/// Takes bytes into a session, as far as the script lets them, and closes it if the request does.
pub(super) async fn receive(
    memory: &Mutex<Memory>,
    cut: &Cut,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    (repository, id): (&str, &str),
    body: Body,
) -> Response {
    let mut pieces = body.into_data_stream();
    let (fault, refusal, keeps) = {
        let mut memory = memory.lock().unwrap();
        let fault = match &mut memory.script.uploads {
            Some((fault, times)) if *times > 0 && fault.befalls(headers) => {
                *times -= 1;
                Some(fault.clone())
            }
            _ => None,
        };
        let refusal = match fault {
            Some(UploadFault::TurnsAway(status, wait)) => {
                let status = StatusCode::from_u16(status).unwrap();
                Some((status, [("retry-after", wait)]).into_response())
            }
            _ if memory.script.refuses_parts && *method == Method::PATCH => Some(error(405, "UNSUPPORTED")),
            _ if memory.goes_on(uri, headers, id) => None,
            _ => Some(error(416, "RANGE_INVALID")),
        };
        (fault, refusal, memory.script.resumes)
    };
    if let Some(refusal) = refusal {
        drain(pieces).await;
        return refusal;
    }
    let limit = match fault {
        Some(UploadFault::BreaksOff(bytes) | UploadFault::Status(_, bytes)) => bytes,
        _ => usize::MAX,
    };
    let mut taken = Vec::new();
    let mut broken = false;
    while taken.len() < limit {
        match pieces.next().await {
            Some(Ok(piece)) => taken.extend_from_slice(&piece),
            // The client broke off.
            Some(Err(_)) => broken = true,
            None => break,
        }
        if broken {
            break;
        }
    }
    taken.truncate(limit);
    if let Some(UploadFault::Status(..)) = fault {
        drain(pieces).await;
    }
    let mut memory = memory.lock().unwrap();
    if let Some(UploadFault::BreaksOff(_) | UploadFault::Status(..)) = fault {
        broken = true;
    }
    let session = memory.sessions.entry(id.to_owned()).or_default();
    if !broken || keeps {
        session.0.extend_from_slice(&taken);
    }
    match fault {
        Some(UploadFault::BreaksOff(_)) => {
            cut.now();
            return StatusCode::OK.into_response();
        }
        Some(UploadFault::Status(status, _)) => return error(status, "UNKNOWN"),
        _ if broken => return StatusCode::BAD_REQUEST.into_response(),
        _ => {}
    }
    if *method == Method::PATCH {
        let location = [("location", memory.location(repository, id))];
        return (StatusCode::ACCEPTED, location).into_response();
    }
    let digest = parameter(uri, "digest").unwrap();
    let Some(Session(bytes)) = memory.sessions.remove(id) else {
        return error(404, "BLOB_UPLOAD_UNKNOWN");
    };
    if Digest::of(&bytes).as_str() != digest {
        return error(400, "DIGEST_INVALID");
    }
    memory.blobs.insert((repository.to_owned(), digest), bytes.into());
    if fault == Some(UploadFault::LosesAnswer) {
        cut.now();
    }
    StatusCode::CREATED.into_response()
}

/// Reads what still comes: an answer to somebody who is still sending may get lost.
async fn drain(mut pieces: BodyDataStream) {
    while pieces.next().await.is_some_and(|piece| piece.is_ok()) {}
}
