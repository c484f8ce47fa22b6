//! What to build, from the arguments and the Dockerfile's stages. Nothing here looks at the outside.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::kaniko::Recipe;
use towpath::kaniko::dockerfile::{Base, Stage};
use towpath::oci::{Reference, Tag};

use crate::args::Args;

/// The decision.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Without tag and digest.
    pub(crate) repository: Reference,
    /// At least one; the first stands in the handoff.
    pub(crate) tags: Vec<Tag>,
    pub(crate) bases: Vec<String>,
    pub(crate) source_project: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) recipe: Recipe,
}

/// Decides tags, labels and which registries speak plain http.
pub(crate) fn decide(args: &Args, stages: &[Stage]) -> Result<Plan> {
    let repository = bare(&args.repository)?;
    let mut tags = Vec::new();
    if let Some(git_tag) = &args.git_tag {
        tags.push(version_of(git_tag)?);
    }
    tags.extend(args.tags.iter().cloned());
    if tags.is_empty() {
        return Err(Failure::usage("the image would have no tag")
            .hint("run this for a git tag (CI_COMMIT_TAG), or pass --tag (TOWPATH_TAGS)"));
    }
    tags.dedup();
    let bases: Vec<String> = stages
        .iter()
        .filter_map(|stage| match &stage.base {
            Base::Image(image) => Some(image.clone()),
            Base::Stage(_) | Base::Scratch => None,
        })
        .collect();
    let recipe = Recipe {
        context: args.context.clone(),
        dockerfile: args.dockerfile(),
        destinations: tags
            .iter()
            .map(|tag| repository.clone().with_tag(Some(tag.clone())).to_string())
            .collect(),
        labels: labels(args, tags[0].as_str()),
        build_args: args.build_args.iter().cloned().collect(),
        target: args.target.clone(),
        created: args.created,
        plain_http: plain_http(args, &repository, &bases),
        docker_config: args.registry.docker_config.clone(),
    };
    Ok(Plan {
        repository,
        tags,
        bases,
        source_project: args.source_project.clone(),
        revision: args.revision.clone(),
        recipe,
    })
}

/// Source: OCI image specification, "Annotations", pre-defined keys. A label given by hand wins.
fn labels(args: &Args, version: &str) -> BTreeMap<String, String> {
    let known = [
        ("source", args.source_url.clone()),
        ("revision", args.revision.clone()),
        ("version", Some(version.to_owned())),
        ("created", args.created.map(|time| time.to_string())),
    ];
    let mut labels: BTreeMap<String, String> = known
        .into_iter()
        .filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?)))
        .collect();
    labels.extend(args.labels.iter().cloned());
    labels
}

/// The hosts named by hand, and those on this machine that the build speaks to.
fn plain_http(args: &Args, repository: &Reference, bases: &[String]) -> Vec<String> {
    // A short name of Docker Hub is no reference to us, and never on this machine.
    let bases = bases.iter().filter_map(|base| base.parse::<Reference>().ok());
    let mut hosts = args.registry.plain_http.clone();
    hosts.extend(
        bases
            .chain([repository.clone()])
            .filter(Reference::is_on_loopback)
            .map(|reference| reference.registry().to_owned())
            .filter(|host| !args.registry.tls.contains(host)),
    );
    hosts.sort();
    hosts.dedup();
    hosts
}

fn bare(repository: &Reference) -> Result<Reference> {
    if repository.tag().is_some() || repository.digest().is_some() {
        return Err(Failure::usage(format!("the repository {repository} carries a tag or digest"))
            .hint("pass --repository (TOWPATH_REPOSITORY) as HOST/PATH; the tag comes from the git tag or --tag"));
    }
    Ok(repository.clone())
}

/// The image tag for a git tag that is a semantic version, with or without a leading `v`.
fn version_of(git_tag: &str) -> Result<Tag> {
    let wrong = || {
        Failure::usage(format!("the git tag {git_tag:?} is not a version"))
            .hint("tag a release as v1.2.3 or 1.2.3, with -rc.1 and the like behind it; build metadata (+) has no place in an image tag")
    };
    let version = git_tag.strip_prefix('v').unwrap_or(git_tag);
    let (core, pre_release) = match version.split_once('-') {
        Some((core, pre_release)) => (core, Some(pre_release)),
        None => (version, None),
    };
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let numbers: Vec<&str> = core.split('.').collect();
    if numbers.len() != 3 || !numbers.into_iter().all(number) {
        return Err(wrong());
    }
    let identifier =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if pre_release.is_some_and(|pre_release| !pre_release.split('.').all(identifier)) {
        return Err(wrong());
    }
    version.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_tags_that_are_versions_become_tags() {
        for (git_tag, tag) in [
            ("v1.2.3", "1.2.3"),
            ("1.2.3", "1.2.3"),
            ("v0.10.0-rc.1", "0.10.0-rc.1"),
        ] {
            assert_eq!(version_of(git_tag).unwrap().as_str(), tag);
        }
        for wrong in [
            "",
            "v",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3+build",
            "release-1",
            "v1.2.x",
            "1.2.3-a..b",
        ] {
            assert!(version_of(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_repository_carries_neither_tag_nor_digest() {
        let digest = format!("r.example.com/app@sha256:{}", "0".repeat(64));
        bare(&"registry.example.com/team/app".parse().unwrap()).unwrap();
        for wrong in ["r.example.com/app:1", digest.as_str()] {
            assert!(bare(&wrong.parse().unwrap()).is_err(), "{wrong:?} was accepted");
        }
    }
}
