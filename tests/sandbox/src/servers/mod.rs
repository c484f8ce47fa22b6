//! Real servers, each with its data and its log in the world's folder, on a loopback port that the server itself picks.
//!
//! A server listens on port 0 and the kernel is asked which port that became, so no port is ever chosen twice and
//! whoever answers there is known to be the server that was started.

mod certificates;
mod guarded_registry;
mod link;
mod openbao;
pub(crate) mod process;
mod proxy;
mod referrers_registry;
mod registry;

use std::time::Duration;

use anyhow::Context as _;

pub use certificates::{Authority, Certificate, Validity};
pub use guarded_registry::GuardedRegistry;
pub use link::Link;
pub use openbao::{AppRole, JwtRole, KubernetesRole, OpenBao};
pub use proxy::{Canned, Exchange, Fault, Point, Proxy, Rule, Way};
pub use referrers_registry::{Logged, ReferrersRegistry};
pub use registry::{Registry, Tls, Tokens, docker_config};

/// A client for servers on loopback: plain HTTP, no redirects, no proxy whatever the environment says, at most a minute
/// for a request.
///
/// # Errors
/// When reqwest cannot set itself up.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    // Only plain HTTP is spoken, but reqwest wants a provider all the same. It may be there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60))
        .build()
        .context("making an HTTP client")
}
