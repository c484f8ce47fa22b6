//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Parser, Subcommand, ValueEnum};
use towpath::cli::{Arguments, RunArgs};
use towpath::failure::{Failure, Result};
use towpath::gitlab::Project;
use towpath::http::{self, PlainHttp, Settings, Url};

use crate::manual::Rules;
use crate::request::Given;
use crate::result::Source;

const EXAMPLES: &str = "\
Inputs:
  --input NAME=VALUE gives a string, --input NAME:=JSON a number, a boolean or an array, and --input NAME alone takes
  the variable NAME (in capitals) of the handoff file; `traceparent` falls back to the trace of this run. The variables
  TOWPATH_INPUTS and TOWPATH_VARIABLES hold one of them a line.

Manual jobs:
  --on-manual ACTION is about all of them, --on-manual JOB=ACTION about one, or about all that `parallel:` makes of one.
  play starts what holds the pipeline up, and an optional job only where JOB=play names it; it takes an access token.

Tokens:
  TOWPATH_GITLAB_TOKEN (or --token-file) starts, reads and cancels. Without it, TOWPATH_TRIGGER_TOKEN or else
  CI_JOB_TOKEN starts, and CI_JOB_TOKEN follows by the jobs alone: it sees no logs and cannot cancel. --start-by job lets
  the job token start, and the access token do the rest.

Examples:
  env-trigger --project group/env --ref main --input image_digest=sha256:...
  env-trigger --project group/env --ref main --handoff handoff.env --input image_ref --input dry:=false
  env-trigger --project group/env --ref main --detach
  env-trigger --project group/env --on-manual approve=wait --on-manual deploy=play
  env-trigger --project group/env --handoff handoff.env --result bump:handoff.env --expect IMAGE_DIGEST
  env-trigger --project group/env wait 4711
  env-trigger --project group/env cancel 4711";

/// Starts another project's pipeline once, follows it to its end, and stops it when stopped
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) start: StartArgs,
    #[command(flatten)]
    pub(crate) gitlab: GitLabArgs,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "env-trigger";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }
}

/// What to do with a pipeline that is there already. Without one of these, a pipeline is started.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Follow a pipeline to its end. An interruption leaves it running
    Wait {
        /// The pipeline's number
        pipeline: u64,
    },
    /// Cancel a pipeline and what it started, and wait until they have stopped
    Cancel {
        /// The pipeline's number
        pipeline: u64,
    },
}

/// What is started, and how.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Start")]
pub(crate) struct StartArgs {
    /// The branch or tag to run on
    #[arg(
        long = "ref",
        value_name = "REF",
        env = "TOWPATH_REF",
        default_value = "main",
        value_parser = towpath::cli::parse_line,
        hide_env_values = true
    )]
    pub(crate) reference: String,
    /// An input of the pipeline; repeat it, or give one a line in the variable
    #[arg(
        long = "input",
        value_name = "NAME=VALUE",
        env = "TOWPATH_INPUTS",
        value_parser = crate::request::parse_inputs,
        hide_env_values = true
    )]
    pub(crate) inputs: Vec<Given>,
    /// A variable of the pipeline; prefer inputs, which are checked and need no special permission
    #[arg(
        long = "variable",
        value_name = "NAME=VALUE",
        env = "TOWPATH_VARIABLES",
        value_parser = crate::request::parse_variables,
        hide_env_values = true
    )]
    pub(crate) variables: Vec<Given>,
    /// The dotenv file of earlier jobs, from which inputs and variables without a value are taken
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,
    /// Follow the pipeline to its end: what happens unless --detach is given
    #[arg(long, overrides_with = "detach")]
    pub(crate) wait: bool,
    /// Start the pipeline and leave
    #[arg(long, env = "TOWPATH_DETACH", overrides_with = "wait", hide_env_values = true)]
    pub(crate) detach: bool,
    /// What tells one delivery from another [default: made of source project, commit, digest, target, ref and inputs]
    #[arg(long, env = "TOWPATH_KEY", value_parser = crate::request::parse_key, hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Carry the key in this input, and find it in the pipeline's name (workflow:name), not in the variable
    /// TOWPATH_TRIGGER_KEY
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_KEY_INPUT",
        value_parser = crate::request::parse_name,
        hide_env_values = true
    )]
    pub(crate) key_input: Option<String>,
    /// Start a pipeline even when there is one with the same key
    #[arg(long, env = "TOWPATH_AGAIN", hide_env_values = true)]
    pub(crate) again: bool,
    #[arg(long, env = "CI_PROJECT_PATH", hide = true, hide_env_values = true)]
    pub(crate) source_project: Option<String>,
    #[arg(long, env = "CI_COMMIT_SHA", hide = true, hide_env_values = true)]
    pub(crate) source_commit: Option<String>,
    #[arg(long, env = "CI_COMMIT_TAG", hide = true, hide_env_values = true)]
    pub(crate) source_tag: Option<String>,
    #[arg(long, env = "IMAGE_DIGEST", hide = true, hide_env_values = true)]
    pub(crate) digest: Option<String>,
}

/// What is made of what happens.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Follow")]
pub(crate) struct FollowArgs {
    /// What is done about a job that waits for a person and holds the pipeline up: fail (exit 9), wait, ignore or play,
    /// which starts it; JOB=ACTION says it of one job. Repeat it, or give one a line in the variable [default: fail]
    #[arg(
        long,
        value_name = "[JOB=]ACTION",
        env = "TOWPATH_ON_MANUAL",
        value_parser = crate::manual::parse_rules,
        global = true,
        hide_env_values = true
    )]
    pub(crate) on_manual: Vec<Rules>,
    /// Which of the pipelines that it starts in turn count: those it waits for itself, or all
    #[arg(
        long,
        value_enum,
        env = "TOWPATH_DOWNSTREAM",
        default_value_t,
        global = true,
        hide_env_values = true
    )]
    pub(crate) downstream: Downstream,
    /// Cancel a pipeline that was found too, not only one that this run started, when interrupted
    #[arg(long, env = "TOWPATH_CANCEL_FOUND", global = true, hide_env_values = true)]
    pub(crate) cancel_found: bool,
    /// The dotenv file among a job's artifacts that says what came of it
    #[arg(
        long,
        value_name = "JOB:PATH",
        env = "TOWPATH_RESULT",
        global = true,
        hide_env_values = true
    )]
    pub(crate) result: Option<Source>,
    /// What that file has to say (exit 6 otherwise); NAME alone means what the handoff file says. Repeat it, or give one a
    /// line in the variable [default with --result: IMAGE_DIGEST, where there is one]
    #[arg(
        long = "expect",
        value_name = "NAME[=VALUE]",
        env = "TOWPATH_EXPECT",
        value_parser = crate::request::parse_variables,
        global = true,
        hide_env_values = true
    )]
    pub(crate) expect: Vec<Given>,
    #[arg(long, env = "GITLAB_CI", hide = true, global = true, hide_env_values = true)]
    pub(crate) gitlab_ci: bool,
}

/// Where it is, and what may be done there.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "GitLab")]
pub(crate) struct GitLabArgs {
    /// The API's address
    #[arg(
        long,
        value_name = "URL",
        env = "CI_API_V4_URL",
        default_value = "https://gitlab.com/api/v4",
        global = true,
        hide_env_values = true
    )]
    pub(crate) gitlab_url: String,
    /// The project whose pipeline it is: GROUP/PROJECT or its number
    #[arg(long, env = "TOWPATH_PROJECT", global = true, hide_env_values = true)]
    pub(crate) project: Option<Project>,
    /// A file that holds an access token with the scope `api`
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_GITLAB_TOKEN_FILE",
        global = true,
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Which token starts pipelines [default: the access token, else the trigger token, else the job token]. One that a
    /// job token starts is shown below the job's own in GitLab
    #[arg(
        long,
        value_name = "KIND",
        value_enum,
        env = "TOWPATH_START_BY",
        global = true,
        hide_env_values = true
    )]
    pub(crate) start_by: Option<Kind>,
    /// A PEM file with certificates to trust besides the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "CI_SERVER_TLS_CA_FILE",
        global = true,
        hide_env_values = true
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow plain http beyond this machine
    #[arg(long, env = "TOWPATH_PLAIN_HTTP", global = true, hide_env_values = true)]
    pub(crate) plain_http: bool,
    /// Say what would be done, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", global = true, hide_env_values = true)]
    pub(crate) dry_run: bool,
}

impl GitLabArgs {
    /// The project, which every subcommand needs.
    ///
    /// # Errors
    /// Usage (exit 2) when it is not given.
    pub(crate) fn project(&self) -> Result<Project> {
        self.project.clone().ok_or_else(|| {
            Failure::usage("no project is given").hint("pass --project GROUP/PROJECT or set TOWPATH_PROJECT")
        })
    }

    /// The API's address.
    ///
    /// # Errors
    /// Usage (exit 2) when it is no http(s) URL.
    pub(crate) fn base(&self) -> Result<Url> {
        http::parse_base_url("--gitlab-url (CI_API_V4_URL)", &self.gitlab_url)
    }

    /// How the client connects.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            ca_file: self.ca_file.clone(),
            plain_http: if self.plain_http {
                PlainHttp::Allowed
            } else {
                PlainHttp::LoopbackOnly
            },
            ..Settings::new("gitlab")
        }
    }
}

/// A kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Access,
    Trigger,
    Job,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Kind::Access, Kind::Trigger, Kind::Job]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Kind::Access => "access",
            Kind::Trigger => "trigger",
            Kind::Job => "job",
        }))
    }
}

/// Which of the pipelines that a pipeline starts count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Downstream {
    /// Those that it waits for itself (`strategy: depend` or `mirror`).
    #[default]
    Depended,
    /// All of them.
    All,
}

impl ValueEnum for Downstream {
    fn value_variants<'a>() -> &'a [Self] {
        &[Downstream::Depended, Downstream::All]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Downstream::Depended => "depended",
            Downstream::All => "all",
        }))
    }
}
