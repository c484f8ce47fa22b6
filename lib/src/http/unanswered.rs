//! Why a request got no answer, read off what the transport says by type.

use std::error::Error;
use std::fmt;

/// Why a request has no answer: the source of its [`Failure`](crate::failure::Failure), and what the transport underneath knows for sure.
#[derive(Debug)]
pub struct Unanswered {
    reason: String,
    never_arrived: bool,
}

impl Unanswered {
    /// None stands for headers that did not come in time.
    pub(super) fn new(error: Option<&reqwest::Error>) -> Self {
        Unanswered {
            reason: error.map_or_else(
                || "it took too long".to_owned(),
                |error| match tls_error(error) {
                    Some(rustls::Error::InvalidCertificate(error)) => complaint_about(error),
                    // The layers above the cause say in their own words that a request was being sent.
                    _ => chain(error).last().unwrap_or(error).to_string(),
                },
            ),
            never_arrived: error.is_some_and(reqwest::Error::is_connect),
        }
    }

    /// Whether the request surely did not arrive, so that it can be sent again whatever it asks for.
    #[must_use]
    pub fn never_arrived(&self) -> bool {
        self.never_arrived
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for Unanswered {}

fn chain<'error>(
    error: &'error (dyn Error + 'static),
) -> impl Iterator<Item = &'error (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What TLS says, where it was TLS that failed. It travels inside I/O errors, which do not count it as their source.
pub(super) fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    chain(error).find_map(|error| {
        let mut error = error;
        while let Some(inner) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            error = inner;
        }
        error.downcast_ref()
    })
}

/// What is wrong with a certificate, where it is something that happens; else in the words of TLS.
fn complaint_about(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Wrong;
    match error {
        Wrong::Expired | Wrong::ExpiredContext { .. } => "it has expired".to_owned(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => "it is another host's".to_owned(),
        Wrong::UnknownIssuer => "no authority that is trusted here has signed it".to_owned(),
        Wrong::Other(_) => "it does not prove who the server is (self-signed?)".to_owned(),
        other => other.to_string(),
    }
}
