//! Images as they are wanted, and as a cluster names them.

use std::fmt;
use std::str::FromStr;

use towpath::failure::{Failure, Result};
use towpath::oci::Reference;

/// An image that has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Registry and repository.
    pub(crate) name: String,
    pub(crate) digest: String,
}

impl FromStr for Image {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let reference: Reference = text.parse()?;
        let digest = reference.digest().ok_or_else(|| {
            Failure::usage(format!("the image {text} has no digest"))
                .hint("give NAME@sha256:...: a tag may mean another image tomorrow")
        })?;
        Ok(Image {
            name: reference.name(),
            digest: digest.as_str().to_owned(),
        })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

/// What an image of a cluster is to a wanted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// It is the wanted one.
    Same,
    /// It is another version of it: same repository, another digest or none.
    OtherVersion,
    /// It has nothing to do with it.
    Stranger,
}

impl Image {
    /// What `seen`, as a pod or a manifest names it, is to this one.
    pub(crate) fn kinship(&self, seen: &str) -> Kinship {
        let (name, digest) = taken_apart(seen);
        match (name == self.name, digest) {
            (true, Some(digest)) if digest == self.digest => Kinship::Same,
            (true, _) => Kinship::OtherVersion,
            (false, _) => Kinship::Stranger,
        }
    }
}

/// Name and digest of `name[:tag][@digest]`, the name as a reference writes it where it is one.
fn taken_apart(seen: &str) -> (String, Option<&str>) {
    let (rest, digest) = match seen.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (seen, None),
    };
    if let Ok(reference) = rest.parse::<Reference>() {
        return (reference.name(), digest);
    }
    let name = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => rest,
    };
    (name.to_owned(), digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_whatever_stands_beside_its_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let other = format!("sha256:{}", "b".repeat(64));
        let wanted: Image = format!("registry.example.com:5000/shop/web:1.0@{digest}")
            .parse()
            .unwrap();
        let name = "registry.example.com:5000/shop/web";
        assert_eq!(wanted.to_string(), format!("{name}@{digest}"));
        for (seen, kinship) in [
            (format!("{name}@{digest}"), Kinship::Same),
            (format!("{name}:2.0@{digest}"), Kinship::Same),
            (format!("{name}@{other}"), Kinship::OtherVersion),
            (format!("{name}:1.0"), Kinship::OtherVersion),
            (name.to_owned(), Kinship::OtherVersion),
            (
                format!("registry.example.com:5000/shop/web-admin@{digest}"),
                Kinship::Stranger,
            ),
            (format!("web@{digest}"), Kinship::Stranger),
            (String::new(), Kinship::Stranger),
        ] {
            assert_eq!(wanted.kinship(&seen), kinship, "{seen}");
        }
        assert!("registry.example.com/web:1".parse::<Image>().is_err());
        assert!(format!("web@{digest}").parse::<Image>().is_err());
    }
}
