//! Which tags an image gets. Nothing here looks at the outside.
//!
//! Sources: Semantic Versioning 2.0.0, for versions and their order; GitLab's documentation of `CI_COMMIT_REF_SLUG`, for
//! what becomes of a branch's name.

use towpath::failure::{Failure, Result};
use towpath::oci::Tag;

use crate::args::TargetArgs;

/// The tag that nobody gets without asking.
const LATEST: &str = "latest";
/// As long as a label of a host's name, which slugs are often used for.
const SLUG_LENGTH: usize = 63;

/// A tag and what may become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) tag: Tag,
    pub(crate) kind: Kind,
}

/// Whether a tag stays with its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It names one image for good.
    Fixed,
    /// It names the newest image of a branch.
    Branch,
    /// It names the newest release whose version begins with this many numbers of ours: `1` for `1`, none for `latest`.
    Release(usize),
}

/// A tag that is left where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftAlone {
    pub(crate) tag: Tag,
    pub(crate) why: String,
}

/// A version that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    numbers: [u64; 3],
    pre_release: Option<String>,
}

impl Version {
    /// Reads a semantic version without build metadata.
    fn read(text: &str) -> Option<Self> {
        let (core, pre_release) = match text.split_once('-') {
            Some((core, pre_release)) => (core, Some(pre_release)),
            None => (text, None),
        };
        let mut numbers = [0; 3];
        let mut parts = core.split('.');
        for number in &mut numbers {
            *number = read_number(parts.next()?)?;
        }
        let is_whole = parts.next().is_none();
        let identifier = |part: &str| {
            let is_number = part.bytes().all(|b| b.is_ascii_digit());
            let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            plain && !part.is_empty() && (!is_number || part == "0" || !part.starts_with('0'))
        };
        let well_formed = pre_release.is_none_or(|pre_release| pre_release.split('.').all(identifier));
        (is_whole && well_formed).then(|| Version {
            numbers,
            pre_release: pre_release.map(str::to_owned),
        })
    }
}

fn read_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The tags that were asked for, each once; the first stands in the handoff.
///
/// # Errors
/// Usage (exit 2) when there is none, or what a tag is made of is of no use.
pub(crate) fn wanted(args: &TargetArgs) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    let version = args.git_tag.as_deref().map(version_of).transpose()?;
    if let Some((tag, _)) = &version {
        add(&mut all, tag.clone(), Kind::Fixed);
    }
    for tag in args.tags() {
        add(&mut all, tag.clone(), Kind::Fixed);
    }
    if args.sha_tag {
        add(
            &mut all,
            commit_tag(args.revision.as_deref().unwrap_or_default())?,
            Kind::Fixed,
        );
    }
    // One job may build both, branches and git tags: each gets what there is for it.
    if let Some(branch) = args.branch.as_deref().filter(|_| args.branch_tag) {
        add(&mut all, branch_tag(branch)?, Kind::Branch);
    }
    if let Some((_, version)) = &version {
        if args.floating_tags {
            let [major, minor, _] = version.numbers;
            add(&mut all, format!("{major}.{minor}").parse()?, Kind::Release(2));
            // Before 1.0.0 anything may change at any time: nobody can mean a tag 0.
            if major > 0 {
                add(&mut all, major.to_string().parse()?, Kind::Release(1));
            }
        }
        if args.latest {
            add(&mut all, LATEST.parse()?, Kind::Release(0));
        }
    }
    if all.is_empty() {
        return Err(Failure::usage("the image would have no tag").hint(
            "run this for a git tag (CI_COMMIT_TAG), or pass --tag (TOWPATH_TAGS), --sha-tag or --branch-tag",
        ));
    }
    Ok(all)
}

fn add(all: &mut Vec<Wanted>, tag: Tag, kind: Kind) {
    if all.iter().all(|wanted| wanted.tag != tag) {
        all.push(Wanted { tag, kind });
    }
}

/// Takes those tags out that would go back to an older version, or to one that is no release. `there` are the tags of the
/// repository.
pub(crate) fn hold_back(
    wanted: Vec<Wanted>,
    git_tag: Option<&str>,
    there: &[Tag],
) -> (Vec<Wanted>, Vec<LeftAlone>) {
    let Some(Ok((_, ours))) = git_tag.map(version_of) else {
        return (wanted, Vec::new());
    };
    let releases: Vec<[u64; 3]> = there
        .iter()
        .filter_map(|tag| Version::read(tag.as_str()))
        .filter(|version| version.pre_release.is_none())
        .map(|version| version.numbers)
        .collect();
    let mut left = Vec::new();
    let kept = wanted.into_iter().filter(|one| {
        let Kind::Release(depth) = one.kind else {
            return true;
        };
        let newer = releases
            .iter()
            .filter(|numbers| numbers[..depth] == ours.numbers[..depth] && **numbers > ours.numbers)
            .max();
        let why = match (&ours.pre_release, newer) {
            (Some(_), _) => "a pre-release does not move it".to_owned(),
            (None, Some([major, minor, patch])) => format!("{major}.{minor}.{patch} is newer"),
            (None, None) => return true,
        };
        left.push(LeftAlone {
            tag: one.tag.clone(),
            why,
        });
        false
    });
    (kept.collect(), left)
}

/// The image tag for a git tag that is a semantic version, with or without a leading `v`.
fn version_of(git_tag: &str) -> Result<(Tag, Version)> {
    let text = git_tag.strip_prefix('v').unwrap_or(git_tag);
    let wrong = |hint: &str| {
        Err(Failure::usage(format!("the git tag {git_tag:?} is not a semantic version")).hint(hint))
    };
    if text.contains('+') {
        return wrong("an image's tag cannot hold the '+' of build metadata: tag the commit without it");
    }
    match (Version::read(text), text.parse()) {
        (Some(version), Ok(tag)) => Ok((tag, version)),
        _ => wrong(
            "tag the commit like v1.2.3 or 1.2.3-rc.1, or unset CI_COMMIT_TAG and pass --tag (TOWPATH_TAGS)",
        ),
    }
}

fn commit_tag(revision: &str) -> Result<Tag> {
    let is_hash =
        matches!(revision.len(), 40 | 64) && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hash {
        return revision.parse();
    }
    Err(
        Failure::usage(format!("{revision:?} is not the hash of a commit"))
            .hint("pass all of it as --revision (CI_COMMIT_SHA), or leave --sha-tag (TOWPATH_SHA_TAG) out"),
    )
}

/// Lower case, at most 63 letters, everything but letters and digits replaced by `-`.
fn branch_tag(branch: &str) -> Result<Tag> {
    let slug: String = branch
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .take(SLUG_LENGTH)
        .collect();
    let slug = slug.trim_matches('-');
    let refuse =
        |why: &str, hint: &str| Err(Failure::usage(format!("the branch {branch:?} {why}")).hint(hint));
    let digits = slug.bytes().all(|b| b.is_ascii_digit());
    if slug == LATEST {
        return refuse(
            "would take the tag latest",
            "leave --branch-tag (TOWPATH_BRANCH_TAG) out for it",
        );
    }
    if digits {
        return refuse(
            "makes no tag, or one that reads as a version",
            "leave --branch-tag (TOWPATH_BRANCH_TAG) out for it",
        );
    }
    slug.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn git_tags_that_are_versions_become_tags() {
        for (git_tag, tag) in [
            ("v1.2.3", "1.2.3"),
            ("1.2.3", "1.2.3"),
            ("v0.10.0-rc.1", "0.10.0-rc.1"),
            ("1.0.0-x-y-z.0", "1.0.0-x-y-z.0"),
        ] {
            assert_eq!(version_of(git_tag).unwrap().0.as_str(), tag);
        }
        for wrong in [
            "",
            "v",
            "vv1.2.3",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3+build",
            "1.2.3-a+b",
            "release-1",
            "v1.2.x",
            "1.2.3-a..b",
            "1.2.3\n",
            "1.2.+3",
            "1.2.99999999999999999999",
        ] {
            assert!(version_of(wrong).is_err(), "{wrong:?} was accepted");
        }
        let failure = version_of("v1.2.3+build").expect_err("build metadata");
        assert!(format!("{failure:?}").contains("'+'"));
    }

    #[test]
    fn older_versions_and_pre_releases_move_nothing() {
        let floating = || {
            [("1.4", 2), ("1", 1), ("latest", 0)].map(|(text, depth)| Wanted {
                tag: tag(text),
                kind: Kind::Release(depth),
            })
        };
        let moved = |git_tag: &str, there: &[&str]| {
            let there: Vec<Tag> = there.iter().map(|text| tag(text)).collect();
            let (kept, left) = hold_back(floating().to_vec(), Some(git_tag), &there);
            assert_eq!(kept.len() + left.len(), 3);
            kept.into_iter()
                .map(|one| one.tag.to_string())
                .collect::<Vec<_>>()
        };
        let all = ["1.4", "1", "latest"];
        assert_eq!(moved("v1.4.2", &[]), all);
        assert_eq!(
            moved(
                "v1.4.2",
                &["1.4.1", "1.4.2", "1.4", "0.9.9", "1.4.3-rc.1", "main", "1.4.9.9"]
            ),
            all
        );
        assert_eq!(moved("v1.4.2", &["1.4.10"]), [] as [&str; 0]);
        assert_eq!(moved("v1.4.2", &["1.10.0"]), ["1.4"]);
        assert_eq!(moved("v1.4.2", &["2.0.0"]), ["1.4", "1"]);
        assert_eq!(moved("v1.4.2-rc.1", &[]), [] as [&str; 0]);
    }

    #[test]
    fn branches_become_slugs_and_take_no_other_tag() {
        for (branch, slug) in [
            ("main", "main"),
            ("Feature/ABC_1.2", "feature-abc-1-2"),
            ("-x-", "x"),
            ("ÄB", "b"),
        ] {
            assert_eq!(branch_tag(branch).unwrap().as_str(), slug);
        }
        assert_eq!(branch_tag(&"x".repeat(200)).unwrap().as_str().len(), SLUG_LENGTH);
        for wrong in ["", "---", "Latest", "1", "42"] {
            assert!(branch_tag(wrong).is_err(), "{wrong:?} was accepted");
        }
        let hash = "0123456789012345678901234567890123456789";
        assert_eq!(commit_tag(hash).unwrap().as_str(), hash);
        for wrong in ["", "0123456", "main", &hash.replace('0', "A")] {
            assert!(commit_tag(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
