//! The command line of `image-build`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use jiff::Timestamp;
use towpath::cli::{Arguments, RunArgs};
use towpath::kaniko::Isolation;
use towpath::oci::{Reference, RegistryArgs, Tag};

const EXAMPLES: &str = "\
Examples:
  In a job for a git tag (CI_COMMIT_TAG, CI_COMMIT_SHA and CI_PROJECT_URL are read):
    image-build --repository registry.example.com/team/app --handoff handoff.env

  By hand, from another folder, to see what would be built:
    image-build --context app --repository registry.example.com/team/app --tag 1.4.0-rc.1 --dry-run

  With credentials that live as long as the build:
    vault-scw-creds exec --registry-login rg.fr-par.scw.cloud -- image-build --repository rg.fr-par.scw.cloud/team/app";

/// Build a container image with kaniko or buildah, push it, and hand its digest to the next job.
///
/// The image gets a tag from the git tag (v1.4.0 gives 1.4.0), labels that say where it comes from, and the commit's
/// time as its own, so that building the same commit again gives the same digest. The digest goes into the report and
/// the handoff file; the jobs after this one use the digest, never the tag.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// The repository to push to, without a tag
    #[arg(long, env = "TOWPATH_REPOSITORY", hide_env_values = true)]
    pub(crate) repository: Reference,

    /// The folder that COPY and ADD read from
    #[arg(long, env = "TOWPATH_CONTEXT", default_value = ".", hide_env_values = true)]
    pub(crate) context: PathBuf,

    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(long, env = "TOWPATH_DOCKERFILE", hide_env_values = true)]
    dockerfile: Option<PathBuf>,

    /// The stage to build [default: the last one]
    #[arg(long, env = "TOWPATH_TARGET_STAGE", hide_env_values = true)]
    pub(crate) target: Option<String>,

    /// A value for an ARG line; not for secrets, it stays in the image's history. Repeat it; one a line in the variable
    #[arg(long = "build-arg", value_name = "NAME=VALUE", env = "TOWPATH_BUILD_ARGS", value_delimiter = '\n', value_parser = parse_pair, hide_env_values = true)]
    pub(crate) build_args: Vec<(String, String)>,

    /// The git tag that is built: a semantic version, with or without a leading v
    #[arg(long, env = "CI_COMMIT_TAG", hide_env_values = true)]
    pub(crate) git_tag: Option<String>,

    /// A tag for the image, besides the one from the git tag. Repeat it; one a line in the variable
    #[arg(
        long = "tag",
        value_name = "TAG",
        env = "TOWPATH_TAGS",
        value_delimiter = '\n',
        hide_env_values = true
    )]
    pub(crate) tags: Vec<Tag>,

    /// A label for the image. Repeat it; one a line in the variable
    #[arg(long = "label", value_name = "NAME=VALUE", env = "TOWPATH_LABELS", value_delimiter = '\n', value_parser = parse_pair, hide_env_values = true)]
    pub(crate) labels: Vec<(String, String)>,

    /// Where the source is, for the label org.opencontainers.image.source
    #[arg(long, env = "CI_PROJECT_URL", hide_env_values = true)]
    pub(crate) source_url: Option<String>,

    /// The path of the source project, for the handoff
    #[arg(long, env = "CI_PROJECT_PATH", hide_env_values = true)]
    pub(crate) source_project: Option<String>,

    /// The commit that is built, for the label org.opencontainers.image.revision and the handoff
    #[arg(long, env = "CI_COMMIT_SHA", hide_env_values = true)]
    pub(crate) revision: Option<String>,

    /// The time of the commit (RFC 3339), which becomes the time of the image and its files
    #[arg(long, env = "CI_COMMIT_TIMESTAMP", hide_env_values = true)]
    pub(crate) created: Option<Timestamp>,

    /// The builder [default: kaniko where it is, else buildah]
    #[arg(long, env = "TOWPATH_BUILDER", value_enum, hide_env_values = true)]
    pub(crate) builder: Option<BuilderChoice>,

    /// The kaniko executor [default: /kaniko/executor, else executor on PATH]
    #[arg(long, env = "TOWPATH_KANIKO", hide_env_values = true)]
    pub(crate) kaniko: Option<PathBuf>,

    /// Where kaniko runs [default: container for /kaniko/executor, else chroot]
    #[arg(long, env = "TOWPATH_ISOLATION", value_enum, hide_env_values = true)]
    pub(crate) isolation: Option<IsolationChoice>,

    /// The dotenv file to write for the next job
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,

    /// Say what would be built and pushed, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,

    #[command(flatten)]
    run: RunArgs,
}

impl Args {
    /// The Dockerfile, whether named or found in the context.
    pub(crate) fn dockerfile(&self) -> PathBuf {
        self.dockerfile
            .clone()
            .unwrap_or_else(|| self.context.join("Dockerfile"))
    }
}

impl Arguments for Args {
    const NAME: &'static str = "image-build";

    fn run_args(&self) -> &RunArgs {
        &self.run
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

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
