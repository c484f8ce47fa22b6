//! What to build, from the arguments and the Dockerfile's stages. Nothing here looks at the outside.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::http::is_loopback_host;
use towpath::kaniko::Recipe;
use towpath::kaniko::dockerfile::{Base, Stage};

use crate::args::Args;

/// The decision.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) repository: String,
    /// At least one; the first stands in the handoff.
    pub(crate) tags: Vec<String>,
    pub(crate) bases: Vec<String>,
    pub(crate) source_project: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) recipe: Recipe,
}

/// Decides tags, labels and which registries speak plain http.
pub(crate) fn decide(args: &Args, stages: &[Stage]) -> Result<Plan> {
    let repository = check_repository(&args.repository)?;
    let mut tags = Vec::new();
    if let Some(git_tag) = &args.git_tag {
        tags.push(version_of(git_tag)?);
    }
    for tag in &args.tags {
        tags.push(check_tag(tag)?);
    }
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
        destinations: tags.iter().map(|tag| format!("{repository}:{tag}")).collect(),
        labels: labels(args, &tags[0]),
        build_args: args.build_args.iter().cloned().collect(),
        target: args.target.clone(),
        created: args.created,
        plain_http: plain_http(args, &repository, &bases),
        docker_config: args.docker_config.clone(),
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
fn plain_http(args: &Args, repository: &str, bases: &[String]) -> Vec<String> {
    let mut hosts = args.plain_http.clone();
    let images = bases.iter().map(String::as_str).chain([repository]);
    hosts.extend(
        images
            .filter_map(registry_host)
            .filter(|host| is_loopback_host(without_port(host)))
            .map(str::to_owned),
    );
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The registry host of an image name; none for the short names of Docker Hub.
fn registry_host(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn check_repository(repository: &str) -> Result<String> {
    let hint = "pass --repository (TOWPATH_REPOSITORY) as HOST/PATH without a tag, such as registry.example.com/team/app";
    let wrong = |why: &str| Err(Failure::usage(format!("the repository {repository:?} {why}")).hint(hint));
    let Some(host) = registry_host(repository) else {
        return wrong("names no registry host");
    };
    let path = &repository[host.len() + 1..];
    if path.contains(['@', ':']) {
        return wrong("carries a tag or digest");
    }
    let part_is_plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if !path.split('/').all(part_is_plain) || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return wrong("is not a repository name");
    }
    Ok(repository.to_owned())
}

/// Source: OCI distribution specification, "Pulling manifests": `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn check_tag(tag: &str) -> Result<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts_well = tag.bytes().next().is_some_and(word);
    if !starts_well || tag.len() > 128 || !tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return Err(Failure::usage(format!("{tag:?} cannot be an image tag"))
            .hint("tags hold letters, digits, _ . and -, begin with a letter, digit or _, and have at most 128 of them"));
    }
    Ok(tag.to_owned())
}

/// The image tag for a git tag that is a semantic version, with or without a leading `v`.
fn version_of(git_tag: &str) -> Result<String> {
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
    check_tag(version)
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
            assert_eq!(version_of(git_tag).unwrap(), tag);
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
    fn repositories_name_a_host_and_no_tag() {
        for right in [
            "registry.example.com/team/app",
            "localhost/app",
            "127.0.0.1:5000/app",
        ] {
            check_repository(right).unwrap();
        }
        for wrong in [
            "",
            "app",
            "team/app",
            "r.example.com/app:1",
            "r.example.com/app@sha256:0",
            "r.example.com/",
            "r.example.com/App",
            "r.example.com/a//b",
            "r.example.com/a b",
        ] {
            assert!(check_repository(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn registry_hosts_on_this_machine_are_known() {
        assert_eq!(registry_host("debian:12"), None);
        assert_eq!(registry_host("library/debian"), None);
        assert_eq!(registry_host("127.0.0.1:5000/base:1"), Some("127.0.0.1:5000"));
        assert_eq!(without_port("127.0.0.1:5000"), "127.0.0.1");
        assert_eq!(without_port("localhost"), "localhost");
    }

    #[test]
    fn tags_follow_the_grammar() {
        check_tag("latest").unwrap();
        for wrong in ["", ".a", "-a", "a b", "a/b", "a$b", "ä"] {
            assert!(check_tag(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
