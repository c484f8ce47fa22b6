//! What shows why an application is not well: its resources, and the pods below them with their reasons.

use serde::Serialize;
use towpath::argocd::Tree;

use crate::trouble::line;

/// How many resources are listed.
const LISTED: usize = 20;
/// How many of them a message names.
const NAMED: usize = 4;

/// One resource that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unwell {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) health: String,
    /// What a pod's node says: `ImagePullBackOff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// Resources that are not well, what matters first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) resources: Vec<Unwell>,
    /// Why they could not be looked at.
    pub(crate) missing: Option<String>,
}

impl Evidence {
    /// Those of a tree that are not well.
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut resources: Vec<Unwell> = tree
            .nodes
            .iter()
            .filter_map(|node| {
                let health = node.health.as_ref()?;
                let well = matches!(health.status.as_str(), "Healthy" | "");
                // A pod that crashes now and then is Healthy in between, and its reason still tells.
                let reason = node
                    .reason()
                    .filter(|reason| *reason != "Running" && *reason != "Completed");
                (!well || (node.kind == "Pod" && reason.is_some())).then(|| Unwell {
                    kind: node.kind.clone(),
                    namespace: node.namespace.clone(),
                    name: node.name.clone(),
                    health: health.status.clone(),
                    reason: reason.map(str::to_owned),
                    message: line(&health.message),
                })
            })
            .collect();
        // A ReplicaSet is between the two that tell something.
        resources.sort_by_key(|unwell| {
            let degraded = unwell.health != "Degraded";
            (
                unwell.kind == "ReplicaSet",
                unwell.kind == "Pod",
                degraded,
                unwell.name.clone(),
            )
        });
        resources.truncate(LISTED);
        Evidence {
            resources,
            missing: None,
        }
    }

    /// Nothing could be seen, for this reason.
    pub(crate) fn missing(why: impl Into<String>) -> Self {
        Evidence {
            resources: Vec::new(),
            missing: Some(why.into()),
        }
    }

    /// The rest of a sentence about the application.
    pub(crate) fn sentence(&self) -> String {
        if let Some(why) = &self.missing {
            return format!("; its resources cannot be looked at: {why}");
        }
        if self.resources.is_empty() {
            return String::new();
        }
        let shown: Vec<String> = self
            .resources
            .iter()
            .take(NAMED)
            .map(|unwell| {
                let said = match (&unwell.reason, unwell.message.as_str()) {
                    (Some(reason), "") => reason.clone(),
                    (Some(reason), message) if message.contains(reason.as_str()) => message.to_owned(),
                    (Some(reason), message) => format!("{reason}, {message}"),
                    (None, "") => unwell.health.clone(),
                    (None, message) => message.to_owned(),
                };
                format!("{} {}: {said}", unwell.kind, unwell.name)
            })
            .collect();
        format!("; {}", shown.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_tell_their_reasons() {
        let tree: Tree = serde_json::from_str(
            r#"{"nodes":[
              {"kind":"Service","name":"web","health":{"status":"Healthy"}},
              {"kind":"ConfigMap","name":"settings"},
              {"kind":"Pod","name":"web-1","health":{"status":"Healthy"},"info":[{"name":"Status Reason","value":"Running"}]},
              {"kind":"ReplicaSet","name":"web-a","health":{"status":"Progressing","message":"waiting"}},
              {"kind":"Pod","name":"web-2","health":{"status":"Degraded","message":"Back-off pulling image"},
               "info":[{"name":"Status Reason","value":"ImagePullBackOff"},{"name":"Containers","value":"0/1"}]},
              {"kind":"Deployment","name":"web","health":{"status":"Degraded","message":"exceeded its progress deadline"}}]}"#,
        )
        .unwrap();
        let evidence = Evidence::of(&tree);
        let names: Vec<&str> = evidence
            .resources
            .iter()
            .map(|unwell| unwell.kind.as_str())
            .collect();
        assert_eq!(names, ["Deployment", "Pod", "ReplicaSet"]);
        assert_eq!(
            evidence.sentence(),
            "; Deployment web: exceeded its progress deadline; Pod web-2: ImagePullBackOff, Back-off pulling image; \
             ReplicaSet web-a: waiting"
        );
        assert_eq!(Evidence::default().sentence(), "");
        assert!(Evidence::missing("denied").sentence().contains("denied"));
    }
}
