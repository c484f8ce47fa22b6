//! The resource tree of an application: its objects and the pods that came of them.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::cluster::{Cluster, Coming, Live, Pod};
use super::manifest::{Key, Workload};

/// The tree as `GET .../resource-tree` prints it.
pub(super) fn of(cluster: &Cluster) -> Value {
    let mut nodes = Vec::new();
    for live in cluster.objects() {
        let Key {
            group,
            kind,
            namespace,
            name,
        } = &live.manifest.key;
        let mut root = node(
            group,
            &live.manifest.version,
            kind,
            namespace,
            name,
            &live.uid,
            &live.created_at,
        );
        if let Some(health) = live.health() {
            root["health"] = json!(health);
        }
        let parent = reference(&root);
        nodes.push(root);
        if kind == "Pod" {
            continue;
        }
        for pod in live.ready.iter() {
            grow(&mut nodes, live, pod, None, &parent);
        }
        if let Some(coming) = &live.coming {
            grow(&mut nodes, live, &coming.pod, Some(coming), &parent);
        }
    }
    json!({"nodes": nodes, "shardsCount": 1})
}

/// Adds a pod, and the ReplicaSet in between if there is one.
fn grow(nodes: &mut Vec<Value>, live: &Live, pod: &Pod, coming: Option<&Coming>, owner: &Value) {
    let Key { namespace, name, .. } = &live.manifest.key;
    let hash: String = Sha256::digest(&pod.uid)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut owner = owner.clone();
    let mut prefix = name.clone();
    if live.manifest.workload() == Some(Workload::Running { replica_set: true }) {
        prefix = format!("{name}-{}", &hash[..10]);
        let mut set = node(
            "apps",
            "v1",
            "ReplicaSet",
            namespace,
            &prefix,
            &hash_uid(&hash),
            &pod.created_at,
        );
        set["parentRefs"] = json!([owner]);
        owner = reference(&set);
        nodes.push(set);
    }
    let name = format!("{prefix}-{}", &hash[10..15]);
    let mut node = node("", "v1", "Pod", namespace, &name, &pod.uid, &pod.created_at);
    let (reason, containers, health) = match coming.map(|coming| &coming.trouble) {
        None => ("Running", "1/1", json!({"status": "Healthy"})),
        Some(None) => ("ContainerCreating", "0/1", json!({"status": "Progressing"})),
        Some(Some(trouble)) => (
            "ImagePullBackOff",
            "0/1",
            json!({"status": "Degraded", "message": trouble}),
        ),
    };
    node["parentRefs"] = json!([owner]);
    node["info"] =
        json!([{"name": "Status Reason", "value": reason}, {"name": "Containers", "value": containers}]);
    node["images"] = json!(pod.images);
    node["health"] = health;
    nodes.push(node);
}

fn node(
    group: &str,
    version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    uid: &str,
    created_at: &str,
) -> Value {
    let mut node = json!({});
    for (key, value) in [
        ("group", group),
        ("version", version),
        ("kind", kind),
        ("namespace", namespace),
    ] {
        if !value.is_empty() {
            node[key] = json!(value);
        }
    }
    node["name"] = json!(name);
    node["uid"] = json!(uid);
    node["createdAt"] = json!(created_at);
    node
}

/// What a child says of its parent.
fn reference(node: &Value) -> Value {
    let mut reference = json!({});
    for key in ["group", "kind", "namespace", "name", "uid"] {
        if let Some(value) = node.get(key) {
            reference[key] = value.clone();
        }
    }
    reference
}

/// A UID that stays the same for the same pod.
fn hash_uid(hash: &str) -> String {
    [
        &hash[..8],
        &hash[8..12],
        &hash[12..16],
        &hash[16..20],
        &hash[20..32],
    ]
    .join("-")
}
