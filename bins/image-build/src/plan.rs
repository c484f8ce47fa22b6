//! What to build and which tags to write, from the arguments, the Dockerfile and what is at the registry. Nothing here
//! looks at the outside.

use std::collections::BTreeMap;
use std::path::Path;

use towpath::failure::{Failure, Kind, Result};
use towpath::kaniko::dockerfile::Dockerfile;
use towpath::kaniko::{BasePattern, full_name};
use towpath::oci::copy::MoveTag;
use towpath::oci::{Digest, Platform, Reference, Tag};

use crate::args::BuildArgs;
use crate::tags::{self, Wanted};

/// The annotation that says which commit an image was built from.
pub(crate) const REVISION: &str = "org.opencontainers.image.revision";

/// An image that the Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its place among the Dockerfile's images.
    pub(crate) place: usize,
    /// The line that names it, counted from 1.
    pub(crate) line: usize,
    /// As written, with arguments filled in.
    pub(crate) name: String,
    /// By its full name.
    pub(crate) reference: Reference,
    /// Whether the stage that is built needs it.
    pub(crate) is_needed: bool,
}

/// Gives every image of the Dockerfile its full name, and refuses those that may not be built on, whether the build needs
/// them or not.
///
/// # Errors
/// Input (exit 3) when a name is malformed; denied (exit 4) when an image is not allowed, or builders may not agree on
/// whether a line names one.
pub(crate) fn bases(
    dockerfile: &Dockerfile,
    target: usize,
    allowed: &[BasePattern],
    shown: &str,
) -> Result<Vec<Base>> {
    let needed = dockerfile.needed(target);
    let guarded = !allowed.is_empty();
    if let Some(line) = dockerfile.doubts().first().filter(|_| guarded) {
        return Err(Failure::denied(format!(
            "{shown}, line {line}: not every builder reads this here-document in the same way, and an image could hide in it"
        ))
        .hint("write the file's text to a file of its own and COPY it, or give the document a plain delimiter"));
    }
    let mut bases = Vec::new();
    for (place, image) in dockerfile.images().iter().enumerate() {
        let at = || format!("{shown}, line {}", image.line);
        let reference = full_name(&image.name).map_err(|failure| {
            Failure::new(Kind::Input, format!("{}: {}", at(), failure.message())).because(failure)
        })?;
        if guarded && !allowed.iter().any(|pattern| pattern.allows(&reference)) {
            let patterns: Vec<String> = allowed.iter().map(BasePattern::to_string).collect();
            return Err(
                Failure::denied(format!("{}: the image {reference} is not allowed", at())).hint(format!(
                    "--allow-base (TOWPATH_ALLOWED_BASES) allows {}",
                    patterns.join(", ")
                )),
            );
        }
        bases.push(Base {
            place,
            line: image.line,
            name: image.name.clone(),
            reference,
            is_needed: needed.contains(&place),
        });
    }
    Ok(bases)
}

/// Looks for what would be written into the builder's own folder, which kaniko leaves out of images, in most cases without a
/// word. Gives back a warning for each line that may do so.
///
/// # Errors
/// Input (exit 3) when files are copied there: the image would lack them.
pub(crate) fn keep_out(
    dockerfile: &Dockerfile,
    target: usize,
    folder: &Path,
    shown: &str,
) -> Result<Vec<String>> {
    let folder = folder.to_string_lossy();
    let folder = folder.trim_end_matches('/');
    let mut warnings = Vec::new();
    for intrusion in dockerfile.intrusions(target, folder) {
        let (line, path) = (intrusion.line, &intrusion.path);
        let what = match intrusion.instruction.as_str() {
            copy if intrusion.is_copy => {
                return Err(Failure::input(format!(
                    "{shown}, line {line}: {copy} writes to {path}, and kaniko leaves its own folder {folder} out of the image"
                ))
                .hint("write to another folder, or build with --builder buildah (TOWPATH_BUILDER)"));
            }
            "RUN" => format!("RUN names {folder}, kaniko's own folder: what a step writes there"),
            other => format!("{other} makes {path} in kaniko's own folder: what is there"),
        };
        warnings.push(format!("{shown}, line {line}: {what} stays out of the image"));
    }
    Ok(warnings)
}

/// A tag that is going to be written, and what it names now.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) wanted: Wanted,
    pub(crate) digest: Option<Digest>,
    /// The commit that what it names was built from, as far as it says; looked for of fixed tags alone.
    pub(crate) revision: Option<String>,
}

impl Found {
    /// What the tag may be moved from. What it names by then must be what was seen.
    pub(crate) fn may_move(&self, move_tag: bool) -> MoveTag {
        match (&self.digest, self.wanted.kind) {
            (Some(digest), tags::Kind::Branch | tags::Kind::Release(_)) => MoveTag::From(digest.clone()),
            (Some(digest), tags::Kind::Fixed) if move_tag => MoveTag::From(digest.clone()),
            _ => MoveTag::Never,
        }
    }
}

/// What to do about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Build it.
    Build,
    /// It is there, built from this commit: only tags may be missing.
    Keep(Digest),
}

/// Decides by what the fixed tags name.
///
/// # Errors
/// Conflict (exit 6) when one names an image of another commit, and may not be moved.
pub(crate) fn decide(
    repository: &Reference,
    found: &[Found],
    revision: Option<&str>,
    rebuild: bool,
    move_tag: bool,
) -> Result<Decision> {
    let mut kept: Option<&Digest> = None;
    let fixed = found.iter().filter(|one| one.wanted.kind == tags::Kind::Fixed);
    for (one, digest) in fixed.filter_map(|one| Some((one, one.digest.as_ref()?))) {
        let is_ours = revision.is_some() && one.revision.as_deref() == revision;
        let agrees = kept.is_none_or(|kept| kept == digest);
        if is_ours && (agrees || rebuild) {
            kept = Some(digest);
            continue;
        }
        if move_tag {
            return Ok(Decision::Build);
        }
        let name = repository.clone().with_tag(Some(one.wanted.tag.clone()));
        let origin = match &one.revision {
            Some(revision) => format!("built from {revision}"),
            None => "which does not say what it was built from".to_owned(),
        };
        return Err(Failure::conflict(format!("{name} is there already: {digest}, {origin}")).hint(
            "give the commit a tag of its own, or replace what is there knowingly with --move-tag (TOWPATH_MOVE_TAG)",
        ));
    }
    match kept {
        Some(digest) if !rebuild => Ok(Decision::Keep(digest.clone())),
        _ => Ok(Decision::Build),
    }
}

/// An image for one platform, as far as it decides whether it may stand in an index with others.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// How it is named by whoever gives it.
    pub(crate) name: String,
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
    pub(crate) revision: Option<String>,
}

/// Checks that images belong into one index: one for each platform, all of one commit.
///
/// # Errors
/// Conflict (exit 6), naming the two that do not go together.
pub(crate) fn belong_together(members: &[Member]) -> Result<()> {
    for (place, one) in members.iter().enumerate() {
        for other in &members[..place] {
            if one.platform.fits(&other.platform) || other.platform.fits(&one.platform) {
                let same = if one.digest == other.digest {
                    "the same image"
                } else {
                    "another image"
                };
                return Err(Failure::conflict(format!(
                    "{} and {} are both for {}: {same}",
                    other.name, one.name, one.platform
                ))
                .hint("name one layout for each platform"));
            }
            if one.revision != other.revision {
                let told = |member: &Member| match &member.revision {
                    Some(revision) => format!("{} was built from {revision}", member.name),
                    None => format!("{} does not say what it was built from", member.name),
                };
                return Err(
                    Failure::conflict(format!("{}, and {}", told(other), told(one))).hint(format!(
                        "build each platform from the same commit: the label {REVISION} tells it (--revision, CI_COMMIT_SHA)"
                    )),
                );
            }
        }
    }
    Ok(())
}

/// Checks that a builder built for the platform that was asked for.
///
/// # Errors
/// Unsuccessful (exit 8) when it did not.
pub(crate) fn is_for(asked: Option<&Platform>, built: &Platform) -> Result<()> {
    match asked {
        Some(asked) if !asked.fits(built) => Err(Failure::unsuccessful(format!(
            "the image is for {built}, where {asked} was asked for"
        ))
        .hint("is there a base image for that platform? The builder may have taken the only one there is")),
        _ => Ok(()),
    }
}

/// The labels of the image.
///
/// Source: OCI image specification, "Annotations", pre-defined keys. A label given by hand wins.
pub(crate) fn labels(
    args: &BuildArgs,
    first_tag: &Tag,
    base: Option<(&Base, &Digest)>,
) -> BTreeMap<String, String> {
    let known = [
        ("source", args.source_url.clone()),
        ("revision", args.target.revision.clone()),
        ("version", Some(first_tag.to_string())),
        ("created", args.created.map(|time| time.to_string())),
        ("base.name", base.map(|(base, _)| base.reference.to_string())),
        ("base.digest", base.map(|(_, digest)| digest.to_string())),
    ];
    let mut labels: BTreeMap<String, String> = known
        .into_iter()
        .filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?)))
        .collect();
    labels.extend(args.labels().cloned());
    labels
}

/// The hosts named by hand, and those on this machine that the builder speaks to.
pub(crate) fn plain_http(args: &BuildArgs, spoken_to: &[Reference]) -> Vec<String> {
    let mut hosts = args.registry.plain_http.clone();
    hosts.extend(
        spoken_to
            .iter()
            .filter(|reference| reference.is_on_loopback())
            .map(|reference| reference.registry().to_owned())
            .filter(|host| !args.registry.tls.contains(host)),
    );
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Dockerfile {
        Dockerfile::parse(text, "Dockerfile", &BTreeMap::new()).unwrap()
    }

    fn allowed(text: &str, patterns: &[&str]) -> Result<Vec<Base>> {
        let patterns: Vec<BasePattern> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let dockerfile = read(text);
        let target = dockerfile.target(None).unwrap();
        bases(&dockerfile, target, &patterns, "Dockerfile")
    }

    #[test]
    fn only_allowed_images_are_built_on() {
        let patterns = ["allowed.example.com", "docker.io/library/debian:12*"];
        for text in [
            "FROM allowed.example.com/a/b\n",
            "FROM debian:12-slim AS x\nFROM scratch\nCOPY --from=x / /\n",
            "FROM allowed.example.com/a\nRUN <<EOF\necho FROM here\nEOF\n",
        ] {
            allowed(text, &patterns).unwrap();
        }
        for text in [
            "FROM allowed.example.com.evil/a\n",
            "FROM evil.example.com/allowed.example.com/a\n",
            "FROM debian\n",
            "FROM debian:12@sha256:0000000000000000000000000000000000000000000000000000000000000000\n",
            "FROM evil/x AS unused\nFROM debian:12\n",
            "FROM debian:12\nCOPY --from=evil/x / /\n",
            "FROM debian:12\nRUN --mount=type=bind,from=evil/x,target=/x true\n",
            "FROM debian:12\nRUN <<EOF\nFROM evil/x\nEOF\n",
            "FROM debian:12\nCOPY --from=late / /\nFROM debian:12 AS late\n",
        ] {
            let failure = allowed(text, &patterns).expect_err(text);
            assert_eq!(failure.kind(), Kind::Denied, "{text}");
            allowed(text, &[]).unwrap();
        }
        assert_eq!(
            allowed("FROM Evil/x\n", &[]).expect_err("malformed").kind(),
            Kind::Input
        );
    }

    #[test]
    fn nothing_is_copied_into_the_builders_own_folder() {
        let kept_out = |text: &str, folder: &str| {
            let dockerfile = read(text);
            let target = dockerfile.target(None).unwrap();
            keep_out(&dockerfile, target, Path::new(folder), "app/Dockerfile")
        };
        let text = "FROM a\nWORKDIR /kaniko/w\nRUN ls /kaniko\nCOPY a /kaniko/a\n";
        for folder in ["/kaniko", "/kaniko/"] {
            let failure = kept_out(text, folder).expect_err("a copy");
            assert_eq!(failure.kind(), Kind::Input);
            assert_eq!(
                failure.message(),
                "app/Dockerfile, line 4: COPY writes to /kaniko/a, and kaniko leaves its own folder /kaniko out of the image"
            );
        }
        assert_eq!(kept_out(text, "/busybox").unwrap(), [] as [String; 0]);
        assert_eq!(
            kept_out("FROM a\nWORKDIR /kaniko/w\nRUN ls /kaniko\n", "/kaniko").unwrap(),
            [
                "app/Dockerfile, line 2: WORKDIR makes /kaniko/w in kaniko's own folder: what is there stays out of the image",
                "app/Dockerfile, line 3: RUN names /kaniko, kaniko's own folder: what a step writes there stays out of the image",
            ]
        );
    }

    #[test]
    fn one_index_holds_one_image_a_platform_of_one_commit() {
        let member = |name: &str, platform: &str, revision: Option<&str>| Member {
            name: name.to_owned(),
            platform: platform.parse().unwrap(),
            digest: Digest::of(name.as_bytes()),
            revision: revision.map(str::to_owned),
        };
        let (amd, arm) = (
            member("a", "linux/amd64", Some("1")),
            member("b", "linux/arm64", Some("1")),
        );
        belong_together(&[amd.clone(), arm.clone()]).unwrap();
        belong_together(&[
            member("a", "linux/amd64", None),
            member("b", "linux/arm/v7", None),
        ])
        .unwrap();
        for (other, words) in [
            (
                member("c", "linux/amd64", Some("1")),
                "a and c are both for linux/amd64",
            ),
            (member("c", "linux/arm64/v8", Some("1")), "both for linux/arm64"),
            (member("c", "linux/s390x", Some("2")), "c was built from 2"),
            (member("c", "linux/s390x", None), "c does not say"),
        ] {
            let failure = belong_together(&[amd.clone(), arm.clone(), other]).expect_err(words);
            assert_eq!(failure.kind(), Kind::Conflict);
            assert!(failure.message().contains(words), "{failure}");
        }
        is_for(None, &amd.platform).unwrap();
        is_for(
            Some(&"linux/arm64".parse().unwrap()),
            &"linux/arm64/v8".parse().unwrap(),
        )
        .unwrap();
        let failure = is_for(Some(&arm.platform), &amd.platform).expect_err("another platform");
        assert_eq!(failure.kind(), Kind::Unsuccessful);
    }

    #[test]
    fn a_tag_that_is_there_is_kept_moved_or_refused() {
        let repository: Reference = "r.example.com/app".parse().unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let fixed = |digest: Option<&Digest>, revision: Option<&str>| Found {
            wanted: Wanted {
                tag: "1.0.0".parse().unwrap(),
                kind: tags::Kind::Fixed,
            },
            digest: digest.cloned(),
            revision: revision.map(str::to_owned),
        };
        let decided = |found: &[Found], revision, rebuild, move_tag| {
            decide(&repository, found, revision, rebuild, move_tag)
        };
        let ours = Some("abc");
        let (absent, same, other) = (
            fixed(None, None),
            fixed(Some(&one), ours),
            fixed(Some(&one), Some("def")),
        );
        assert_eq!(
            decided(std::slice::from_ref(&absent), ours, false, false).unwrap(),
            Decision::Build
        );
        let keep = Decision::Keep(one.clone());
        assert_eq!(
            decided(&[absent, same.clone()], ours, false, false).unwrap(),
            keep
        );
        assert_eq!(
            decided(std::slice::from_ref(&same), ours, false, true).unwrap(),
            keep
        );
        assert_eq!(
            decided(std::slice::from_ref(&same), ours, true, false).unwrap(),
            Decision::Build
        );
        let twin = fixed(Some(&two), ours);
        for found in [
            vec![other.clone()],
            vec![same.clone(), other],
            vec![fixed(Some(&one), None)],
            vec![same.clone(), twin],
        ] {
            let failure = decided(&found, ours, false, false).expect_err("another image");
            assert_eq!(failure.kind(), Kind::Conflict);
            assert_eq!(decided(&found, ours, false, true).unwrap(), Decision::Build);
        }
        // Who does not know what is built cannot know that it is there.
        assert!(decided(&[fixed(Some(&one), None)], None, false, false).is_err());
        let branch = Found {
            wanted: Wanted {
                tag: "main".parse().unwrap(),
                kind: tags::Kind::Branch,
            },
            ..fixed(Some(&one), Some("def"))
        };
        assert_eq!(
            decided(std::slice::from_ref(&branch), ours, false, false).unwrap(),
            Decision::Build
        );
        assert_eq!(branch.may_move(false), MoveTag::From(one.clone()));
        assert_eq!(same.may_move(false), MoveTag::Never);
        assert_eq!(same.may_move(true), MoveTag::From(one));
    }
}
