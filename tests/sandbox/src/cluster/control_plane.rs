//! etcd and Kubernetes' own processes: the API server, the controllers and the scheduler.
//!
//! etcd listens on sockets in the world's folder alone. The controllers and the scheduler listen on nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::api::Api;
use super::port::Port;
use crate::guardian::Guardian;
use crate::kubernetes::{API_AUDIENCES, new_uid};
use crate::servers::process::{Daemon, listening_addresses};
use crate::servers::{Authority, Validity};
use crate::tools::ClusterTools;

/// Who the sandbox is for the API server: one that may do everything.
const ADMINISTRATOR: &str = "sandbox";
/// A single member is never asked by another, but it has to state where that could be done.
const NOWHERE: &str = "http://127.0.0.1:1";

/// The running processes. They end when this is dropped.
pub(super) struct ControlPlane {
    pub(super) api: Api,
    pub(super) authority: String,
    pub(super) administrator_token: String,
    pub(super) daemons: Vec<Daemon>,
}

impl ControlPlane {
    /// Starts them and waits until the API server is ready. What they keep goes to `folder`, `kubeconfig` among it.
    pub(super) async fn start(guardian: &Guardian, tools: &ClusterTools, folder: &Path) -> Result<Self> {
        let authority = Authority::new("the cluster's authority")?;
        let serving = authority.issue(&["127.0.0.1", "localhost"], Validity::Now)?;
        // The key that signs service accounts' tokens. Its public half is read from a certificate.
        let accounts = authority.issue(&["service-accounts"], Validity::Now)?;
        let token = new_uid();
        for (name, text) in [
            ("authority.crt", authority.certificate()),
            ("apiserver.crt", &serving.certificate),
            ("apiserver.key", &serving.key),
            ("accounts.crt", &accounts.certificate),
            ("accounts.key", &accounts.key),
            (
                "tokens.csv",
                &format!("{token},{ADMINISTRATOR},{ADMINISTRATOR},system:masters\n"),
            ),
        ] {
            write_private(&folder.join(name), text)?;
        }
        let port = Port::reserve()?;
        let api = Api::new(port.address(), authority.certificate(), &token)?;
        write_kubeconfig(folder, &api, authority.certificate(), &token)?;

        let etcd = start_etcd(guardian, tools, folder)?;
        let mut apiserver = start_apiserver(guardian, tools, folder, &port)?;
        let pid = apiserver.pid().context("the API server ended at once")?;
        apiserver
            .until("serve", async || {
                let own = listening_addresses(pid).contains(&port.address());
                (own && api.is_ready().await).then_some(())
            })
            .await?;
        let controllers = start_controllers(guardian, tools, folder)?;
        let scheduler = start_scheduler(guardian, tools, folder)?;
        Ok(Self {
            api,
            authority: authority.certificate().to_owned(),
            administrator_token: token,
            daemons: vec![etcd, apiserver, controllers, scheduler],
        })
    }
}

/// Writes a file that holds a key or a token.
pub(super) fn write_private(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A kubeconfig for everything here that is not the sandbox itself. JSON is YAML.
fn write_kubeconfig(folder: &Path, api: &Api, authority: &str, token: &str) -> Result<()> {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": {"server": api.url(), "certificate-authority-data": authority}}],
        "users": [{"name": "sandbox", "user": {"token": token}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
        "current-context": "sandbox",
    });
    write_private(&folder.join("kubeconfig"), &text.to_string())
}

fn start_etcd(guardian: &Guardian, tools: &ClusterTools, folder: &Path) -> Result<Daemon> {
    let mut command = guardian.bare_command(&tools.etcd);
    command.current_dir(folder).args([
        "--data-dir=etcd",
        // Nothing here outlives the process anyway.
        "--unsafe-no-fsync",
        "--listen-client-urls=unix://etcd.sock:0",
        "--listen-peer-urls=unix://etcd-peer.sock:0",
        "--log-level=warn",
    ]);
    command.arg(format!("--advertise-client-urls={NOWHERE}"));
    command.arg(format!("--initial-advertise-peer-urls={NOWHERE}"));
    command.arg(format!("--initial-cluster=default={NOWHERE}"));
    Daemon::start(guardian, "etcd", command)
}

fn start_apiserver(guardian: &Guardian, tools: &ClusterTools, folder: &Path, port: &Port) -> Result<Daemon> {
    let mut command = guardian.bare_command(&tools.kube_apiserver);
    command.current_dir(folder).args([
        "--etcd-servers=unix://etcd.sock:0",
        "--bind-address=127.0.0.1",
        "--secure-port",
        &port.number(),
        "--cert-dir=certificates",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
        "--token-auth-file=tokens.csv",
        "--service-account-key-file=accounts.crt",
        "--service-account-signing-key-file=accounts.key",
        "--authorization-mode=RBAC",
        // Pods need no token of their own here: no container runs in them.
        "--disable-admission-plugins=ServiceAccount",
        "--service-cluster-ip-range=10.0.0.0/24",
        // It would have the service `kubernetes` lead to this server, which no pod asks.
        "--endpoint-reconciler-type=none",
    ]);
    command.arg(format!("--service-account-issuer=https://{}", port.address()));
    command.arg(format!("--api-audiences={}", API_AUDIENCES.join(",")));
    Daemon::start(guardian, "kube-apiserver", command)
}

fn start_controllers(guardian: &Guardian, tools: &ClusterTools, folder: &Path) -> Result<Daemon> {
    let mut command = guardian.bare_command(&tools.kube_controller_manager);
    command.current_dir(folder).args([
        "--kubeconfig=kubeconfig",
        "--service-account-private-key-file=accounts.key",
        "--root-ca-file=authority.crt",
        "--leader-elect=false",
        "--secure-port=0",
    ]);
    Daemon::start(guardian, "kube-controller-manager", command)
}

fn start_scheduler(guardian: &Guardian, tools: &ClusterTools, folder: &Path) -> Result<Daemon> {
    let mut command = guardian.bare_command(&tools.kube_scheduler);
    command.current_dir(folder).args([
        "--kubeconfig=kubeconfig",
        "--leader-elect=false",
        "--secure-port=0",
    ]);
    Daemon::start(guardian, "kube-scheduler", command)
}
