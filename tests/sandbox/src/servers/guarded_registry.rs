//! A registry behind TLS, for what a tool is to trust and to show.

use std::fs;
use std::path::PathBuf;

use super::{Authority, Registry, Tls, Validity};
use crate::guardian::Guardian;
use crate::tools::Tools;

/// A registry whose certificate an authority signed that only this world knows. It ends when this is dropped.
#[derive(Debug)]
pub struct GuardedRegistry {
    /// The registry, named `guarded`.
    pub registry: Registry,
    /// Who signed its certificate, and signs those of its clients.
    pub authority: Authority,
    /// The authority's certificate (PEM), in the world's folder.
    pub ca_file: PathBuf,
}

impl GuardedRegistry {
    /// Starts one that serves these users, or everybody when there are none, with a certificate of this validity. Where it
    /// wants certificates, its clients have to show one of the authority.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start(
        guardian: &Guardian,
        tools: &Tools,
        users: &[(&str, &str)],
        validity: Validity,
        wants_certificates: bool,
    ) -> anyhow::Result<Self> {
        let authority = Authority::new("authority")?;
        let tls = Tls {
            server: &authority.issue(&["127.0.0.1"], validity)?,
            clients: wants_certificates.then_some(authority.certificate()),
        };
        let registry = Registry::start_tls(guardian, tools, "guarded", users, tls).await?;
        let ca_file = guardian.dir().join("ca.pem");
        fs::write(&ca_file, authority.certificate())?;
        Ok(Self {
            registry,
            authority,
            ca_file,
        })
    }
}
