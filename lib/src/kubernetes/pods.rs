//! Pods, and why they do not run, in the shape of Argo CD's resource tree.

use serde::Deserialize;

use crate::argocd::application::{Application, Health, or_default};
use crate::argocd::tree::{Info, Node, Tree};

/// A list of pods, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodList {
    #[serde(deserialize_with = "or_default")]
    items: Vec<Pod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Meta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    image: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: String,
    reason: Option<String>,
    message: Option<String>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<PodCondition>,
    #[serde(deserialize_with = "or_default")]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    ready: bool,
    state: Option<ContainerState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Stuck>,
    terminated: Option<Stuck>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stuck {
    reason: Option<String>,
    message: Option<String>,
}

/// The application's resources with the health that its status has, and the pods that run one of its images.
pub(super) fn tree(application: &Application, list: &PodList) -> Tree {
    let resources = application.status.resources.iter().map(|resource| Node {
        kind: resource.kind.clone(),
        namespace: resource.namespace.clone(),
        name: resource.name.clone(),
        health: resource.health.clone(),
        ..Node::default()
    });
    let images = &application.status.summary.images;
    let pods = list.items.iter().filter_map(|pod| {
        let node = pod.node();
        node.images
            .iter()
            .any(|image| images.contains(image))
            .then_some(node)
    });
    Tree {
        nodes: resources.chain(pods).collect(),
    }
}

impl Pod {
    fn node(&self) -> Node {
        let containers = self.spec.init_containers.iter().chain(&self.spec.containers);
        let trouble = self.trouble();
        let (reason, message) = match &trouble {
            Some(stuck) => (
                stuck.reason.clone().unwrap_or_default(),
                stuck.message.clone().unwrap_or_default(),
            ),
            None => (self.status.phase.clone(), String::new()),
        };
        let is_ready = self
            .status
            .container_statuses
            .iter()
            .all(|container| container.ready);
        let status = match self.status.phase.as_str() {
            "Succeeded" => "Healthy",
            "Failed" => "Degraded",
            _ if trouble.is_some() => "Degraded",
            "Running" if is_ready => "Healthy",
            _ => "Progressing",
        };
        Node {
            kind: "Pod".to_owned(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            health: Some(Health {
                status: status.to_owned(),
                message,
                last_transition_time: None,
            }),
            info: vec![Info {
                name: "Status Reason".to_owned(),
                value: reason,
            }],
            images: containers.map(|container| container.image.clone()).collect(),
        }
    }

    /// What keeps it from running: what a container waits for, how one ended, or that no node takes it.
    fn trouble(&self) -> Option<Stuck> {
        let status = &self.status;
        let mut states = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .filter_map(|container| container.state.as_ref());
        let stuck = states.find_map(|state| {
            let is_trouble = |stuck: &&Stuck| {
                let reason = stuck.reason.as_deref().unwrap_or_default();
                !matches!(reason, "" | "ContainerCreating" | "PodInitializing" | "Completed")
            };
            let waiting = state.waiting.as_ref().filter(is_trouble);
            waiting.or(state.terminated.as_ref().filter(is_trouble)).cloned()
        });
        let unscheduled = || {
            let mut conditions = status.conditions.iter();
            let found = conditions.find(|found| found.kind == "PodScheduled" && found.status == "False")?;
            Some(Stuck {
                reason: found.reason.clone(),
                message: found.message.clone(),
            })
        };
        let evicted = || {
            status.reason.as_ref().map(|reason| Stuck {
                reason: Some(reason.clone()),
                message: status.message.clone(),
            })
        };
        stuck.or_else(unscheduled).or_else(evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_the_application_tell_why_they_do_not_run() {
        let application: Application = serde_json::from_str(
            r#"{"status":{"summary":{"images":["web@sha256:1","web@sha256:2"]},
                "resources":[{"kind":"Deployment","name":"web","health":{"status":"Progressing"}}]}}"#,
        )
        .unwrap();
        let list: PodList = serde_json::from_str(
            r#"{"items":[
              {"metadata":{"name":"stranger"},"spec":{"containers":[{"image":"other"}]}},
              {"metadata":{"name":"old"},"spec":{"containers":[{"image":"web@sha256:1"}]},
               "status":{"phase":"Running","containerStatuses":[{"ready":true,"state":{"running":{}}}]}},
              {"metadata":{"name":"new"},"spec":{"containers":[{"image":"web@sha256:2"}]},
               "status":{"phase":"Pending","containerStatuses":[{"ready":false,
                 "state":{"waiting":{"reason":"ImagePullBackOff","message":"not found"}}}]}},
              {"metadata":{"name":"unplaced"},"spec":{"containers":[{"image":"web@sha256:2"}],"initContainers":null},
               "status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False",
                 "reason":"Unschedulable","message":"0/1 nodes"}]}}]}"#,
        )
        .unwrap();
        let found: Vec<(String, String, String)> = tree(&application, &list)
            .nodes
            .iter()
            .map(|node| {
                let health = node.health.clone().unwrap_or_default();
                let reason = node.reason().unwrap_or_default().to_owned();
                (node.name.clone(), health.status, reason)
            })
            .collect();
        let expected = [
            ("web", "Progressing", ""),
            ("old", "Healthy", "Running"),
            ("new", "Degraded", "ImagePullBackOff"),
            ("unplaced", "Degraded", "Unschedulable"),
        ]
        .map(|(name, health, reason)| (name.to_owned(), health.to_owned(), reason.to_owned()));
        assert_eq!(found, expected);
    }
}
