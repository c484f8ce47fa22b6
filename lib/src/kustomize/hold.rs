//! Holds: small documents in the environment repository that say "this image stays where it is".
//!
//! A rollback writes one; a later change of that image by a pipeline is refused until it is released. They live in
//! the repository, so that whoever has git access sees, makes and releases them, with nothing else up.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// The folder that all holds are in, from the root of the repository.
pub const HOLDS_FOLDER: &str = ".towpath/holds";

/// The format of the document. Another one is an error, never ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldSchema {
    /// The first format.
    #[serde(rename = "towpath.hold/1")]
    V1,
}

/// A hold on one image of one kustomization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The format.
    pub schema: HoldSchema,
    /// The folder of the kustomization, from the root of the repository.
    pub path: String,
    /// The `name` of the entry.
    pub image: String,
    /// What it is held at, as the build joins it: `name:tag@digest`.
    pub held_at: String,
    /// The digest it is held at, where it is pinned by one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
    /// What it was taken back from; none where it is held at what was there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken_from: Option<String>,
    /// Who did it: `Name <address>`.
    pub by: String,
    /// When: RFC 3339, UTC.
    pub since: String,
    /// Why, in the person's own words.
    pub reason: String,
}

impl Hold {
    /// Reads a hold.
    ///
    /// # Errors
    /// Input (exit 3) naming the file: a hold that cannot be read, or that is about another image than its file, must
    /// not be taken for none.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self> {
        let hint = format!("mend {file}, or remove it to release the hold");
        // Some editors put a mark before the text that JSON does not know.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let hold: Hold = serde_json::from_slice(bytes).map_err(|error| {
            Failure::input(format!("malformed hold {file}"))
                .because(error)
                .hint(hint.clone())
        })?;
        let own = hold_path(&hold.path, &hold.image);
        if own != file {
            return Err(Failure::input(format!(
                "the hold {file} is about image {} in {}, which {own} would be",
                hold.image, hold.path
            ))
            .hint(hint));
        }
        Ok(hold)
    }

    /// This moment, as holds write it: RFC 3339 in UTC, to the second.
    #[must_use]
    pub fn moment() -> String {
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The document, one field a line.
    ///
    /// # Errors
    /// Internal when it cannot be written as JSON.
    pub fn document(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::internal("cannot write the hold as JSON").because(error))?;
        text.push('\n');
        Ok(text)
    }

    /// The refusal that a change of a held image meets.
    #[must_use]
    pub fn refusal(&self) -> Failure {
        let Hold {
            path,
            image,
            held_at,
            by,
            since,
            reason,
            ..
        } = self;
        Failure::denied(format!(
            "image {image} in {path} is held at {held_at} by {by} since {since}: {reason}"
        ))
        .hint(format!("kustomize-bump release --path {path} --image {image}"))
    }
}

/// The folder with the holds on images of the kustomization in `path`.
#[must_use]
pub fn hold_folder(path: &str) -> String {
    match path {
        "" | "." => HOLDS_FOLDER.to_owned(),
        path => format!("{HOLDS_FOLDER}/{path}"),
    }
}

/// The file of a hold: the image's name with everything but letters, digits, `.`, `_` and `-` percent-encoded.
#[must_use]
pub fn hold_path(path: &str, image: &str) -> String {
    use std::fmt::Write as _;
    let mut file = hold_folder(path);
    file.push('/');
    for byte in image.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            file.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(file, "%{byte:02X}");
        }
    }
    file.push_str(".json");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_has_one_file_that_names_its_image() {
        assert_eq!(
            hold_path("overlays/prod", "registry.example.com:5000/team/app"),
            ".towpath/holds/overlays/prod/registry.example.com%3A5000%2Fteam%2Fapp.json"
        );
        assert_eq!(hold_path(".", "app"), ".towpath/holds/app.json");
        assert_ne!(hold_path("a", "b/c"), hold_path("a/b", "c"));
    }

    #[test]
    fn a_hold_is_read_whoever_wrote_it() {
        let written = "\u{feff}{\r\n  \"schema\": \"towpath.hold/1\", \"ticket\": 7,\r\n  \"path\": \".\", \"image\": \"app\",\r\n  \
                       \"held_at\": \"app:v1\", \"by\": \"Ada\", \"since\": \"2025-03-01\", \"reason\": \"\"\r\n}\r\n";
        let hold = Hold::parse(written.as_bytes(), ".towpath/holds/app.json").unwrap();
        assert_eq!((hold.held_at.as_str(), hold.taken_from), ("app:v1", None));
        let failure = Hold::parse(written.as_bytes(), ".towpath/holds/api.json").unwrap_err();
        assert_eq!(failure.kind(), crate::failure::Kind::Input);
    }

    #[test]
    fn an_unreadable_hold_is_not_taken_for_none() {
        for text in ["", "{}", "[]", r#"{"schema":"towpath.hold/2"}"#] {
            let failure = Hold::parse(text.as_bytes(), ".towpath/holds/app.json").expect_err(text);
            assert_eq!(failure.kind(), crate::failure::Kind::Input);
        }
    }
}
