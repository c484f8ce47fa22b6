//! What the world tells the stand-in before it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Everything [`super::ArgoCd::start`] needs. No `Debug`: it holds secrets.
#[derive(Clone)]
pub struct Settings {
    /// The git program.
    pub git: PathBuf,
    /// The kubectl program, run as `kubectl kustomize FOLDER`.
    pub kubectl: PathBuf,
    /// Where the work trees are made, each in a folder of its own that is removed at the end.
    pub folder: PathBuf,
    /// The id of the world's guardian, which git and kubectl carry so that they end with the world.
    pub world: Option<String>,
    /// The applications, which exist from the start.
    pub applications: Vec<Declaration>,
    /// Credentials by the prefix of a repository's URL; the longest prefix wins, as with Argo CD's credential
    /// templates.
    pub repositories: BTreeMap<String, Credentials>,
    /// Pull credentials by registry host, port included: what a pull secret holds.
    pub registries: BTreeMap<String, Credentials>,
    /// What GitLab must send as `X-Gitlab-Token` with a webhook (`webhook.gitlab.secret`). Without it every webhook is
    /// heard, as in the real one.
    pub webhook_secret: Option<String>,
    /// How fast things happen.
    pub pace: Pace,
}

/// One application: which folders of which repositories should run.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// Where its manifests come from. One source is the application's `spec.source`, several are its `spec.sources`.
    pub sources: Vec<Source>,
    /// The namespace for manifests that name none.
    pub namespace: String,
    /// Whether commits are deployed without being asked (with prune and self-heal) or by `POST .../sync` alone.
    pub automated: bool,
}

/// Where manifests come from, as an application names it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The repository's address, without credentials.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// The kustomization's folder in the repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// A branch, a tag, a commit or `HEAD`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target_revision: String,
}

/// How long things take. The defaults make a rollout visible and short.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one state of a rollout to the next (150 ms).
    pub step: Duration,
    /// Between two looks at the repository that nobody asked for (3 s; the real one's default is 2 to 3 minutes).
    pub poll: Duration,
    /// Until a sync that failed is tried again, twice as long each time (1 s; the real one's default is 5 s).
    pub sync_retry: Duration,
    /// Between two attempts to pull an image (1 s; a kubelet backs off from 10 s to 5 minutes).
    pub pull_retry: Duration,
    /// How long a Deployment may take whose `progressDeadlineSeconds` is not set (10 minutes, as in Kubernetes).
    pub progress_deadline: Duration,
}

/// A user name and a password or token.
#[derive(Clone)]
pub struct Credentials {
    /// The user name; GitLab takes any for a project access token.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            step: Duration::from_millis(150),
            poll: Duration::from_secs(3),
            sync_retry: Duration::from_secs(1),
            pull_retry: Duration::from_secs(1),
            progress_deadline: Duration::from_secs(600),
        }
    }
}

impl Settings {
    /// The credentials for the repository at `url`.
    pub(super) fn repository_credentials(&self, url: &str) -> Option<&Credentials> {
        let fitting = self
            .repositories
            .iter()
            .filter(|(prefix, _)| url.starts_with(prefix.as_str()));
        fitting
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, credentials)| credentials)
    }
}
