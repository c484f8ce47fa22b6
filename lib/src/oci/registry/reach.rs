//! How each registry is reached: over TLS or not, whom it is trusted by, and what it is shown of us.
//!
//! Source: Docker's documentation, "Verify repository client with certificates", for the folder of certificates.
//!
//! A registry with certificates of its own gets a connection pool of its own, so that neither the authorities that
//! vouch for it nor the certificate that it knows us by count anywhere else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::notices::Notices;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::{Client, ClientIdentity, PlainHttp, Settings};
use crate::oci::Reference;

/// Registries count requests by the minute, or by the hour; the latter is nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(120);

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// A PEM file with certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What registries are shown that ask for a client's certificate.
    pub client_identity: Option<ClientIdentity>,
    /// A folder with one for each registry that has certificates of its own, named `host[:port]`: `*.crt` are trusted
    /// there, `*.cert` and `*.key` are shown there.
    pub certs_dir: Option<PathBuf>,
    /// Registries (`host[:port]`) besides those on loopback that are spoken to without TLS.
    pub plain_http_hosts: Vec<String>,
    /// Registries (`host[:port]`) on loopback that are spoken to over TLS all the same.
    pub tls_hosts: Vec<String>,
}

/// The connection pools of a run.
#[derive(Debug)]
pub(super) struct Reach {
    settings: RegistrySettings,
    usual: Client,
    /// Those of registries that are reached in their own way, by `host[:port]`.
    own: Mutex<BTreeMap<String, Client>>,
    notices: Arc<Notices>,
}

/// How one registry is reached.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) client: Client,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The hosts that plain http was asked for, when this is one of them.
    pub(super) plain_http_hosts: Vec<String>,
    /// What was told already of what registries say.
    pub(super) notices: Arc<Notices>,
}

impl Reach {
    pub(super) fn new(settings: RegistrySettings, deadline: Deadline) -> Result<Self> {
        if let Some(folder) = settings.certs_dir.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(
                Failure::usage(format!("there is no folder of certificates {}", folder.display()))
                    .hint("check --certs-dir (TOWPATH_REGISTRY_CERTS_DIR)"),
            );
        }
        let transport = Settings {
            ca_file: settings.ca_file.clone(),
            client_identity: settings.client_identity.clone(),
            patience: Some(PATIENCE),
            opens_ahead: true,
            ..Settings::new("registry")
        };
        Ok(Reach {
            usual: Client::new(transport, deadline)?,
            settings,
            own: Mutex::default(),
            notices: Arc::default(),
        })
    }

    /// The pool of registries without a way of their own. All count their requests with it.
    pub(super) fn usual(&self) -> &Client {
        &self.usual
    }

    /// The way to a reference's registry.
    ///
    /// # Errors
    /// Usage (exit 2) when its certificates cannot be used.
    pub(super) fn way(&self, reference: &Reference) -> Result<Way> {
        let registry = reference.registry();
        let named = |hosts: &[String]| hosts.iter().any(|host| host.eq_ignore_ascii_case(registry));
        let plain_http = named(&self.settings.plain_http_hosts);
        let folder = match &self.settings.certs_dir {
            Some(all) if !plain_http => Some(all.join(registry)).filter(|own| own.is_dir()),
            _ => None,
        };
        let over_tls = folder.is_some() || named(&self.settings.tls_hosts) || !reference.is_on_loopback();
        let scheme = if plain_http || !over_tls { "http" } else { "https" };
        let client = if plain_http || folder.is_some() {
            self.own(registry, folder.as_deref())?
        } else {
            self.usual.clone()
        };
        Ok(Way {
            client,
            scheme,
            plain_http_hosts: if plain_http {
                self.settings.plain_http_hosts.clone()
            } else {
                Vec::new()
            },
            notices: self.notices.clone(),
        })
    }

    fn own(&self, registry: &str, certificates: Option<&Path>) -> Result<Client> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = own.get(registry) {
            return Ok(known.clone());
        }
        let mut settings = Settings {
            ca_file: self.settings.ca_file.clone(),
            client_identity: self.settings.client_identity.clone(),
            patience: Some(PATIENCE),
            opens_ahead: true,
            ..Settings::new("registry")
        };
        match certificates {
            Some(folder) => {
                let found = Certificates::find(folder)?;
                settings.more_ca_files = found.trusted;
                settings.client_identity = found.identity.or(settings.client_identity);
            }
            None => settings.plain_http = PlainHttp::Allowed,
        }
        let client = self.usual.beside(settings)?;
        own.insert(registry.to_owned(), client.clone());
        Ok(client)
    }
}

/// What a registry's folder of certificates holds.
#[derive(Debug)]
struct Certificates {
    trusted: Vec<PathBuf>,
    identity: Option<ClientIdentity>,
}

impl Certificates {
    fn find(folder: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| {
            Failure::usage(format!("cannot read the certificates in {}", folder.display())).because(error)
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            files.push(entry.map_err(unreadable)?.path());
        }
        files.sort();
        let of_kind = |kind: &str| {
            let is = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == kind);
            files.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        let (certificates, keys) = (of_kind("cert"), of_kind("key"));
        let identity = match (certificates.as_slice(), keys.as_slice()) {
            ([], []) => None,
            ([certificate], [key]) if certificate.file_stem() == key.file_stem() => Some(ClientIdentity {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => {
                return Err(Failure::usage(format!(
                    "the folder {} holds no single pair of a client certificate and its key",
                    folder.display()
                ))
                .hint("name them client.cert and client.key; what is to be trusted ends in .crt"));
            }
        };
        Ok(Certificates {
            trusted: of_kind("crt"),
            identity,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn reach(settings: RegistrySettings) -> Reach {
        Reach::new(settings, Deadline::after(Duration::from_secs(5))).unwrap()
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback_and_those_that_were_named() {
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        let reach = reach(RegistrySettings {
            plain_http_hosts: hosts(&["plain.example.com:5000"]),
            tls_hosts: hosts(&["127.0.0.1:5443"]),
            ..RegistrySettings::default()
        });
        for (reference, scheme, plain) in [
            ("registry.example.com/app", "https", false),
            ("plain.example.com:5000/app", "http", true),
            ("plain.example.com/app", "https", false),
            ("127.0.0.1:5000/app", "http", false),
            ("localhost/app", "http", false),
            ("127.0.0.1:5443/app", "https", false),
        ] {
            let way = reach.way(&reference.parse().unwrap()).unwrap();
            assert_eq!(
                (way.scheme, !way.plain_http_hosts.is_empty()),
                (scheme, plain),
                "{reference}"
            );
            // Nobody but the host that was named may be spoken to in the clear.
            let elsewhere = "http://elsewhere.example.com/".parse().unwrap();
            assert_eq!(way.client.check_url(&elsewhere).is_ok(), plain, "{reference}");
        }
    }

    #[tokio::test]
    async fn a_folder_of_certificates_is_read_for_its_own_registry() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("127.0.0.1:5000");
        fs::create_dir(&own).unwrap();
        let reach = reach(RegistrySettings {
            certs_dir: Some(folder.path().to_owned()),
            ..RegistrySettings::default()
        });
        // Even an empty one says that TLS is spoken there.
        let way = reach.way(&"127.0.0.1:5000/app".parse().unwrap()).unwrap();
        assert_eq!(way.scheme, "https");
        assert_eq!(
            reach.way(&"127.0.0.1:5001/app".parse().unwrap()).unwrap().scheme,
            "http"
        );

        fs::write(own.join("client.cert"), "").unwrap();
        let failure = Certificates::find(&own).expect_err("no key");
        assert_eq!(failure.kind(), Kind::Usage);
        fs::write(own.join("client.key"), "").unwrap();
        fs::write(own.join("ca.crt"), "").unwrap();
        let found = Certificates::find(&own).unwrap();
        assert_eq!(found.trusted, [own.join("ca.crt")]);
        assert_eq!(found.identity.unwrap().key, own.join("client.key"));
        fs::write(own.join("other.cert"), "").unwrap();
        Certificates::find(&own).expect_err("two certificates");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let settings = RegistrySettings {
            certs_dir: Some(PathBuf::from("/nowhere/certs.d")),
            ..RegistrySettings::default()
        };
        let failure = Reach::new(settings, Deadline::after(Duration::from_secs(5))).expect_err("absent");
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(failure.message().contains("/nowhere/certs.d"));
    }
}
