//! Debian's docker-registry (distribution 2.8): password protected, deletion allowed, no referrers API.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Certificate;
use super::process::Process;
use crate::guardian::Guardian;
use crate::tools::Tools;

/// The registry hashes the password anew for each request, and this one guards nothing worth a slow hash.
const COST: u32 = 4;

/// A running registry. It ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    host: String,
    storage: PathBuf,
}

/// What a registry shows who it is by, and whom it lets in.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// Its own certificate.
    pub server: &'a Certificate,
    /// The authority (PEM) that must have signed its clients' certificates, when they have to have one.
    pub clients: Option<&'a str>,
}

/// Whose tokens a registry takes.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// The address of the token server.
    pub realm: &'a str,
    /// What it knows the registry as: the tokens' audience.
    pub service: &'a str,
    /// Who issues the tokens.
    pub issuer: &'a str,
    /// The authority (PEM) that signed the issuer's certificate.
    pub authority: &'a str,
}

impl Registry {
    /// Starts a registry that serves these users, or everybody when there are none.
    ///
    /// # Errors
    /// When the server does not come up; with the last lines of its log.
    pub async fn start(
        guardian: &Guardian,
        tools: &Tools,
        name: &str,
        users: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_with(
            guardian,
            tools,
            name,
            |folder| passwords(folder, name, users),
            None,
        )
        .await
    }

    /// Starts a registry that asks for tokens.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start_tokens(
        guardian: &Guardian,
        tools: &Tools,
        name: &str,
        tokens: Tokens<'_>,
    ) -> anyhow::Result<Self> {
        let auth = |folder: &Path| {
            let bundle = folder.join("authority.crt");
            fs::write(&bundle, tokens.authority)?;
            Ok(json!({"token": {
                "realm": tokens.realm,
                "service": tokens.service,
                "issuer": tokens.issuer,
                "rootcertbundle": bundle,
            }}))
        };
        Self::start_with(guardian, tools, name, auth, None).await
    }

    /// Starts a registry that is spoken to over TLS.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start_tls(
        guardian: &Guardian,
        tools: &Tools,
        name: &str,
        users: &[(&str, &str)],
        tls: Tls<'_>,
    ) -> anyhow::Result<Self> {
        Self::start_with(
            guardian,
            tools,
            name,
            |folder| passwords(folder, name, users),
            Some(tls),
        )
        .await
    }

    async fn start_with(
        guardian: &Guardian,
        tools: &Tools,
        name: &str,
        auth: impl Fn(&Path) -> anyhow::Result<Value>,
        tls: Option<Tls<'_>>,
    ) -> anyhow::Result<Self> {
        let folder = guardian.dir().join(name);
        let storage = folder.join("storage");
        fs::create_dir_all(&storage)?;
        let mut configuration = json!({
            "version": "0.1",
            "log": {"level": "info", "formatter": "text"},
            "storage": {"filesystem": {"rootdirectory": storage}, "delete": {"enabled": true}},
            "http": {"addr": "127.0.0.1:0"},
        });
        let auth = auth(&folder)?;
        if !auth.is_null() {
            configuration["auth"] = auth;
        }
        if let Some(tls) = tls {
            let written = |name: &str, text: &str| {
                let path = folder.join(name);
                fs::write(&path, text).map(|()| path)
            };
            configuration["http"]["tls"] = json!({
                "certificate": written("server.crt", &tls.server.certificate)?,
                "key": written("server.key", &tls.server.key)?,
            });
            if let Some(authority) = tls.clients {
                let path = written("clients.crt", authority)?;
                configuration["http"]["tls"]["clientcas"] = json!([path]);
            }
        }
        // The server reads YAML, of which JSON is a part.
        let file = folder.join("config.json");
        fs::write(&file, serde_json::to_vec_pretty(&configuration)?)?;
        let mut command = guardian.bare_command(&tools.docker_registry);
        command.arg("serve").arg(&file);
        let process = Process::start(guardian, name, command).await?;
        Ok(Self {
            host: process.address().to_string(),
            process,
            storage,
        })
    }

    /// Where it listens, as it stands in an image's name: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
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

    /// Its log, which holds a line for each request.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The folder of its blobs and repositories.
    #[must_use]
    pub fn storage(&self) -> &Path {
        &self.storage
    }
}

/// The document that docker, buildah and kaniko read passwords from (`config.json`, `--authfile`), for these hosts,
/// users and passwords.
#[must_use]
pub fn docker_config(logins: &[(&str, &str, &str)]) -> Value {
    let entry = |(host, user, password): &(&str, &str, &str)| {
        (
            (*host).to_owned(),
            json!({"auth": STANDARD.encode(format!("{user}:{password}"))}),
        )
    };
    json!({"auths": logins.iter().map(entry).collect::<serde_json::Map<_, _>>()})
}

/// The configuration of a registry that knows these users, or lets everybody in when there are none.
fn passwords(folder: &Path, realm: &str, users: &[(&str, &str)]) -> anyhow::Result<Value> {
    if users.is_empty() {
        return Ok(Value::Null);
    }
    let passwords = folder.join("htpasswd");
    fs::write(&passwords, htpasswd(users)?)?;
    Ok(json!({"htpasswd": {"realm": realm, "path": passwords}}))
}

fn htpasswd(users: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut lines = String::new();
    for (user, password) in users {
        let hash = bcrypt::hash(password, COST).with_context(|| format!("hashing the password of {user}"))?;
        lines.push_str(&format!("{user}:{hash}\n"));
    }
    Ok(lines)
}
