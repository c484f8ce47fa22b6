//! Logging in to Scaleway's Container Registry: user `nologin`, password the secret key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::files::MARK;
use crate::failure::{Failure, Result};
use crate::oci::credentials::render;
use crate::secret::Secret;

/// The user name of every login to the registry.
const USER: &str = "nologin";

/// A registry: `HOST` or `HOST:PORT`, such as `rg.fr-par.scw.cloud`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The host as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegistryHost {
    type Err = Failure;

    fn from_str(value: &str) -> Result<Self> {
        let (host, port) = match value.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (value, None),
        };
        let host_is_plain = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let port_is_plain = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        if host_is_plain && port_is_plain {
            return Ok(RegistryHost(value.to_owned()));
        }
        Err(Failure::usage(format!("malformed registry {value:?}"))
            .hint("give its host alone, such as rg.fr-par.scw.cloud"))
    }
}

/// Writes the `config.json` of docker that logs in to `hosts`. The text is a secret as a whole.
///
/// # Errors
/// Internal (exit 1) when it cannot be written as JSON.
pub fn docker_config(hosts: &[RegistryHost], secret_key: &Secret) -> Result<Secret> {
    let logins: Vec<_> = hosts
        .iter()
        .map(|host| (host.0.clone(), USER.to_owned(), secret_key.clone()))
        .collect();
    render(&logins)
}

/// What authenticates at a registry in a configuration of docker: user and password in base64.
#[must_use]
pub fn registry_login(secret_key: &Secret) -> Secret {
    Secret::new(STANDARD.encode(format!("{USER}:{}", secret_key.expose())))
}

/// Writes the manifest of a Kubernetes secret by which the cluster pulls images from `hosts`. The text is a secret as
/// a whole.
///
/// # Errors
/// As [`docker_config`].
pub fn pull_secret(name: &str, hosts: &[RegistryHost], secret_key: &Secret) -> Result<Secret> {
    let config = docker_config(hosts, secret_key)?;
    let encoded = Secret::new(STANDARD.encode(config.expose()));
    Ok(Secret::new(format!(
        "{MARK}\napiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{name}\"\ntype: kubernetes.io/dockerconfigjson\n\
         data:\n  .dockerconfigjson: {}\n",
        encoded.expose()
    )))
}

/// Whether Kubernetes lets an object be called that (RFC 1123 subdomain).
#[must_use]
pub fn is_object_name(name: &str) -> bool {
    let part_is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(part_is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Secret {
        Secret::new("11111111-2222-4333-8444-caaaaaaaaa03")
    }

    fn hosts() -> Vec<RegistryHost> {
        vec!["rg.fr-par.scw.cloud".parse().expect("a host")]
    }

    #[test]
    fn docker_gets_user_and_key_in_base64() {
        let config = docker_config(&hosts(), &key()).unwrap();
        let document: serde_json::Value = serde_json::from_str(config.expose()).expect("JSON");
        let auth = "bm9sb2dpbjoxMTExMTExMS0yMjIyLTQzMzMtODQ0NC1jYWFhYWFhYWFhMDM=";
        assert_eq!(
            document,
            serde_json::json!({"auths": {"rg.fr-par.scw.cloud": {"auth": auth}}})
        );
    }

    #[test]
    fn the_pull_secret_carries_the_docker_configuration() {
        let manifest = pull_secret("scw-pull", &hosts(), &key()).unwrap();
        let document: serde_json::Value = serde_norway::from_str(manifest.expose()).expect("YAML");
        assert_eq!(document["type"], "kubernetes.io/dockerconfigjson");
        assert_eq!(document["metadata"]["name"], "scw-pull");
        let data = document["data"][".dockerconfigjson"].as_str().expect("data");
        let config = STANDARD.decode(data).expect("base64");
        assert_eq!(
            config,
            docker_config(&hosts(), &key()).unwrap().expose().as_bytes()
        );
    }

    #[test]
    fn a_registry_is_a_host_and_perhaps_a_port() {
        for good in ["rg.fr-par.scw.cloud", "127.0.0.1:5000", "localhost:5000"] {
            assert_eq!(good.parse::<RegistryHost>().unwrap().as_str(), good);
        }
        for wrong in [
            "",
            "https://rg.fr-par.scw.cloud",
            "rg.fr-par.scw.cloud/ns",
            "a:b",
            "a:0",
            "a:70000",
            "u@a",
        ] {
            assert!(wrong.parse::<RegistryHost>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn object_names_are_those_of_kubernetes() {
        for good in ["scw-pull", "a", "a.b-c.d0"] {
            assert!(is_object_name(good), "{good}");
        }
        for wrong in ["", "Scw", "-a", "a-", "a..b", "a_b", "a\"b"] {
            assert!(!is_object_name(wrong), "{wrong}");
        }
    }
}
