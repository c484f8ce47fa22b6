//! The decisions of a copy. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::place::ImageReference;
use crate::failure::{Failure, Result};
use crate::oci::{Descriptor, Digest, Manifest};

/// Which tags may be moved from the image they name to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MoveTag {
    /// None: a tag stays with its first image.
    #[default]
    Never,
    /// Those that name this digest.
    From(Digest),
    /// All.
    Any,
}

impl FromStr for MoveTag {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "any" => Ok(MoveTag::Any),
            "never" => Ok(MoveTag::Never),
            digest => digest.parse().map(MoveTag::From).map_err(|failure: Failure| {
                Failure::usage(format!("{text:?} is neither a digest nor \"any\" nor \"never\""))
                    .because(failure)
            }),
        }
    }
}

impl fmt::Display for MoveTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MoveTag::Never => f.write_str("never"),
            MoveTag::From(digest) => digest.fmt(f),
            MoveTag::Any => f.write_str("any"),
        }
    }
}

/// Whether a target has to be written to: not when it names `wanted` already. `before` is what it names now.
///
/// # Errors
/// Conflict (exit 6) when its tag names another image and may not be moved.
pub fn must_write(
    target: &ImageReference,
    wanted: &Digest,
    before: Option<&Digest>,
    allowed: &MoveTag,
) -> Result<bool> {
    match (before, allowed) {
        (Some(before), _) if before == wanted => Ok(false),
        (None, _) | (_, MoveTag::Any) => Ok(true),
        (Some(before), MoveTag::From(expected)) if before == expected => Ok(true),
        (Some(before), MoveTag::From(expected)) => Err(Failure::conflict(format!(
            "{target} names {before}, where {expected} was expected to be replaced by {wanted}"
        ))
        .hint("somebody moved the tag: look at what it names now, and expect that if it may go")),
        (Some(before), MoveTag::Never) => Err(Failure::conflict(format!(
            "{target} names {before} already, not {wanted}"
        ))
        .hint(format!(
            "promote under another tag, or replace it knowingly with --move-tag-from {before}"
        ))),
    }
}

/// What a tag made of a digest, such as cosign's, names at the target beside what it is to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It has everything that would come, and maybe more: it stays.
    Whole,
    /// It has a part of what would come: it is replaced, and nothing is lost.
    Part,
    /// It has something of its own, and lacks something.
    Apart,
}

/// Compares what two such manifests hold: with cosign each layer is a signature or an attestation, and what two keys
/// sign is the same bytes, so that the signatures themselves, which are annotations, make the difference.
#[must_use]
pub fn compare(wanted: &Manifest, held: &Manifest) -> Beside {
    let (wanted, held) = (layers(wanted), layers(held));
    if has_all(&held, &wanted) {
        Beside::Whole
    } else if has_all(&wanted, &held) {
        Beside::Part
    } else {
        Beside::Apart
    }
}

/// The layers with everything that is said of them.
fn layers(manifest: &Manifest) -> Vec<Value> {
    let document: Value = serde_json::from_slice(manifest.bytes()).unwrap_or_default();
    document["layers"].as_array().cloned().unwrap_or_default()
}

/// Whether each of `some` is among `all`, as often as it occurs.
fn has_all(all: &[Value], some: &[Value]) -> bool {
    let mut left: Vec<&Value> = all.iter().collect();
    some.iter().all(|one| {
        let place = left.iter().position(|other| *other == one);
        place.map(|place| left.swap_remove(place)).is_some()
    })
}

/// A number of blobs and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub blobs: u64,
    /// How long they are together, in bytes.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, blob: &Descriptor) {
        self.blobs += 1;
        // A manifest may claim any length; what is really sent is counted byte by byte.
        self.bytes = self.bytes.saturating_add(blob.size);
    }
}

/// What becomes, or became, of the blobs of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken over from another repository of the registry.
    pub mounted: Amount,
    /// Sent.
    pub copied: Amount,
    /// There already.
    pub skipped: Amount,
}

/// How a target's blobs are come by, when they are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all: source and target are one repository, and only a tag is written.
    Held,
    /// The registry has them in another repository.
    Mount,
    /// They have to be sent.
    Send,
}

/// Foresees what becomes of the blobs, of which the target has `present`.
#[must_use]
pub fn foresee(blobs: &[&Descriptor], present: &BTreeSet<Digest>, way: Way) -> Tally {
    let mut tally = Tally::default();
    for blob in blobs {
        let amount = match way {
            Way::Held => break,
            _ if present.contains(&blob.digest) => &mut tally.skipped,
            Way::Mount => &mut tally.mounted,
            Way::Send => &mut tally.copied,
        };
        amount.add(blob);
    }
    tally
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::failure::Kind;
    use crate::oci::manifest::tests::{entry, read};

    #[test]
    fn a_tag_moves_only_when_it_may() {
        let target: ImageReference = "example.com/app:1".parse().unwrap();
        let (wanted, old, older) = (Digest::of(b"wanted"), Digest::of(b"old"), Digest::of(b"older"));
        let decided =
            |before: Option<&Digest>, allowed: MoveTag| must_write(&target, &wanted, before, &allowed);
        for allowed in [MoveTag::Never, MoveTag::From(old.clone()), MoveTag::Any] {
            assert!(decided(None, allowed.clone()).unwrap());
            assert!(!decided(Some(&wanted), allowed).unwrap());
        }
        assert!(decided(Some(&old), MoveTag::Any).unwrap());
        assert!(decided(Some(&old), MoveTag::From(old.clone())).unwrap());
        for allowed in [MoveTag::Never, MoveTag::From(older)] {
            let failure = decided(Some(&old), allowed).expect_err("guarded");
            assert_eq!(failure.kind(), Kind::Conflict);
            for part in ["example.com/app:1", old.as_str(), wanted.as_str()] {
                assert!(failure.message().contains(part), "{failure:?}");
            }
        }
    }

    #[test]
    fn what_may_move_is_read_strictly() {
        let digest = Digest::of(b"x");
        for allowed in [MoveTag::Any, MoveTag::Never, MoveTag::From(digest)] {
            assert_eq!(allowed.to_string().parse::<MoveTag>().unwrap(), allowed);
        }
        assert!("latest".parse::<MoveTag>().is_err());
        assert!("".parse::<MoveTag>().is_err());
    }

    #[test]
    fn signatures_at_the_target_are_not_lost() {
        let signatures = |layers: &[&[u8]]| {
            let layers: Vec<_> = layers.iter().map(|layer| entry("signature", layer)).collect();
            let config = entry("config", format!("{layers:?}").as_bytes());
            read(&json!({"schemaVersion": 2, "config": config, "layers": layers})).unwrap()
        };
        let (one, both) = (signatures(&[b"1"]), signatures(&[b"1", b"2"]));
        assert_eq!(compare(&both, &one), Beside::Part);
        assert_eq!(compare(&one, &both), Beside::Whole);
        assert_eq!(compare(&one, &signatures(&[b"3"])), Beside::Apart);
        assert_eq!(compare(&both, &signatures(&[b"3", b"2"])), Beside::Apart);

        // Two keys sign the same bytes.
        let signed_by = |keys: &[&str]| {
            let signed = |key: &&str| {
                let mut layer = entry("signature", b"payload");
                layer["annotations"] = json!({"dev.cosignproject.cosign/signature": key});
                layer
            };
            let layers: Vec<_> = keys.iter().map(signed).collect();
            read(&json!({"schemaVersion": 2, "config": entry("config", b"{}"), "layers": layers})).unwrap()
        };
        let (a, b, ab) = (signed_by(&["a"]), signed_by(&["b"]), signed_by(&["a", "b"]));
        assert_eq!(compare(&ab, &a), Beside::Part);
        assert_eq!(compare(&a, &ab), Beside::Whole);
        assert_eq!(compare(&b, &a), Beside::Apart);
        assert_eq!(compare(&signed_by(&["a", "a"]), &a), Beside::Part);
    }

    #[test]
    fn what_is_there_is_not_brought_again() {
        let blob = |content: &[u8]| Descriptor {
            media_type: "layer".to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
        };
        let (one, three) = (blob(b"1"), blob(b"333"));
        let blobs = [&one, &three];
        let present = BTreeSet::from([one.digest.clone()]);
        let amount = |blobs, bytes| Amount { blobs, bytes };
        let sent = foresee(&blobs, &present, Way::Send);
        assert_eq!((sent.skipped, sent.copied), (amount(1, 1), amount(1, 3)));
        let mounted = foresee(&blobs, &BTreeSet::new(), Way::Mount);
        assert_eq!((mounted.mounted, mounted.copied), (amount(2, 4), amount(0, 0)));
        assert_eq!(foresee(&blobs, &present, Way::Held), Tally::default());
    }
}
