//! Argo CD's own processes and what they read from the API server: settings, accounts, credentials, applications.
//!
//! Outside of a cluster it knows the cluster as any other one, by a Secret with its address and a token (Argo CD's
//! documentation, "Declarative Setup", "Clusters"). Its metrics are there on free ports, since they cannot be turned off.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::api::{Api, namespace};
use super::control_plane::ControlPlane;
use super::port::Port;
use crate::argocd::{Credentials, Declaration};
use crate::guardian::Guardian;
use crate::kubernetes::new_uid;
use crate::servers::process::{Daemon, listening_addresses};
use crate::tools::{ClusterTools, Tools};

/// Where Argo CD lives. Its applications do, too.
pub(super) const NAMESPACE: &str = "argocd";
/// Argo CD hashes the password of its administrator with this much work; nobody guesses at this one.
const COST: u32 = 4;
/// Whoever asks, by a webhook or for a refresh, is answered at once; this is for a push whose webhook falls into the refresh
/// of the one before and can be lost with it. In a cluster Argo CD's manifests make this variable of `timeout.reconciliation`:
/// the controller looks this often, and the repository server forgets this soon where a branch was.
const RECONCILIATION: &str = "5s";
/// A socket's path may have 107 bytes (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The running processes. They end when this is dropped.
pub(super) struct Processes {
    /// Of the API, without a slash at the end.
    pub(super) url: String,
    pub(super) administrator_password: String,
    pub(super) daemons: Vec<Daemon>,
}

impl Processes {
    /// Starts redis and Argo CD's three servers, and waits until its API answers. The definitions of its resources are
    /// there already.
    pub(super) async fn start(
        guardian: &Guardian,
        tools: &Tools,
        parts: &ClusterTools,
        control_plane: &ControlPlane,
        folder: &Path,
    ) -> Result<Self> {
        let password = new_uid();
        control_plane
            .api
            .apply_all(&settings(control_plane, &password)?)
            .await?;
        let surroundings = Surroundings::make(guardian, tools, parts, folder)?;
        let redis = surroundings.start_redis()?;
        let renderer = Port::reserve()?;
        let api = Port::reserve()?;
        let repo_server = renderer.address().to_string();
        let mut command = surroundings.command("argocd-repo-server");
        command.args(["--port", &renderer.number(), "--address=127.0.0.1"]);
        command.args(["--metrics-port=0", "--metrics-address=127.0.0.1", "--disable-tls"]);
        let mut renders = Daemon::start(guardian, "argocd-repo-server", command)?;
        let mut command = surroundings.command("argocd-application-controller");
        command.args(["--kubeconfig=kubeconfig", "--namespace", NAMESPACE]);
        command.args(["--repo-server", &repo_server, "--repo-server-plaintext"]);
        command.args(["--metrics-port=0", "--app-resync-jitter=0"]);
        // The controller looks at drift again after this long at first, which doubles: one that waits, waits here.
        command.arg("--self-heal-timeout-seconds=1");
        let controller = Daemon::start(guardian, "argocd-application-controller", command)?;
        let mut command = surroundings.command("argocd-server");
        command.args(["--kubeconfig=kubeconfig", "--namespace", NAMESPACE]);
        command.args(["--repo-server", &repo_server, "--repo-server-plaintext"]);
        command.args(["--port", &api.number(), "--address=127.0.0.1"]);
        command.args(["--metrics-port=0", "--insecure", "--dex-server=127.0.0.1:1"]);
        let mut server = Daemon::start(guardian, "argocd-server", command)?;

        let pid = renders.pid().context("argocd-repo-server ended at once")?;
        renders
            .until("listen", async || {
                listening_addresses(pid)
                    .contains(&renderer.address())
                    .then_some(())
            })
            .await?;
        let pid = server.pid().context("argocd-server ended at once")?;
        let url = format!("http://{}", api.address());
        let client = crate::servers::http_client()?;
        server
            .until("serve", async || {
                if !listening_addresses(pid).contains(&api.address()) {
                    return None;
                }
                let answer = client.get(format!("{url}/api/version")).send().await;
                answer
                    .is_ok_and(|answer| answer.status().is_success())
                    .then_some(())
            })
            .await?;
        Ok(Self {
            url,
            administrator_password: password,
            daemons: vec![redis, renders, controller, server],
        })
    }
}

/// What every process of Argo CD works with.
struct Surroundings<'a> {
    guardian: &'a Guardian,
    parts: &'a ClusterTools,
    folder: &'a Path,
    /// `PATH`: kustomize and Argo CD's own helper for git come first.
    path: std::ffi::OsString,
    redis_socket: PathBuf,
    askpass_socket: PathBuf,
}

impl<'a> Surroundings<'a> {
    fn make(
        guardian: &'a Guardian,
        tools: &Tools,
        parts: &'a ClusterTools,
        folder: &'a Path,
    ) -> Result<Self> {
        let bin = folder.join("bin");
        for made in [
            &bin,
            &folder.join("tls"),
            &folder.join("ssh"),
            &folder.join("plugins"),
        ] {
            fs::create_dir(made)?;
        }
        // git asks this one for the password of a repository.
        symlink(&parts.argocd, bin.join("argocd"))?;
        let kustomize = bin.join("kustomize");
        let kubectl = tools.kubectl.to_str().context("kubectl's path is not UTF-8")?;
        let script = KUSTOMIZE.replace("@KUBECTL@", &kubectl.replace('\'', r"'\''"));
        fs::write(&kustomize, script)?;
        fs::set_permissions(&kustomize, fs::Permissions::from_mode(0o755))?;
        let own = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&own)))
            .context("a folder on PATH holds a colon")?;
        let redis_socket = folder.join("redis.sock");
        let askpass_socket = folder.join("askpass.sock");
        ensure!(
            askpass_socket.as_os_str().len() <= LONGEST_SOCKET,
            "{} is too long for a socket's path: set TMPDIR to a shorter one",
            folder.display()
        );
        Ok(Self {
            guardian,
            parts,
            folder,
            path,
            redis_socket,
            askpass_socket,
        })
    }

    fn start_redis(&self) -> Result<Daemon> {
        let mut command = self.guardian.bare_command(&self.parts.redis);
        if !self.parts.redis_libraries.is_empty() {
            let libraries = std::env::join_paths(&self.parts.redis_libraries)?;
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.current_dir(self.folder);
        command
            .args(["--port", "0", "--unixsocket"])
            .arg(&self.redis_socket);
        // What it holds can be made again, and nothing of it belongs on disk.
        command.args(["--save", "", "--appendonly", "no"]);
        Daemon::start(self.guardian, "redis", command)
    }

    /// One of Argo CD's processes.
    fn command(&self, name: &str) -> Command {
        let mut command = self.guardian.bare_command(&self.parts.argocd);
        command
            .current_dir(self.folder)
            .env("PATH", &self.path)
            .env("ARGOCD_BINARY_NAME", name)
            .env("ARGOCD_GPG_ENABLED", "false")
            .env("ARGOCD_RECONCILIATION_TIMEOUT", RECONCILIATION)
            .env("ARGOCD_TLS_DATA_PATH", self.folder.join("tls"))
            .env("ARGOCD_SSH_DATA_PATH", self.folder.join("ssh"))
            .env("ARGOCD_PLUGINSOCKFILEPATH", self.folder.join("plugins"))
            .env("ARGOCD_ASK_PASS_SOCK", &self.askpass_socket)
            .arg("--redis")
            .arg(&self.redis_socket);
        command
    }
}

/// Argo CD runs `kustomize build DIR` and `kustomize version`; kubectl has kustomize inside.
const KUSTOMIZE: &str = r#"#!/bin/sh
case $1 in
build)
	shift
	exec '@KUBECTL@' kustomize "$@"
	;;
version)
	'@KUBECTL@' version --client | sed -n 's/^Kustomize Version: //p'
	;;
esac
"#;

/// An object that Argo CD takes for its own.
fn own(kind: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/part-of": "argocd"},
    });
    for (label, value) in labels {
        metadata["labels"][label] = (*value).into();
    }
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
}

fn secret(name: &str, labels: &[(&str, &str)], data: &[(&str, &str)]) -> Value {
    let mut secret = own("Secret", name, labels);
    for (key, value) in data {
        secret["stringData"][key] = (*value).into();
    }
    secret
}

fn settings(control_plane: &ControlPlane, password: &str) -> Result<Vec<Value>> {
    use base64::Engine as _;
    let mut objects = vec![namespace(NAMESPACE)];
    for name in [
        "argocd-cm",
        "argocd-rbac-cm",
        "argocd-tls-certs-cm",
        "argocd-ssh-known-hosts-cm",
        "argocd-gpg-keys-cm",
    ] {
        objects.push(own("ConfigMap", name, &[]));
    }
    let hash = bcrypt::hash(password, COST).context("hashing a password")?;
    objects.push(secret(
        "argocd-secret",
        &[],
        &[
            ("admin.password", &hash),
            ("admin.passwordMtime", &jiff::Timestamp::now().to_string()),
            ("server.secretkey", &new_uid()),
        ],
    ));
    let authority = base64::engine::general_purpose::STANDARD.encode(&control_plane.authority);
    let access = json!({
        "bearerToken": control_plane.administrator_token,
        "tlsClientConfig": {"caData": authority},
    });
    objects.push(secret(
        "cluster",
        &[("argocd.argoproj.io/secret-type", "cluster")],
        &[
            ("name", "sandbox"),
            ("server", control_plane.api.url()),
            ("config", &access.to_string()),
        ],
    ));
    objects.push(json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default", "namespace": NAMESPACE},
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{"namespace": "*", "server": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
        },
    }));
    Ok(objects)
}

/// The credentials of each repository whose address begins like this.
pub(super) fn repository_credentials(repositories: &BTreeMap<String, Credentials>) -> Vec<Value> {
    let of_one = |(number, (prefix, credentials)): (usize, (&String, &Credentials))| {
        secret(
            &format!("repositories-{number}"),
            &[("argocd.argoproj.io/secret-type", "repo-creds")],
            &[
                ("type", "git"),
                ("url", prefix),
                ("username", &credentials.username),
                ("password", &credentials.password),
            ],
        )
    };
    repositories.iter().enumerate().map(of_one).collect()
}

/// The application that a declaration makes.
pub(super) fn application(declaration: &Declaration, api: &Api) -> Value {
    let mut spec = json!({
        "project": "default",
        "destination": {"server": api.url(), "namespace": declaration.namespace},
    });
    match declaration.sources.as_slice() {
        [source] => spec["source"] = json!(source),
        several => spec["sources"] = json!(several),
    }
    if declaration.automated {
        spec["syncPolicy"] = json!({"automated": {"prune": true, "selfHeal": true}});
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": declaration.name, "namespace": NAMESPACE},
        "spec": spec,
    })
}
