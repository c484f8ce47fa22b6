//! The command line.

mod back;
mod order;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use towpath::cli::{Arguments, RunArgs};
use towpath::failure::{Failure, Result};
use towpath::git::{SignatureFormat, Signing};
use towpath::kustomize::{ImageSpec, Pin};
use towpath::oci::Digest;

pub(crate) use self::back::{CheckArgs, HoldArgs, ImagesArgs, OneImageArgs, RollbackArgs};
pub(crate) use self::order::{OrderArgs, OrderChoice};
pub(crate) use crate::merge_request::MergeRequestArgs;
pub(crate) use crate::place::PlaceArgs;

const EXAMPLES: &str = "\
Where:
  With --repo the change is committed and pushed without a work tree. With --project it goes to a project of GitLab,
  by its API or by git (--via). With --checkout files are edited in a folder and committing is left to you (or --commit).
  With none, a GitLab job works on its own project, and a person on the current folder.

Tokens:
  TOWPATH_GIT_TOKEN (or --token-file) is used for --repo over https and for --project; for --project also
  TOWPATH_GITLAB_TOKEN. Without it a job uses CI_JOB_TOKEN for repositories on its own GitLab, by git; GitLab starts no
  pipeline for such a push. By hand, git's own helpers and keys work.

Examples:
  kustomize-bump set app=registry.example.com/team/app:1.4.0@sha256:... --path overlays/prod \\
      --repo https://gitlab.example.com/env/shop.git --branch main
  kustomize-bump set --image app --path overlays/prod     (IMAGE_REPOSITORY, IMAGE_TAG and IMAGE_DIGEST from a handoff)
  kustomize-bump set app@sha256:... --path overlays/prod --project env/shop --via api
  kustomize-bump diff app@sha256:... --path overlays/dev,overlays/test
  kustomize-bump set app@sha256:... web@sha256:... --path 'apps/**/prod' --where-present
  kustomize-bump set app@sha256:... --path overlays/prod --follow     (in the base, if that decides)
  kustomize-bump get --path overlays/prod
  kustomize-bump history --path overlays/prod --image app
  kustomize-bump rollback --path overlays/prod --image app --reason 'checkout fails'
  kustomize-bump rollback --path overlays/prod,overlays/eu --image app,worker --to 2 --offline
  kustomize-bump hold --path overlays/prod --image app --reason 'sale until Monday'
  kustomize-bump release --path overlays/prod --image app";

/// Sets images in kustomizations of an environment repository, takes them back, and holds them there
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "kustomize-bump";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set images, and commit
    Set {
        #[command(flatten)]
        wish: WishArgs,
        #[command(flatten)]
        order: OrderArgs,
        #[command(flatten)]
        write: WriteArgs,
        #[command(flatten)]
        merge_request: MergeRequestArgs,
    },
    /// Show what `set` would change, and change nothing
    Diff {
        #[command(flatten)]
        wish: WishArgs,
    },
    /// Show what the kustomizations say, and which images are held
    Get {
        /// The image: the `name` or `newName` of its entry; all when absent
        #[arg(long, value_name = "NAME", env = "TOWPATH_IMAGE", hide_env_values = true)]
        image: Option<String>,
        /// Follow resources and components, and show each image as it is built and the entry that decides about it
        #[arg(long, env = "TOWPATH_FOLLOW", hide_env_values = true)]
        follow: bool,
    },
    /// Take images back to what ran before, and hold them there
    Rollback {
        #[command(flatten)]
        rollback: RollbackArgs,
        #[command(flatten)]
        write: WriteArgs,
        #[command(flatten)]
        merge_request: MergeRequestArgs,
    },
    /// Hold images where they are: later changes are refused until `release`
    Hold {
        #[command(flatten)]
        hold: HoldArgs,
        #[command(flatten)]
        write: WriteArgs,
        #[command(flatten)]
        merge_request: MergeRequestArgs,
    },
    /// Release the hold on images
    Release {
        #[command(flatten)]
        images: ImagesArgs,
        #[command(flatten)]
        write: WriteArgs,
        #[command(flatten)]
        merge_request: MergeRequestArgs,
    },
    /// Show which image was set when, by whom and by which pipeline, newest first
    History {
        #[command(flatten)]
        image: OneImageArgs,
        /// How many steps to show
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        limit: u16,
    },
}

/// Which images, and what they are to be.
#[derive(clap::Args, Debug)]
pub(crate) struct WishArgs {
    /// Images as NAME[=NEWNAME][:TAG][@DIGEST]; NAME is the `name` or `newName` of an entry
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// One more image, whose new values come from --new-name, --tag and --digest
    #[arg(long, value_name = "NAME", env = "TOWPATH_IMAGE", hide_env_values = true)]
    pub(crate) image: Option<String>,
    /// The repository that --image is taken from now on
    #[arg(
        long,
        value_name = "REPOSITORY",
        env = "IMAGE_REPOSITORY",
        hide_env_values = true
    )]
    pub(crate) new_name: Option<String>,
    /// The new tag of --image
    #[arg(long, env = "IMAGE_TAG", hide_env_values = true)]
    pub(crate) tag: Option<String>,
    /// The new digest of --image
    #[arg(long, env = "IMAGE_DIGEST", hide_env_values = true)]
    pub(crate) digest: Option<String>,
    /// What entries are pinned by. With `digest`, a tag that stands there follows, or goes when none is given
    #[arg(
        long,
        value_enum,
        env = "TOWPATH_PIN",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) pin: PinChoice,
    /// Add an entry where there is none
    #[arg(long, env = "TOWPATH_ADD", hide_env_values = true)]
    pub(crate) add: bool,
    /// Pass over kustomizations that do not have the image; one of them has to
    #[arg(
        long,
        env = "TOWPATH_WHERE_PRESENT",
        conflicts_with = "add",
        hide_env_values = true
    )]
    pub(crate) where_present: bool,
    /// Follow resources and components (patches are not), and set each image in the kustomization that decides about it
    #[arg(long, env = "TOWPATH_FOLLOW", hide_env_values = true)]
    pub(crate) follow: bool,
    /// Refuse (exit 6) unless the images are at this digest now
    #[arg(
        long,
        value_name = "DIGEST",
        env = "TOWPATH_EXPECT_CURRENT",
        hide_env_values = true
    )]
    pub(crate) expect_current: Option<Digest>,
    /// The dotenv file to write for the next job: --image's new values, source and trace
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,
}

impl WishArgs {
    /// The images, parsed and checked against the pin.
    ///
    /// # Errors
    /// Usage (exit 2) for none, a malformed or a repeated one.
    pub(crate) fn specs(&self) -> Result<Vec<ImageSpec>> {
        let mut specs: Vec<ImageSpec> = self
            .images
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_>>()?;
        if let Some(name) = &self.image {
            specs.push(ImageSpec::new(
                name,
                self.new_name.as_deref(),
                self.tag.as_deref(),
                self.digest.as_deref(),
            )?);
        }
        if specs.is_empty() {
            return Err(Failure::usage("no image is given")
                .hint("pass NAME[=NEWNAME][:TAG][@DIGEST], or --image NAME (TOWPATH_IMAGE) with --digest (IMAGE_DIGEST)"));
        }
        for (index, spec) in specs.iter().enumerate() {
            spec.check(self.pin.into())?;
            if specs[..index].iter().any(|earlier| earlier.name == spec.name) {
                return Err(Failure::usage(format!("image {} is given twice", spec.name))
                    .hint("is it in TOWPATH_IMAGE as well?"));
            }
        }
        Ok(specs)
    }
}

/// How a change is committed.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Commit")]
pub(crate) struct WriteArgs {
    /// Stop after deciding, and show what would change
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
    /// In a checkout: commit the changed files (pushing is left to you)
    #[arg(long, env = "TOWPATH_COMMIT", hide_env_values = true)]
    pub(crate) commit: bool,
    /// Who commits [default: GITLAB_USER_NAME, else git's user.name]
    #[arg(long, value_name = "NAME", env = "TOWPATH_GIT_AUTHOR", hide_env_values = true)]
    pub(crate) author: Option<String>,
    /// Their e-mail address [default: GITLAB_USER_EMAIL, else git's user.email]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TOWPATH_GIT_AUTHOR_EMAIL",
        hide_env_values = true
    )]
    pub(crate) author_email: Option<String>,
    /// Sign the commit with this: the file of an SSH key, or the id of a GPG key
    #[arg(long, value_name = "KEY", env = "TOWPATH_SIGNING_KEY", value_parser = towpath::cli::parse_line, hide_env_values = true)]
    pub(crate) signing_key: Option<String>,
    /// What the key is
    #[arg(
        long,
        value_enum,
        env = "TOWPATH_SIGNING_FORMAT",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) signing_format: SigningFormat,
    /// The project that the image was built from, for the commit message
    #[arg(long, value_name = "PATH", env = "SOURCE_PROJECT", value_parser = towpath::cli::parse_line, hide_env_values = true)]
    pub(crate) source_project: Option<String>,
    /// The commit that the image was built from, for the commit message
    #[arg(long, value_name = "COMMIT", env = "SOURCE_COMMIT", value_parser = towpath::cli::parse_line, hide_env_values = true)]
    pub(crate) source_commit: Option<String>,
    /// The pipeline that does this, for the commit message
    #[arg(long, value_name = "URL", env = "CI_PIPELINE_URL", hide_env_values = true)]
    pub(crate) pipeline: Option<String>,
    /// The job that does this, by which GitLab's deployments are known again
    #[arg(long, env = "CI_JOB_URL", hide = true, hide_env_values = true)]
    pub(crate) job: Option<String>,
    /// Who started the job, as GitLab says
    #[arg(long, env = "GITLAB_USER_NAME", hide = true, hide_env_values = true)]
    pub(crate) gitlab_user_name: Option<String>,
    /// Their e-mail address, as GitLab says
    #[arg(long, env = "GITLAB_USER_EMAIL", hide = true, hide_env_values = true)]
    pub(crate) gitlab_user_email: Option<String>,
}

/// What entries are pinned by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PinChoice {
    /// The digest
    #[default]
    Digest,
    /// The tag alone
    Tag,
    /// Tag and digest
    Both,
}

impl From<PinChoice> for Pin {
    fn from(choice: PinChoice) -> Self {
        match choice {
            PinChoice::Digest => Pin::Digest,
            PinChoice::Tag => Pin::Tag,
            PinChoice::Both => Pin::Both,
        }
    }
}

/// What commits are signed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SigningFormat {
    // The words of git's `gpg.format`, which need no documentation of their own.
    #[default]
    Ssh,
    Openpgp,
}

impl WriteArgs {
    /// What commits are signed with.
    ///
    /// # Errors
    /// Usage (exit 2) for a key that cannot be used.
    pub(crate) fn signing(&self) -> Result<Option<Signing>> {
        let Some(key) = &self.signing_key else {
            return Ok(None);
        };
        let signing = Signing {
            format: match self.signing_format {
                SigningFormat::Ssh => SignatureFormat::Ssh,
                SigningFormat::Openpgp => SignatureFormat::OpenPgp,
            },
            key: key.clone(),
        };
        signing.check()?;
        Ok(Some(signing))
    }
}
