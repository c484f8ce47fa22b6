//! The values for GitLab's runner chart: well-formed down to the TOML inside, tight, and every key explained on their page.

use std::collections::BTreeSet;
use std::process::Command;

use serde_norway::Value;
use towpath_tidy::read;

const FOLDER: &str = "docker/gitlab-runner";

/// Every `*_overwrite_*` setting that the executor's page knows.
/// Source: <https://docs.gitlab.com/runner/executors/kubernetes/#configuration-settings>
const POD_OVERWRITES: [&str; 7] = [
    "namespace_overwrite_allowed",
    "service_account_overwrite_allowed",
    "bearer_token_overwrite_allowed",
    "node_selector_overwrite_allowed",
    "node_tolerations_overwrite_allowed",
    "pod_labels_overwrite_allowed",
    "pod_annotations_overwrite_allowed",
];

/// Python reads the TOML: no crate of the workspace does, and the sandbox needs Python in any case.
const READ_TOML: &str = r#"
import json, sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
print(json.dumps(tomllib.loads(sys.argv[1])))
"#;

fn values() -> Value {
    serde_norway::from_str(&read(&format!("{FOLDER}/values.yaml"))).expect("values.yaml is YAML")
}

fn executor() -> serde_json::Value {
    let text = values()["runners"]["config"]
        .as_str()
        .expect("runners.config is text")
        .to_owned();
    let output = Command::new("python3")
        .args(["-c", READ_TOML, &text])
        .output()
        .expect("python3 runs");
    assert!(
        output.status.success(),
        "runners.config is no TOML: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let whole: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(whole["runners"].as_array().map(Vec::len), Some(1), "one runner");
    whole["runners"][0].clone()
}

/// The paths of a document's values; a list is one value.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Mapping(entries) => {
            for (key, value) in entries {
                let key = key.as_str().expect("keys are text");
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                paths(value, &path, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// The names of a table's values, however deep.
fn names(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        if value.is_object() {
            names(value, found);
        } else {
            found.insert(name.clone());
        }
    }
}

#[test]
fn every_key_is_explained_and_every_explanation_has_its_key() {
    let mut keys = BTreeSet::new();
    paths(&values(), "", &mut keys);
    names(&executor(), &mut keys);
    assert!(keys.len() > 60, "both files were read: {keys:?}");
    let page = read(&format!("{FOLDER}/README.md"));
    let explained: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .map(|key| key.trim_matches('`').to_owned())
        .collect();
    assert_eq!(keys, explained);
}

#[test]
fn a_job_is_what_its_runner_makes_it() {
    let kubernetes = executor()["kubernetes"].clone();
    assert_eq!(kubernetes["privileged"], false);
    assert_eq!(kubernetes["allow_privilege_escalation"], false);
    let mut overwrites: Vec<String> = POD_OVERWRITES.map(str::to_owned).to_vec();
    for container in ["", "helper_", "service_"] {
        for resource in ["cpu", "memory", "ephemeral_storage"] {
            for kind in ["request", "limit"] {
                overwrites.push(format!("{container}{resource}_{kind}_overwrite_max_allowed"));
            }
        }
    }
    for name in &overwrites {
        let value = &kubernetes[name.as_str()];
        assert!(value == "" || *value == false, "{name} is {value}");
    }
    for list in ["allowed_images", "allowed_services"] {
        let patterns = kubernetes[list].as_array().expect(list);
        assert!(!patterns.is_empty(), "an empty {list} would allow all");
        for pattern in patterns {
            let (host, path) = pattern
                .as_str()
                .and_then(|pattern| pattern.split_once('/'))
                .expect("a host and a path");
            assert!(
                !host.contains('*') && !path.starts_with('*'),
                "{list} allows {pattern}"
            );
        }
    }
    for resource in ["cpu_limit", "memory_limit", "ephemeral_storage_limit"] {
        assert!(kubernetes[resource].is_string(), "{resource} is not set");
    }
}

#[test]
fn jobs_and_their_manager_are_two_identities() {
    let job = executor()["kubernetes"]["service_account"].clone();
    let job = job.as_str().expect("a service account");
    let values = values();
    assert_ne!(values["serviceAccount"]["name"].as_str(), Some(job));
    assert!(values.get("runnerToken").is_none(), "the token is in a secret");
    let documents: Vec<Value> = read(&format!("{FOLDER}/namespace.yaml"))
        .split("\n---\n")
        .map(|document| serde_norway::from_str(document).expect("YAML"))
        .collect();
    let kinds: Vec<&str> = documents
        .iter()
        .filter_map(|document| document["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["Namespace", "ServiceAccount", "NetworkPolicy"]);
    assert_eq!(documents[1]["metadata"]["name"].as_str(), Some(job));
    let label = &documents[2]["spec"]["podSelector"]["matchLabels"];
    let namespace = documents[0]["metadata"]["name"].as_str().expect("a name");
    assert_eq!(label["towpath/runner"].as_str(), Some(namespace));
}
