//! The command line.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use towpath::cli::{Arguments, RunArgs, secret_variable};
use towpath::failure::{Failure, Result};
use towpath::oci::copy::{Deliveries, ImageReference, MoveTag, Referrers};
use towpath::oci::{Credential, Platform, RegistryArgs};
use towpath::secret::Secret;

const EXAMPLES: &str = "Examples:
  Promote what was built, by digest, under its version:
    image-promote-by-digest registry.example.com/dev/app@sha256:... registry.example.com/prod/app:1.4.0
  The same in a job that got the build's handoff, passing it on:
    image-promote-by-digest \"$IMAGE_REF\" \"$TARGET:$IMAGE_TAG\" --handoff handoff.env
  See what would be copied and which tags would move:
    image-promote-by-digest plan registry.example.com/dev/app:1.4.0 rg.fr-par.scw.cloud/shop/app
  Push what a builder left in a folder, or keep an image in one:
    image-promote-by-digest oci:out registry.example.com/dev/app:1.4.0
    image-promote-by-digest registry.example.com/dev/app:1.4.0 oci:kept
  Move a tag that names another image, if it is the one expected, and be able to go back:
    image-promote-by-digest registry.example.com/dev/app:1.4.1 registry.example.com/dev/app:stable \\
      --move-tag-from sha256:... --journal journal.jsonl
    image-promote-by-digest rollback journal.jsonl
  Prove that all of an image is there, and bring what is missing:
    image-promote-by-digest verify registry.example.com/prod/app:1.4.0 --source registry.example.com/dev/app:1.4.0
  Promote many images in one run, a line SOURCE TARGET [TARGET...] each:
    image-promote-by-digest --batch release.txt

The variables TOWPATH_SOURCE_PASSWORD and TOWPATH_TARGET_PASSWORD hold passwords, for which there are no flags.";

const USAGE: &str = "image-promote-by-digest [OPTIONS] <SOURCE> <TARGET>...
       image-promote-by-digest [OPTIONS] --batch <FILE>
       image-promote-by-digest <COMMAND> ...";

/// Copy images between repositories by digest, with every platform
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
    pub(crate) promotion: PromotionArgs,

    #[command(flatten)]
    run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "image-promote-by-digest";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }
}

/// What to do. Without one of these, images are promoted.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what would be copied and which tags would move, and do nothing: the same as --dry-run
    #[command(override_usage = "image-promote-by-digest plan [OPTIONS] <SOURCE> <TARGET>...
       image-promote-by-digest plan [OPTIONS] --batch <FILE>")]
    Plan(Box<PromotionArgs>),
    /// Put the tags that a promotion moved back to where they were, by its journal
    Rollback(Box<RollbackArgs>),
    /// Look at all of an image: every manifest, every blob, what refers to it; with a source, bring what is missing
    Verify(Box<VerifyArgs>),
}

/// How closely an image is looked at once it is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proof {
    /// The tag has to name the digest.
    Tag,
    /// Every manifest is read back, every blob looked for, and what refers to the image compared.
    Deep,
}

/// How closely blobs are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Blobs {
    /// They have to be there, with the right length.
    Present,
    /// They are read and compared with their digests.
    Read,
}

/// What is looked at, and how closely.
#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The image: REGISTRY/REPOSITORY[:TAG][@DIGEST], or oci:PATH[:TAG][@DIGEST]
    #[arg(
        value_name = "REF",
        env = "TOWPATH_VERIFY",
        value_parser = ImageReference::source,
        hide_env_values = true
    )]
    pub(crate) image: ImageReference,

    /// An image to compare with; what REF lacks of it is brought
    #[arg(
        long = "source",
        value_name = "IMAGE",
        env = "TOWPATH_VERIFY_SOURCE",
        value_parser = ImageReference::source,
        hide_env_values = true
    )]
    pub(crate) from: Option<ImageReference>,

    /// How closely blobs are looked at
    #[arg(
        long,
        value_name = "HOW",
        env = "TOWPATH_VERIFY_BLOBS",
        default_value = "present",
        hide_env_values = true
    )]
    pub(crate) blobs: Blobs,

    /// Which of what refers to the image is looked at: all, none, or artifact types separated by commas
    #[arg(
        long = "referrers",
        value_name = "all|none|TYPE,...",
        env = "TOWPATH_REFERRERS",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) which: Referrers,

    /// Say what is missing, and bring nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) concurrency: ConcurrencyArgs,

    #[command(flatten)]
    pub(crate) source_login: SourceLoginArgs,

    #[command(flatten)]
    pub(crate) target_login: TargetLoginArgs,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// What goes where, and how.
#[derive(clap::Args, Debug)]
pub(crate) struct PromotionArgs {
    /// The image: REGISTRY/REPOSITORY@DIGEST, REGISTRY/REPOSITORY:TAG (resolved once), or oci:PATH[:TAG][@DIGEST]
    #[arg(
        env = "TOWPATH_SOURCE",
        value_parser = ImageReference::source,
        required_unless_present = "batch",
        hide_env_values = true
    )]
    pub(crate) source: Option<ImageReference>,

    /// Where it goes: REGISTRY/REPOSITORY[:TAG] or oci:PATH[:TAG]; without a tag it gets the source's, or goes by
    /// digest alone. Separate several by commas in the variable
    #[arg(
        value_name = "TARGET",
        env = "TOWPATH_TARGET",
        value_delimiter = ',',
        required_unless_present = "batch",
        hide_env_values = true
    )]
    pub(crate) targets: Vec<ImageReference>,

    /// A file with a line SOURCE TARGET [TARGET...] for each image, instead of SOURCE and TARGET; - is standard input
    #[arg(long, value_name = "FILE", env = "TOWPATH_BATCH", hide_env_values = true)]
    pub(crate) batch: Option<PathBuf>,

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

    /// How closely the image is looked at once it is there; what is missing then is brought again
    #[arg(
        long,
        value_name = "HOW",
        env = "TOWPATH_VERIFY_PROMOTED",
        default_value = "tag",
        hide_env_values = true
    )]
    pub(crate) verify: Proof,

    /// Say what would be copied and which tags would move, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    /// A file that gets a JSON line for each tag before it is moved, saying what it named; `rollback` reads it
    #[arg(long, value_name = "FILE", env = "TOWPATH_JOURNAL", hide_env_values = true)]
    pub(crate) journal: Option<PathBuf>,

    /// The dotenv file for the next job, which gets the first target; what it holds besides is kept
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,

    /// The project that the image was built from, for the handoff
    #[arg(long, value_name = "PATH", env = "SOURCE_PROJECT", value_parser = towpath::cli::parse_line, hide_env_values = true)]
    pub(crate) source_project: Option<String>,

    /// The commit that the image was built from, for the handoff
    #[arg(long, value_name = "COMMIT", env = "SOURCE_COMMIT", value_parser = towpath::cli::parse_line, hide_env_values = true)]
    pub(crate) source_commit: Option<String>,

    #[command(flatten)]
    pub(crate) concurrency: ConcurrencyArgs,

    #[command(flatten)]
    pub(crate) source_login: SourceLoginArgs,

    #[command(flatten)]
    pub(crate) target_login: TargetLoginArgs,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Which moves are undone, and how.
#[derive(clap::Args, Debug)]
pub(crate) struct RollbackArgs {
    /// The file that the promotion wrote with --journal
    #[arg(
        id = "recorded",
        value_name = "JOURNAL",
        env = "TOWPATH_ROLLBACK_JOURNAL",
        hide_env_values = true
    )]
    pub(crate) recorded: PathBuf,

    /// The delivery to undo, by its trace id [default: the last one that is no rollback]
    #[arg(
        long,
        value_name = "ID",
        env = "TOWPATH_ROLLBACK_TRACE_ID",
        conflicts_with = "all",
        hide_env_values = true
    )]
    pub(crate) trace_id: Option<String>,

    /// Undo everything that is in the journal
    #[arg(long, env = "TOWPATH_ROLLBACK_ALL", hide_env_values = true)]
    pub(crate) all: bool,

    /// Delete tags that were new, where the registry can, instead of leaving them in place
    #[arg(long, env = "TOWPATH_DELETE_NEW", hide_env_values = true)]
    pub(crate) delete_new: bool,

    /// Say which tags would be put back, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,

    /// Act without asking; without a terminal nobody is asked
    #[arg(long, short, env = "TOWPATH_YES", hide_env_values = true)]
    pub(crate) yes: bool,

    /// A file that gets a JSON line for each tag before it is put back, so that this can be undone; the same file will
    /// do
    #[arg(long, value_name = "FILE", env = "TOWPATH_JOURNAL", hide_env_values = true)]
    pub(crate) journal: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) concurrency: ConcurrencyArgs,

    #[command(flatten)]
    pub(crate) target_login: TargetLoginArgs,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

impl RollbackArgs {
    /// Which deliveries are undone.
    pub(crate) fn deliveries(&self) -> Deliveries {
        match &self.trace_id {
            Some(trace_id) => Deliveries::One(trace_id.clone()),
            None if self.all => Deliveries::All,
            None => Deliveries::Last,
        }
    }
}

/// How much goes on at once.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ConcurrencyArgs {
    /// How many requests run at once; streams of large blobs are a quarter of it
    #[arg(
        long = "concurrency",
        value_name = "NUMBER",
        env = "TOWPATH_CONCURRENCY",
        default_value = "16",
        hide_env_values = true
    )]
    number: NonZeroU16,
}

impl ConcurrencyArgs {
    pub(crate) fn get(&self) -> usize {
        self.number.get().into()
    }
}

/// Who reads.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SourceLoginArgs {
    /// The user to read the source as, before what configuration files say
    #[arg(
        long,
        value_name = "USER",
        env = "TOWPATH_SOURCE_USER",
        hide_env_values = true
    )]
    source_user: Option<String>,

    /// The file with that user's password [default: the variable TOWPATH_SOURCE_PASSWORD]
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_SOURCE_PASSWORD_FILE",
        requires = "source_user",
        hide_env_values = true
    )]
    source_password_file: Option<PathBuf>,
}

impl SourceLoginArgs {
    /// The login, when a user is given.
    ///
    /// # Errors
    /// Usage (exit 2) when it is given by halves.
    pub(crate) fn login(&self) -> Result<Option<Credential>> {
        login(
            "source",
            self.source_user.as_ref(),
            self.source_password_file.as_deref(),
        )
    }
}

/// Who writes.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TargetLoginArgs {
    /// The user to write to all targets as, before what configuration files say
    #[arg(
        long,
        value_name = "USER",
        env = "TOWPATH_TARGET_USER",
        hide_env_values = true
    )]
    target_user: Option<String>,

    /// The file with that user's password [default: the variable TOWPATH_TARGET_PASSWORD]
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_TARGET_PASSWORD_FILE",
        requires = "target_user",
        hide_env_values = true
    )]
    target_password_file: Option<PathBuf>,
}

impl TargetLoginArgs {
    /// The login, when a user is given.
    ///
    /// # Errors
    /// Usage (exit 2) when it is given by halves.
    pub(crate) fn login(&self) -> Result<Option<Credential>> {
        login(
            "target",
            self.target_user.as_ref(),
            self.target_password_file.as_deref(),
        )
    }
}

/// The login for one side (`source` or `target`), when a user is given.
fn login(side: &str, user: Option<&String>, password_file: Option<&Path>) -> Result<Option<Credential>> {
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
