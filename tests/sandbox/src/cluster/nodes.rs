//! The node, which kwok plays: its pods become ready as a kubelet's would, or do not.
//!
//! Kept from the kubelet: a pod whose image cannot be pulled stays Pending, not ready, its container waiting with the reason
//! `ImagePullBackOff` and the kubelet's message. Departure: nothing is pulled and no container runs, so which images cannot be
//! pulled is what the sandbox says ([`Nodes::refuse`]), by the tag or digest in their names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::api::Api;
use crate::guardian::Guardian;
use crate::servers::process::Daemon;
use crate::tools::ClusterTools;

/// Those of kwok's own stages that make up a node with pods; `pod-ready` is there with a condition more.
const STAGES: [&str; 4] = [
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
];
const READY: &str = "pod/fast/pod-ready.yaml";
const NODE: &str = "node-1";
/// What no image's name holds.
const NO_IMAGE: &str = "^$";

pub(super) struct Nodes {
    api: Api,
    /// kwok's own stage for a pod that becomes ready.
    ready: Value,
    refused: Mutex<BTreeSet<String>>,
    pub(super) daemon: Daemon,
}

impl Nodes {
    /// Starts kwok and waits until its node is ready. The definition of stages is there already.
    pub(super) async fn start(
        guardian: &Guardian,
        tools: &ClusterTools,
        folder: &Path,
        api: Api,
    ) -> Result<Self> {
        for stage in STAGES {
            api.apply(&read(&tools.stages().join(stage))?).await?;
        }
        let ready = read(&tools.stages().join(READY))?;
        apply_pod_stages(&api, &ready, NO_IMAGE).await?;
        api.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}))
            .await?;
        let mut command = guardian.bare_command(&tools.kwok);
        command.current_dir(folder).args([
            "--kubeconfig=kubeconfig",
            "--manage-all-nodes=true",
            "--enable-crds=Stage",
            // Otherwise it would listen on every address, for what a kubelet is asked.
            "--node-port=0",
        ]);
        let mut daemon = Daemon::start(guardian, "kwok", command)?;
        let node = format!("/api/v1/nodes/{NODE}");
        daemon
            .until("make its node ready", async || {
                let node = api.get(&node).await.ok()?;
                has_condition(&node, "Ready").then_some(())
            })
            .await?;
        Ok(Self {
            api,
            ready,
            refused: Mutex::default(),
            daemon,
        })
    }

    /// From now on, images whose names hold `part` (a tag as `:1.1.0@`, a digest) cannot be pulled by pods that start.
    pub(super) async fn refuse(&self, part: &str) -> Result<()> {
        let pattern = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert(regex::escape(part));
            refused.iter().cloned().collect::<Vec<_>>().join("|")
        };
        apply_pod_stages(&self.api, &self.ready, &pattern).await
    }
}

pub(super) fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    })
}

/// A file of one YAML document.
pub(super) fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_norway::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

/// Pods with no image like `pattern` become ready, the others wait for ever.
async fn apply_pod_stages(api: &Api, ready: &Value, pattern: &str) -> Result<()> {
    // A jq expression, in which the pattern is a JSON string.
    let refused = format!(".spec.containers.[].image | select(test({}))", json!(pattern));
    let mut ready = ready.clone();
    ready["spec"]["selector"]["matchExpressions"]
        .as_array_mut()
        .context("kwok's stage pod-ready selects by no expressions")?
        .push(json!({"key": refused, "operator": "DoesNotExist"}));
    api.apply(&ready).await?;
    let waiting = ".status.containerStatuses.[].state.waiting.reason";
    api.apply(&json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "pod-cannot-pull"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": [
                {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                {"key": ".status.phase", "operator": "In", "values": ["Pending"]},
                {"key": refused, "operator": "Exists"},
                {"key": waiting, "operator": "NotIn", "values": ["ImagePullBackOff"]},
            ]},
            "next": {"statusTemplate": CANNOT_PULL},
        },
    }))
    .await
    .map(drop)
}

/// What a kubelet writes of a pod whose image it could not pull.
const CANNOT_PULL: &str = r#"{{ $now := Now }}
conditions:
- {lastTransitionTime: {{ $now | Quote }}, status: "True", type: Initialized}
- {lastTransitionTime: {{ $now | Quote }}, status: "False", type: Ready, reason: ContainersNotReady, message: "containers with unready status"}
- {lastTransitionTime: {{ $now | Quote }}, status: "False", type: ContainersReady, reason: ContainersNotReady, message: "containers with unready status"}
containerStatuses:
{{ range .spec.containers }}
- image: {{ .image | Quote }}
  imageID: ""
  name: {{ .name | Quote }}
  ready: false
  restartCount: 0
  started: false
  state:
    waiting:
      reason: ImagePullBackOff
      message: {{ printf "Back-off pulling image %q: ErrImagePull: manifest unknown" .image | Quote }}
{{ end }}
phase: Pending
startTime: {{ $now | Quote }}
"#;
