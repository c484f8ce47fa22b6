//! What every tag named before it was moved, as JSON lines.
//!
//! A line is on the disk before its tag is moved: a run that is killed in between leaves a line for a move that never
//! came about, and whoever goes back compares what the tag names now.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::oci::{Digest, Reference};

/// The format's name, in every line.
const SCHEMA: &str = "towpath.promotion-journal/1";

/// One tag on its way from one image to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The format: `towpath.promotion-journal/1`.
    pub schema: String,
    /// When, in RFC 3339.
    pub at: String,
    /// The delivery that the run belongs to.
    pub trace_id: String,
    /// Registry and repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What it named; none when there was no such tag.
    pub before: Option<Digest>,
    /// What it is about to name.
    pub after: Digest,
}

/// A journal that is written to as the run goes.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    trace_id: String,
}

impl Journal {
    /// Opens a journal, new or to add to.
    ///
    /// # Errors
    /// Usage (exit 2) when it cannot be written to.
    pub fn open(path: &Path, trace_id: &str) -> Result<Self> {
        let file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| {
                Failure::usage(format!("cannot write the journal {}", path.display()))
                    .because(error)
                    .hint(
                        "point --journal (TOWPATH_JOURNAL) to a file in a folder that is there and writable",
                    )
            })?;
        Ok(Journal {
            file,
            path: path.to_owned(),
            trace_id: trace_id.to_owned(),
        })
    }

    /// Writes down that a tag is about to be moved.
    pub(super) fn record(
        &mut self,
        target: &Reference,
        before: Option<&Digest>,
        after: &Digest,
    ) -> Result<()> {
        let entry = Entry {
            schema: SCHEMA.to_owned(),
            at: jiff::Timestamp::now().to_string(),
            trace_id: self.trace_id.clone(),
            repository: target.name(),
            tag: target.tag().map(ToString::to_string).unwrap_or_default(),
            before: before.cloned(),
            after: after.clone(),
        };
        let broke = |error: std::io::Error| {
            Failure::internal(format!("cannot write the journal {}", self.path.display())).because(error)
        };
        let mut line = serde_json::to_vec(&entry)
            .map_err(|error| Failure::internal("cannot write a journal entry as JSON").because(error))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(broke)?;
        self.file.sync_data().map_err(broke)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_added_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let target: Reference = "example.com/app:1".parse().unwrap();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        for before in [None, Some(&old)] {
            let mut journal = Journal::open(&path, "trace").unwrap();
            journal.record(&target, before, &new).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<Entry> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(entries[0].before, None);
        assert_eq!(entries[1].before, Some(old));
        assert!(
            entries
                .iter()
                .all(|entry| entry.after == new && entry.tag == "1" && entry.repository == "example.com/app")
        );
        assert!(Journal::open(&folder.path().join("absent/journal"), "trace").is_err());
    }
}
