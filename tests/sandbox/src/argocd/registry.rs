//! Asks registries whether an image is there, as a kubelet finds out when it pulls.
//!
//! Only registries on loopback are asked, over plain HTTP with Basic authentication (Distribution Specification 1.1,
//! "Checking if content exists in the registry"); any other host is reported as one that cannot be found. Layers are
//! not fetched: a manifest that is there stands for an image that can be pulled.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use reqwest::StatusCode;
use reqwest::header::ACCEPT;

use super::settings::Credentials;
use crate::servers::http_client;

/// What a container runtime accepts when it resolves a reference.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The registries of the world with the pull credentials for each.
pub(super) struct Registries {
    client: reqwest::Client,
    credentials: BTreeMap<String, Credentials>,
}

/// Where an image is: `host/name` and a digest, or else a tag.
#[derive(Debug, PartialEq, Eq)]
struct Location<'a> {
    host: &'a str,
    name: &'a str,
    reference: &'a str,
}

impl Registries {
    pub(super) fn new(credentials: BTreeMap<String, Credentials>) -> Result<Registries> {
        Ok(Registries {
            client: http_client()?,
            credentials,
        })
    }

    /// Asks whether `image` can be pulled.
    ///
    /// # Errors
    /// In the words of a kubelet, if it cannot.
    pub(super) async fn check(&self, image: &str) -> Result<(), String> {
        self.look_up(image).await.map_err(|reason| {
            format!("Back-off pulling image {image:?}: ErrImagePull: failed to resolve reference {image:?}: {reason}")
        })
    }

    async fn look_up(&self, image: &str) -> Result<(), String> {
        let Location {
            host,
            name,
            reference,
        } = locate(image).ok_or("invalid reference format")?;
        if !is_loopback(host) {
            return Err(format!(
                "failed to do request: dial tcp: lookup {host}: no such host"
            ));
        }
        let url = format!("http://{host}/v2/{name}/manifests/{reference}");
        let mut request = self.client.head(url).header(ACCEPT, MANIFEST_TYPES);
        if let Some(Credentials { username, password }) = self.credentials.get(host) {
            request = request.basic_auth(username, Some(password));
        }
        let response = request.send().await;
        match response.map(|response| response.status()) {
            Ok(StatusCode::OK) => Ok(()),
            Ok(StatusCode::NOT_FOUND) => Err(format!("{image}: not found")),
            Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(
                "pull access denied, repository does not exist or may require authorization: authorization failed"
                    .to_owned(),
            ),
            Ok(status) => Err(format!("unexpected status from HEAD request: {status}")),
            Err(error) => Err(format!("failed to do request: {}", error.without_url())),
        }
    }
}

/// Takes an image's name apart (Distribution's "reference" grammar). `None` if the name has no registry host, since
/// this world has no default registry.
fn locate(image: &str) -> Option<Location<'_>> {
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    let (host, path) = named.split_once('/')?;
    if !(host == "localhost" || host.contains(['.', ':'])) {
        return None;
    }
    let (name, tag) = match path.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (path, None),
    };
    Some(Location {
        host,
        name,
        reference: digest.or(tag).unwrap_or("latest"),
    })
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart() {
        let cases = [
            (
                "127.0.0.1:5000/shop/web:1@sha256:aa",
                Some(("127.0.0.1:5000", "shop/web", "sha256:aa")),
            ),
            (
                "127.0.0.1:5000/web@sha256:aa",
                Some(("127.0.0.1:5000", "web", "sha256:aa")),
            ),
            ("localhost/web:1", Some(("localhost", "web", "1"))),
            (
                "registry.example.com/web",
                Some(("registry.example.com", "web", "latest")),
            ),
            ("shop/web:1", None),
            ("web", None),
        ];
        for (image, expected) in cases {
            let found = locate(image).map(|found| (found.host, found.name, found.reference));
            assert_eq!(found, expected, "{image}");
        }
    }

    #[test]
    fn only_this_machine_is_asked() {
        for host in [
            "127.0.0.1:5000",
            "127.9.9.9",
            "localhost:5000",
            "localhost",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "registry.example.com",
            "10.0.0.1:5000",
            "localhost.example.com",
            "127.0.0.1.example.com:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_registry_elsewhere_is_not_found() {
        let registries = Registries::new(BTreeMap::new()).unwrap();
        let error = registries
            .check("registry.example.com/web@sha256:aa")
            .await
            .unwrap_err();
        assert!(
            error.ends_with("lookup registry.example.com: no such host"),
            "{error}"
        );
    }
}
