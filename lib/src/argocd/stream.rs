//! The stream of an application's changes: one JSON document a line, or server-sent events where something in between
//! asks for those.

use serde::Deserialize;

use super::application::Application;
use super::refusal::one_line;
use crate::failure::{Failure, Result};
use crate::http::Lines;

/// What happened to an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is there, or changed.
    Seen,
    /// It was deleted.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The application after it.
    pub application: Application,
}

/// The changes of an application as they come; the first is how it is now.
#[derive(Debug)]
pub struct Changes {
    lines: Lines,
}

#[derive(Deserialize)]
struct Line {
    result: Option<Change>,
    error: Option<Broken>,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "type", default)]
    kind: String,
    application: Application,
}

#[derive(Deserialize)]
struct Broken {
    #[serde(default)]
    message: String,
}

impl Changes {
    pub(super) fn new(lines: Lines) -> Self {
        Changes { lines }
    }

    /// The next change; none at the stream's end. Nothing is lost when it is dropped before it is done.
    ///
    /// # Errors
    /// As [`Lines::next`]; unavailable (exit 7) when Argo CD says that it cannot go on; input (exit 3) for a line that is
    /// none of its.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        while let Some(line) = self.lines.next().await? {
            if let Some(event) = read(line)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

fn read(line: &[u8]) -> Result<Option<Event>> {
    // Of server-sent events the `data` fields count; comments keep the connection alive.
    let line = line.strip_prefix(b"data:").unwrap_or(line).trim_ascii();
    if line.is_empty() || line.starts_with(b":") || line.starts_with(b"event:") || line.starts_with(b"id:") {
        return Ok(None);
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        Failure::input("the stream of applications holds a line that is not Argo CD's").because(error)
    })?;
    if let Some(broken) = line.error {
        return Err(Failure::unavailable(format!(
            "Argo CD ended the stream of applications: {}",
            one_line(&broken.message)
        )));
    }
    Ok(line.result.map(|change| Event {
        kind: if change.kind == "DELETED" {
            EventKind::Deleted
        } else {
            EventKind::Seen
        },
        application: change.application,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn lines_and_server_sent_events_read_the_same() {
        let plain = br#"{"result":{"type":"ADDED","application":{"metadata":{"name":"web"}}}}"#.to_vec();
        let sent = [b"data: ".as_slice(), &plain].concat();
        for line in [plain, sent] {
            let event = read(&line).unwrap().unwrap();
            assert_eq!(
                (event.kind, event.application.metadata.name.as_str()),
                (EventKind::Seen, "web")
            );
        }
        for nothing in ["", " ", ": keep-alive", "event: message", "id: 7", "{}"] {
            assert!(read(nothing.as_bytes()).unwrap().is_none(), "{nothing:?}");
        }
        let deleted = read(br#"{"result":{"type":"DELETED","application":{}}}"#)
            .unwrap()
            .unwrap();
        assert_eq!(deleted.kind, EventKind::Deleted);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let kind = |line: &str| read(line.as_bytes()).unwrap_err().kind();
        assert_eq!(kind("<html>"), Kind::Input);
        assert_eq!(kind("[1]"), Kind::Input);
        assert_eq!(
            kind(r#"{"error":{"code":14,"message":"transport is closing"}}"#),
            Kind::Unavailable
        );
    }
}
