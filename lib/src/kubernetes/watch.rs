//! A watch on one application: a JSON document a line.

use serde::Deserialize;

use super::refusal::{Said, classify};
use crate::argocd::application::Application;
use crate::failure::{Failure, Result};
use crate::http::{Lines, StatusCode};

/// What happened to it.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is there, or changed.
    Seen(Box<Application>),
    /// It was deleted.
    Deleted,
}

/// The changes of an application as they come; the first is how it is now.
#[derive(Debug)]
pub struct Changes {
    now: Option<Application>,
    lines: Lines,
}

/// What it is about decides what its object is, so a line is read twice.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Line<T> {
    object: T,
}

impl Changes {
    pub(super) fn new(now: Application, lines: Lines) -> Self {
        Changes {
            now: Some(now),
            lines,
        }
    }

    /// The next change; none when the server ended the watch, as it does after a while.
    ///
    /// # Errors
    /// As [`Lines::next`]; unavailable (exit 7) when the server cannot go on, such as with 410, after which a new watch
    /// begins with how it is then; input (exit 3) for a line that is none of its.
    pub async fn next(&mut self) -> Result<Option<Change>> {
        if let Some(now) = self.now.take() {
            return Ok(Some(Change::Seen(Box::new(now))));
        }
        while let Some(line) = self.lines.next().await? {
            if let Some(change) = read(line)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }
}

fn read(line: &[u8]) -> Result<Option<Change>> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let refused = |error| {
        Failure::input("the watch on an application holds a line that is not Kubernetes'").because(error)
    };
    let what: Kind = serde_json::from_slice(line).map_err(refused)?;
    match what.kind.as_str() {
        "ADDED" | "MODIFIED" => {
            let line: Line<Application> = serde_json::from_slice(line).map_err(refused)?;
            Ok(Some(Change::Seen(Box::new(line.object))))
        }
        "DELETED" => Ok(Some(Change::Deleted)),
        "ERROR" => {
            let line: Line<Said> = serde_json::from_slice(line).map_err(refused)?;
            let said = line.object;
            let status = said.code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(classify(
                status,
                &said.message.unwrap_or_default(),
                "watch",
                "the application",
            ))
        }
        // Bookmarks say how far the watch has come, and a new one begins with the present anyway.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn every_kind_of_line_is_read() {
        let seen = read(br#"{"type":"MODIFIED","object":{"metadata":{"name":"web"}}}"#).unwrap();
        assert!(matches!(seen, Some(Change::Seen(seen)) if seen.metadata.name == "web"));
        let deleted = read(br#"{"type":"DELETED","object":{}}"#).unwrap();
        assert!(matches!(deleted, Some(Change::Deleted)));
        for nothing in ["", r#"{"type":"BOOKMARK","object":{"metadata":{}}}"#] {
            assert!(read(nothing.as_bytes()).unwrap().is_none(), "{nothing}");
        }
        let gone = read(br#"{"type":"ERROR","object":{"code":410,"message":"too old resource version"}}"#);
        assert_eq!(gone.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(read(b"<html>").unwrap_err().kind(), Kind::Input);
        assert_eq!(
            read(br#"{"type":"ADDED","object":[]}"#).unwrap_err().kind(),
            Kind::Input
        );
    }
}
