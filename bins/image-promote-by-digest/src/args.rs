//! The command line.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use clap::Parser;
use towpath::cli::{Arguments, RunArgs, secret_variable};
use towpath::failure::{Failure, Result};
use towpath::oci::copy::{ImageReference, MoveTag, Referrers};
use towpath::oci::{Credential, Platform, RegistryArgs};
use towpath::secret::Secret;

const EXAMPLES: &str = "Examples:
  Promote what was built, by digest, under its version:
    image-promote-by-digest registry.example.com/dev/app@sha256:... registry.example.com/prod/app:1.4.0
  The same in a job that got the build's handoff, passing it on:
    image-promote-by-digest \"$IMAGE_REF\" \"$TARGET:$IMAGE_TAG\" --handoff handoff.env
  See what would be copied and which tags would move:
    image-promote-by-digest --dry-run registry.example.com/dev/app:1.4.0 rg.fr-par.scw.cloud/shop/app
  Push what a builder left in a folder:
    image-promote-by-digest oci:out registry.example.com/dev/app:1.4.0
  Move a tag that names another image, if it is the one expected:
    image-promote-by-digest registry.example.com/dev/app:1.4.1 registry.example.com/dev/app:stable \\
      --move-tag-from sha256:...

The variables TOWPATH_SOURCE_PASSWORD and TOWPATH_TARGET_PASSWORD hold passwords, for which there are no flags.";

/// Copy an image between repositories by digest, with every platform
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// The image: REGISTRY/REPOSITORY@DIGEST, REGISTRY/REPOSITORY:TAG (resolved once), or oci:PATH[:TAG][@DIGEST]
    #[arg(env = "TOWPATH_SOURCE", value_parser = ImageReference::source, hide_env_values = true)]
    pub(crate) source: ImageReference,

    /// Where it goes: REGISTRY/REPOSITORY[:TAG]; without a tag it gets the source's, or goes by digest alone.
    /// Separate several by commas in the variable
    #[arg(
        value_name = "TARGET",
        env = "TOWPATH_TARGET",
        value_delimiter = ',',
        required = true,
        hide_env_values = true
    )]
    pub(crate) targets: Vec<ImageReference>,

    /// Which tags may be moved from another image: those that name this digest, any or never
    #[arg(
        long,
        value_name = "DIGEST|any|never",
        env = "TOWPATH_MOVE_TAG_FROM",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) move_tag_from: MoveTag,

    /// What of that which refers to the image goes along, such as signatures and SBOMs: all, none, or artifact types
    /// separated by commas; .sig, .att and .sbom are cosign's tags
    #[arg(
        long,
        value_name = "all|none|TYPE,...",
        env = "TOWPATH_REFERRERS",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) referrers: Referrers,

    /// Copy only these platforms of an index, such as linux/amd64. Repeat it, or separate by commas
    #[arg(
        long = "platform",
        value_name = "OS/ARCH[/VARIANT]",
        env = "TOWPATH_PLATFORM",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) platforms: Vec<Platform>,

    /// Allow less than the whole index: the platforms chosen, under a digest of their own, or what a sparse index has
    #[arg(long, env = "TOWPATH_ALLOW_PARTIAL_INDEX", hide_env_values = true)]
    pub(crate) allow_partial_index: bool,

    /// Say what would be copied and which tags would move, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    /// A file that gets a JSON line for each tag before it is moved, saying what it named
    #[arg(long, value_name = "FILE", env = "TOWPATH_JOURNAL", hide_env_values = true)]
    pub(crate) journal: Option<PathBuf>,

    /// The dotenv file for the next job, which gets the first target; what it holds besides is kept
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,

    /// The project that the image was built from, for the handoff
    #[arg(long, value_name = "PATH", env = "SOURCE_PROJECT", hide_env_values = true)]
    pub(crate) source_project: Option<String>,

    /// The commit that the image was built from, for the handoff
    #[arg(long, value_name = "COMMIT", env = "SOURCE_COMMIT", hide_env_values = true)]
    pub(crate) source_commit: Option<String>,

    /// How many requests run at once; streams of large blobs are a quarter of it
    #[arg(
        long,
        value_name = "NUMBER",
        env = "TOWPATH_CONCURRENCY",
        default_value = "16",
        hide_env_values = true
    )]
    pub(crate) concurrency: NonZeroU16,

    /// The user to read the source as, before what configuration files say
    #[arg(
        long,
        value_name = "USER",
        env = "TOWPATH_SOURCE_USER",
        hide_env_values = true
    )]
    pub(crate) source_user: Option<String>,

    /// The file with that user's password [default: the variable TOWPATH_SOURCE_PASSWORD]
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_SOURCE_PASSWORD_FILE",
        requires = "source_user",
        hide_env_values = true
    )]
    pub(crate) source_password_file: Option<PathBuf>,

    /// The user to write to all targets as, before what configuration files say
    #[arg(
        long,
        value_name = "USER",
        env = "TOWPATH_TARGET_USER",
        hide_env_values = true
    )]
    pub(crate) target_user: Option<String>,

    /// The file with that user's password [default: the variable TOWPATH_TARGET_PASSWORD]
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_TARGET_PASSWORD_FILE",
        requires = "target_user",
        hide_env_values = true
    )]
    pub(crate) target_password_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,

    #[command(flatten)]
    run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "image-promote-by-digest";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }
}

/// The login for one side (`source` or `target`), when a user is given.
pub(crate) fn login(
    side: &str,
    user: Option<&String>,
    password_file: Option<&Path>,
) -> Result<Option<Credential>> {
    let Some(user) = user else {
        return Ok(None);
    };
    let variable = format!("TOWPATH_{}_PASSWORD", side.to_uppercase());
    let password = match password_file {
        Some(path) => Secret::from_file(path, &format!("{side} registry password"))?,
        None => secret_variable(&variable)?.ok_or_else(|| {
            Failure::usage(format!("the {side} user {user} has no password"))
                .hint(format!("give --{side}-password-file, or set {variable}"))
        })?,
    };
    Ok(Some(Credential::Password {
        user: user.clone(),
        password,
    }))
}
