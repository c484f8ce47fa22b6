//! The command line of `image-build`.

// Help texts, which are read in a terminal: [:TAG] is no link.
#![allow(rustdoc::broken_intra_doc_links)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use towpath::cli::{Arguments, RunArgs, parse_duration, parse_line};
use towpath::failure::{Failure, Result};
use towpath::kaniko::{self, BasePattern, Isolation};
use towpath::oci::{Digest, LayoutReference, Platform, Reference, RegistryArgs, Tag};

const EXAMPLES: &str = "\
Examples:
  In a job for a git tag (CI_COMMIT_TAG, CI_COMMIT_SHA and CI_PROJECT_URL are read):
    image-build --repository registry.example.com/team/app --handoff handoff.env

  By hand, from another folder, to see what would be built:
    image-build --context app --repository registry.example.com/team/app --tag 1.4.0-rc.1 --dry-run

  On bases of one's own alone, by the digests they have now:
    image-build --repository registry.example.com/team/app --allow-base registry.example.com/base --pin-bases

  Build, look at the image, then push the very bytes that were looked at:
    image-build --repository registry.example.com/team/app --oci-layout out --no-push
    syft oci-dir:out
    image-build push out --repository registry.example.com/team/app

  One image for two platforms, each built where its processor is:
    image-build --repository registry.example.com/team/app --oci-layout amd64 --no-push
    image-build --repository registry.example.com/team/app --oci-layout arm64 --no-push
    image-build push amd64 arm64 --repository registry.example.com/team/app

  With credentials that live as long as the build:
    vault-scw-creds exec --registry-login rg.fr-par.scw.cloud -- image-build --repository rg.fr-par.scw.cloud/team/app";

const USAGE: &str = "image-build [OPTIONS] --repository <REPOSITORY>
       image-build push [OPTIONS] --repository <REPOSITORY> <LAYOUT>...";

/// Build a container image with kaniko or buildah, push it, and hand its digest to the next job.
///
/// The image gets a tag from the git tag (v1.4.0 gives 1.4.0), labels that say where it comes from, and the commit's
/// time as its own, so that building the same commit again gives the same digest. The digest goes into the report and
/// the handoff file; the jobs after this one use the digest, never the tag. A tag that is there already is not moved,
/// and a commit that its tag was built from already is not built again.
#[derive(Debug, Parser)]
#[command(
    version,
    after_long_help = EXAMPLES,
    override_usage = USAGE,
    subcommand_negates_reqs = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) build: BuildArgs,

    #[command(flatten)]
    run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "image-build";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }
}

/// What to do. Without one of these, an image is built.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push the image of a layout that was built with --no-push, under the tags that the build would have given it, or of
    /// several layouts as one index of platforms
    #[command(override_usage = "image-build push [OPTIONS] --repository <REPOSITORY> <LAYOUT>...")]
    Push(Box<PushArgs>),
}

/// What is built, from what, by whom.
#[derive(clap::Args, Debug)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// The folder that COPY and ADD read from
    #[arg(long, env = "TOWPATH_CONTEXT", default_value = ".", hide_env_values = true)]
    pub(crate) context: PathBuf,

    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(long, env = "TOWPATH_DOCKERFILE", hide_env_values = true)]
    dockerfile: Option<PathBuf>,

    /// The stage to build [default: the last one]
    #[arg(
        long = "target",
        value_name = "STAGE",
        env = "TOWPATH_TARGET_STAGE",
        hide_env_values = true
    )]
    pub(crate) stage: Option<String>,

    /// What the image runs on, such as linux/arm64 [default: what this machine is]. RUN steps of another processor need an
    /// emulator on the machine
    #[arg(
        long,
        value_name = "OS/ARCHITECTURE",
        env = "TOWPATH_BUILD_PLATFORM",
        hide_env_values = true
    )]
    pub(crate) platform: Option<Platform>,

    /// A value for an ARG line; not for secrets, it stays in the image's history. Repeat it; one a line in the variable
    #[arg(long = "build-arg", value_name = "NAME=VALUE", env = "TOWPATH_BUILD_ARGS", value_delimiter = '\n', value_parser = parse_pair, hide_env_values = true)]
    build_args: Vec<Option<(String, String)>>,

    /// A label for the image. Repeat it; one a line in the variable
    #[arg(long = "label", value_name = "NAME=VALUE", env = "TOWPATH_LABELS", value_delimiter = '\n', value_parser = parse_pair, hide_env_values = true)]
    labels: Vec<Option<(String, String)>>,

    /// Where the source is, for the label org.opencontainers.image.source
    #[arg(long, env = "CI_PROJECT_URL", hide_env_values = true)]
    pub(crate) source_url: Option<String>,

    /// The time of the commit (RFC 3339), which becomes the time of the image and its files
    #[arg(long, env = "CI_COMMIT_TIMESTAMP", hide_env_values = true)]
    pub(crate) created: Option<Timestamp>,

    /// Images that may be built on and copied from, all when there is none: HOST[/PATH][:TAG], which allows what is
    /// below it; '*' stands for any letters of one part. Repeat it, or separate by commas
    #[arg(
        long = "allow-base",
        value_name = "PATTERN",
        env = "TOWPATH_ALLOWED_BASES",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) allowed_bases: Vec<BasePattern>,

    /// Build from the digests that the base images' tags name now: the builder gets a Dockerfile with those
    #[arg(long, env = "TOWPATH_PIN_BASES", hide_env_values = true)]
    pub(crate) pin_bases: bool,

    /// The builder [default: kaniko where it is, else buildah]
    #[arg(long, env = "TOWPATH_BUILDER", value_enum, hide_env_values = true)]
    pub(crate) builder: Option<BuilderChoice>,

    /// The kaniko executor [default: executor in kaniko's own folder, else on PATH]
    #[arg(long, env = "TOWPATH_KANIKO", hide_env_values = true)]
    pub(crate) kaniko: Option<PathBuf>,

    /// kaniko's own folder in its container, which it does not wipe
    #[arg(
        long,
        value_name = "FOLDER",
        env = "KANIKO_DIR",
        default_value = "/kaniko",
        hide_env_values = true
    )]
    pub(crate) kaniko_dir: PathBuf,

    /// Where kaniko runs [default: container for the executor in kaniko's own folder, else chroot]
    #[arg(long, env = "TOWPATH_ISOLATION", value_enum, hide_env_values = true)]
    pub(crate) isolation: Option<IsolationChoice>,

    /// This is a container, though it does not look like one: kaniko may wipe its file system
    #[arg(long, env = "TOWPATH_OUTSIDE_CONTAINER", hide_env_values = true)]
    pub(crate) outside_container: bool,

    /// Where Kubernetes is, which it tells its containers
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true, hide_env_values = true)]
    pub(crate) kubernetes_service_host: Option<String>,

    /// A repository, without a tag, where kaniko keeps finished steps for the next build. Whoever may push there decides
    /// what is built, and steps can read the login for it
    #[arg(
        long = "cache-repo",
        value_name = "REPOSITORY",
        env = "TOWPATH_CACHE_REPOSITORY",
        hide_env_values = true
    )]
    pub(crate) cache_repository: Option<Reference>,

    /// How old a finished step may be, such as 24h [default: kaniko's two weeks]
    #[arg(
        long,
        value_name = "AGE",
        env = "TOWPATH_CACHE_TTL",
        requires = "cache_repository",
        value_parser = parse_duration,
        hide_env_values = true
    )]
    pub(crate) cache_ttl: Option<Duration>,

    /// A folder to write the image to, as an OCI layout
    #[arg(
        long,
        value_name = "FOLDER",
        env = "TOWPATH_OCI_LAYOUT",
        value_parser = parse_folder,
        hide_env_values = true
    )]
    pub(crate) oci_layout: Option<PathBuf>,

    /// Push nothing: the layout is the result, and `image-build push` pushes it
    #[arg(
        long,
        env = "TOWPATH_NO_PUSH",
        requires = "oci_layout",
        hide_env_values = true
    )]
    pub(crate) no_push: bool,

    /// Build, though the tag is there and was built from this commit
    #[arg(long, env = "TOWPATH_REBUILD", hide_env_values = true)]
    pub(crate) rebuild: bool,

    /// Say what would be built and pushed, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Where an image goes, and under which names.
#[derive(clap::Args, Debug)]
pub(crate) struct TargetArgs {
    /// The repository to push to, without a tag
    #[arg(long, required = true, env = "TOWPATH_REPOSITORY", hide_env_values = true)]
    repository: Option<Reference>,

    /// The git tag that is built: a semantic version, with or without a leading v
    #[arg(long, env = "CI_COMMIT_TAG", hide_env_values = true)]
    pub(crate) git_tag: Option<String>,

    /// A tag for the image, besides the one from the git tag. Repeat it; one a line in the variable
    #[arg(
        long = "tag",
        value_name = "TAG",
        env = "TOWPATH_TAGS",
        value_delimiter = '\n',
        value_parser = parse_tag,
        hide_env_values = true
    )]
    tags: Vec<Option<Tag>>,

    /// For the git tag v1.4.0, move the tags 1.4 and 1 along. A pre-release moves none, nor does an older version than one
    /// that is there
    #[arg(long, env = "TOWPATH_FLOATING_TAGS", hide_env_values = true)]
    pub(crate) floating_tags: bool,

    /// For a git tag, move the tag latest along, by the same rules
    #[arg(long, env = "TOWPATH_LATEST", hide_env_values = true)]
    pub(crate) latest: bool,

    /// Tag the image with the commit
    #[arg(long, env = "TOWPATH_SHA_TAG", requires = "revision", hide_env_values = true)]
    pub(crate) sha_tag: bool,

    /// Where a branch is built, move a tag along that is named like it
    #[arg(long, env = "TOWPATH_BRANCH_TAG", hide_env_values = true)]
    pub(crate) branch_tag: bool,

    /// The branch that is built
    #[arg(long, env = "CI_COMMIT_BRANCH", hide_env_values = true)]
    pub(crate) branch: Option<String>,

    /// The commit that is built, for the label org.opencontainers.image.revision and the handoff
    #[arg(long, env = "CI_COMMIT_SHA", hide_env_values = true)]
    pub(crate) revision: Option<String>,

    /// Move tags that name another image
    #[arg(long, env = "TOWPATH_MOVE_TAG", hide_env_values = true)]
    pub(crate) move_tag: bool,

    /// The path of the source project, for the handoff
    #[arg(long, env = "CI_PROJECT_PATH", hide_env_values = true)]
    pub(crate) source_project: Option<String>,

    /// The dotenv file to write for the next job
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,
}

impl TargetArgs {
    /// The tags given by name.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().flatten()
    }

    /// Registry and path.
    ///
    /// # Errors
    /// Usage (exit 2) when it carries a tag or a digest.
    pub(crate) fn repository(&self) -> Result<Reference> {
        // The command line cannot be without it.
        let repository = self
            .repository
            .clone()
            .ok_or_else(|| Failure::usage("there is no --repository (TOWPATH_REPOSITORY)"))?;
        bare(repository, "--repository (TOWPATH_REPOSITORY)")
    }
}

/// Layouts to push.
#[derive(clap::Args, Debug)]
pub(crate) struct PushArgs {
    /// The layout: FOLDER, or FOLDER:TAG or FOLDER@DIGEST where it holds several images. Several layouts, one for each
    /// platform, become one index; one a line in the variable
    #[arg(
        value_name = "LAYOUT",
        env = "TOWPATH_OCI_LAYOUT",
        required = true,
        num_args = 1..,
        value_delimiter = '\n',
        value_parser = parse_layout,
        hide_env_values = true
    )]
    layouts: Vec<Option<LayoutReference>>,

    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// The digest that the image has to have, as the build handed it over. Of several layouts one has to have it, or the
    /// index that they become
    #[arg(long, env = "IMAGE_DIGEST", hide_env_values = true)]
    pub(crate) digest: Option<Digest>,

    /// Say which tags would be written, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

impl PushArgs {
    /// The layouts, by paths that stay theirs.
    ///
    /// # Errors
    /// Usage (exit 2) when there is none, or the folder is gone that one is relative to.
    pub(crate) fn layouts(&self) -> Result<Vec<LayoutReference>> {
        let standing = |layout: &LayoutReference| {
            Ok(LayoutReference {
                path: kaniko::standing(&layout.path)?,
                ..layout.clone()
            })
        };
        let layouts: Vec<LayoutReference> = self
            .layouts
            .iter()
            .flatten()
            .map(standing)
            .collect::<Result<_>>()?;
        if layouts.is_empty() {
            return Err(Failure::usage("there is no LAYOUT (TOWPATH_OCI_LAYOUT) to push"));
        }
        Ok(layouts)
    }
}

impl BuildArgs {
    /// The values for ARG lines, by name.
    pub(crate) fn build_args(&self) -> BTreeMap<String, String> {
        self.build_args.iter().flatten().cloned().collect()
    }

    /// The labels given by hand.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &(String, String)> {
        self.labels.iter().flatten()
    }

    /// The Dockerfile, whether named or found in the context.
    pub(crate) fn dockerfile(&self) -> PathBuf {
        self.dockerfile
            .clone()
            .unwrap_or_else(|| self.context.join("Dockerfile"))
    }

    /// Where kaniko keeps finished steps.
    ///
    /// # Errors
    /// Usage (exit 2) when it carries a tag or a digest.
    pub(crate) fn cache_repository(&self) -> Result<Option<Reference>> {
        let repository = self.cache_repository.clone();
        repository
            .map(|repository| bare(repository, "--cache-repo (TOWPATH_CACHE_REPOSITORY)"))
            .transpose()
    }
}

/// A builder by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BuilderChoice {
    /// The kaniko executor.
    Kaniko,
    /// buildah with chroot isolation.
    Buildah,
}

impl BuilderChoice {
    pub(crate) fn name(self) -> &'static str {
        match self {
            BuilderChoice::Kaniko => "kaniko",
            BuilderChoice::Buildah => "buildah",
        }
    }
}

/// Where kaniko runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum IsolationChoice {
    /// Right here: kaniko wipes this container's file system between stages.
    Container,
    /// In a private root; needs to be root.
    Chroot,
}

impl From<IsolationChoice> for Isolation {
    fn from(choice: IsolationChoice) -> Self {
        match choice {
            IsolationChoice::Container => Isolation::Container,
            IsolationChoice::Chroot => Isolation::Chroot,
        }
    }
}

fn bare(repository: Reference, flag: &str) -> Result<Reference> {
    if repository.tag().is_some() || repository.digest().is_some() {
        return Err(
            Failure::usage(format!("the repository {repository} carries a tag or digest")).hint(format!(
                "pass {flag} as HOST/PATH; tags come from the git tag or --tag"
            )),
        );
    }
    Ok(repository)
}

/// A block of YAML ends with the end of its last line, behind which there is nothing; any other empty value is refused
/// by the frame.
fn unless_empty<T, E>(
    text: &str,
    parse: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> std::result::Result<Option<T>, E> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some)
}

fn parse_pair(text: &str) -> std::result::Result<Option<(String, String)>, String> {
    unless_empty(text, |text| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    })
}

fn parse_folder(text: &str) -> std::result::Result<PathBuf, String> {
    parse_line(text).map(PathBuf::from)
}

fn parse_tag(text: &str) -> Result<Option<Tag>> {
    unless_empty(text, str::parse)
}

fn parse_layout(text: &str) -> Result<Option<LayoutReference>> {
    unless_empty(text, |text| {
        format!("oci:{}", text.strip_prefix("oci:").unwrap_or(text)).parse()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_carries_neither_tag_nor_digest() {
        let digest = format!("r.example.com/app@sha256:{}", "0".repeat(64));
        bare("registry.example.com/team/app".parse().unwrap(), "--repository").unwrap();
        for wrong in ["r.example.com/app:1", digest.as_str()] {
            assert!(
                bare(wrong.parse().unwrap(), "--repository").is_err(),
                "{wrong:?} was accepted"
            );
        }
    }
}
