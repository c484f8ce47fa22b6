//! References: `registry/repository[:tag][@digest]`.
//!
//! Source: OCI Distribution Specification, "Pulling manifests", for repository and tag; RFC 3986 for the host. A
//! reference always names its registry: `alpine:3` means different images on different machines, so it is refused
//! instead of being completed. Docker Hub's one shorthand that is unambiguous is written out: `docker.io/alpine`
//! becomes `docker.io/library/alpine`.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::failure::{Failure, Result};
use crate::http::is_loopback_host;
use crate::secret::without_login;

/// Registries and clients agree on this limit for host and repository together.
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;
const DOCKER_HUB: &str = "docker.io";

/// A tag: at most 128 letters, digits, `_`, `.` and `-`, beginning with a letter, digit or `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !starts_well || !plain || text.len() > TAG_LIMIT {
            return Err(Failure::usage(format!("malformed tag {text:?}")).hint(
                "a tag has at most 128 letters, digits, '_', '.' and '-', and does not begin with '.' or '-'",
            ));
        }
        Ok(Tag(text.to_owned()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository at a registry, with a tag, a digest, both or neither.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry as written: host, and port where one is given.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path at the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository with this tag.
    #[must_use]
    pub fn with_tag(mut self, tag: Option<Tag>) -> Self {
        self.tag = tag;
        self
    }

    /// The same repository with this digest.
    #[must_use]
    pub fn with_digest(mut self, digest: Option<Digest>) -> Self {
        self.digest = digest;
        self
    }

    /// The host and port that requests go to. It differs from the name for Docker Hub alone.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        if self.registry == DOCKER_HUB {
            "registry-1.docker.io"
        } else {
            &self.registry
        }
    }

    /// Whether the registry is on this machine.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        is_loopback_host(host_of(&self.registry))
    }
}

/// Cuts off what is meant as a digest, well-formed or not. What follows another `@` is something else: a host after a
/// login, or the rest of a folder's name.
pub(super) fn split_digest(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('@') {
        Some((rest, digest)) if digest.starts_with("sha256:") || digest.starts_with("sha512:") => {
            (rest, Some(digest))
        }
        _ => (text, None),
    }
}

/// The host without its port.
fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    }
}

impl FromStr for Reference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let shown = without_login(text);
        let refuse = |why: &str, hint: &str| {
            Err(Failure::usage(format!("image reference {shown:?} {why}")).hint(hint))
        };
        const FORM: &str =
            "write REGISTRY/REPOSITORY[:TAG][@DIGEST], such as registry.example.com/team/app:1.2.3";
        if text.contains("://") {
            return refuse(
                "begins with a scheme",
                "leave the scheme out; https is used, and http on loopback",
            );
        }
        let (rest, digest) = split_digest(text);
        if rest.contains('@') {
            return refuse(
                "has an '@' without a digest after it",
                "a digest begins with sha256: or sha512:; a login does not belong here, docker login keeps one",
            );
        }
        let digest = digest.map(str::parse::<Digest>).transpose()?;
        let Some((registry, path)) = rest.split_once('/') else {
            return refuse("names no registry", FORM);
        };
        // The same rule as everywhere: what has neither dot nor port is a folder of somebody's default registry.
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return refuse(
                "names no registry",
                "put the registry's host first; images of Docker Hub begin with docker.io/",
            );
        }
        if !is_registry(registry) {
            return refuse("has a malformed registry host", FORM);
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse::<Tag>()?)),
            None => (path, None),
        };
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return refuse(
                "has upper-case letters in its repository",
                "repositories are lower case; in GitLab CI, CI_REGISTRY_IMAGE already is",
            );
        }
        if !repository.split('/').all(is_component) {
            return refuse("has a malformed repository", FORM);
        }
        let registry = match registry.to_ascii_lowercase() {
            hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => DOCKER_HUB.to_owned(),
            other => other,
        };
        let repository = if registry == DOCKER_HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + 1 + repository.len() > NAME_LIMIT {
            return refuse(
                "is too long",
                "registry and repository together take at most 255 characters",
            );
        }
        Ok(Reference {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// `host[:port]`, where host is a name, an IPv4 address or an IPv6 address in brackets.
fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if rest.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let port_is_fine = port.is_none_or(|port| {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        digits && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    port_is_fine
        && host.is_none_or(|host| {
            let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
            host.split('.').all(label_is_fine) && (is_address || !ends_in_a_number(host))
        })
}

/// Whether URLs take a host for an IPv4 address, in forms too that nobody means: `0x7f.1` would be 127.0.0.1.
///
/// Source: WHATWG URL Standard, "ends in a number checker".
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return false;
    }
    text.split(alphanumeric)
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::Kind;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parsed(text: &str) -> Reference {
        text.parse()
            .unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    #[test]
    fn every_part_is_found() {
        let whole = parsed(&format!("registry.example.com:5000/team/app:1.2.3@sha256:{HEX}"));
        assert_eq!(whole.registry(), "registry.example.com:5000");
        assert_eq!(whole.repository(), "team/app");
        assert_eq!(whole.tag().map(Tag::as_str), Some("1.2.3"));
        assert_eq!(whole.digest().map(Digest::hex), Some(HEX));
        assert_eq!(whole.name(), "registry.example.com:5000/team/app");
        for text in [
            "localhost/app",
            "127.0.0.1:5000/a/b/c",
            "[::1]:5000/app:latest",
            "ghcr.io/a__b/c-d---e.f:_x",
            "rg.fr-par.scw.cloud/namespace/app",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn the_hub_is_written_out_and_its_endpoint_known() {
        let hub = parsed("docker.io/alpine:3");
        assert_eq!(hub.to_string(), "docker.io/library/alpine:3");
        assert_eq!(hub.endpoint(), "registry-1.docker.io");
        assert_eq!(parsed("index.docker.io/team/app").registry(), "docker.io");
    }

    #[test]
    fn what_could_be_misread_is_refused_with_a_way_out() {
        for text in [
            "",
            "alpine",
            "alpine:3",
            "library/alpine",
            "https://example.com/app",
            "docker://example.com/app",
            "example.com/",
            "example.com//app",
            "example.com/App",
            "example.com/app:",
            "example.com/app:-x",
            "example.com/app@sha256:abc",
            "example.com/app:1@",
            "example.com/a..b",
            "example.com/a___b",
            "example.com/a/../b",
            "example.com/app?x=1",
            "example.com:/app",
            "example.com:0/app",
            "example.com:99999/app",
            "-example.com/app",
            "exa mple.com/app",
            "user:password@example.com/app",
            "example.com/app:1:2",
            "0:5000/app",
            "127.1/app",
            "1.2.3.256/app",
            "0x7f.0.0.1/app",
            "example.0x/app",
        ] {
            let failure = text.parse::<Reference>().expect_err(text);
            assert_eq!(failure.kind(), Kind::Usage, "{text:?}");
            assert!(failure.next_action().is_some(), "{text:?}");
        }
        let long = format!("example.com/{}", "a".repeat(250));
        assert!(long.parse::<Reference>().is_err());
    }

    #[test]
    fn a_login_in_a_reference_is_not_repeated() {
        for host in [
            "example.com/app:1",
            "example.com:5000/App",
            "example.com",
            "1",
            "",
            &format!("example.com/app@sha256:{HEX}"),
            "example.com/app@sha256:abc",
        ] {
            for login in ["user:canary", "user:can@canary", "https://user:canary", "canary"] {
                let failure = format!("{login}@{host}").parse::<Reference>().expect_err(host);
                assert_eq!(failure.kind(), Kind::Usage);
                let shown = format!("{failure:?}");
                assert!(!shown.contains("canary"), "{shown}");
                assert!(failure.message().contains(host), "{shown}");
            }
        }
    }

    #[test]
    fn loopback_is_recognised_with_and_without_a_port() {
        for text in [
            "localhost/app",
            "localhost:5000/app",
            "127.0.0.1:1/app",
            "[::1]:5000/app",
        ] {
            assert!(parsed(text).is_on_loopback(), "{text}");
        }
        for text in [
            "example.com/app",
            "localhost.example.com/app",
            "10.0.0.1:5000/app",
        ] {
            assert!(!parsed(text).is_on_loopback(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_shows_and_parses_again(
            text in "[a-zA-Z0-9.:\\[\\]-]{1,20}/[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{1,10})?"
        ) {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(parsed(&reference.to_string()), reference);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<Reference>();
        }
    }
}
