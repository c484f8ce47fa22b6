//! Requests to one cluster's API.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pods::{self, PodList};
use super::refusal::refusal;
use super::watch::Changes;
use super::{ARGOCD_NAMESPACE, Account};
use crate::argocd::application::{Application, REFRESH_ANNOTATION};
use crate::argocd::tree::Tree;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::{self, Body, Method, Request, Settings, Url, header};

/// The most one object may have, in bytes. etcd takes 1.5 MiB.
pub(super) const OBJECT_LIMIT: usize = 4 * 1024 * 1024;
/// The most a list of pods may have.
const LIST_LIMIT: usize = 32 * 1024 * 1024;
/// How long the controller may take to make a comparison that was asked for.
const REFRESH_PATIENCE: Duration = Duration::from_secs(90);
/// How often is looked whether it was made.
const REFRESH_LOOK: Duration = Duration::from_millis(300);
/// After this the server ends a watch by itself, in seconds, and we begin another.
const WATCH_LASTS: &str = "290";

/// Requests to one cluster. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: http::Client,
    base: Url,
    account: Account,
}

impl Client {
    /// A client for the API server at `base`. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`http::Client::new`], and whatever [`http::Client::check_url`] refuses.
    pub fn new(settings: Settings, base: Url, account: Account, deadline: Deadline) -> Result<Self> {
        let http = http::Client::new(settings, deadline)?;
        http.check_url(&base)?;
        Ok(Client { http, base, account })
    }

    /// The same client with another deadline, for what is asked once the run's own time is over.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Client {
            http: self.http.with_deadline(deadline),
            ..self.clone()
        }
    }

    /// How many requests went out so far, repetitions included.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.http.requests_sent()
    }

    /// An application as it is, in Argo CD's own namespace unless another is given.
    ///
    /// # Errors
    /// Denied (exit 4), not found (exit 5) or unavailable (exit 7), as the server answers.
    pub async fn application(&self, name: &str, namespace: Option<&str>) -> Result<Application> {
        let request = self.request(Method::GET, self.application_url(name, namespace)?)?;
        self.read(request, "get", &object(name, namespace), OBJECT_LIMIT)
            .await
    }

    /// Asks the controller for a comparison, by the annotation that stands for it, and gives the application after it.
    ///
    /// # Errors
    /// As [`Client::application`]; unavailable (exit 7) when the controller does not make it in time.
    pub async fn refresh(&self, name: &str, namespace: Option<&str>) -> Result<Application> {
        let patch = json!({ "metadata": { "annotations": { REFRESH_ANNOTATION: "normal" } } });
        self.patch(name, namespace, &patch).await?;
        let patience = Deadline::after(REFRESH_PATIENCE);
        loop {
            tokio::time::sleep(REFRESH_LOOK).await;
            let application = self.application(name, namespace).await?;
            if !application.awaits_refresh() {
                return Ok(application);
            }
            if patience.passed() {
                return Err(Failure::unavailable(format!(
                    "Argo CD's controller does not compare {}",
                    object(name, namespace)
                ))
                .hint("does it run, and does it serve that namespace?"));
            }
        }
    }

    /// Asks the controller for a sync to a commit.
    ///
    /// # Errors
    /// As [`Client::application`].
    pub async fn sync(&self, name: &str, namespace: Option<&str>, revision: &str) -> Result<()> {
        let patch = json!({ "operation": {
            "initiatedBy": { "username": "argocd-wait" },
            "sync": { "revision": revision, "syncStrategy": { "hook": {} } },
        }});
        self.patch(name, namespace, &patch).await
    }

    /// The changes of an application: how it is now, and everything that happens to it then.
    ///
    /// # Errors
    /// As [`Client::application`].
    pub async fn changes(&self, name: &str, namespace: Option<&str>) -> Result<Changes> {
        let now = self.application(name, namespace).await?;
        let request = self
            .request(Method::GET, self.applications_url(namespace)?)?
            .query("watch", "1")
            .query("fieldSelector", &format!("metadata.name={name}"))
            .query("resourceVersion", &now.metadata.resource_version)
            .query("allowWatchBookmarks", "true")
            .query("timeoutSeconds", WATCH_LASTS)
            .streams();
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response, "watch", &object(name, namespace)).await);
        }
        Ok(Changes::new(now, response.lines(OBJECT_LIMIT)))
    }

    /// The application's resources as its status has them, and the pods of its namespace that run its images.
    ///
    /// # Errors
    /// As [`Client::application`], for the pods.
    pub async fn tree(&self, application: &Application) -> Result<Tree> {
        let namespace = &application.spec.destination.namespace;
        let url = self.url(&format!("api/v1/namespaces/{namespace}/pods"))?;
        let request = self.request(Method::GET, url)?.query("limit", "500");
        let what = format!("pods of namespace {namespace}");
        let list: PodList = self.read(request, "list", &what, LIST_LIMIT).await?;
        Ok(pods::tree(application, &list))
    }

    async fn patch(&self, name: &str, namespace: Option<&str>, patch: &Value) -> Result<()> {
        let request = self
            .request(Method::PATCH, self.application_url(name, namespace)?)?
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(Body::Bytes(patch.to_string().into()));
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response, "patch", &object(name, namespace)).await);
        }
        Ok(())
    }

    fn url(&self, path: &str) -> Result<Url> {
        http::below(&self.base, path)
    }

    fn applications_url(&self, namespace: Option<&str>) -> Result<Url> {
        let namespace = namespace.unwrap_or(ARGOCD_NAMESPACE);
        self.url(&format!(
            "apis/argoproj.io/v1alpha1/namespaces/{namespace}/applications"
        ))
    }

    fn application_url(&self, name: &str, namespace: Option<&str>) -> Result<Url> {
        let namespace = namespace.unwrap_or(ARGOCD_NAMESPACE);
        self.url(&format!(
            "apis/argoproj.io/v1alpha1/namespaces/{namespace}/applications/{name}"
        ))
    }

    fn request(&self, method: Method, url: Url) -> Result<Request<'_>> {
        Ok(self.http.request(method, url).bearer(&self.account.token()?))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        request: Request<'_>,
        verb: &str,
        object: &str,
        limit: usize,
    ) -> Result<T> {
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response, verb, object).await);
        }
        response
            .json_or_hint(limit, "is --kubernetes-url the address of an API server?")
            .await
    }
}

fn object(name: &str, namespace: Option<&str>) -> String {
    format!(
        "application {}/{name} (applications.argoproj.io)",
        namespace.unwrap_or(ARGOCD_NAMESPACE)
    )
}
