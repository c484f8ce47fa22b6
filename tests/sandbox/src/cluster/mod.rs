//! A real Kubernetes and a real Argo CD on this machine, without containers.
//!
//! Real: etcd, the API server with its TokenReview and TokenRequest, the controllers, the scheduler, redis, Argo CD's API
//! server, repository server and application controller. Played: the node, by kwok (see `nodes`), so that no container
//! runs and no image is pulled.
//!
//! Everything listens on loopback or on sockets in the world's folder, belongs to the world, and has its log in `logs/`
//! like any other server. What it keeps, secrets among it, lies in the folder `cluster`.

mod api;
mod argocd;
mod control_plane;
mod nodes;
mod port;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use self::api::{Api, namespace};
use self::control_plane::ControlPlane;
use self::nodes::Nodes;
use crate::argocd::{Access, Credentials, Declaration};
use crate::guardian::Guardian;
use crate::servers::http_client;
use crate::servers::process::Daemon;
use crate::tools::{ClusterTools, Tools};

/// Between two looks at what is waited for here.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// A change of Argo CD's settings is heard by a watch; a busy machine gets time.
const SETTLED: Duration = Duration::from_secs(30);

/// A running cluster with Argo CD in it. It ends when this is dropped.
pub struct Cluster {
    folder: PathBuf,
    api: Api,
    authority: String,
    administrator_token: String,
    nodes: Nodes,
    argocd: String,
    /// A session of Argo CD's administrator.
    session: String,
    client: reqwest::Client,
    daemons: Vec<Daemon>,
}

impl Cluster {
    /// Starts all of it, empty, and waits until it works. Its logs are beside those of the world's other servers.
    ///
    /// # Errors
    /// When a part does not come up within a minute; with the last lines of its log.
    pub async fn start(guardian: &Guardian, tools: &Tools, parts: &ClusterTools) -> Result<Self> {
        let folder = guardian.dir().join("cluster");
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut control_plane = ControlPlane::start(guardian, parts, &folder).await?;
        define_resources(&control_plane.api, parts).await?;
        let (nodes, argocd) = tokio::try_join!(
            Nodes::start(guardian, parts, &folder, control_plane.api.clone()),
            argocd::Processes::start(guardian, tools, parts, &control_plane, &folder),
        )?;
        let mut daemons = std::mem::take(&mut control_plane.daemons);
        daemons.extend(argocd.daemons);
        let mut cluster = Self {
            folder,
            api: control_plane.api,
            authority: control_plane.authority,
            administrator_token: control_plane.administrator_token,
            nodes,
            argocd: argocd.url,
            session: String::new(),
            client: http_client()?,
            daemons,
        };
        let login = json!({"username": "admin", "password": argocd.administrator_password});
        let session = cluster.ask_argocd("/api/v1/session", Some(&login)).await?;
        cluster.session = text(&session, "token")?;
        Ok(cluster)
    }

    /// The API server's base URL, for OpenBao's `kubernetes_host`; also the issuer of its tokens.
    #[must_use]
    pub fn url(&self) -> &str {
        self.api.url()
    }

    /// The certificate (PEM) of the authority that signed the API server's own one.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Argo CD's base URL, for `ARGOCD_SERVER` and for webhooks (`/api/webhook`).
    #[must_use]
    pub fn argocd_url(&self) -> &str {
        &self.argocd
    }

    /// A kubeconfig of somebody who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The folder that everything the cluster keeps lies in: keys, etcd's data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The token of the administrator, which only the cluster's own processes and the sandbox have.
    #[must_use]
    pub fn administrator_token(&self) -> &str {
        &self.administrator_token
    }

    /// What became of the processes that have ended although nobody stopped them.
    pub fn ended(&mut self) -> Vec<String> {
        let daemons = self.daemons.iter_mut().chain([&mut self.nodes.daemon]);
        daemons.filter_map(Daemon::ended).collect()
    }

    /// Makes objects as they are stated (server-side apply), and those namespaces that they name and that are not there.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            if let Some(name) = object["metadata"]["namespace"].as_str() {
                self.api.apply(&namespace(name)).await?;
            }
            self.api.apply(object).await?;
        }
        Ok(())
    }

    /// Reads a path of the API server, such as `/api/v1/namespaces/shop/pods`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn read(&self, path: &str) -> Result<Value> {
        self.api.get(path).await
    }

    /// Changes some fields of the object at a path (RFC 7396).
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn change(&self, path: &str, change: &Value) -> Result<()> {
        self.api.merge(path, change).await.map(drop)
    }

    /// Deletes the object at a path.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.api.delete(path).await
    }

    /// Creates a service account, unless it is there.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create_service_account(&self, in_namespace: &str, name: &str) -> Result<()> {
        self.apply(&[json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"namespace": in_namespace, "name": name},
        })])
        .await
    }

    /// Binds a service account to `system:auth-delegator`, which lets it review tokens.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn bind_auth_delegator(&self, in_namespace: &str, name: &str) -> Result<()> {
        self.apply(&[json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{in_namespace}-{name}-reviews")},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{"kind": "ServiceAccount", "namespace": in_namespace, "name": name}],
        })])
        .await
    }

    /// Asks the API server for a token of a service account (TokenRequest), as `kubectl create token` does.
    ///
    /// # Errors
    /// When the API server refuses: it issues none for less than ten minutes.
    pub async fn mint_service_account_token(
        &self,
        in_namespace: &str,
        name: &str,
        audiences: &[&str],
        lifetime: Duration,
    ) -> Result<String> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": lifetime.as_secs()},
        });
        let path = format!("/api/v1/namespaces/{in_namespace}/serviceaccounts/{name}/token");
        let answer = self.api.create(&path, &request).await?;
        text(&answer["status"], "token")
    }

    /// From now on, images whose names hold `part` (a tag as `:1.1.0@`, a digest) cannot be pulled by pods that start: those
    /// wait with the reason `ImagePullBackOff` and never become ready.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn refuse_image(&self, part: &str) -> Result<()> {
        self.nodes.refuse(part).await
    }

    /// Gives Argo CD credentials, each for the repositories whose addresses begin like its key.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn add_repositories(&self, repositories: &BTreeMap<String, Credentials>) -> Result<()> {
        self.api
            .apply_all(&argocd::repository_credentials(repositories))
            .await
    }

    /// Declares an application, and makes its namespace.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn add_application(&self, declaration: &Declaration) -> Result<()> {
        self.api.apply(&namespace(&declaration.namespace)).await?;
        self.api
            .apply(&argocd::application(declaration, &self.api))
            .await
            .map(drop)
    }

    /// Issues an API token of Argo CD for an account, which from now on may do this and no more.
    ///
    /// # Errors
    /// When Argo CD refuses, or does not know the account in time.
    pub async fn mint_argocd_token(
        &self,
        account: &str,
        access: Access,
        lifetime: Duration,
    ) -> Result<String> {
        let of = |name: &str| format!("/api/v1/namespaces/{}/configmaps/{name}", argocd::NAMESPACE);
        let capability = json!({"data": {format!("accounts.{account}"): "apiKey"}});
        self.api.merge(&of("argocd-cm"), &capability).await?;
        let verbs: &[&str] = match access {
            Access::Nothing => &[],
            Access::Read => &["get"],
            Access::Sync => &["get", "sync"],
        };
        let policy: String = verbs
            .iter()
            .map(|verb| format!("p, {account}, applications, {verb}, */*, allow\n"))
            .collect();
        // Each key of this form is a policy of its own (Argo CD's documentation, "RBAC Configuration").
        let policy = json!({"data": {format!("policy.{account}.csv"): policy}});
        self.api.merge(&of("argocd-rbac-cm"), &policy).await?;
        let request = json!({"name": account, "expiresIn": lifetime.as_secs()});
        let path = format!("/api/v1/account/{account}/token");
        let start = Instant::now();
        loop {
            match self.ask_argocd(&path, Some(&request)).await {
                Ok(answer) => return text(&answer, "token"),
                // It hears of the account a moment after the API server has it.
                Err(error) if start.elapsed() > SETTLED => return Err(error),
                Err(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
            }
        }
    }

    /// An application as Argo CD's API shows it.
    ///
    /// # Errors
    /// When Argo CD refuses.
    pub async fn application(&self, name: &str) -> Result<Value> {
        self.ask_argocd(&format!("/api/v1/applications/{name}"), None)
            .await
    }

    /// The images whose pods are ready in a namespace, sorted, each once.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn running_images(&self, in_namespace: &str) -> Result<Vec<String>> {
        let pods = self
            .api
            .get(&format!("/api/v1/namespaces/{in_namespace}/pods"))
            .await?;
        let pods = pods["items"].as_array().map_or(&[][..], Vec::as_slice);
        let mut images: Vec<String> = pods
            .iter()
            .filter(|pod| {
                pod["metadata"]["deletionTimestamp"].is_null() && nodes::has_condition(pod, "Ready")
            })
            .flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten())
            .filter_map(|container| container["image"].as_str().map(str::to_owned))
            .collect();
        images.sort();
        images.dedup();
        Ok(images)
    }

    /// Waits until an application is Synced and Healthy and images of this digest alone run in its namespace.
    ///
    /// # Errors
    /// When `deadline` passes before, with the state it was in then, or when there is no such application.
    pub async fn wait_until_running(
        &self,
        application: &str,
        digest: &str,
        deadline: Duration,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let seen = self.application(application).await?;
            let status = &seen["status"];
            let in_namespace = text(&seen["spec"]["destination"], "namespace")?;
            let running = self.running_images(&in_namespace).await?;
            if status["sync"]["status"] == "Synced"
                && status["health"]["status"] == "Healthy"
                && !running.is_empty()
                && running.iter().all(|image| image.ends_with(digest))
            {
                return Ok(());
            }
            if start.elapsed() > deadline {
                bail!(
                    "application {application:?} does not run {digest} after {deadline:?}: sync {}, health {}, running [{}], conditions {}",
                    status["sync"],
                    status["health"],
                    running.join(", "),
                    status["conditions"]
                );
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Asks Argo CD as its administrator: reads a path, or sends a body there.
    async fn ask_argocd(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}{path}", self.argocd);
        let mut request = match body {
            Some(body) => self.client.post(url).json(body),
            None => self.client.get(url),
        };
        if !self.session.is_empty() {
            request = request.bearer_auth(&self.session);
        }
        let answer = request.send().await.context("asking Argo CD")?;
        let status = answer.status();
        let answer: Value = answer.json().await.context("reading Argo CD's answer")?;
        ensure!(
            status.is_success(),
            "Argo CD's answer to {path} is {status}: {}",
            answer["message"]
        );
        Ok(answer)
    }
}

/// The definitions of Argo CD's resources and of kwok's stages. They are served a moment after they were made.
async fn define_resources(api: &Api, parts: &ClusterTools) -> Result<()> {
    let mut definitions = vec![nodes::read(&parts.stage_definition())?];
    for name in [
        "application-crd.yaml",
        "applicationset-crd.yaml",
        "appproject-crd.yaml",
    ] {
        definitions.push(nodes::read(&parts.argocd_definitions().join(name))?);
    }
    api.apply_all(&definitions).await?;
    let start = Instant::now();
    for definition in &definitions {
        let name = text(&definition["metadata"], "name")?;
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        while !nodes::has_condition(&api.get(&path).await?, "Established") {
            ensure!(start.elapsed() < SETTLED, "{name} is not established");
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
    Ok(())
}

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str();
    Ok(text
        .with_context(|| format!("an answer has no {key}"))?
        .to_owned())
}
