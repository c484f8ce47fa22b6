//! What was added to a file, so that it and nothing else is taken out again.
//!
//! A receipt lies beside the file and holds fingerprints, never values. It is there before what it tells of, so that a
//! run that is cut short leaves nothing that cannot be taken out.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bounded;
use crate::failure::{Failure, Result};

const SCHEMA: &str = "towpath.vault-scw-creds.receipt/1";
const SUFFIX: &str = ".vault-scw-creds";
/// Larger than any receipt, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// What was added to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    schema: String,
    /// Whether there was no file before.
    pub(super) created: bool,
    /// What may be in it of ours. More than one when a run was cut short that replaced one by another.
    pub(super) added: Vec<Added>,
}

/// One addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Added {
    /// A piece of text, by its length in bytes and its fingerprint; in it this access key.
    Text {
        bytes: usize,
        sha256: String,
        access_key: String,
    },
    /// A login in a docker configuration, by its host and the fingerprint of what authenticates there.
    Login { host: String, sha256: String },
    /// The key `auths` of a docker configuration.
    Auths,
}

impl Receipt {
    pub(super) fn of(created: bool, added: Vec<Added>) -> Self {
        Receipt {
            schema: SCHEMA.to_owned(),
            created,
            added,
        }
    }

    /// Where the receipt of a file is.
    pub(super) fn path(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(SUFFIX);
        name.into()
    }

    /// The receipt of a file, if there is one.
    ///
    /// # Errors
    /// Input (exit 3) when it is malformed; internal when it cannot be read.
    pub(super) fn read(file: &Path) -> Result<Option<Self>> {
        let path = Self::path(file);
        let shown = path.display();
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

impl Added {
    pub(super) fn text(text: &str, access_key: &str) -> Self {
        Added::Text {
            bytes: text.len(),
            sha256: fingerprint(text),
            access_key: access_key.to_owned(),
        }
    }
}

pub(super) fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Cuts a piece of text out of another, wherever it stands now. None when it is not there.
pub(super) fn cut(text: &str, bytes: usize, sha256: &str) -> Option<String> {
    // It begins a line, or with the line break that the last one lacked.
    let starts = std::iter::once(0).chain(text.match_indices('\n').flat_map(|(at, _)| [at, at + 1]));
    for start in starts {
        let piece = start.checked_add(bytes).and_then(|end| text.get(start..end));
        if piece.is_some_and(|piece| fingerprint(piece) == sha256) {
            return Some(format!("{}{}", &text[..start], &text[start + bytes..]));
        }
    }
    None
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
            assert_eq!(
                cut(&text, piece.len(), &fingerprint(piece)),
                Some(format!("{before}{after}"))
            );
        }
        assert_eq!(cut("a: 2\n", 5, &fingerprint("a: 1\n")), None);
        assert_eq!(cut("", usize::MAX, "x"), None);
    }
}
