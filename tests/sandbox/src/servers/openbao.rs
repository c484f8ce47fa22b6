//! A real OpenBao server, unsealed, with nothing in it: storage in memory, no TLS, an audit log.
//!
//! What the sandbox sets up goes over its HTTP API with the root token. Paths and fields are those of OpenBao's API
//! documentation for version 2. Deliberately absent: everything the tools under test do themselves (logging in, renewing, revoking).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::http_client;
use super::process::{BETWEEN_LOOKS, DEADLINE, Process};
use crate::guardian::Guardian;
use crate::tools::Tools;

/// The `kubernetes` auth method insists on a certificate authority even for an API server that speaks plain HTTP. Nobody
/// holds the key of this one, and nothing is ever checked against it.
const UNUSED_AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUQFHiTMdBgZ6N/I5e+VrkNXwJFZMwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGdW51c2VkMCAXDTI2MTEyMTExMTMxNloYDzIxMjYxMDI4MTEx
MzE2WjARMQ8wDQYDVQQDDAZ1bnVzZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQO193Zl4Tj04DekZXPT7Qwes3fabZUOwGNTNS8fFj+ssZq/mS+zBvsjSyuxs9e
DsSTR2Cqa2cWyM5FtrBOm4b+o1MwUTAdBgNVHQ4EFgQUi6QJH+F9MGfPzKRX9K/y
NWCbaEowHwYDVR0jBBgwFoAUi6QJH+F9MGfPzKRX9K/yNWCbaEowDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAhfd77lL58kvB7G4u7UJ1wgZx0qod
ZmYbOSwcJCvyZpkCIGoL53GKGHivUetDYa9kMKp5pfZ06YqJBu0Qv28gz4Gx
-----END CERTIFICATE-----
";

/// A running server. It ends when this is dropped.
pub struct OpenBao {
    process: Process,
    address: String,
    root_token: String,
    audit_log: PathBuf,
    client: reqwest::Client,
}

/// Whom the `kubernetes` auth method lets in, and with what.
#[derive(Clone, Debug, Serialize)]
pub struct KubernetesRole {
    /// Service accounts that may log in.
    #[serde(rename = "bound_service_account_names")]
    pub service_accounts: Vec<String>,
    /// Namespaces they must be in.
    #[serde(rename = "bound_service_account_namespaces")]
    pub namespaces: Vec<String>,
    /// The audience that the token must be for, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Policies that a login gets.
    #[serde(rename = "token_policies")]
    pub policies: Vec<String>,
    /// How long a login lasts, such as `15m`.
    #[serde(rename = "token_ttl")]
    pub ttl: String,
}

/// Whom the `jwt` auth method lets in, and with what: GitLab's `id_tokens`.
#[derive(Clone, Debug, Serialize)]
pub struct JwtRole {
    /// The claim that names the user, such as `sub`.
    pub user_claim: String,
    /// Audiences of which the token must name one.
    pub bound_audiences: Vec<String>,
    /// Claims that the token must hold, with their values.
    pub bound_claims: serde_json::Map<String, Value>,
    /// Policies that a login gets.
    #[serde(rename = "token_policies")]
    pub policies: Vec<String>,
    /// How long a login lasts, such as `15m`.
    #[serde(rename = "token_ttl")]
    pub ttl: String,
}

/// What logs in through the `approle` auth method.
#[derive(Clone, PartialEq, Eq)]
pub struct AppRole {
    /// Its name for the server, not a secret.
    pub role_id: String,
    /// Its password.
    pub secret_id: String,
}

impl OpenBao {
    /// Starts a server, initialises and unseals it, and waits until it is ready.
    ///
    /// # Errors
    /// When the server does not come up within a minute; with the last lines of its log.
    pub async fn start(guardian: &Guardian, tools: &Tools) -> anyhow::Result<Self> {
        let folder = guardian.dir().join("openbao");
        fs::create_dir_all(&folder)?;
        let audit_log = folder.join("audit.log");
        let configuration = json!({
            "disable_clustering": true,
            "storage": {"inmem": {}},
            "listener": {"tcp": {"address": "127.0.0.1:0", "tls_disable": true}},
            "audit": [{"type": "file", "path": "to-file", "options": {"file_path": audit_log}}],
        });
        let file = folder.join("config.json");
        fs::write(&file, serde_json::to_vec_pretty(&configuration)?)?;
        let mut command = guardian.bare_command(&tools.bao);
        command.args(["server", "-config"]).arg(&file);
        let process = Process::start(guardian, "openbao", command).await?;
        let address = format!("http://{}", process.address());
        let mut server = Self {
            process,
            address,
            root_token: String::new(),
            audit_log,
            client: http_client()?,
        };
        match server.unseal().await {
            Ok(()) => Ok(server),
            Err(error) => Err(error.context(server.process.complaint("cannot be unsealed"))),
        }
    }

    /// Its base URL, without a slash at the end: what `VAULT_ADDR` holds.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The token that may do everything.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// A JSON line for each request and each answer, secrets hashed.
    #[must_use]
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// Has it stand still, as a server that hangs, until [`Self::resume`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.pause()
    }

    /// Has it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.resume()
    }

    /// That it has ended by itself, with the last lines of its log; none while it runs.
    pub fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Mounts a secrets engine of type KV version 2 and waits until it can be written to.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_kv(&self, mount: &str) -> anyhow::Result<()> {
        self.write(
            &format!("sys/mounts/{mount}"),
            &json!({"type": "kv", "options": {"version": "2"}}),
        )
        .await?;
        // A new mount answers 400 until it has set up its storage.
        let path = format!("{mount}/config");
        self.wait_for(|| async { Ok(self.send(Method::GET, &path, None).await?.0 == StatusCode::OK) })
            .await
    }

    /// Writes a new version of a secret of a KV version 2 mount.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn write_secret(&self, mount: &str, path: &str, data: &Value) -> anyhow::Result<()> {
        self.write(&format!("{mount}/data/{path}"), &json!({"data": data}))
            .await
            .map(drop)
    }

    /// Writes a policy, in the policies' own language (HCL).
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn write_policy(&self, name: &str, policy: &str) -> anyhow::Result<()> {
        self.write(&format!("sys/policies/acl/{name}"), &json!({"policy": policy}))
            .await
            .map(drop)
    }

    /// Enables the `kubernetes` auth method at `auth/MOUNT`. It asks the API server at `kubernetes_host` to review each
    /// login's token, with that token as its own credentials.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_kubernetes_auth(&self, mount: &str, kubernetes_host: &str) -> anyhow::Result<()> {
        self.enable_kubernetes_auth_by(mount, kubernetes_host, UNUSED_AUTHORITY)
            .await
    }

    /// The same for an API server that speaks TLS, whose certificate `authority` (PEM) signed.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_kubernetes_auth_by(
        &self,
        mount: &str,
        kubernetes_host: &str,
        authority: &str,
    ) -> anyhow::Result<()> {
        self.write(&format!("sys/auth/{mount}"), &json!({"type": "kubernetes"}))
            .await?;
        let configuration = json!({
            "kubernetes_host": kubernetes_host,
            "kubernetes_ca_cert": authority,
            "disable_local_ca_jwt": true,
        });
        self.write(&format!("auth/{mount}/config"), &configuration)
            .await
            .map(drop)
    }

    /// Writes a role of a `kubernetes` auth method.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn write_kubernetes_role(
        &self,
        mount: &str,
        name: &str,
        role: &KubernetesRole,
    ) -> anyhow::Result<()> {
        self.write(&format!("auth/{mount}/role/{name}"), &serde_json::to_value(role)?)
            .await
            .map(drop)
    }

    /// Enables the `jwt` auth method at `auth/MOUNT`, for tokens of this issuer that were signed with the key whose public
    /// half is `public_key` (PEM).
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_jwt_auth(&self, mount: &str, public_key: &str, issuer: &str) -> anyhow::Result<()> {
        self.write(&format!("sys/auth/{mount}"), &json!({"type": "jwt"}))
            .await?;
        let configuration = json!({"jwt_validation_pubkeys": [public_key], "bound_issuer": issuer});
        self.write(&format!("auth/{mount}/config"), &configuration)
            .await
            .map(drop)
    }

    /// Writes a role of a `jwt` auth method.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn write_jwt_role(&self, mount: &str, name: &str, role: &JwtRole) -> anyhow::Result<()> {
        let mut body = serde_json::to_value(role)?;
        body["role_type"] = "jwt".into();
        self.write(&format!("auth/{mount}/role/{name}"), &body)
            .await
            .map(drop)
    }

    /// Enables the `approle` auth method at `auth/MOUNT`, unless it is there, and makes a role with these policies.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn make_approle(&self, mount: &str, name: &str, policies: &[&str]) -> anyhow::Result<AppRole> {
        if self
            .send(Method::GET, &format!("sys/auth/{mount}"), None)
            .await?
            .0
            != StatusCode::OK
        {
            self.write(&format!("sys/auth/{mount}"), &json!({"type": "approle"}))
                .await?;
        }
        let role = format!("auth/{mount}/role/{name}");
        self.write(&role, &json!({"token_policies": policies, "token_ttl": "15m"}))
            .await?;
        let id = self.read(&format!("{role}/role-id")).await?;
        let secret = self.write(&format!("{role}/secret-id"), &json!({})).await?;
        let text = |value: &Value| {
            value
                .as_str()
                .map(str::to_owned)
                .context("the server named no AppRole id")
        };
        Ok(AppRole {
            role_id: text(&id["data"]["role_id"])?,
            secret_id: text(&secret["data"]["secret_id"])?,
        })
    }

    /// Reads any path below `/v1/` with the root token, and answers the whole document.
    ///
    /// # Errors
    /// When the server answers with anything but success.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        accepted("reading", path, self.send(Method::GET, path, None).await?)
    }

    /// Writes to any path below `/v1/` with the root token, and answers the whole document (`null` when there is none).
    ///
    /// # Errors
    /// When the server answers with anything but success.
    pub async fn write(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        accepted("writing", path, self.send(Method::POST, path, Some(body)).await?)
    }

    async fn unseal(&mut self) -> anyhow::Result<()> {
        let body = json!({"secret_shares": 1, "secret_threshold": 1});
        let keys = accepted(
            "writing",
            "sys/init",
            self.send(Method::PUT, "sys/init", Some(&body)).await?,
        )?;
        keys["root_token"]
            .as_str()
            .context("the server made no root token")?
            .clone_into(&mut self.root_token);
        let key = json!({"key": keys["keys"][0]});
        accepted(
            "writing",
            "sys/unseal",
            self.send(Method::PUT, "sys/unseal", Some(&key)).await?,
        )?;
        self.wait_for(|| async { Ok(self.send(Method::GET, "sys/health", None).await?.0 == StatusCode::OK) })
            .await
    }

    async fn wait_for<F: Future<Output = anyhow::Result<bool>>>(
        &self,
        ready: impl Fn() -> F,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        while !ready().await? {
            if start.elapsed() > DEADLINE {
                bail!("OpenBao is not ready after {} s", DEADLINE.as_secs());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.client.request(method, format!("{}/v1/{path}", self.address));
        if !self.root_token.is_empty() {
            request = request.header("X-Vault-Token", &self.root_token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        let document = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)?
        };
        Ok((status, document))
    }
}

fn accepted(doing: &str, path: &str, (status, document): (StatusCode, Value)) -> anyhow::Result<Value> {
    if !status.is_success() {
        // Only what the server complains of: a whole document may hold a secret.
        bail!("{doing} {path} on OpenBao: {status}: {}", document["errors"]);
    }
    Ok(document)
}
