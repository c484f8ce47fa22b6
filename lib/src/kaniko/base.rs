//! Base images by their full names, and which of them may be built on.
//!
//! A Dockerfile may leave out the host of Docker Hub. Which images are meant then is the rule of docker's reference
//! package and of the builders: what stands before the first `/` is a host when it holds a dot or a colon or is
//! `localhost`; else the image is Docker Hub's, and of its `library` when it has no `/`.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Kind, Result};
use crate::oci::reference::Reference;

/// The full name of an image that a Dockerfile names; without tag and digest it is `latest`, as for builders.
///
/// # Errors
/// Input (exit 3) when it is malformed.
pub fn full_name(image: &str) -> Result<Reference> {
    let names_host = image.split_once('/').is_some_and(|(host, _)| is_host(host));
    let whole = if names_host {
        image.to_owned()
    } else {
        format!("docker.io/{image}")
    };
    let reference: Reference = whole.parse().map_err(|failure: Failure| {
        Failure::new(Kind::Input, format!("{image:?} names no image")).because(failure)
    })?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Ok(reference);
    }
    "latest".parse().map(|tag| reference.with_tag(Some(tag)))
}

fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
}

/// Images that may be built on: `HOST[/PATH][:TAG]`.
///
/// A host, or a host and the first components of a path, allow everything below them; components are compared whole, so
/// that `registry.example.com/base` allows `registry.example.com/base/debian` and neither
/// `registry.example.com/baseline` nor `registry.example.com.evil/base`. With a tag, the path is that of one repository.
/// `*` stands for any letters within a component or a tag; in a host it can only be the first label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePattern {
    components: Vec<String>,
    tag: Option<String>,
}

impl BasePattern {
    /// Whether it allows this image.
    #[must_use]
    pub fn allows(&self, image: &Reference) -> bool {
        let name = image.name();
        let components: Vec<&str> = name.split('/').collect();
        let depth = self.components.len();
        let fits = components.len() >= depth
            && self
                .components
                .iter()
                .zip(&components)
                .all(|(pattern, component)| matches(pattern, component));
        match &self.tag {
            None => fits,
            // Beside a digest a tag is a remark: it decides nothing.
            Some(pattern) => {
                let tag = image.tag().filter(|_| image.digest().is_none());
                fits && components.len() == depth && tag.is_some_and(|tag| matches(pattern, tag.as_str()))
            }
        }
    }
}

impl FromStr for BasePattern {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        // Lists are written with blanks behind their commas.
        let text = text.trim();
        let refuse = |why: &str| {
            Err(Failure::usage(format!("the pattern {text:?} {why}")).hint(
                "write HOST[/PATH][:TAG], such as registry.example.com/base, docker.io/library/debian or *.example.com/base:12-*",
            ))
        };
        let mut components: Vec<&str> = text.split('/').collect();
        let mut tag = None;
        if let (2.., Some(last)) = (components.len(), components.last_mut())
            && let Some((path, pattern)) = last.split_once(':')
        {
            (*last, tag) = (path, Some(pattern));
        }
        let host = components[0];
        if !is_host(host) {
            return refuse("names no host");
        }
        if host.strip_prefix("*.").unwrap_or(host).contains('*') {
            return refuse("has '*' in its host elsewhere than as the first label");
        }
        let fits = |part: &str, more: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-*".contains(c) || more.contains(c);
            !part.is_empty() && part.chars().all(plain)
        };
        let path = &components[1..];
        let has_capitals = path
            .iter()
            .any(|part| part.bytes().any(|b| b.is_ascii_uppercase()));
        if !fits(host, ":[]") || !path.iter().all(|part| fits(part, "")) || has_capitals {
            return refuse("is malformed");
        }
        if tag.is_some_and(|tag| !fits(tag, "")) {
            return refuse("has a malformed tag");
        }
        let host = match host.to_ascii_lowercase().as_str() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            other => other.to_owned(),
        };
        let path = path.iter().map(|part| (*part).to_owned());
        Ok(BasePattern {
            components: std::iter::once(host).chain(path).collect(),
            tag: tag.map(str::to_owned),
        })
    }
}

impl fmt::Display for BasePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.components.join("/"))?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

/// Whether a text fits a pattern in which `*` stands for any letters, or none.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_docker_hubs() {
        for (image, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("team/app", "docker.io/team/app:latest"),
            ("index.docker.io/debian:12", "docker.io/library/debian:12"),
            ("localhost/app:1", "localhost/app:1"),
            ("Registry.Example.com/app:1", "registry.example.com/app:1"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
        ] {
            assert_eq!(full_name(image).unwrap().to_string(), full, "{image}");
        }
        let digest = format!("debian@sha256:{}", "0".repeat(64));
        assert_eq!(
            full_name(&digest).unwrap().to_string(),
            format!("docker.io/library/{digest}")
        );
        for wrong in [
            "",
            ":",
            "a b",
            "Team/app",
            "debian:",
            "a//b",
            "$X",
            "a@sha256:0",
            "https://a.b/c",
            "x:y:z",
        ] {
            let failure = full_name(wrong).expect_err(wrong);
            assert_eq!(failure.kind(), Kind::Input, "{wrong}");
        }
    }

    #[test]
    fn patterns_allow_what_they_say_and_no_neighbour() {
        for (pattern, allowed, refused) in [
            (
                "registry.example.com",
                &["registry.example.com/a", "REGISTRY.example.com/a/b:1"][..],
                &[
                    "registry.example.com.evil/a",
                    "registry.example.com:5000/a",
                    "evil/registry.example.com/a",
                    "debian",
                ][..],
            ),
            (
                "registry.example.com/base",
                &["registry.example.com/base", "registry.example.com/base/debian:12"],
                &[
                    "registry.example.com/baseline",
                    "registry.example.com/a/base",
                    "registry.example.com/bas",
                ],
            ),
            (
                "docker.io/library/debian:12*",
                &["debian:12", "debian:12-slim", "docker.io/debian:12.1"],
                &[
                    "debian",
                    "debian:11",
                    "debian/x:12",
                    "evil/debian:12",
                    "debian:12@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                ],
            ),
            (
                "*.example.com/team-*/base",
                &["a.example.com/team-x/base", "a.b.example.com/team-y/base/y"],
                &[
                    "example.com/team-x/base",
                    "evilexample.com/team-x/base",
                    "a.example.com/team-x/y/base",
                    "a.example.com.evil/team-x/base",
                ],
            ),
            (
                "127.0.0.1:5000/b",
                &["127.0.0.1:5000/b:1"],
                &["127.0.0.1:50000/b:1", "127.0.0.1/b"],
            ),
            ("index.docker.io/library", &["debian"], &["team/debian"]),
        ] {
            let read: BasePattern = pattern.parse().unwrap();
            for image in allowed {
                assert!(
                    read.allows(&full_name(image).unwrap()),
                    "{pattern} refuses {image}"
                );
            }
            for image in refused {
                assert!(
                    !read.allows(&full_name(image).unwrap()),
                    "{pattern} allows {image}"
                );
            }
            assert_eq!(read.to_string().parse::<BasePattern>().unwrap(), read);
        }
    }

    #[test]
    fn patterns_that_say_too_much_or_nothing_are_refused() {
        for wrong in [
            "",
            "*",
            "*/base",
            "debian",
            "library/debian",
            "registry.*",
            "*.*",
            "r.example.com/",
            "r.example.com//a",
            "r.example.com/A",
            "r.example.com/a:",
            "r.example.com/a@sha256:0",
            "https://r.example.com",
            "r.example.com/a b",
            "/",
        ] {
            let failure = wrong.parse::<BasePattern>().expect_err(wrong);
            assert_eq!(failure.kind(), Kind::Usage, "{wrong}");
        }
    }
}
