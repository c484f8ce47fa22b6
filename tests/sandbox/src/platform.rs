//! What a world's images run on: the API server that knows its service accounts, and the Argo CD that deploys.
//!
//! There are two, and this is where a world chooses: the stand-ins, which are there at once, and a real cluster. Whatever
//! else a world has does not know which one it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::argocd::{Access, ArgoCd, Credentials, Declaration, Pace, Settings};
use crate::cluster::Cluster;
use crate::guardian::Guardian;
use crate::kubernetes::{API_AUDIENCES, ApiServer};
use crate::tools::{ClusterTools, Tools};

/// An API server on which nothing is deployed yet.
pub(crate) enum Kubernetes {
    StandIn(ApiServer),
    Real(Box<Cluster>),
}

/// What Argo CD deploys, and with which credentials.
pub(crate) struct Deployments {
    pub(crate) applications: Vec<Declaration>,
    /// By the prefix of a repository's address.
    pub(crate) repositories: BTreeMap<String, Credentials>,
    /// Pull credentials by registry host. In a real cluster a pull secret holds them.
    pub(crate) registries: BTreeMap<String, Credentials>,
}

/// See the module's documentation. It ends when this is dropped.
pub struct Platform(Kind);

enum Kind {
    StandIns {
        argocd: ArgoCd,
        _kubernetes: ApiServer,
    },
    Cluster {
        cluster: Box<Cluster>,
        /// The namespace of each application.
        namespaces: BTreeMap<String, String>,
    },
}

impl Kubernetes {
    /// Starts a real cluster when there is what it is made of, else the stand-in.
    pub(crate) async fn start(
        guardian: &Guardian,
        tools: &Tools,
        cluster: Option<&ClusterTools>,
    ) -> Result<Self> {
        Ok(match cluster {
            Some(parts) => Self::Real(Box::new(Cluster::start(guardian, tools, parts).await?)),
            None => Self::StandIn(ApiServer::start().await?),
        })
    }

    /// The base URL, for OpenBao's `kubernetes_host`.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::StandIn(server) => server.url(),
            Self::Real(cluster) => cluster.url().to_owned(),
        }
    }

    /// Whose certificate (PEM) the API server's own one was signed with; none where it speaks plain HTTP.
    pub(crate) fn authority(&self) -> Option<&str> {
        match self {
            Self::StandIn(_) => None,
            Self::Real(cluster) => Some(cluster.authority()),
        }
    }

    /// Makes a service account that may review tokens, its own among them, and answers a token of it for the API server and
    /// for Vault.
    pub(crate) async fn make_reviewer(
        &self,
        namespace: &str,
        name: &str,
        lifetime: Duration,
    ) -> Result<String> {
        match self {
            Self::StandIn(server) => {
                server.create_service_account(namespace, name);
                server.bind_auth_delegator(namespace, name);
                server.mint_service_account_token(namespace, name, &API_AUDIENCES, lifetime)
            }
            Self::Real(cluster) => {
                cluster.create_service_account(namespace, name).await?;
                cluster.bind_auth_delegator(namespace, name).await?;
                cluster
                    .mint_service_account_token(namespace, name, &API_AUDIENCES, lifetime)
                    .await
            }
        }
    }

    /// Has Argo CD deploy.
    pub(crate) async fn deploy(
        self,
        guardian: &Guardian,
        tools: &Tools,
        deployments: Deployments,
    ) -> Result<Platform> {
        let Deployments {
            applications,
            repositories,
            registries,
        } = deployments;
        Ok(Platform(match self {
            Self::StandIn(server) => Kind::StandIns {
                argocd: ArgoCd::start(Settings {
                    git: tools.git.clone(),
                    kubectl: tools.kubectl.clone(),
                    folder: guardian.dir().join("tmp"),
                    world: Some(guardian.id().to_owned()),
                    applications,
                    repositories,
                    registries,
                    webhook_secret: None,
                    pace: Pace::default(),
                })
                .await?,
                _kubernetes: server,
            },
            Self::Real(cluster) => {
                cluster.add_repositories(&repositories).await?;
                for application in &applications {
                    cluster.add_application(application).await?;
                }
                let namespaces = applications
                    .into_iter()
                    .map(|application| (application.name, application.namespace))
                    .collect();
                Kind::Cluster { cluster, namespaces }
            }
        }))
    }
}

impl Platform {
    /// The real cluster, where this is one.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.0 {
            Kind::StandIns { .. } => None,
            Kind::Cluster { cluster, .. } => Some(cluster),
        }
    }

    /// Argo CD's base URL, for `ARGOCD_SERVER` and for webhooks (`/api/webhook`).
    #[must_use]
    pub fn argocd_url(&self) -> String {
        match &self.0 {
            Kind::StandIns { argocd, .. } => argocd.url(),
            Kind::Cluster { cluster, .. } => cluster.argocd_url().to_owned(),
        }
    }

    /// Issues an API token of Argo CD for an account, which from now on may do this and no more.
    ///
    /// # Errors
    /// When a real Argo CD refuses.
    pub async fn mint_argocd_token(
        &self,
        account: &str,
        access: Access,
        lifetime: Duration,
    ) -> Result<String> {
        match &self.0 {
            Kind::StandIns { argocd, .. } => Ok(argocd.mint_token(account, access, lifetime)),
            Kind::Cluster { cluster, .. } => cluster.mint_argocd_token(account, access, lifetime).await,
        }
    }

    /// The images of an application whose pods are ready, sorted.
    ///
    /// # Errors
    /// When a real API server refuses.
    pub async fn running_images(&self, application: &str) -> Result<Vec<String>> {
        match &self.0 {
            Kind::StandIns { argocd, .. } => Ok(argocd.running_images(application)),
            Kind::Cluster { cluster, namespaces } => match namespaces.get(application) {
                Some(namespace) => cluster.running_images(namespace).await,
                None => Ok(Vec::new()),
            },
        }
    }

    /// Waits until an application is Synced and Healthy and runs this digest.
    ///
    /// # Errors
    /// When `deadline` passes before, with the state it was in then, or when there is no such application.
    pub async fn wait_until_running(
        &self,
        application: &str,
        digest: &str,
        deadline: Duration,
    ) -> Result<()> {
        match &self.0 {
            Kind::StandIns { argocd, .. } => argocd.wait_until_running(application, digest, deadline).await,
            Kind::Cluster { cluster, .. } => cluster.wait_until_running(application, digest, deadline).await,
        }
    }

    /// What became of its processes that have ended although the world still runs.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        match &mut self.0 {
            Kind::StandIns { .. } => Vec::new(),
            Kind::Cluster { cluster, .. } => cluster.ended(),
        }
    }

    /// The folder that may hold the secrets that a cluster is given, and the token of its administrator.
    pub(crate) fn keeps_secrets(&self) -> Option<(PathBuf, String)> {
        let cluster = self.cluster()?;
        Some((
            Path::to_owned(cluster.folder()),
            cluster.administrator_token().to_owned(),
        ))
    }
}
