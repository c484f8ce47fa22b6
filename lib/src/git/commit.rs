//! What a commit holds, and how it is written without a work tree.

use std::fmt::Write as _;

use crate::failure::{Failure, Result};

/// A person or job, as author and committer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    email: String,
}

impl Identity {
    /// An identity that git takes.
    ///
    /// # Errors
    /// Usage (exit 2) when name or address is empty, or holds `<`, `>` or a control character.
    pub fn new(name: &str, email: &str) -> Result<Self> {
        for (what, value) in [("name", name), ("e-mail address", email)] {
            let bad =
                value.trim().is_empty() || value.chars().any(|c| matches!(c, '<' | '>') || c.is_control());
            if bad {
                return Err(
                    Failure::usage(format!("malformed {what} of the author: {value:?}"))
                        .hint("give --author and --author-email as plain text"),
                );
            }
        }
        Ok(Identity {
            name: name.trim().to_owned(),
            email: email.trim().to_owned(),
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The e-mail address.
    #[must_use]
    pub fn email(&self) -> &str {
        &self.email
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

/// One file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path from the root of the repository.
    pub path: String,
    /// The new content; none when the file goes.
    pub content: Option<Vec<u8>>,
}

/// The format of a signature, as `gpg.format` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFormat {
    /// By `ssh-keygen`.
    Ssh,
    /// By `gpg`.
    OpenPgp,
}

impl SignatureFormat {
    /// The word of `gpg.format`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SignatureFormat::Ssh => "ssh",
            SignatureFormat::OpenPgp => "openpgp",
        }
    }
}

/// What commits are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// The format.
    pub format: SignatureFormat,
    /// The file of the private key for SSH, or of the public one where an agent has the private one; the key's id for
    /// OpenPGP. As git's `user.signingKey`.
    pub key: String,
}

/// A commit to be written on top of another.
#[derive(Clone, Debug)]
pub struct NewCommit {
    /// Author and committer.
    pub identity: Identity,
    /// The first line.
    pub subject: String,
    /// Paragraphs below it; may be empty.
    pub body: String,
    /// `Key: value` lines at the end, as git-interpret-trailers reads them.
    pub trailers: Vec<(&'static str, String)>,
    /// What changes.
    pub changes: Vec<Change>,
    /// Files that the decision found not to be there, and that must not be there when the commit lands. A push sees to it
    /// by itself, since it lands on the tip that was decided on and no other; GitLab's API has to be told.
    pub absent: Vec<String>,
    /// What it is signed with, if at all. Only git can; GitLab's API signs by itself or not.
    pub signing: Option<Signing>,
}

impl NewCommit {
    /// The whole message. Line breaks in subject and trailers become blanks, so that none can forge another trailer.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = one_line(&self.subject);
        text.push('\n');
        if !self.body.trim().is_empty() {
            text.push('\n');
            text.push_str(self.body.trim());
            text.push('\n');
        }
        if !self.trailers.is_empty() {
            text.push('\n');
        }
        for (key, value) in &self.trailers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key}: {}", one_line(value));
        }
        text
    }

    /// The commit as a stream for `git fast-import`, which answers with its id.
    pub(super) fn stream(&self, parent: &str, modes: impl Fn(&str) -> &'static str) -> Vec<u8> {
        let Identity { name, email } = &self.identity;
        let message = self.message();
        let mut stream = format!(
            "commit refs/towpath/new\nmark :1\nauthor {name} <{email}> now\ncommitter {name} <{email}> now\ndata {}\n{message}from {parent}\n",
            message.len()
        )
        .into_bytes();
        for change in &self.changes {
            let path = quoted(&change.path);
            match &change.content {
                Some(content) => {
                    let mode = modes(&change.path);
                    stream.extend(format!("M {mode} inline {path}\ndata {}\n", content.len()).into_bytes());
                    stream.extend(content);
                    stream.push(b'\n');
                }
                None => stream.extend(format!("D {path}\n").into_bytes()),
            }
        }
        stream.extend(b"\nget-mark :1\ndone\n");
        stream
    }
}

/// A path as fast-import reads it; quoted always, so that no character is special.
fn quoted(path: &str) -> String {
    let mut text = String::from("\"");
    for byte in path.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\{other:03o}");
            }
        }
    }
    text.push('"');
    text
}

fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_forge_a_trailer() {
        let commit = NewCommit {
            identity: Identity::new("A", "a@example.com").unwrap(),
            subject: "one\n\nTowpath-Action: rollback".into(),
            body: String::new(),
            trailers: vec![("Towpath-Reason", "because\nTowpath-From: x".into())],
            changes: Vec::new(),
            absent: Vec::new(),
            signing: None,
        };
        assert_eq!(
            commit.message(),
            "one Towpath-Action: rollback\n\nTowpath-Reason: because Towpath-From: x\n"
        );
        assert!(Identity::new("A <x>", "a@example.com").is_err());
        assert!(Identity::new("A\nB", "a@example.com").is_err());
    }

    #[test]
    fn odd_paths_are_quoted() {
        assert_eq!(quoted("a b/\"ü\\"), "\"a b/\\\"\\303\\274\\\\\"");
    }
}
