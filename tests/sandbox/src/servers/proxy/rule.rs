//! What goes wrong, with which requests, and how often.

use std::collections::BTreeMap;

/// Requests, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Rule {
    method: String,
    part: String,
    fault: Fault,
    after: u32,
    times: u32,
    each: bool,
    /// How many requests it has met: in all, or by what they ask for.
    met: BTreeMap<String, u32>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never reaches the server: this is the answer.
    Answer(Canned),
    /// The connection breaks at this point.
    Break(Point, Way),
    /// It stops at this point for as long as the client stays, or until the proxy is told to let go.
    Hold(Point),
    /// The answer's body comes with this many bytes a second.
    Drip(usize),
    /// The bytes of the answer's body are others, as many as they should be.
    WrongBytes,
    /// The answer announces so many bytes more or less than come.
    Length(i64),
    /// It never reaches the server: the answer sends the client to the same path at this `HOST:PORT` (307).
    Redirect(String),
    /// The answer's `Location` names this `HOST:PORT` instead of the server's own.
    Location(String),
}

/// An answer that no server gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canned {
    /// Its status.
    pub status: u16,
    /// Its headers besides the length.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// A point in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The request's head is there, and nothing has reached the server.
    Arrival,
    /// The server has the head and this many bytes of the request's body.
    Sending(u64),
    /// The server has answered, and nothing of it has reached the client.
    Answered,
    /// The client has the answer's head and this many bytes of its body.
    Receiving(u64),
}

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At once, for both sides (RST).
    Reset,
    /// In order, as if that were all (FIN).
    Close,
}

impl Rule {
    /// A fault of all requests with this method whose path or query holds `part`.
    #[must_use]
    pub fn on(method: &str, part: &str, fault: Fault) -> Self {
        Self {
            method: method.to_owned(),
            part: part.to_owned(),
            fault,
            after: 0,
            times: u32::MAX,
            each: false,
            met: BTreeMap::new(),
        }
    }

    /// Leaves the first ones alone.
    #[must_use]
    pub fn after(self, requests: u32) -> Self {
        Self {
            after: requests,
            ..self
        }
    }

    /// Only so many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Counts the requests for each digest (or path, when it names none) by themselves: with `times(2)`, two for each.
    #[must_use]
    pub fn each(self) -> Self {
        Self { each: true, ..self }
    }

    /// Whether it breaks connections.
    #[must_use]
    pub fn breaks(&self) -> bool {
        matches!(self.fault, Fault::Break(..))
    }

    /// The fault of a request, if it has one.
    pub(super) fn meet(&mut self, method: &str, uri: &str) -> Option<Fault> {
        if method != self.method || !uri.contains(&self.part) {
            return None;
        }
        let key = if self.each { asked_for(uri) } else { "" };
        let met = self.met.entry(key.to_owned()).or_default();
        let number = *met;
        *met = met.saturating_add(1);
        let is_meant = number >= self.after && number - self.after < self.times;
        is_meant.then(|| self.fault.clone())
    }
}

impl Canned {
    /// An answer without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// An error as the distribution specification writes it.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"as the test says"}}]}}"#);
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self {
            status,
            headers,
            body,
        }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The digest that a request names, else its path.
fn asked_for(uri: &str) -> &str {
    const PREFIX: &str = "sha256:";
    match uri.rfind(PREFIX) {
        Some(at) => uri.get(at..at + PREFIX.len() + 64).unwrap_or(&uri[at..]),
        // In a query the colon is often written so.
        None => match uri.rfind("sha256%3A") {
            Some(at) => uri.get(at..at + 9 + 64).unwrap_or(&uri[at..]),
            None => uri.split('?').next().unwrap_or(uri),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(mut rule: Rule, uris: &[&str]) -> Vec<bool> {
        uris.iter().map(|uri| rule.meet("GET", uri).is_some()).collect()
    }

    #[test]
    fn a_rule_counts_in_all_or_by_what_is_asked_for() {
        let rule = || Rule::on("GET", "/blobs/", Fault::WrongBytes);
        let uris = [
            "/v2/a/blobs/1",
            "/v2/a/blobs/1",
            "/v2/a/blobs/2",
            "/v2/a/manifests/1",
        ];
        assert_eq!(faults(rule(), &uris), [true, true, true, false]);
        assert_eq!(faults(rule().times(1), &uris), [true, false, false, false]);
        assert_eq!(
            faults(rule().after(1).times(1), &uris),
            [false, true, false, false]
        );
        assert_eq!(faults(rule().each().times(1), &uris), [true, false, true, false]);
        assert!(rule().meet("PUT", uris[0]).is_none());
    }

    #[test]
    fn an_upload_asks_for_its_digest_wherever_it_goes() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            asked_for(&format!("/v2/a/blobs/uploads/7?digest={digest}&x=y")),
            digest
        );
        assert_eq!(asked_for("/v2/a/blobs/uploads/7?x=y"), "/v2/a/blobs/uploads/7");
    }
}
