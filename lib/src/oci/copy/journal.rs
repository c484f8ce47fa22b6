//! What every tag named before it was moved, as JSON lines.
//!
//! A line is on the disk before its tag is moved: a run that is killed in between leaves a line for a move that never
//! came about, and whoever goes back compares what the tag names now. A run that is killed while it writes leaves the
//! beginning of a line, whose tag was not moved either.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::failure::{Failure, Result};
use crate::oci::{Digest, Tag};

/// The format's name, in every line.
const SCHEMA: &str = "towpath.promotion-journal/1";
/// How many bytes of a journal are read: some hundred thousand moves.
const SIZE_LIMIT: u64 = 64 * 1024 * 1024;

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
    /// Of a move that puts a tag back: the delivery that had moved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
}

/// A journal that was read.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Its entries, each with the number of its line, oldest first.
    pub entries: Vec<(usize, Entry)>,
    /// The number of a last line that breaks off: the run was killed before it moved that tag.
    pub torn: Option<usize>,
}

impl Recorded {
    /// Reads a journal.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there; usage (2) when it cannot be read; input (3), naming the line, when it
    /// is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let origin = path.display();
        let hint = "name the file that a promotion wrote with --journal (TOWPATH_JOURNAL)";
        let text = bounded::check_regular(path).and_then(|()| bounded::read_text(path, SIZE_LIMIT));
        let text = text.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::not_found(format!("there is no journal {origin}"))
                .hint("is it an artifact of the job that promoted? --journal (TOWPATH_JOURNAL) writes it"),
            ErrorKind::InvalidData | ErrorKind::FileTooLarge => {
                Failure::input(format!("{origin} is no journal"))
                    .because(error)
                    .hint(hint)
            }
            _ => Failure::usage(format!("cannot read the journal {origin}"))
                .because(error)
                .hint(hint),
        })?;
        Self::parse(&text, &origin.to_string())
    }

    /// Reads a journal's text; `origin` names it in messages.
    ///
    /// # Errors
    /// Input (exit 3), naming the line, when it is malformed.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let mut recorded = Recorded::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let number = index + 1;
            let malformed = || Failure::input(format!("{origin}, line {number}: not an entry of a journal"));
            match serde_json::from_str::<Entry>(line) {
                Ok(entry) if entry.schema == SCHEMA => recorded.entries.push((number, entry)),
                Ok(entry) => {
                    return Err(malformed().because(format!("its schema is {:?}", entry.schema)));
                }
                Err(_) if is_torn(line) => recorded.torn = Some(number),
                Err(error) => {
                    return Err(malformed()
                        .because(error)
                        .hint("name the file that a promotion wrote with --journal (TOWPATH_JOURNAL)"));
                }
            }
        }
        Ok(recorded)
    }
}

/// Whether a line is the beginning of an entry, without its end.
fn is_torn(line: &str) -> bool {
    let beginning = format!("{{\"schema\":\"{SCHEMA}\",");
    let is_ours = line.starts_with(&beginning) || (!line.is_empty() && beginning.starts_with(line));
    is_ours && !line.ends_with('\n') && serde_json::from_str::<Entry>(line).is_err_and(|error| error.is_eof())
}

/// A journal that is written to as the run goes, by one copy or by several at once.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<File>,
    path: PathBuf,
    trace_id: String,
}

impl Journal {
    /// Opens a journal, new or to add to. What a killed run left of a line is taken away.
    ///
    /// # Errors
    /// Usage (exit 2) when it cannot be written to, or when the file is something else.
    pub fn open(path: &Path, trace_id: &str) -> Result<Self> {
        let unwritable = |error: std::io::Error| {
            Failure::usage(format!("cannot write the journal {}", path.display()))
                .because(error)
                .hint("point --journal (TOWPATH_JOURNAL) to a file, new or a journal, in a folder that is there and writable")
        };
        match bounded::check_regular(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unwritable(error)),
            _ => {}
        }
        let file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .map_err(unwritable)?;
        let metadata = file.metadata().map_err(unwritable)?;
        if metadata.len() > 0 {
            continue_after(&file, path).map_err(unwritable)??;
        }
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
        self.write(repository, tag, before, after, None)
    }

    /// As [`Journal::record`], for a tag that is put back to where it was before the delivery `undoes`.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub fn record_return(
        &self,
        repository: &str,
        tag: &Tag,
        before: Option<&Digest>,
        after: Option<&Digest>,
        undoes: &str,
    ) -> Result<()> {
        self.write(repository, tag, before, after, Some(undoes))
    }

    fn write(
        &self,
        repository: &str,
        tag: &Tag,
        before: Option<&Digest>,
        after: Option<&Digest>,
        undoes: Option<&str>,
    ) -> Result<()> {
        let entry = Entry {
            schema: SCHEMA.to_owned(),
            at: jiff::Timestamp::now().to_string(),
            trace_id: self.trace_id.clone(),
            repository: repository.to_owned(),
            tag: tag.to_string(),
            before: before.cloned(),
            after: after.cloned(),
            undoes: undoes.map(str::to_owned),
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

/// Makes a file that has something in it end in a whole line.
fn continue_after(mut file: &File, path: &Path) -> std::io::Result<Result<()>> {
    let text = match bounded::read_text(path, SIZE_LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::InvalidData => String::from("no text"),
        Err(error) => return Err(error),
    };
    let last = text.split_inclusive('\n').next_back().unwrap_or_default();
    if is_torn(last) {
        tracing::warn!(
            action = "journal",
            object = %path.display(),
            "the last line breaks off, and is taken away: that run was killed before it moved the tag"
        );
        file.set_len((text.len() - last.len()) as u64)?;
    } else if serde_json::from_str::<Entry>(last).is_err() {
        return Ok(Err(Failure::usage(format!(
            "{} is no journal, and is not added to",
            path.display()
        ))
        .hint(
            "point --journal (TOWPATH_JOURNAL) to a journal, or to a file that is not there yet",
        )));
    } else if !last.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::Kind;

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
        let failure = Journal::open(&folder.path().join("absent/journal"), "trace").expect_err("no folder");
        assert_eq!(failure.kind(), Kind::Usage);
    }

    fn line(tag: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path, "trace").unwrap();
        let after = Digest::of(tag.as_bytes());
        journal
            .record_return(
                "example.com/app",
                &tag.parse().unwrap(),
                None,
                Some(&after),
                "other",
            )
            .unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_line_that_breaks_off_is_told_and_goes_when_the_journal_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (first, second) = (line("1"), line("2"));
        for length in 1..second.len() - 1 {
            let text = format!("{first}{}", &second[..length]);
            let recorded = Recorded::parse(&text, "journal").unwrap();
            assert_eq!((recorded.entries.len(), recorded.torn), (1, Some(2)), "{text}");
            assert_eq!(recorded.entries[0].1.undoes.as_deref(), Some("other"));
            std::fs::write(&path, text).unwrap();
            drop(Journal::open(&path, "trace").unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        }
        // Whole but for its end is whole.
        std::fs::write(&path, first.trim_end()).unwrap();
        assert_eq!(Recorded::read(&path).unwrap().torn, None);
        drop(Journal::open(&path, "trace").unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        assert_eq!(Recorded::parse("", "journal").unwrap().entries, []);
    }

    #[test]
    fn what_is_no_journal_is_named_by_its_line_and_not_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let whole = line("1");
        let other_schema = whole.replace("journal/1", "journal/9");
        let broken_off_and_continued = format!("{}\n{whole}", &whole[..20]);
        for (text, number) in [
            (format!("{whole}precious\n"), 2),
            (format!("{whole}\n{whole}"), 2),
            (format!("{whole}{other_schema}"), 2),
            (broken_off_and_continued, 1),
            ("{}".to_owned(), 1),
            (whole.replace("sha256:", "sha256:x"), 1),
            (whole.replace("\"tag\"", "\"gat\""), 1),
        ] {
            let failure = Recorded::parse(&text, "the-file").expect_err(&text);
            assert_eq!(failure.kind(), Kind::Input, "{text}");
            let place = format!("the-file, line {number}:");
            assert!(failure.message().starts_with(&place), "{failure:?}");
        }
        for text in [&b"precious"[..], b"{}", b"precious\n", b"\xff\xfe"] {
            std::fs::write(&path, text).unwrap();
            let failure = Journal::open(&path, "trace").expect_err("no journal");
            assert_eq!(failure.kind(), Kind::Usage);
            assert_eq!(std::fs::read(&path).unwrap(), text);
        }
        assert_eq!(
            Recorded::read(&folder.path().join("absent"))
                .expect_err("absent")
                .kind(),
            Kind::NotFound
        );
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        for path in [Path::new("/dev/null"), folder.path()] {
            assert_eq!(Journal::open(path, "trace").unwrap_err().kind(), Kind::Usage);
            assert_eq!(Recorded::read(path).unwrap_err().kind(), Kind::Usage);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\{\"schema\":\"towpath.promotion-journal/1\",|\\}|\"tag\":|null|\n|\\PC){0,20}") {
            if let Err(failure) = Recorded::parse(&text, "journal") {
                prop_assert!(failure.message().starts_with("journal, line "));
            }
        }
    }
}
