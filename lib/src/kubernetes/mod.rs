//! The API of the cluster that a job runs in: Argo CD's applications as the custom resources that they are, and the pods
//! of their namespace.
//!
//! Source: Kubernetes documentation, "Accessing the API from a Pod", "API Concepts" (watches, bookmarks, 410) and
//! "Server-Side Field Validation"; Argo CD's custom resource `applications.argoproj.io/v1alpha1`. The service account
//! needs `get` and `watch` on applications, `patch` for a refresh or a sync, and `list` on pods for why they do not run.
//!
//! Deliberately absent: what a state means. Callers decide that, by the same types as for Argo CD's own API.

mod account;
mod client;
mod pods;
mod refusal;
mod watch;

pub use account::{Account, own_certificates};
pub use client::Client;
pub use watch::{Change, Changes};

/// Argo CD's own namespace, unless it was installed elsewhere.
pub const ARGOCD_NAMESPACE: &str = "argocd";

/// Where a pod finds its service account's token.
pub const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Where a pod finds the certificates of its API server.
const CA_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
