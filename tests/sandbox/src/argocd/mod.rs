//! Stands in for Argo CD 3.2: watches environment repositories, renders them with kustomize and "runs" the result.
//!
//! What is real: the git repository is fetched over its URL, the manifests are what `kubectl kustomize` prints, and an
//! image runs only after its registry said, to the pull credentials, that it has that very digest.
//!
//! Documented and recorded behaviour kept:
//! - An application goes through the states of a real Argo CD 3.2.11, in their order and with their fields (the
//!   recorded answers in this crate's tests): OutOfSync with a running operation; OutOfSync, Succeeded and still Healthy
//!   with the old image; Synced and Progressing with both images, then with the new one; Synced and Healthy.
//! - A commit that cannot be rendered leaves the running state as it was and shows as a `ComparisonError` condition with
//!   kustomize's words, sync status Unknown and the branch's name for a revision.
//! - A commit that changes no manifest runs no operation: `operationState.syncResult.revision` stays that of the
//!   commit that was applied last.
//! - An image that cannot be pulled keeps its workload Progressing, both images listed; a Deployment becomes Degraded
//!   after its progress deadline. Pulling is tried again, so an image that appears late still runs.
//! - What selects a workload's pods cannot be changed: that sync fails, stays Running and is tried again, five times with pauses
//!   that double where it began by itself. What came of an attempt stays until the next one has ended.
//! - An application of several sources has `spec.sources`, and `revisions` in the place of every `revision`. The later source
//!   wins where two make the same object, with a `RepeatedResourceWarning`. Where the manifests of one cannot be generated,
//!   there are no revisions at all.
//! - An unknown application is `permission denied` (403), so that names cannot be guessed, and so is one that the
//!   account may not look at; 404 only to who names the project. A token that is missing, foreign or expired is 401. Syncing
//!   needs a permission of its own.
//! - `?refresh=` answers after the comparison, and not after the rollout. A GitLab push hook refreshes whom it concerns.
//!
//! Departures: steps take [`Pace::step`] each instead of what a cluster takes, and the repository is looked at every
//! [`Pace::poll`]. One pod stands for all replicas of a template. A Deployment whose pods cannot pull says why in its own
//! health (`ImagePullBackOff: ...`) as well, which in the real one only the pod's node of the resource tree does. Absent:
//! Helm and with it sources that only others refer to, a sync of several sources to chosen commits, hooks and waves, sync windows, validation by the API server but of selectors, drift in the
//! cluster, SSO.

mod access;
mod api;
mod application;
mod cluster;
mod controller;
mod manifest;
mod operations;
mod refusal;
mod registry;
mod repository;
mod settings;
mod store;
mod tree;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::JoinSet;

use self::access::Accounts;
use self::application::{
    Application, Automated, Destination, HealthCode, Metadata, Spec, Status, SyncCode, SyncPolicy,
};
use self::controller::{Controller, Due};
use self::registry::Registries;
use self::repository::Repository;
use self::store::{Snapshot, Store, StoreBuilder};
use crate::{kubernetes, loopback};

pub use self::access::Access;
pub use self::settings::{Credentials, Declaration, Pace, Settings, Source};

/// The version whose behaviour this is.
const VERSION: &str = "v3.2.11";

/// Where Argo CD and its applications live.
const NAMESPACE: &str = "argocd";

/// A running Argo CD. Dropping it ends its tasks, closes its port and removes its work trees.
pub struct ArgoCd {
    http: loopback::Server,
    server: Arc<Server>,
    _controllers: JoinSet<()>,
}

/// What the API works with.
struct Server {
    store: Store,
    accounts: Accounts,
    webhook_secret: Option<String>,
}

impl ArgoCd {
    /// Starts the API on a free loopback port and a controller for each application, which looks at its repository at
    /// once. A repository that cannot be read is no error here: it shows in the application's conditions.
    ///
    /// # Errors
    /// When two applications have one name, or a port or folder cannot be had.
    pub async fn start(settings: Settings) -> Result<ArgoCd> {
        let registries = Arc::new(Registries::new(settings.registries.clone())?);
        let mut builder = StoreBuilder::new();
        let mut controllers = JoinSet::new();
        for declaration in &settings.applications {
            let application = declared(declaration);
            let added = builder.add(application.clone());
            let (publisher, requests) =
                added.with_context(|| format!("two applications are named {:?}", declaration.name))?;
            let controller = Controller {
                application,
                cluster: cluster::Cluster::default(),
                repositories: repositories(&settings, declaration)?,
                registries: registries.clone(),
                pace: settings.pace,
                publisher,
                due: Due::default(),
            };
            controllers.spawn(controller.run(requests));
        }
        let server = Arc::new(Server {
            store: builder.build(),
            accounts: Accounts::new(),
            webhook_secret: settings.webhook_secret,
        });
        let http = loopback::Server::start(|_| api::router(server.clone())).await?;
        Ok(ArgoCd {
            http,
            server,
            _controllers: controllers,
        })
    }

    /// The base URL, for `ARGOCD_SERVER` and for webhooks (`/api/webhook`).
    pub fn url(&self) -> String {
        self.http.url()
    }

    /// Issues an API token for an account, which from now on may do this and no more. A lifetime of zero gives a token
    /// that has expired already.
    pub fn mint_token(&self, account: &str, access: Access, lifetime: Duration) -> String {
        self.server.accounts.mint(account, access, lifetime)
    }

    /// The images whose pods are ready, sorted; empty for an application that does not exist.
    pub fn running_images(&self, application: &str) -> Vec<String> {
        self.server
            .store
            .get(application)
            .map_or_else(Vec::new, |entry| entry.snapshot().running.clone())
    }

    /// Waits until the application is Synced and Healthy and a pod with an image of this digest is ready.
    ///
    /// # Errors
    /// When `deadline` passes before, with the state it was in then, or when there is no such application.
    pub async fn wait_until_running(
        &self,
        application: &str,
        digest: &str,
        deadline: Duration,
    ) -> Result<()> {
        let entry = self.server.store.get(application);
        let mut latest = entry
            .with_context(|| format!("no application {application:?}"))?
            .latest
            .clone();
        let arrived = latest.wait_for(|snapshot| snapshot.runs(digest));
        if let Ok(outcome) = tokio::time::timeout(deadline, arrived).await {
            ensure!(
                outcome.is_ok(),
                "the controller of application {application:?} has ended"
            );
            return Ok(());
        }
        let state = latest.borrow().describe();
        bail!("application {application:?} does not run {digest} after {deadline:?}: {state}")
    }
}

impl Snapshot {
    fn runs(&self, digest: &str) -> bool {
        let Status { sync, health, .. } = &self.application.status;
        sync.status == SyncCode::Synced
            && health.status == Some(HealthCode::Healthy)
            && self
                .running
                .iter()
                .any(|image| image.split_once('@').is_some_and(|(_, found)| found == digest))
    }

    fn describe(&self) -> String {
        let Status {
            sync,
            health,
            conditions,
            resources,
            ..
        } = &self.application.status;
        let mut text = format!(
            "sync {:?} at {:?}, health {:?}, running [{}]",
            sync.status,
            sync.commits(),
            health.status,
            self.running.join(", ")
        );
        let troubles = resources
            .iter()
            .filter_map(|resource| resource.health.as_ref())
            .map(|health| &health.message);
        for message in conditions
            .iter()
            .map(|condition| &condition.message)
            .chain(troubles)
        {
            if !message.is_empty() {
                text.push_str("; ");
                text.push_str(message);
            }
        }
        text
    }
}

/// A work tree for each source.
fn repositories(settings: &Settings, declaration: &Declaration) -> Result<Vec<Repository>> {
    ensure!(
        !declaration.sources.is_empty(),
        "application {:?} has no source",
        declaration.name
    );
    let sources = declaration.sources.iter();
    sources
        .map(|source| Repository::new(settings, source, &declaration.namespace))
        .collect()
}

/// The application that a declaration makes, before anyone has looked at it.
fn declared(declaration: &Declaration) -> Application {
    let automated = Automated {
        prune: true,
        self_heal: true,
    };
    let (source, sources) = match declaration.sources.as_slice() {
        [one] => (Some(one.clone()), Vec::new()),
        several => (None, several.to_vec()),
    };
    Application {
        metadata: Metadata {
            name: declaration.name.clone(),
            namespace: NAMESPACE.to_owned(),
            uid: kubernetes::new_uid(),
            resource_version: "0".to_owned(),
            generation: 0,
            creation_timestamp: application::now(),
        },
        spec: Spec {
            source,
            sources,
            destination: Destination {
                server: "https://kubernetes.default.svc".to_owned(),
                namespace: declaration.namespace.clone(),
            },
            project: "default".to_owned(),
            sync_policy: declaration.automated.then_some(SyncPolicy { automated }),
        },
        status: Status::default(),
        operation: None,
    }
}
