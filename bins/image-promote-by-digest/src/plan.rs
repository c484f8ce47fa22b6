//! Which image is wanted where. Pure: what the registries have is for the copy engine to compare.

use towpath::failure::{Failure, Result};
use towpath::oci::Digest;
use towpath::oci::copy::ImageReference;

use crate::args::Args;

/// The targets, each with the tag it is going to have. There is at least one.
#[derive(Debug)]
pub(crate) struct Wanted {
    targets: Vec<ImageReference>,
}

/// Completes the targets: one without a tag takes over the source's.
///
/// # Errors
/// Usage (exit 2) when a target is named twice.
pub(crate) fn decide(args: &Args) -> Result<Wanted> {
    complete(&args.source, &args.targets)
}

fn complete(source: &ImageReference, targets: &[ImageReference]) -> Result<Wanted> {
    let mut wanted: Vec<ImageReference> = Vec::with_capacity(targets.len());
    for target in targets {
        let tag = target.tag().or_else(|| source.tag()).cloned();
        let target = target.clone().with_tag(tag);
        let is_twice = wanted
            .iter()
            .any(|earlier| earlier.name() == target.name() && earlier.tag() == target.tag());
        if is_twice {
            return Err(Failure::usage(format!("the target {target} is named twice"))
                .hint("leave one out of TARGET (TOWPATH_TARGET)"));
        }
        wanted.push(target);
    }
    Ok(Wanted { targets: wanted })
}

impl Wanted {
    /// All targets.
    pub(crate) fn references(&self) -> Vec<ImageReference> {
        self.targets.clone()
    }

    /// The one that is handed over.
    pub(crate) fn first(&self) -> &ImageReference {
        &self.targets[0]
    }

    /// Compares the digests that targets were written with to the one that is going there.
    ///
    /// # Errors
    /// Conflict (exit 6) when they differ.
    pub(crate) fn check(&self, digest: &Digest) -> Result<()> {
        for target in &self.targets {
            if let Some(expected) = target.digest().filter(|expected| *expected != digest) {
                return Err(Failure::conflict(format!(
                    "the source is {digest}, where {} expects {expected}",
                    target.name()
                ))
                .hint("leave the digest out of TARGET, or name the source that has it"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use towpath::failure::Kind;

    use super::*;

    fn completed(source: &str, targets: &[&str]) -> Result<Vec<String>> {
        let targets: Vec<ImageReference> = targets.iter().map(|target| target.parse().unwrap()).collect();
        let wanted = complete(&source.parse().unwrap(), &targets)?;
        Ok(wanted.references().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_target_without_a_tag_takes_the_sources() {
        assert_eq!(
            completed("a.example/app:1", &["b.example/app", "b.example/app:2"]).unwrap(),
            ["b.example/app:1", "b.example/app:2"]
        );
        let by_digest = format!("a.example/app@{}", Digest::of(b""));
        assert_eq!(
            completed(&by_digest, &["b.example/app"]).unwrap(),
            ["b.example/app"]
        );
        assert_eq!(
            completed("oci:out:7", &["b.example/app"]).unwrap(),
            ["b.example/app:7"]
        );
    }

    #[test]
    fn the_same_target_twice_is_a_mistake() {
        let failure = completed("a.example/app:1", &["b.example/app", "b.example/app:1"]).expect_err("twice");
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(completed("a.example/app:1", &["b.example/app:1", "b.example/app:2"]).is_ok());
    }

    #[test]
    fn a_digest_in_a_target_is_what_the_source_must_be() {
        let (right, wrong) = (Digest::of(b"right"), Digest::of(b"wrong"));
        let target: ImageReference = format!("b.example/app:1@{right}").parse().unwrap();
        let wanted = complete(&"a.example/app:1".parse().unwrap(), &[target]).unwrap();
        wanted.check(&right).unwrap();
        assert_eq!(wanted.check(&wrong).expect_err("another").kind(), Kind::Conflict);
    }
}
