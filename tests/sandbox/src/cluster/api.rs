//! The Kubernetes API as the sandbox itself uses it: as an administrator, over TLS, an object at a time.
//!
//! Objects are applied by the server (`application/apply-patch+yaml`, "Server-Side Apply"), so that doing it twice is
//! doing it once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(20);
const FIELD_MANAGER: &str = "towpath-sandbox";

/// A client of one API server.
#[derive(Clone)]
pub(super) struct Api {
    url: String,
    token: String,
    client: reqwest::Client,
}

impl Api {
    /// `authority` is the certificate (PEM) that the server's own one was signed with.
    pub(super) fn new(server: SocketAddr, authority: &str, token: &str) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(authority.as_bytes())?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([authority])
            .timeout(TIMEOUT)
            .build()
            .context("making a client of the API server")?;
        Ok(Self {
            url: format!("https://{server}"),
            token: token.to_owned(),
            client,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether the server says that it is ready (`/readyz`).
    pub(super) async fn is_ready(&self) -> bool {
        let request = self.client.get(format!("{}/readyz", self.url));
        match request.bearer_auth(&self.token).send().await {
            Ok(answer) => answer.status() == StatusCode::OK,
            Err(_) => false,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None, "application/json").await
    }

    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send(Method::POST, path, Some(object), "application/json")
            .await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.send(Method::DELETE, path, None, "application/json")
            .await
            .map(drop)
    }

    /// Changes some fields of an object (RFC 7396).
    pub(super) async fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, Some(change), "application/merge-patch+json")
            .await
    }

    /// Makes an object as it is stated, whether it is there or not.
    pub(super) async fn apply(&self, object: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}&force=true", path_of(object)?);
        self.send(Method::PATCH, &path, Some(object), "application/apply-patch+yaml")
            .await
    }

    pub(super) async fn apply_all(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.apply(object).await?;
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>, kind: &str) -> Result<Value> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, kind).body(body.to_string());
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("asking the API server: {what}"))?;
        let status = answer.status();
        let answer: Value = answer
            .json()
            .await
            .with_context(|| format!("reading the API server's answer to {what}"))?;
        if !status.is_success() {
            // A Status object's message: it never quotes what was sent.
            bail!("{what}: {status}: {}", answer["message"]);
        }
        Ok(answer)
    }
}

/// The kinds that a cluster is made of here, what their paths call them, and whether they live in a namespace.
const KINDS: [(&str, &str, bool); 15] = [
    ("AppProject", "appprojects", true),
    ("Application", "applications", true),
    ("ClusterRole", "clusterroles", false),
    ("ClusterRoleBinding", "clusterrolebindings", false),
    ("ConfigMap", "configmaps", true),
    ("CustomResourceDefinition", "customresourcedefinitions", false),
    ("Deployment", "deployments", true),
    ("Namespace", "namespaces", false),
    ("Node", "nodes", false),
    ("Role", "roles", true),
    ("RoleBinding", "rolebindings", true),
    ("Secret", "secrets", true),
    ("Service", "services", true),
    ("ServiceAccount", "serviceaccounts", true),
    ("Stage", "stages", false),
];

fn path_of(object: &Value) -> Result<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").context("an object has no kind")?;
    let version = text("/apiVersion").context("an object has no apiVersion")?;
    let name = text("/metadata/name").with_context(|| format!("a {kind} has no name"))?;
    let (_, plural, namespaced) = KINDS
        .iter()
        .find(|(known, ..)| *known == kind)
        .with_context(|| format!("the path of a {kind} is not known"))?;
    let group = if version.contains('/') { "apis" } else { "api" };
    let place = match (namespaced, text("/metadata/namespace")) {
        (true, Some(namespace)) => format!("namespaces/{namespace}/"),
        (true, None) => bail!("the {kind} {name} names no namespace"),
        (false, _) => String::new(),
    };
    Ok(format!("/{group}/{version}/{place}{plural}/{name}"))
}

/// A namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_path_comes_from_what_it_is() {
        assert_eq!(path_of(&namespace("shop")).unwrap(), "/api/v1/namespaces/shop");
        let application = json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": "web", "namespace": "argocd"},
        });
        assert_eq!(
            path_of(&application).unwrap(),
            "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/web"
        );
        let homeless = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
        assert_eq!(
            path_of(&homeless).unwrap_err().to_string(),
            "the Secret x names no namespace"
        );
    }
}
