//! The arguments of every binary that speaks to registries. Flatten them into the binary's own.

use std::path::PathBuf;

use super::credentials::ConfigFile;
use super::{Credentials, RegistrySettings};
use crate::failure::Result;

/// How registries are reached, and where our logins for them are.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// The folder with the config.json that holds registry logins [default: ~/.docker]
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
    /// A PEM file with certificates to trust besides the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_REGISTRY_CA_FILE",
        hide_env_values = true
    )]
    pub ca_file: Option<PathBuf>,
    /// The user's folder, where ~ leads
    #[arg(long, env = "HOME", hide = true, hide_env_values = true)]
    pub home: Option<PathBuf>,
}

impl RegistryArgs {
    /// How registries are reached.
    #[must_use]
    pub fn settings(&self) -> RegistrySettings {
        RegistrySettings {
            ca_file: self.ca_file.clone(),
            plain_http_hosts: self.plain_http.clone(),
        }
    }

    /// Reads our logins. The folder of docker's configuration may be without one, as docker sees it, and a file that
    /// is named must be there.
    ///
    /// # Errors
    /// As [`Credentials::read`].
    pub fn credentials(&self) -> Result<Credentials> {
        let named = self.registry_auth_file.iter().map(|path| ConfigFile {
            path: path.clone(),
            required: true,
        });
        let folder = self
            .docker_config
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".docker")));
        let docker = folder.iter().map(|folder| ConfigFile {
            path: folder.join("config.json"),
            required: false,
        });
        Credentials::read(&named.chain(docker).collect::<Vec<_>>())
    }
}
