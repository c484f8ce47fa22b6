//! How an image in a layout is written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::failure::{Failure, Result};
use crate::oci::reference::split_digest;
use crate::oci::{Digest, Tag};

/// What names an image in a layout: `oci:PATH[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutReference {
    /// The folder.
    pub path: PathBuf,
    /// The name that `index.json` gives the image.
    pub tag: Option<Tag>,
    /// The digest of one of its manifests.
    pub digest: Option<Digest>,
}

impl FromStr for LayoutReference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let hint = "write oci:PATH[:TAG][@DIGEST]";
        let path = text
            .strip_prefix("oci:")
            .ok_or_else(|| Failure::usage(format!("{text:?} is not an OCI layout")).hint(hint))?;
        let (path, digest) = split_digest(path);
        let digest = digest.map(str::parse).transpose()?;
        let (path, tag) = match path.rsplit_once(':') {
            // A colon further up belongs to a folder's name.
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.parse()?)),
            _ => (path, None),
        };
        if path.is_empty() {
            return Err(Failure::usage(format!("{text:?} names no folder")).hint(hint));
        }
        Ok(LayoutReference {
            path: PathBuf::from(path),
            tag,
            digest,
        })
    }
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.path.display())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed(text: &str) -> LayoutReference {
        text.parse()
            .unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    #[test]
    fn folder_tag_and_digest_are_told_apart() {
        let digest = Digest::of(b"");
        for (text, path, tag, with_digest) in [
            ("oci:out".to_owned(), "out", None, false),
            ("oci:/a:b/out".to_owned(), "/a:b/out", None, false),
            ("oci:/a/out:1.2".to_owned(), "/a/out", Some("1.2"), false),
            (format!("oci:a@b/out@{digest}"), "a@b/out", None, true),
            (format!("oci:out:1@{digest}"), "out", Some("1"), true),
            ("oci:la@b:1".to_owned(), "la@b", Some("1"), false),
            (format!("oci:la@b:1@{digest}"), "la@b", Some("1"), true),
        ] {
            let reference = parsed(&text);
            assert_eq!(reference.path, Path::new(path), "{text}");
            assert_eq!(reference.tag.as_ref().map(Tag::as_str), tag, "{text}");
            assert_eq!(reference.digest.is_some(), with_digest, "{text}");
            assert_eq!(reference.to_string(), text);
        }
        for wrong in [
            "",
            "out",
            "oci:",
            "oci:@sha256:x",
            "oci:out@sha256:x",
            "oci:out:-x",
            "oci::1",
        ] {
            assert!(
                wrong.parse::<LayoutReference>().is_err(),
                "{wrong:?} was accepted"
            );
        }
    }
}
