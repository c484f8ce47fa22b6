//! The arguments of the commands that look back: rollback, hold, release and history.

use std::path::PathBuf;

use towpath::oci::{Digest, RegistryArgs};

/// Which image, for commands that act on one.
#[derive(clap::Args, Debug)]
pub(crate) struct OneImageArgs {
    /// The image: the `name` or `newName` of its entry
    #[arg(long, value_name = "NAME", env = "TOWPATH_IMAGE", value_parser = towpath::cli::parse_line, hide_env_values = true)]
    pub(crate) image: String,
}

/// Which images, for commands that act on several at once.
#[derive(clap::Args, Debug)]
pub(crate) struct ImagesArgs {
    /// The images: the `name` or `newName` of each entry. Repeat it, or separate by commas
    #[arg(
        long = "image",
        value_name = "NAME",
        env = "TOWPATH_IMAGE",
        value_delimiter = ',',
        value_parser = towpath::cli::parse_line,
        required = true,
        hide_env_values = true
    )]
    images: Vec<String>,
}

impl ImagesArgs {
    /// The images, each once.
    pub(crate) fn images(&self) -> Vec<&str> {
        let mut images: Vec<&str> = Vec::new();
        for image in &self.images {
            if !images.contains(&image.as_str()) {
                images.push(image);
            }
        }
        images
    }
}

/// Which images are held, and why.
#[derive(clap::Args, Debug)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) images: ImagesArgs,
    /// Why, for those who find the hold
    #[arg(
        long,
        env = "TOWPATH_REASON",
        default_value = "no reason given",
        hide_env_values = true
    )]
    pub(crate) reason: String,
}

/// How far to take images back, and why.
#[derive(clap::Args, Debug)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
    /// Where to: a digest, a commit of the branch, or how many deployments before the one that fails
    #[arg(
        long,
        value_name = "DIGEST|COMMIT|N",
        env = "TOWPATH_ROLLBACK_TO",
        default_value = "1",
        hide_env_values = true
    )]
    pub(crate) to: String,
    /// Refuse unless this digest is there, or was taken back from already: for what acts on a failure that it saw
    #[arg(
        long,
        value_name = "DIGEST",
        env = "TOWPATH_EXPECT_CURRENT",
        hide_env_values = true
    )]
    pub(crate) expect_current: Option<Digest>,
    /// Count GitLab's successful deployments to this environment, instead of the changes of the repository
    #[arg(
        long,
        value_name = "NAME",
        env = "CI_ENVIRONMENT_NAME",
        value_parser = towpath::cli::parse_line,
        hide_env_values = true
    )]
    pub(crate) environment: Option<String>,
    /// Ask neither GitLab's API nor the registry: git alone has to be up
    #[arg(long, env = "TOWPATH_OFFLINE", hide_env_values = true)]
    pub(crate) offline: bool,
    /// Act without asking; a job acts without it
    #[arg(long, short, env = "TOWPATH_YES", hide_env_values = true)]
    pub(crate) yes: bool,
    /// Whether this is a job, as GitLab says
    #[arg(long, env = "CI", hide = true, hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) ci: bool,
    #[command(flatten)]
    pub(crate) registry: CheckArgs,
}

/// How the registry is asked whether a digest is still there. The names differ from other tools' where `--ca-file` and
/// `--plain-http` mean the repository.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Registry")]
pub(crate) struct CheckArgs {
    /// The folder with the config.json that holds registry logins [default: ~/.docker]
    #[arg(long, value_name = "FOLDER", env = "DOCKER_CONFIG", hide_env_values = true)]
    docker_config: Option<PathBuf>,
    /// A file with registry logins that counts before docker's, as podman, buildah and skopeo know it
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    registry_auth_file: Option<PathBuf>,
    /// A registry host that speaks plain http; loopback hosts are known to. Repeat it, or separate by commas
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_PLAIN_HTTP_HOSTS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    registry_plain_http: Vec<String>,
    /// A registry host on loopback that speaks TLS. Repeat it, or separate by commas
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_TLS_HOSTS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    registry_tls: Vec<String>,
    /// A PEM file with certificates to trust of registries, besides the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_REGISTRY_CA_FILE",
        hide_env_values = true
    )]
    registry_ca_file: Option<PathBuf>,
    /// A folder like docker's certs.d: in it, HOST or HOST:PORT holds ca.crt, client.cert and client.key of a registry
    #[arg(
        long,
        value_name = "FOLDER",
        env = "TOWPATH_REGISTRY_CERTS_DIR",
        hide_env_values = true
    )]
    certs_dir: Option<PathBuf>,
    /// The registry of the GitLab that runs the job
    #[arg(long, env = "CI_REGISTRY", hide = true, hide_env_values = true)]
    ci_registry: Option<String>,
    /// The job's user there
    #[arg(long, env = "CI_REGISTRY_USER", hide = true, hide_env_values = true)]
    ci_registry_user: Option<String>,
    /// The user's folder, where ~ leads
    #[arg(long, env = "HOME", hide = true, hide_env_values = true)]
    home: Option<PathBuf>,
}

impl CheckArgs {
    /// The same as the arguments of the tools that speak to registries all the time.
    pub(crate) fn registry(&self) -> RegistryArgs {
        RegistryArgs {
            docker_config: self.docker_config.clone(),
            registry_auth_file: self.registry_auth_file.clone(),
            plain_http: self.registry_plain_http.clone(),
            tls: self.registry_tls.clone(),
            ca_file: self.registry_ca_file.clone(),
            client_certificate: None,
            client_key: None,
            certs_dir: self.certs_dir.clone(),
            google_credentials: None,
            ci_registry: self.ci_registry.clone(),
            ci_registry_user: self.ci_registry_user.clone(),
            home: self.home.clone(),
        }
    }
}
