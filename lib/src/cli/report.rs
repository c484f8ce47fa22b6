//! The result of a run on standard output: one JSON document, or text for people.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Output, logs};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// What a tool reports. The fields that serde writes are the public format: they are documented in the tool's page
/// and only ever added to within one schema number.
pub trait Report: Serialize {
    /// The format's name: `towpath.<tool>/<number>`.
    const SCHEMA: &'static str;

    /// The same for people, without a final newline.
    fn text(&self) -> String;
}

/// How a run ended, when it did not fail outright.
#[derive(Debug)]
pub struct Outcome {
    document: Option<Document>,
    child: Option<u8>,
    failure: Option<Failure>,
}

#[derive(Debug)]
enum Document {
    Report { json: Value, text: String },
    Disclosed(Secret),
}

impl Outcome {
    /// Done, with a report.
    ///
    /// # Errors
    /// Internal when the report cannot be written as JSON.
    pub fn report<R: Report>(report: &R) -> Result<Self> {
        let mut json = Map::new();
        json.insert("schema".to_owned(), R::SCHEMA.into());
        let fields = serde_json::to_value(report)
            .map_err(|error| Failure::internal("cannot write the report as JSON").because(error))?;
        match fields {
            Value::Object(fields) => json.extend(fields),
            other => {
                return Err(Failure::internal(format!(
                    "the report is not a JSON object: {other}"
                )));
            }
        }
        let document = Document::Report {
            json: Value::Object(json),
            text: report.text(),
        };
        Ok(Outcome {
            document: Some(document),
            child: None,
            failure: None,
        })
    }

    /// Done, and the result is itself a secret that the user asked to see, such as lines for `eval`. The only way
    /// past the redaction of standard output.
    #[must_use]
    pub fn disclosed(text: Secret) -> Self {
        Outcome {
            document: Some(Document::Disclosed(text)),
            child: None,
            failure: None,
        }
    }

    /// The child process of `exec` ended with this code. Standard output was the child's.
    #[must_use]
    pub fn child(code: u8) -> Self {
        Outcome {
            document: None,
            child: Some(code),
            failure: None,
        }
    }

    /// Adds a failure to a report: the report is written, and the exit code is the failure's.
    #[must_use]
    pub fn failing(mut self, failure: Failure) -> Self {
        self.failure = Some(failure);
        self
    }

    /// Writes the report; gives back the failure that goes with it.
    pub(super) fn write(&self, output: Output) -> Result<Option<&Failure>> {
        let written = match &self.document {
            None => Ok(()),
            Some(Document::Disclosed(text)) => logs::disclose_to_stdout(text),
            Some(Document::Report { json, text }) => {
                let for_people = match output {
                    Output::Json => false,
                    Output::Text => true,
                    Output::Auto => std::io::stdout().is_terminal(),
                };
                let line = if for_people {
                    logs::printable(&format!("{text}\n"))
                } else {
                    format!("{json}\n")
                };
                logs::to_stdout(&line)
            }
        };
        written.map_err(|error| Failure::internal("cannot write to standard output").because(error))?;
        Ok(self.failure.as_ref())
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.child.unwrap_or(0))
    }
}
