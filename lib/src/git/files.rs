//! The contents of files, as read from a commit or a folder.

use std::collections::BTreeMap;

use crate::failure::{Failure, Result};

/// Files by path from the root of the repository. A path that was asked for and is not there has no entry.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// The content of a file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }

    /// All files, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()))
    }

    /// Adds a file, or replaces it.
    pub fn insert(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), content.into());
    }

    /// Takes a file away.
    pub fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }
}

/// Checks and normalises a path within a repository: `./a//b/` is `a/b`, and `.` is the root.
///
/// # Errors
/// Usage (exit 2) for an absolute path, one that leads out of the repository or into `.git`, and control characters.
pub fn check_path(path: &str) -> Result<String> {
    let refuse = |why: &str| {
        Err(Failure::usage(format!("the path {path:?} {why}"))
            .hint("give it relative to the root of the repository, such as overlays/prod"))
    };
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.chars().any(char::is_control) {
        return refuse("holds a control character");
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return refuse("leads out of the repository");
    }
    if parts.iter().any(|part| part.eq_ignore_ascii_case(".git")) {
        return refuse("leads into .git");
    }
    Ok(if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(check_path("./overlays//prod/").unwrap(), "overlays/prod");
        assert_eq!(check_path(".").unwrap(), ".");
        for path in ["/etc", "../x", "a/../../b", "a/.git/config", ".GIT/hooks", "a\nb"] {
            assert!(check_path(path).is_err(), "{path:?} was accepted");
        }
    }
}
