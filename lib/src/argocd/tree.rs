//! The resource tree: an application's resources and what came of them, down to the pods.

use serde::Deserialize;

use super::application::{Health, or_default};

/// All of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tree {
    /// In no order that means anything.
    #[serde(deserialize_with = "or_default")]
    pub nodes: Vec<Node>,
}

/// One resource.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    /// Its kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Its namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// How well it is, where its kind can tell.
    pub health: Option<Health>,
    /// What `kubectl get` would show beside it.
    #[serde(deserialize_with = "or_default")]
    pub info: Vec<Info>,
    /// The images of a pod.
    #[serde(deserialize_with = "or_default")]
    pub images: Vec<String>,
}

/// One thing that is shown beside a resource.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Info {
    /// `Status Reason`, `Containers`, `Restart Count`...
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// In words.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
}

impl Node {
    /// Why a pod is as it is: `ImagePullBackOff`, `CrashLoopBackOff`...
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let found = self.info.iter().find(|info| info.name == "Status Reason");
        found
            .map(|info| info.value.as_str())
            .filter(|value| !value.is_empty())
    }
}
