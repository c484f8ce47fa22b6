//! What every tag named before it was moved, as JSON lines.
//!
//! A line is on the disk before its tag is moved: a run that is killed in between leaves a line for a move that never
//! came about, and whoever goes back compares what the tag names now.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::oci::{Digest, Tag};

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
    /// Registry and repository, or `oci:` and the folder of a layout.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What it named; none when there was no such tag.
    pub before: Option<Digest>,
    /// What it is about to name; none when it is about to be deleted.
    pub after: Option<Digest>,
}

/// A journal that is written to as the run goes, by one copy or by several at once.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<File>,
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
            file: Mutex::new(file),
            path: path.to_owned(),
            trace_id: trace_id.to_owned(),
        })
    }

    /// Writes down that a tag of `repository` is about to be moved, or deleted when it has no `after`. The line is on
    /// the disk when this returns.
    ///
    /// # Errors
    /// Internal when the file cannot be written to any more.
    pub fn record(
        &self,
        repository: &str,
        tag: &Tag,
        before: Option<&Digest>,
        after: Option<&Digest>,
    ) -> Result<()> {
        let entry = Entry {
            schema: SCHEMA.to_owned(),
            at: jiff::Timestamp::now().to_string(),
            trace_id: self.trace_id.clone(),
            repository: repository.to_owned(),
            tag: tag.to_string(),
            before: before.cloned(),
            after: after.cloned(),
        };
        let broke = |error: std::io::Error| {
            Failure::internal(format!("cannot write the journal {}", self.path.display())).because(error)
        };
        let mut line = serde_json::to_vec(&entry)
            .map_err(|error| Failure::internal("cannot write a journal entry as JSON").because(error))?;
        line.push(b'\n');
        // One line at a time, and whole: other copies of this run write here too.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(broke)?;
        file.sync_data().map_err(broke)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_added_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let tag: Tag = "1".parse().unwrap();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        for before in [None, Some(&old)] {
            let journal = Journal::open(&path, "trace").unwrap();
            journal
                .record("example.com/app", &tag, before, Some(&new))
                .unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<Entry> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(entries[0].before, None);
        assert_eq!(entries[1].before, Some(old));
        assert!(entries.iter().all(|entry| entry.after.as_ref() == Some(&new)
            && entry.tag == "1"
            && entry.repository == "example.com/app"));
        assert!(Journal::open(&folder.path().join("absent/journal"), "trace").is_err());
    }
}
