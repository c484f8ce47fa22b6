//! Which of what refers to an image goes along. Pure.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, Result};

/// Which referrers of an image are copied with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Referrers {
    /// Everything that refers to it.
    #[default]
    All,
    /// Nothing, and nothing is looked for.
    None,
    /// Those of these artifact types; `.sig`, `.att` and `.sbom` are cosign's tags.
    Types(Vec<String>),
}

impl Referrers {
    /// Whether something is looked for at all.
    #[must_use]
    pub fn wants_any(&self) -> bool {
        *self != Referrers::None
    }

    /// Whether what is of this kind goes along.
    #[must_use]
    pub fn wants(&self, kind: &str) -> bool {
        match self {
            Referrers::All => true,
            Referrers::None => false,
            Referrers::Types(types) => types.iter().any(|wanted| wanted == kind),
        }
    }
}

impl FromStr for Referrers {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let hint =
            "write all, none, or artifact types such as application/spdx+json or .sig, separated by commas";
        let types: Vec<String> = match text {
            "all" => return Ok(Referrers::All),
            "none" => return Ok(Referrers::None),
            types => types.split(',').map(|one| one.trim().to_owned()).collect(),
        };
        for one in &types {
            let is_ending = matches!(one.as_str(), ".sig" | ".att" | ".sbom");
            let is_type = one.split_once('/').is_some_and(|(top, sub)| {
                let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
                word(top) && word(sub)
            });
            if !is_ending && !is_type {
                return Err(Failure::usage(format!("{one:?} is no artifact type")).hint(hint));
            }
        }
        Ok(Referrers::Types(types))
    }
}

impl fmt::Display for Referrers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Referrers::All => f.write_str("all"),
            Referrers::None => f.write_str("none"),
            Referrers::Types(types) => f.write_str(&types.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_strictly_and_chosen_exactly() {
        for text in ["all", "none", ".sig", "application/spdx+json,.att"] {
            assert_eq!(text.parse::<Referrers>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "sig",
            "signatures",
            "application/",
            "a/b,,c/d",
            "none,all",
            "a b/c",
        ] {
            assert!(text.parse::<Referrers>().is_err(), "{text:?}");
        }
        let some: Referrers = "application/spdx+json, .att".parse().unwrap();
        assert!(some.wants(".att") && some.wants("application/spdx+json"));
        assert!(!some.wants(".sig") && !Referrers::None.wants(".sig") && Referrers::All.wants("x/y"));
        assert!(some.wants_any() && !Referrers::None.wants_any());
    }
}
