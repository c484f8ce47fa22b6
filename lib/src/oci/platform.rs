//! Platforms: what an index lists its images for.
//!
//! Source: OCI Image Specification, "Image Index", `platform`.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Result};

/// An operating system, an architecture and, for some, a variant of it: `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// A platform as an index names it; an empty variant is none.
    #[must_use]
    pub fn new(os: String, architecture: String, variant: Option<String>) -> Self {
        Platform {
            os,
            architecture,
            variant: variant.filter(|variant| !variant.is_empty()),
        }
    }

    /// As it stands in an index.
    pub(super) fn document(&self) -> serde_json::Value {
        let mut document = serde_json::json!({"architecture": self.architecture, "os": self.os});
        if let Some(variant) = &self.variant {
            document["variant"] = serde_json::json!(variant);
        }
        document
    }

    /// Whether `held` is asked for by this one, which names all variants when it names none.
    #[must_use]
    pub fn fits(&self, held: &Platform) -> bool {
        self.os == held.os
            && self.architecture == held.architecture
            && (self.variant.is_none() || self.variant == held.variant)
    }
}

impl FromStr for Platform {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            !part.is_empty() && part.chars().all(allowed)
        };
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() <= 1 && parts.iter().all(is_word) => {
                Ok(Platform::new(
                    (*os).to_owned(),
                    (*architecture).to_owned(),
                    variant.first().map(|variant| (*variant).to_owned()),
                ))
            }
            _ => Err(Failure::usage(format!("{text:?} is no platform"))
                .hint("write OS/ARCHITECTURE[/VARIANT], such as linux/amd64 or linux/arm/v7")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_strictly_and_an_absent_variant_fits_all() {
        let platform = |text: &str| text.parse::<Platform>();
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(platform(text).unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "linux/arm/v7/x", "linux/amd64 ", "/amd64"] {
            assert!(platform(text).is_err(), "{text}");
        }
        let arm = platform("linux/arm").unwrap();
        let v7 = platform("linux/arm/v7").unwrap();
        assert!(arm.fits(&v7) && !v7.fits(&arm) && !arm.fits(&platform("linux/arm64").unwrap()));
    }
}
