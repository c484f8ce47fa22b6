//! What a rendered manifest says: which object it is and which images it makes run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::Value;

/// The kinds of Kubernetes and of Argo CD's own charts that belong to no namespace.
const CLUSTER_SCOPED: [&str; 12] = [
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingWebhookConfiguration",
];

/// Which object it is. Ordered as Argo CD prints its lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The API group; empty for the core group.
    pub(super) group: String,
    pub(super) kind: String,
    /// Empty for what belongs to no namespace.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One object to be applied.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    pub(super) key: Key,
    pub(super) version: String,
    pub(super) object: Value,
}

/// What becomes of an object that makes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// Its pods exist as long as it does; a ReplicaSet owns them if `replica_set`.
    Running { replica_set: bool },
    /// Its pods exist from time to time (CronJob), so nothing runs when it is applied.
    Scheduled,
}

/// Each object once, in the order of Argo CD's lists: what comes later takes the place of what came before. And what the real
/// one warns of: the objects that came more than once.
pub(super) fn each_once(manifests: &[Manifest]) -> (Vec<Manifest>, Vec<String>) {
    let mut by_key: BTreeMap<&Key, Vec<&Manifest>> = BTreeMap::new();
    for manifest in manifests {
        by_key.entry(&manifest.key).or_default().push(manifest);
    }
    let repeated = by_key.iter().filter(|(_, found)| found.len() > 1);
    let warning = |(key, found): (&&Key, &Vec<&Manifest>)| {
        let Key {
            group,
            kind,
            namespace,
            name,
        } = key;
        format!(
            "Resource {group}/{kind}/{namespace}/{name} appeared {} times among application resources.",
            found.len()
        )
    };
    let warnings = repeated.map(warning).collect();
    let last = by_key.into_values().filter_map(|found| found.last().copied());
    (last.cloned().collect(), warnings)
}

impl Manifest {
    /// Reads the objects of a YAML stream, as `kustomize build` prints it. An object that names no namespace gets
    /// `namespace`, if its kind lives in one.
    ///
    /// # Errors
    /// When the text is not YAML or an object lacks `apiVersion`, `kind` or `metadata.name`.
    pub(super) fn read_all(yaml: &str, namespace: &str) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for document in serde_norway::Deserializer::from_str(yaml) {
            let object = Value::deserialize(document).context("the manifests are not YAML")?;
            if !object.is_null() {
                manifests.push(Manifest::from_object(object, namespace)?);
            }
        }
        manifests.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(manifests)
    }

    fn from_object(object: Value, default_namespace: &str) -> Result<Manifest> {
        let text = |pointer: &str| {
            let value = object
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty());
            value.with_context(|| format!("a manifest lacks {pointer}"))
        };
        let api_version = text("/apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = text("/kind")?;
        let namespace = match text("/metadata/namespace") {
            _ if CLUSTER_SCOPED.contains(&kind) => "",
            Ok(namespace) => namespace,
            Err(_) => default_namespace,
        };
        let key = Key {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: text("/metadata/name")?.to_owned(),
        };
        Ok(Manifest {
            version: version.to_owned(),
            key,
            object,
        })
    }

    /// Which kind of workload this is, if it is one.
    pub(super) fn workload(&self) -> Option<Workload> {
        match (self.key.group.as_str(), self.key.kind.as_str()) {
            ("apps", "Deployment") => Some(Workload::Running { replica_set: true }),
            ("apps", "DaemonSet" | "ReplicaSet" | "StatefulSet") | ("batch", "Job") | ("", "Pod") => {
                Some(Workload::Running { replica_set: false })
            }
            ("batch", "CronJob") => Some(Workload::Scheduled),
            _ => None,
        }
    }

    /// The images that the object names, init containers' included, sorted. Empty if it is no workload.
    pub(super) fn images(&self) -> Vec<String> {
        let mut images: Vec<String> = self
            .pod_spec()
            .into_iter()
            .flat_map(|spec| ["initContainers", "containers"].map(|list| &spec[list]))
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|container| container["image"].as_str())
            .map(str::to_owned)
            .collect();
        images.sort();
        images.dedup();
        images
    }

    /// Whether any pod is wanted at all: `replicas` of zero means none.
    pub(super) fn wants_pods(&self) -> bool {
        self.object.pointer("/spec/replicas").and_then(Value::as_u64) != Some(0)
    }

    /// How long the object may take to roll out: only a Deployment has such a bound.
    pub(super) fn progress_deadline(&self, default: Duration) -> Option<Duration> {
        let set = self
            .object
            .pointer("/spec/progressDeadlineSeconds")
            .and_then(Value::as_u64);
        (self.key.kind == "Deployment").then(|| set.map_or(default, Duration::from_secs))
    }

    /// Why the API server does not let this take the place of `live`, in its words: what selects pods cannot be changed.
    pub(super) fn refused_over(&self, live: &Manifest) -> Option<String> {
        let selector = self.object.pointer("/spec/selector");
        let is_fixed = self.key.group == "apps" && selector != live.object.pointer("/spec/selector");
        is_fixed.then(|| {
            format!(
                "error when patching \"/dev/shm/4115732575\": {}.apps {:?} is invalid: spec.selector: Invalid value: {}: \
                 field is immutable",
                self.key.kind,
                self.key.name,
                selector.unwrap_or(&Value::Null)
            )
        })
    }

    /// What makes pods differ: two manifests with the same template run the same pods.
    pub(super) fn pod_template(&self) -> Option<&Value> {
        if self.key.kind == "Pod" {
            self.object.get("spec")
        } else {
            self.object.pointer("/spec/template")
        }
    }

    fn pod_spec(&self) -> Option<&Value> {
        let pointer = match self.workload()? {
            Workload::Scheduled => "/spec/jobTemplate/spec/template/spec",
            Workload::Running { .. } if self.key.kind == "Pod" => "/spec",
            Workload::Running { .. } => "/spec/template/spec",
        };
        self.object.pointer(pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENDERED: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  progressDeadlineSeconds: 30
  template:
    spec:
      initContainers:
      - image: registry.example.com/migrate@sha256:bb
      containers:
      - image: registry.example.com/web@sha256:aa
      - image: registry.example.com/web@sha256:aa
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: report
  namespace: reports
spec:
  jobTemplate:
    spec:
      template:
        spec:
          containers:
          - image: registry.example.com/report:1
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  image: not an image
";

    #[test]
    fn objects_know_their_place_and_images() {
        let manifests = Manifest::read_all(RENDERED, "default").unwrap();
        let facts: Vec<_> = manifests
            .iter()
            .map(|manifest| {
                let key = &manifest.key;
                (
                    key.group.as_str(),
                    key.kind.as_str(),
                    key.namespace.as_str(),
                    manifest.images().join(" "),
                )
            })
            .collect();
        assert_eq!(
            facts,
            [
                ("", "ConfigMap", "default", String::new()),
                ("", "Namespace", "", String::new()),
                (
                    "apps",
                    "Deployment",
                    "default",
                    "registry.example.com/migrate@sha256:bb registry.example.com/web@sha256:aa".to_owned()
                ),
                (
                    "batch",
                    "CronJob",
                    "reports",
                    "registry.example.com/report:1".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_deadline_is_a_deployments_alone() {
        let manifests = Manifest::read_all(RENDERED, "default").unwrap();
        let deadlines: Vec<_> = manifests
            .iter()
            .map(|manifest| manifest.progress_deadline(Duration::from_secs(600)))
            .collect();
        assert_eq!(deadlines, [None, None, Some(Duration::from_secs(30)), None]);
    }

    #[test]
    fn of_two_of_one_name_the_later_counts() {
        let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {level: '2'}\n";
        let both = [RENDERED, other].map(|text| Manifest::read_all(text, "default").unwrap());
        let (once, warnings) = each_once(&both.concat());
        assert_eq!(once.len(), 4);
        assert_eq!(once[0], both[1][0]);
        assert_eq!(
            warnings,
            ["Resource /ConfigMap/default/settings appeared 2 times among application resources."]
        );
        assert_eq!(each_once(&both[0]), (both[0].clone(), Vec::new()));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "just text",
            "kind: Pod",
            "a: [",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: ''}",
        ] {
            assert!(Manifest::read_all(text, "default").is_err(), "{text}");
        }
        assert_eq!(Manifest::read_all("", "default").unwrap(), []);
    }
}
