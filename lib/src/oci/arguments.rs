//! The arguments of every binary that speaks to registries. Flatten them into the binary's own.

use std::path::PathBuf;

use super::credentials::{ConfigFile, Platforms};
use super::{Credentials, RegistrySettings};
use crate::cli::secret_variable;
use crate::failure::Result;
use crate::http::ClientIdentity;

/// The document itself, as GitLab's runner, kaniko and newer docker clients know it.
const DOCUMENT_VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// How registries are reached, and where our logins for them are.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// The folder with the config.json that holds registry logins [default: ~/.docker]. What the variable
    /// DOCKER_AUTH_CONFIG holds, such a file's text, counts after it
    #[arg(long, value_name = "FOLDER", env = "DOCKER_CONFIG", hide_env_values = true)]
    pub docker_config: Option<PathBuf>,
    /// A file with registry logins that counts before docker's, as podman, buildah and skopeo know it
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    pub registry_auth_file: Option<PathBuf>,
    /// A registry host that speaks plain http; loopback hosts are known to. Repeat it, or separate by commas
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_PLAIN_HTTP_HOSTS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub plain_http: Vec<String>,
    /// A registry host on loopback that speaks TLS. Repeat it, or separate by commas
    #[arg(
        long,
        value_name = "HOST",
        env = "TOWPATH_TLS_HOSTS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub tls: Vec<String>,
    /// A PEM file with certificates to trust besides the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_REGISTRY_CA_FILE",
        hide_env_values = true
    )]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that registries know us by (mutual TLS)
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_REGISTRY_CLIENT_CERTIFICATE",
        requires = "client_key",
        hide_env_values = true
    )]
    pub client_certificate: Option<PathBuf>,
    /// A PEM file with that certificate's key, not encrypted
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_REGISTRY_CLIENT_KEY",
        requires = "client_certificate",
        hide_env_values = true
    )]
    pub client_key: Option<PathBuf>,
    /// A folder like docker's certs.d: in it, HOST or HOST:PORT holds ca.crt, client.cert and client.key of a registry
    #[arg(
        long,
        value_name = "FOLDER",
        env = "TOWPATH_REGISTRY_CERTS_DIR",
        hide_env_values = true
    )]
    pub certs_dir: Option<PathBuf>,
    /// The key file of a Google service account, for Google's registries where no file has a login
    #[arg(
        long,
        value_name = "FILE",
        env = "GOOGLE_APPLICATION_CREDENTIALS",
        hide_env_values = true
    )]
    pub google_credentials: Option<PathBuf>,
    /// The registry of the GitLab that runs the job
    #[arg(long, env = "CI_REGISTRY", hide = true, hide_env_values = true)]
    pub ci_registry: Option<String>,
    /// The job's user there
    #[arg(long, env = "CI_REGISTRY_USER", hide = true, hide_env_values = true)]
    pub ci_registry_user: Option<String>,
    /// The user's folder, where ~ leads
    #[arg(long, env = "HOME", hide = true, hide_env_values = true)]
    pub home: Option<PathBuf>,
}

impl RegistryArgs {
    /// How registries are reached.
    #[must_use]
    pub fn settings(&self) -> RegistrySettings {
        let identity = self.client_certificate.as_ref().zip(self.client_key.as_ref());
        RegistrySettings {
            ca_file: self.ca_file.clone(),
            client_identity: identity.map(|(certificate, key)| ClientIdentity {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            certs_dir: self.certs_dir.clone(),
            plain_http_hosts: self.plain_http.clone(),
            tls_hosts: self.tls.clone(),
        }
    }

    /// Reads our logins: the named file, docker's own file, the variable `DOCKER_AUTH_CONFIG`, and last what GitLab,
    /// Scaleway and Google give their jobs in variables. The folder of docker's configuration may be without a file,
    /// as docker sees it, and a file that is named must be there.
    ///
    /// # Errors
    /// As [`Credentials::read`]; usage (exit 2) when `DOCKER_AUTH_CONFIG` is empty.
    pub fn credentials(&self) -> Result<Credentials> {
        let mut credentials = Credentials::default();
        if let Some(path) = &self.registry_auth_file {
            credentials.read_file(&ConfigFile {
                path: path.clone(),
                required: true,
            })?;
        }
        let folder = self
            .docker_config
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".docker")));
        if let Some(folder) = folder {
            credentials.read_file(&ConfigFile {
                path: folder.join("config.json"),
                required: false,
            })?;
        }
        // Runners are often given it for their own images: what was written for this job knows better.
        if let Some(text) = secret_variable(DOCUMENT_VARIABLE)? {
            credentials.read_text(&text, &format!("the variable {DOCUMENT_VARIABLE}"))?;
        }
        credentials.fall_back_on(Platforms {
            gitlab_registry: self.ci_registry.clone(),
            gitlab_user: self.ci_registry_user.clone(),
            google_key_file: self.google_credentials.clone(),
            secret: secret_variable,
        });
        Ok(credentials)
    }
}
