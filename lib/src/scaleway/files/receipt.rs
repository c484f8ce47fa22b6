//! What was added to a file, so that it and nothing else is taken out again.
//!
//! A receipt lies beside the file and holds fingerprints, never values. It is there before what it tells of, so that a
//! run that is cut short leaves nothing that cannot be taken out.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::is_trusted;
use crate::bounded;
use crate::failure::{Failure, Result};

const SCHEMA: &str = "towpath.vault-scw-creds.receipt/2";
const SUFFIX: &str = ".vault-scw-creds";
/// Larger than any receipt, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// What was added to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    schema: String,
    /// Whether there was no file before.
    pub(super) created: bool,
    /// How many folders above the file were not there before either.
    #[serde(default)]
    pub(super) folders: usize,
    /// The permissions that the file had before.
    #[serde(default)]
    pub(super) mode: Option<u32>,
    /// What the file may be, the latest first. More than one when a run was cut short that changed it.
    pub(super) layouts: Vec<Layout>,
}

/// A file as it was written, and what in it is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The fingerprint of the whole file.
    sha256: String,
    pub(super) pieces: Vec<Piece>,
}

/// One addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    /// The entry that it is: a profile, a registry. None for what holds entries together, and goes with the last of them.
    pub(super) entry: Option<String>,
    /// What it is.
    pub(super) added: Added,
}

/// What an addition is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Added {
    /// A piece of text, by its length in bytes and its fingerprint; in it this access key, where there is one.
    Text {
        bytes: usize,
        sha256: String,
        access_key: String,
        /// The fingerprints of its keys with their values, of a profile: whoever writes the file anew keeps those alone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fields: Vec<String>,
    },
    /// A login in a docker configuration, by the fingerprint of what authenticates there.
    Login { sha256: String },
    /// The key `auths` of a docker configuration.
    Auths,
    /// The object that a docker configuration is.
    Object,
}

impl Receipt {
    /// The receipt of a file that has nothing of ours yet.
    pub(super) fn new(created: bool, folders: usize, mode: Option<u32>) -> Self {
        Receipt {
            schema: SCHEMA.to_owned(),
            created,
            folders,
            mode,
            layouts: Vec::new(),
        }
    }

    /// The same for a file that was written like this.
    pub(super) fn of(&self, text: &str, pieces: Vec<Piece>) -> Self {
        let sha256 = fingerprint(text);
        Receipt {
            layouts: vec![Layout { sha256, pieces }],
            ..self.clone()
        }
    }

    /// The same for a file that may still be as it was before.
    pub(super) fn as_well_as(&self, earlier: Option<&Receipt>) -> Self {
        let mut both = self.clone();
        for layout in earlier.iter().flat_map(|earlier| &earlier.layouts) {
            if !both.layouts.contains(layout) {
                both.layouts.push(layout.clone());
            }
        }
        both
    }

    /// What may be ours in a file: what is known when nobody changed it, else one proposal after the other, the last of
    /// which is everything that may be.
    pub(super) fn proposals(&self, text: &str) -> Vec<Vec<Piece>> {
        let sha256 = fingerprint(text);
        if let Some(layout) = self.layouts.iter().find(|layout| layout.sha256 == sha256) {
            return vec![layout.pieces.clone()];
        }
        let mut proposals: Vec<Vec<Piece>> =
            self.layouts.iter().map(|layout| layout.pieces.clone()).collect();
        proposals.sort_by_key(|pieces| std::cmp::Reverse(pieces.len()));
        let mut all: Vec<Piece> = Vec::new();
        for piece in proposals.iter().flatten() {
            if !all.contains(piece) {
                all.push(piece.clone());
            }
        }
        proposals.push(all);
        proposals
    }

    /// Where the receipt of a file is.
    pub(super) fn path(file: &Path) -> PathBuf {
        beside(file, SUFFIX)
    }

    /// The receipt of a file, if there is one.
    ///
    /// # Errors
    /// Input (exit 3) when it is malformed; denied (exit 4) when it is somebody else's; internal when it cannot be read.
    pub(super) fn read(file: &Path) -> Result<Option<Self>> {
        let path = Self::path(file);
        let shown = path.display();
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found,
        };
        // Somebody else's would have us cut out of the file what they like.
        if found.is_ok_and(|found| !found.is_file() || !is_trusted(found.uid())) {
            return Err(Failure::denied(format!("{shown} is not a file of this user"))
                .hint("somebody else put it there: choose another path"));
        }
        let text = match bounded::read_text(&path, LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::internal(format!("cannot read {shown}")).because(error)),
        };
        let receipt: Option<Receipt> = serde_json::from_str(&text).ok();
        receipt
            .filter(|receipt| receipt.schema == SCHEMA)
            .map(Some)
            .ok_or_else(|| {
                Failure::input(format!("{shown} is not a receipt of vault-scw-creds"))
                    .hint("take what was added out of the file by hand, and remove this one")
            })
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Piece {
    pub(super) fn of(entry: Option<&str>, added: Added) -> Self {
        Piece {
            entry: entry.map(str::to_owned),
            added,
        }
    }
}

impl Added {
    pub(crate) fn text(text: &str, access_key: &str) -> Self {
        Added::Text {
            bytes: text.len(),
            sha256: fingerprint(text),
            access_key: access_key.to_owned(),
            fields: Vec::new(),
        }
    }

    /// The same with what it says by keys and values.
    pub(crate) fn saying<'a>(self, said: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        match self {
            Added::Text {
                bytes,
                sha256,
                access_key,
                ..
            } => Added::Text {
                bytes,
                sha256,
                access_key,
                fields: said
                    .into_iter()
                    .map(|(name, value)| fingerprint_of_field(name, value))
                    .collect(),
            },
            other => other,
        }
    }
}

/// A path beside a file: its name with a suffix.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The fingerprint of a key with its value.
pub(super) fn fingerprint_of_field(name: &str, value: &str) -> String {
    fingerprint(&format!("{name}: {value}"))
}

/// Where a piece of text stands in another now. None when it is not there.
pub(super) fn locate(text: &str, bytes: usize, sha256: &str) -> Option<Range<usize>> {
    // It begins a line, or with the line break that the last one lacked.
    let starts = std::iter::once(0).chain(text.match_indices('\n').flat_map(|(at, _)| [at, at + 1]));
    for start in starts {
        let Some(end) = start.checked_add(bytes) else {
            continue;
        };
        if text
            .get(start..end)
            .is_some_and(|piece| fingerprint(piece) == sha256)
        {
            return Some(start..end);
        }
    }
    None
}

/// A text without some parts of it, which do not overlap.
pub(super) fn without(text: &str, parts: &[Range<usize>]) -> String {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|part| part.start);
    let mut rest = String::with_capacity(text.len());
    let mut at = 0;
    for part in parts {
        rest.push_str(text.get(at..part.start).unwrap_or_default());
        at = at.max(part.end);
    }
    rest.push_str(text.get(at..).unwrap_or_default());
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_found_where_it_stands_now() {
        for (before, piece, after) in [
            ("", "a: 1\n", ""),
            ("x: 1\n", "a: 1\n", "y: 2\n"),
            ("x: 1", "\na: 1\n", ""),
            ("# über\n\n", "a: ü\n", "b"),
        ] {
            let text = format!("{before}{piece}{after}");
            let found = locate(&text, piece.len(), &fingerprint(piece)).expect("it is there");
            assert_eq!(&text[found.clone()], piece);
            assert_eq!(without(&text, &[found]), format!("{before}{after}"));
        }
        assert_eq!(locate("a: 2\n", 5, &fingerprint("a: 1\n")), None);
        assert_eq!(locate("", usize::MAX, "x"), None);
        assert_eq!(without("0123456", &[4..6, 1..2]), "0236");
    }
}
