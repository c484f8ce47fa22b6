//! Certificates and keys in files: whom we trust, and what we show when a server wants to know who we are.

use std::path::{Path, PathBuf};

use super::unanswered::tls_error;
use crate::bounded;
use crate::failure::{Failure, Result};

/// Larger than any bundle of certificates, in bytes.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

/// What a server that asks for a client's certificate is shown (mutual TLS), as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, with those of the authorities between it and the one that the server trusts.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Reads certificates to trust.
///
/// # Errors
/// Usage (exit 2) when the file cannot be read or holds none.
pub(super) fn read_trusted(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let shown = path.display();
    let hint = "point it to a PEM file with the certificate authority";
    let pem = bounded::read(path, SIZE_LIMIT).map_err(|error| {
        Failure::usage(format!("cannot read the CA file {shown}"))
            .because(error)
            .hint(hint)
    })?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
        Failure::usage(format!("the CA file {shown} is not PEM"))
            .because(error.without_url())
            .hint(hint)
    })?;
    if certificates.is_empty() {
        return Err(Failure::usage(format!("the CA file {shown} holds no certificate")).hint(hint));
    }
    Ok(certificates)
}

impl ClientIdentity {
    /// Reads certificate and key. That they belong together is found out when the client is made.
    ///
    /// # Errors
    /// Usage (exit 2) when one cannot be read or is not what it should be.
    pub(super) fn read(&self) -> Result<reqwest::Identity> {
        let certificate = read_part(&self.certificate, "certificate", "BEGIN CERTIFICATE")?;
        let key = read_part(&self.key, "key", "PRIVATE KEY")?;
        if contains(&key, "BEGIN ENCRYPTED") || contains(&key, "Proc-Type: 4,ENCRYPTED") {
            return Err(
                Failure::usage(format!("the client key {} is encrypted", self.key.display()))
                    .hint("give one without a passphrase: `openssl pkey -in KEY -out PLAIN` writes it"),
            );
        }
        // A certificate's file may hold a key too, and the last one would count.
        let both = [certificate.as_slice(), b"\n", &key].concat();
        reqwest::Identity::from_pem(&both).map_err(|_| self.unfit("are not PEM"))
    }

    /// That a client cannot be made with it, when that is why.
    pub(super) fn refused(&self, error: &reqwest::Error) -> Option<Failure> {
        match tls_error(error)? {
            rustls::Error::InconsistentKeys(_) => Some(self.unfit("do not belong together")),
            _ => Some(self.unfit("cannot be used")),
        }
    }

    fn unfit(&self, what: &str) -> Failure {
        Failure::usage(format!(
            "the client certificate {} and the key {} {what}",
            self.certificate.display(),
            self.key.display()
        ))
        .hint("give the PEM files of one certificate and of its own key")
    }
}

/// Whether a server broke off because of our certificate, by the alerts of RFC 8446, section 6.2.
pub(super) fn is_refusal(error: &reqwest::Error) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        tls_error(error),
        Some(rustls::Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        ))
    )
}

fn read_part(path: &Path, what: &str, mark: &str) -> Result<Vec<u8>> {
    let shown = path.display();
    let hint = format!("point it to a readable PEM file with the {what}");
    let pem = bounded::read(path, SIZE_LIMIT).map_err(|error| {
        Failure::usage(format!("cannot read the client {what} {shown}"))
            .because(error)
            .hint(&hint)
    })?;
    if !contains(&pem, mark) {
        return Err(Failure::usage(format!("the file {shown} holds no client {what}")).hint(hint));
    }
    Ok(pem)
}

fn contains(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}
