//! Digests: the name of content by what it holds.
//!
//! Source: OCI Image Specification, "Content Descriptors", section "Digests". Only the two registered algorithms are
//! taken, since nothing else could be verified here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::failure::{Failure, Result};

/// A hash algorithm that content can be named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    const fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// `sha256:<64 hex digits>` or `sha512:<128 hex digits>`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
    algorithm: Algorithm,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut verifier = Verifier::new(Algorithm::Sha256);
        verifier.update(bytes);
        verifier.digest()
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits behind the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The whole digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `bytes` are what this digest names.
    #[must_use]
    pub fn names(&self, bytes: &[u8]) -> bool {
        let mut verifier = Verifier::new(self.algorithm);
        verifier.update(bytes);
        verifier.digest() == *self
    }

    /// A verifier for content that comes in pieces.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.algorithm)
    }
}

impl FromStr for Digest {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Failure::usage(format!("malformed digest {text:?}"))
                .hint("a digest reads sha256: and 64 lower-case hexadecimal digits, or sha512: and 128")
        };
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = [Algorithm::Sha256, Algorithm::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(malformed)?;
        let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.digits() || !is_hex {
            return Err(malformed());
        }
        Ok(Digest {
            text: text.to_owned(),
            algorithm,
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Hashes content that comes in pieces, so that none of it has to be kept. A clone goes on from where it was taken.
#[derive(Clone, Debug)]
pub struct Verifier(Hasher);

#[derive(Clone, Debug)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Verifier {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Verifier(match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(sha2::Sha512::new())),
        })
    }

    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn digest(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            Hasher::Sha256(hasher) => (Algorithm::Sha256, hasher.finalize().to_vec()),
            Hasher::Sha512(hasher) => (Algorithm::Sha512, hasher.finalize().to_vec()),
        };
        let mut text = format!("{}:", algorithm.name());
        for byte in bytes {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Digest { text, algorithm }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(
            Digest::of(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let sha512 = Verifier::new(Algorithm::Sha512).digest();
        assert!(sha512.as_str().starts_with("sha512:cf83e1357eefb8bdf154"));
        assert!(sha512.names(b""));
        assert!(!sha512.names(b"x"));
    }

    #[test]
    fn malformed_digests_are_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for wrong in [
            String::new(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            hex.to_owned(),
            format!("sha512:{hex}"),
            format!("md5:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{hex}0"),
            format!(" sha256:{hex}"),
            format!("sha256:../{}", &hex[3..]),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn pieces_hash_like_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..300) {
            let at = at.min(bytes.len());
            let mut verifier = Verifier::new(Algorithm::Sha256);
            verifier.update(&bytes[..at]);
            verifier.update(&bytes[at..]);
            prop_assert_eq!(verifier.digest(), Digest::of(&bytes));
        }

        #[test]
        fn whatever_parses_shows_as_it_was(text in "(sha256|sha512|sha1):[0-9a-fg]{62,66}|.{0,80}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
                prop_assert_eq!(digest.hex().len(), digest.algorithm().digits());
            }
        }
    }
}
