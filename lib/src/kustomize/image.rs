//! What an image entry says, what somebody wants it to say, and the policy between the two.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::oci::digest::Digest;
use crate::oci::reference::Tag;

/// What an entry of `images` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImageState {
    /// The image as the manifests name it.
    pub name: String,
    /// The repository that takes its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    /// The tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest, which decides what runs wherever there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl fmt::Display for ImageState {
    /// As the build joins it: `name:tag@digest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.new_name.as_deref().unwrap_or(&self.name))?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// What an entry is pinned by after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// By digest. A `newTag` that stands there follows the new tag; it goes when no tag is given, since an old tag
    /// beside a new digest would tell a lie. None is added.
    #[default]
    Digest,
    /// By tag alone; a digest that stands there goes.
    Tag,
    /// By tag and digest, both written.
    Both,
}

/// One image that somebody wants changed: `NAME[=NEWNAME][:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Which entry: its `name`, or its `newName`.
    pub name: String,
    /// The new repository, if it is to change.
    pub new_name: Option<String>,
    /// The new tag.
    pub tag: Option<String>,
    /// The new digest.
    pub digest: Option<String>,
}

impl ImageSpec {
    /// A wish put together from single values, each checked.
    ///
    /// # Errors
    /// Usage (exit 2) naming the value that is empty or malformed.
    pub fn new(name: &str, new_name: Option<&str>, tag: Option<&str>, digest: Option<&str>) -> Result<Self> {
        if name.trim().is_empty() {
            return Err(Failure::usage("the image has no name").hint("is the CI variable behind it set?"));
        }
        if let Some(bad) = name.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(Failure::usage(format!("the image name {name:?} holds {bad:?}")));
        }
        new_name.map(check_repository).transpose()?;
        tag.map(str::parse::<Tag>).transpose()?;
        digest.map(str::parse::<Digest>).transpose()?;
        Ok(ImageSpec {
            name: name.to_owned(),
            new_name: new_name.map(str::to_owned),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Whether the wish says enough for the policy.
    ///
    /// # Errors
    /// Usage (exit 2) naming what is missing.
    pub fn check(&self, pin: Pin) -> Result<()> {
        let name = &self.name;
        match pin {
            Pin::Digest if self.digest.is_none() => {
                Err(Failure::usage(format!("no digest for image {name}"))
                    .hint("add @sha256:... (IMAGE_DIGEST), or pass --pin tag to go by tag alone"))
            }
            Pin::Tag if self.tag.is_none() => Err(Failure::usage(format!("no tag for image {name}"))
                .hint("add :TAG (IMAGE_TAG), or drop --pin tag")),
            Pin::Both if self.tag.is_none() || self.digest.is_none() => Err(Failure::usage(format!(
                "--pin both takes tag and digest, and image {name} lacks one"
            ))
            .hint("write NAME:TAG@sha256:...")),
            _ => Ok(()),
        }
    }

    /// What the entry has to say once the wish is fulfilled.
    #[must_use]
    pub fn target(&self, old: Option<&ImageState>, pin: Pin) -> ImageState {
        let name = old.map_or(&self.name, |old| &old.name).clone();
        let old_new_name = old.and_then(|old| old.new_name.clone());
        let new_name = match &self.new_name {
            // Saying `newName` where it equals `name` would be noise.
            Some(wanted) if old_new_name.is_none() && *wanted == name => None,
            Some(wanted) => Some(wanted.clone()),
            None => old_new_name,
        };
        let has_tag = old.is_some_and(|old| old.tag.is_some());
        ImageState {
            name,
            new_name,
            tag: match pin {
                Pin::Digest => self.tag.clone().filter(|_| has_tag),
                Pin::Tag | Pin::Both => self.tag.clone(),
            },
            digest: match pin {
                Pin::Tag => None,
                Pin::Digest | Pin::Both => self.digest.clone(),
            },
        }
    }
}

impl FromStr for ImageSpec {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let empty = |part: &str| {
            Failure::usage(format!("empty {part} in {text:?}")).hint("is the CI variable behind it set?")
        };
        let (rest, digest) = match text.split_once('@') {
            Some((_, "")) => return Err(empty("digest")),
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the port of a registry.
        let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let after_equals = rest.find('=').map_or(0, |at| at + 1);
        let from = after_slash.max(after_equals);
        let (rest, tag) = match rest[from..].split_once(':') {
            Some((_, "")) => return Err(empty("tag")),
            Some((last, tag)) => (&rest[..from + last.len()], Some(tag)),
            None => (rest, None),
        };
        let (name, new_name) = match rest.split_once('=') {
            Some((_, "")) => return Err(empty("new name")),
            Some((name, new_name)) => (name, Some(new_name)),
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(empty("name"));
        }
        ImageSpec::new(name, new_name, tag, digest)
    }
}

/// Checks a repository: `[host[:port]/]path` without tag and digest (OCI distribution specification, "Pulling
/// manifests", and the reference grammar of container engines).
///
/// # Errors
/// Usage (exit 2).
pub fn check_repository(repository: &str) -> Result<()> {
    let components: Vec<&str> = repository.split('/').collect();
    let first = components[0];
    let has_host = components.len() > 1 && (first.contains(['.', ':']) || first == "localhost");
    let path = &components[usize::from(has_host)..];
    let host_fits = !has_host || {
        let (host, port) = first.rsplit_once(':').unwrap_or((first, "1"));
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b))
            && !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
    };
    let component_fits = |component: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(component.bytes().next())
            && edge(component.bytes().next_back())
            && component
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    if host_fits && path.iter().all(|component| component_fits(component)) && repository.len() <= 255 {
        return Ok(());
    }
    Err(
        Failure::usage(format!("malformed image repository {repository:?}"))
            .hint("a repository reads registry.example.com/team/app, in lowercase, without tag and digest"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn spec(text: &str) -> (String, Option<String>, Option<String>, Option<String>) {
        let spec: ImageSpec = text.parse().expect(text);
        (spec.name, spec.new_name, spec.tag, spec.digest)
    }

    #[test]
    fn the_shorthand_is_taken_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(spec("app:1.2"), ("app".into(), None, some("1.2"), None));
        assert_eq!(
            spec(&format!("registry:5000/app=other:5000/team/app:v1@{DIGEST}")),
            (
                "registry:5000/app".into(),
                some("other:5000/team/app"),
                some("v1"),
                some(DIGEST)
            )
        );
        assert_eq!(
            spec(&format!("registry:5000/app@{DIGEST}")),
            ("registry:5000/app".into(), None, None, some(DIGEST))
        );
        assert_eq!(spec("a/b=app:v1"), ("a/b".into(), some("app"), some("v1"), None));
    }

    #[test]
    fn what_an_unset_variable_leaves_behind_is_refused_by_name() {
        for (text, part) in [
            ("app:", "tag"),
            ("app=", "new name"),
            ("app@", "digest"),
            ("", "name"),
            (":v1", "name"),
            ("=other:v1", "name"),
            ("app=:v1", "new name"),
            ("app:@sha256:00", "tag"),
        ] {
            let failure = text.parse::<ImageSpec>().expect_err(text);
            assert!(
                failure.message().contains(&format!("empty {part}")),
                "{text}: {failure}"
            );
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        for text in [
            "app@sha256:abc",
            "app@md5:d41d8cd98f00b204e9800998ecf8427e",
            "app:-v1",
            "app:a b",
            "app=Upper/Case",
            "app=a//b",
            "app=host:port/b",
            "a b:v1",
            "app=-x:v1",
        ] {
            assert!(text.parse::<ImageSpec>().is_err(), "{text:?} was accepted");
        }
        assert!(check_repository("127.0.0.1:5000/team/app").is_ok());
        assert!(check_repository("app").is_ok());
    }

    #[test]
    fn a_stale_tag_never_stands_beside_a_new_digest() {
        let old = ImageState {
            name: "app".into(),
            tag: Some("v1".into()),
            ..ImageState::default()
        };
        let bare = ImageState {
            tag: None,
            ..old.clone()
        };
        let with_tag: ImageSpec = format!("app:v2@{DIGEST}").parse().unwrap();
        let without: ImageSpec = format!("app@{DIGEST}").parse().unwrap();
        assert_eq!(
            with_tag.target(Some(&old), Pin::Digest).to_string(),
            format!("app:v2@{DIGEST}")
        );
        assert_eq!(
            without.target(Some(&old), Pin::Digest).to_string(),
            format!("app@{DIGEST}")
        );
        assert_eq!(
            with_tag.target(Some(&bare), Pin::Digest).to_string(),
            format!("app@{DIGEST}")
        );
        assert_eq!(
            with_tag.target(Some(&bare), Pin::Both).to_string(),
            format!("app:v2@{DIGEST}")
        );
        assert_eq!(with_tag.target(Some(&old), Pin::Tag).to_string(), "app:v2");
        assert!(without.check(Pin::Both).is_err() && without.check(Pin::Tag).is_err());
    }
}
