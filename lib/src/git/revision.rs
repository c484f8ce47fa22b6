//! The commits that changed one file, and what it held after each.

use std::collections::BTreeMap;

/// The trailer of a commit that only undoes another one, which names that one: it was decided on something that changed in
/// the same moment, and never meant to stand.
pub(crate) const TAKES_BACK: &str = "Towpath-Takes-Back";

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
    /// Leaves out the commits that were taken back at once, with those that took them back.
    pub fn leave_out_taken_back(&mut self) {
        let mut index = 0;
        while index + 1 < self.revisions.len() {
            let taken = &self.revisions[index + 1].commit;
            if self.revisions[index].trailer(TAKES_BACK) == Some(taken) {
                self.revisions.drain(index..index + 2);
            } else {
                index += 1;
            }
        }
    }

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
    fn what_was_taken_back_at_once_is_no_part_of_the_history() {
        let revision = |commit: &str, takes_back: Option<&str>| Revision {
            commit: commit.to_owned(),
            trailers: takes_back
                .map(|taken| (TAKES_BACK.to_owned(), taken.to_owned()))
                .into_iter()
                .collect(),
            ..Revision::default()
        };
        let left = |revisions: &[Revision]| -> String {
            let mut history = History {
                revisions: revisions.to_vec(),
                complete: true,
            };
            history.leave_out_taken_back();
            history.revisions.into_iter().map(|one| one.commit).collect()
        };
        let (a, b, undone) = (revision("a", None), revision("b", None), revision("u", Some("b")));
        assert_eq!(left(&[undone.clone(), b.clone(), a.clone()]), "a");
        let twice = [undone.clone(), b.clone(), undone.clone(), b.clone(), a.clone()];
        assert_eq!(left(&twice), "a");
        // Only what it follows upon.
        assert_eq!(left(&[undone.clone(), a, b]), "uab");
        assert_eq!(left(&[undone]), "u");
    }

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
