//! The commits that changed one file, and what it held after each.

use std::collections::BTreeMap;

/// One commit that changed a file.
#[derive(Clone, Debug, Default)]
pub struct Revision {
    /// The commit.
    pub commit: String,
    /// The author's name.
    pub author: String,
    /// The author's e-mail address.
    pub email: String,
    /// When it was written: RFC 3339.
    pub date: String,
    /// The first line of its message.
    pub subject: String,
    /// The trailers of its message, in their order.
    pub trailers: Vec<(String, String)>,
    /// What the file held after it; none when it was deleted.
    pub content: Option<Vec<u8>>,
    /// The object with that content, where it is known.
    pub(crate) object: Option<String>,
}

impl Revision {
    /// The value of a trailer.
    #[must_use]
    pub fn trailer(&self, key: &str) -> Option<&str> {
        self.trailers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }
}

/// The commits that changed a file, newest first.
#[derive(Clone, Debug)]
pub struct History {
    /// The commits whose parent is known too; without it nobody can say what a commit changed.
    pub revisions: Vec<Revision>,
    /// Whether this is all there is; otherwise older history was not fetched.
    pub complete: bool,
}

impl History {
    pub(super) fn objects(&self) -> Vec<String> {
        let mut objects: Vec<String> = self
            .revisions
            .iter()
            .filter_map(|revision| revision.object.clone())
            .collect();
        objects.sort();
        objects.dedup();
        objects
    }

    pub(super) fn fill(&mut self, contents: &BTreeMap<String, Vec<u8>>) {
        for revision in &mut self.revisions {
            revision.content = revision
                .object
                .as_ref()
                .and_then(|object| contents.get(object))
                .cloned();
        }
    }
}

/// The trailers of a message, in their order: the `Key: value` lines of its last paragraph, where it has no others
/// (git-interpret-trailers). A line that begins with a blank goes on with the one before.
pub(crate) fn trailers(message: &str) -> Vec<(String, String)> {
    let paragraphs = message.trim_end().rsplit_once("\n\n");
    let Some((_, last)) = paragraphs else {
        return Vec::new();
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for line in last.lines() {
        if line.starts_with([' ', '\t']) {
            match found.last_mut() {
                Some((_, value)) => {
                    value.push(' ');
                    value.push_str(line.trim());
                    continue;
                }
                None => return Vec::new(),
            }
        }
        match line.split_once(':') {
            Some((key, value))
                if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') =>
            {
                found.push((key.to_owned(), value.trim().to_owned()));
            }
            _ => return Vec::new(),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_the_last_paragraph_alone() {
        let message = "Set app\n\nKey: no trailer\n\nTowpath-Image: app\nTowpath-Reason: it\n  fails\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            trailers(message),
            [pair("Towpath-Image", "app"), pair("Towpath-Reason", "it fails")]
        );
        for none in [
            "Key: value",
            "Set\n\nsome prose\nKey: value",
            "",
            "Set\n\n  Key: value",
        ] {
            assert!(trailers(none).is_empty(), "{none:?}");
        }
    }
}
