//! Which project a request is about.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Result};

/// A project by its number or by its full path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Project {
    /// The number that GitLab gave it.
    Id(u64),
    /// Groups and name: `group/subgroup/project`.
    Path(String),
}

impl Project {
    /// The project as one segment of a URL's path.
    pub(super) fn segment(&self) -> String {
        match self {
            Project::Id(id) => id.to_string(),
            Project::Path(path) => encode_segment(path),
        }
    }
}

impl FromStr for Project {
    type Err = Failure;

    fn from_str(value: &str) -> Result<Self> {
        if let Ok(id) = value.parse() {
            return Ok(Project::Id(id));
        }
        let is_plain = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with(['.', '-'])
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if value.contains('/') && value.split('/').all(is_plain) {
            return Ok(Project::Path(value.to_owned()));
        }
        Err(
            Failure::usage(format!("{value:?} is neither a project's path nor its number"))
                .hint("give it as GROUP/PROJECT, GROUP/SUBGROUP/PROJECT or the number on the project's page"),
        )
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Project::Id(id) => write!(f, "project {id}"),
            Project::Path(path) => f.write_str(path),
        }
    }
}

/// Percent-encodes everything that is not unreserved (RFC 3986, section 2.3), the slash included: GitLab takes paths
/// and refs as one segment.
pub(super) fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_a_number_or_a_path_with_a_group() {
        assert_eq!("42".parse::<Project>().unwrap().segment(), "42");
        assert_eq!(
            "team/sub.group/env-1".parse::<Project>().unwrap().segment(),
            "team%2Fsub.group%2Fenv-1"
        );
        for wrong in [
            "",
            "env",
            "team/",
            "/env",
            "team//env",
            "team/../env",
            "team/env?x",
            "team env/x",
            "-1",
        ] {
            assert!(wrong.parse::<Project>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_ref_becomes_one_segment() {
        assert_eq!(encode_segment("feature/ü#1"), "feature%2F%C3%BC%231");
    }
}
