//! The command line.

// Help texts, which are read in a terminal: [:TAG] is no link.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};
use towpath::argocd::Located;
use towpath::cli::{Arguments, RunArgs, parse_duration};
use towpath::failure::{Failure, Result};
use towpath::gitlab::Project;
use towpath::http::{self, PlainHttp, Settings, Url};
use towpath::kubernetes;

use crate::image::Image;

const EXAMPLES: &str = "\
Tokens:
  ARGOCD_AUTH_TOKEN (or --token-file) reads applications in Argo CD; it needs `applications, get`, and `sync` for --sync.
  With --via kubernetes the service account's token reads them in the cluster. TOWPATH_GITLAB_TOKEN or CI_JOB_TOKEN is
  for --record; TOWPATH_GIT_TOKEN, or CI_JOB_TOKEN at its own GitLab, reads --repo.

Examples:
  argocd-wait --application web-prod --revision 4f2a... --image registry.example.com/shop/web@sha256:...
  argocd-wait --application web-eu,web-us --handoff handoff.env      (ENV_COMMIT and IMAGE_REF from a handoff)
  argocd-wait --application team-a/web --project shop --timeout 15m
  argocd-wait --application web-prod --via kubernetes --app-namespace argocd
  argocd-wait --application web-prod --record production
  argocd-wait --application web-prod --dry-run";

/// Waits until the images that a commit of the environment repository sets are what runs, or says why they do not
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) argocd: ArgoCdArgs,
    #[command(flatten)]
    pub(crate) kubernetes: KubernetesArgs,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl Arguments for Args {
    const NAME: &'static str = "argocd-wait";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }
}

/// What is waited for.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Wait")]
pub(crate) struct WaitArgs {
    /// The application: NAME or NAMESPACE/NAME. Repeat it, or put commas between; all have to be ready
    #[arg(
        long = "application",
        value_name = "NAME",
        env = "TOWPATH_APPLICATION",
        value_delimiter = ',',
        required = true,
        hide_env_values = true
    )]
    pub(crate) applications: Vec<Located>,
    /// The commit of the environment repository, in full
    #[arg(long, value_name = "COMMIT", env = "ENV_COMMIT", value_parser = parse_commit, hide_env_values = true)]
    pub(crate) revision: String,
    /// The image that has to run. Repeat it, or put commas between; all have to run in each application
    #[arg(
        long = "image",
        value_name = "NAME@DIGEST",
        env = "IMAGE_REF",
        value_delimiter = ',',
        required = true,
        hide_env_values = true
    )]
    pub(crate) images: Vec<Image>,
    /// The environment repository's address, which is asked whether another commit is older or newer, and by which its source
    /// is found in an application that has several
    #[arg(long, value_name = "URL", env = "TOWPATH_REPO", hide_env_values = true)]
    pub(crate) repo: Option<String>,
    /// The GitLab that the job's own token is of
    #[arg(long, env = "CI_SERVER_URL", hide = true, hide_env_values = true)]
    pub(crate) server_url: Option<String>,
    /// Start a sync of an application that does not sync by itself
    #[arg(long, env = "TOWPATH_SYNC", hide_env_values = true)]
    pub(crate) sync: bool,
    /// How long it may take from synced to healthy, and a sync whose attempts fail of the same resource to succeed. What
    /// takes longer has failed (exit 8)
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_HEALTHY_WITHIN",
        value_parser = parse_duration,
        default_value = "10m",
        hide_env_values = true
    )]
    pub(crate) healthy_within: Duration,
    /// How long it has to be Degraded before that counts as failed (exit 8): some resources are so for a moment
    #[arg(
        long,
        value_name = "DURATION",
        env = "TOWPATH_DEGRADED_FOR",
        value_parser = parse_duration,
        default_value = "10s",
        hide_env_values = true
    )]
    pub(crate) degraded_for: Duration,
    /// The dotenv file to leave the outcome in, for the jobs after this one
    #[arg(long, value_name = "FILE", env = "TOWPATH_HANDOFF", hide_env_values = true)]
    pub(crate) handoff: Option<PathBuf>,
    /// Say what is there and what would be waited for, and do nothing
    #[arg(long, env = "TOWPATH_DRY_RUN", hide_env_values = true)]
    pub(crate) dry_run: bool,
}

/// Argo CD's API.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Argo CD")]
pub(crate) struct ArgoCdArgs {
    /// Where applications are looked at. auto takes Argo CD's API where it can be reached, and else the cluster's
    #[arg(
        long,
        value_enum,
        env = "TOWPATH_ARGOCD_VIA",
        default_value_t,
        hide_env_values = true
    )]
    pub(crate) via: Via,
    /// The API's address: HOST[:PORT], or a URL
    #[arg(long, value_name = "ADDRESS", env = "ARGOCD_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// A file that holds the token, in the place of ARGOCD_AUTH_TOKEN
    #[arg(
        long,
        value_name = "FILE",
        env = "ARGOCD_AUTH_TOKEN_FILE",
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file with certificates to trust besides the system's
    #[arg(long, value_name = "FILE", env = "ARGOCD_CA_FILE", hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow plain http beyond this machine
    #[arg(long, env = "TOWPATH_PLAIN_HTTP", hide_env_values = true)]
    pub(crate) plain_http: bool,
    /// The namespace that the applications live in, where that is not Argo CD's own
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "TOWPATH_APP_NAMESPACE",
        hide_env_values = true
    )]
    pub(crate) app_namespace: Option<String>,
    /// Argo CD's project of the applications. With it, an application that is not there is told from one that is denied
    #[arg(long, env = "ARGOCD_PROJECT", hide_env_values = true)]
    pub(crate) project: Option<String>,
}

/// The cluster's API.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct KubernetesArgs {
    /// The API server's address [default: the one of the cluster that this runs in]
    #[arg(
        long,
        value_name = "URL",
        env = "TOWPATH_KUBERNETES_URL",
        hide_env_values = true
    )]
    pub(crate) kubernetes_url: Option<String>,
    /// The service account's token
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_KUBERNETES_TOKEN_FILE",
        default_value = kubernetes::TOKEN_FILE,
        hide_env_values = true
    )]
    pub(crate) kubernetes_token_file: PathBuf,
    /// The certificates of the API server, as a PEM file [default: those of the service account]
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_KUBERNETES_CA_FILE",
        hide_env_values = true
    )]
    pub(crate) kubernetes_ca_file: Option<PathBuf>,
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true, hide_env_values = true)]
    pub(crate) service_host: Option<String>,
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", hide = true, hide_env_values = true)]
    pub(crate) service_port: Option<u16>,
}

/// A deployment in GitLab.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Record")]
pub(crate) struct RecordArgs {
    /// Record the outcome as a deployment to this environment in GitLab
    #[arg(
        long,
        value_name = "ENVIRONMENT",
        env = "TOWPATH_RECORD",
        hide_env_values = true
    )]
    pub(crate) record: Option<String>,
    /// GitLab's API
    #[arg(
        long,
        value_name = "URL",
        env = "CI_API_V4_URL",
        default_value = "https://gitlab.com/api/v4",
        hide_env_values = true
    )]
    pub(crate) gitlab_url: String,
    /// The environment repository's project in GitLab: GROUP/PROJECT or its number
    #[arg(long, value_name = "PROJECT", env = "CI_PROJECT_PATH", hide_env_values = true)]
    pub(crate) gitlab_project: Option<Project>,
    /// The branch that the commit is on
    #[arg(long, env = "TOWPATH_BRANCH", default_value = "main", hide_env_values = true)]
    pub(crate) branch: String,
    /// A file that holds a GitLab access token with the scope `api`
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_GITLAB_TOKEN_FILE",
        hide_env_values = true
    )]
    pub(crate) gitlab_token_file: Option<PathBuf>,
    /// Certificates of GitLab to trust besides the system's, as a PEM file
    #[arg(
        long,
        value_name = "FILE",
        env = "CI_SERVER_TLS_CA_FILE",
        hide_env_values = true
    )]
    pub(crate) gitlab_ca_file: Option<PathBuf>,
}

/// Where applications are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Via {
    #[default]
    Auto,
    ArgoCd,
    Kubernetes,
}

impl ValueEnum for Via {
    fn value_variants<'a>() -> &'a [Self] {
        &[Via::Auto, Via::ArgoCd, Via::Kubernetes]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Via::Auto => "auto",
            Via::ArgoCd => "argocd",
            Via::Kubernetes => "kubernetes",
        }))
    }
}

fn parse_commit(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if crate::plan::is_commit(&text) {
        Ok(text)
    } else {
        Err("expected a commit's id in full: 40 or 64 hexadecimal digits".to_owned())
    }
}

impl Args {
    /// The applications, each where it lives.
    ///
    /// # Errors
    /// Usage (exit 2) when one is named twice, or a namespace is malformed.
    pub(crate) fn applications(&self) -> Result<Vec<Located>> {
        let mut all: Vec<Located> = Vec::new();
        if let Some(namespace) = &self.argocd.app_namespace {
            // Checked as what it is put before.
            format!("{namespace}/name").parse::<Located>()?;
        }
        for application in &self.wait.applications {
            let mut application = application.clone();
            if application.namespace.is_none() {
                application.namespace.clone_from(&self.argocd.app_namespace);
            }
            application.project.clone_from(&self.argocd.project);
            if all.contains(&application) {
                return Err(
                    Failure::usage(format!("application {application} is given twice"))
                        .hint("name each once by --application (TOWPATH_APPLICATION)"),
                );
            }
            all.push(application);
        }
        Ok(all)
    }
}

impl ArgoCdArgs {
    /// The API's address, where one is given.
    ///
    /// # Errors
    /// Usage (exit 2) when it is none.
    pub(crate) fn base(&self) -> Result<Option<Url>> {
        let Some(server) = &self.server else {
            return Ok(None);
        };
        // Argo CD's own command line takes it without a scheme.
        let address = if server.contains("://") {
            server.clone()
        } else {
            format!("https://{server}")
        };
        http::parse_base_url("--server (ARGOCD_SERVER)", &address).map(Some)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            ca_file: self.ca_file.clone(),
            plain_http: self.plain_http(),
            ..Settings::new("argocd")
        }
    }

    pub(crate) fn plain_http(&self) -> PlainHttp {
        if self.plain_http {
            PlainHttp::Allowed
        } else {
            PlainHttp::LoopbackOnly
        }
    }
}

impl KubernetesArgs {
    /// The API server's address, where one is given or this runs in a cluster.
    ///
    /// # Errors
    /// Usage (exit 2) when it is none.
    pub(crate) fn base(&self) -> Result<Option<Url>> {
        if let Some(url) = &self.kubernetes_url {
            return http::parse_base_url("--kubernetes-url (TOWPATH_KUBERNETES_URL)", url).map(Some);
        }
        let Some(host) = &self.service_host else {
            return Ok(None);
        };
        // An address of IPv6 stands in brackets in a URL.
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let port = self.service_port.unwrap_or(443);
        http::parse_base_url("KUBERNETES_SERVICE_HOST", &format!("https://{host}:{port}")).map(Some)
    }
}
