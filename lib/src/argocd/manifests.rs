//! What a commit renders to: which images, and in what they run.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::application::or_default;

/// How deep a template may lie in a resource of an unknown kind.
const DEPTH: usize = 32;

/// When pods exist that run an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// As long as the resource does.
    Always,
    /// From time to time: a Job, a CronJob, or something that is scaled to nothing.
    NowAndThen,
}

/// The images of a commit's manifests, each with when it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// In the order of the manifests.
    pub images: Vec<(String, Runs)>,
}

/// The answer: each manifest is a JSON document in a string.
#[derive(Deserialize)]
pub(super) struct Manifests {
    #[serde(default, deserialize_with = "or_default")]
    manifests: Vec<String>,
}

impl Rendered {
    pub(super) fn new(answer: &Manifests) -> Self {
        let mut images = Vec::new();
        let objects = answer.manifests.iter();
        let objects: Vec<Value> = objects
            .filter_map(|text| serde_json::from_str(text).ok())
            .collect();
        // Of several sources the manifests of all are here, and of two of one name Argo CD applies the later.
        let mut last = BTreeMap::new();
        for (place, object) in objects.iter().enumerate() {
            last.insert(identity(object).ok_or(place), place);
        }
        let mut places: Vec<usize> = last.into_values().collect();
        places.sort_unstable();
        for object in places.into_iter().map(|place| &objects[place]) {
            let kind = object["kind"].as_str().unwrap_or_default();
            let empty = object.pointer("/spec/replicas").and_then(Value::as_u64) == Some(0);
            let runs = if matches!(kind, "Job" | "CronJob") || empty {
                Runs::NowAndThen
            } else {
                Runs::Always
            };
            collect(object, runs, &mut images, DEPTH);
        }
        Rendered { images }
    }
}

/// What tells an object from others; none where it has no name, or is given one only when it is made.
fn identity(object: &Value) -> Option<[&str; 4]> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let version = text("/apiVersion").unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let namespace = text("/metadata/namespace").unwrap_or_default();
    Some([group, text("/kind")?, namespace, text("/metadata/name")?])
}

/// Any list of containers counts, whatever it stands in: an Argo Rollout has a template as a Deployment has.
fn collect(value: &Value, runs: Runs, images: &mut Vec<(String, Runs)>, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if matches!(name.as_str(), "containers" | "initContainers") {
                    let found = field.as_array().into_iter().flatten();
                    let found = found.filter_map(|container| container["image"].as_str());
                    images.extend(found.map(|image| (image.to_owned(), runs)));
                } else {
                    collect(field, runs, images, depth);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, runs, images, depth)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_with_when_they_run() {
        let manifests = [
            r#"{"kind":"Deployment","spec":{"template":{"spec":{"initContainers":[{"image":"i"}],"containers":[{"image":"a"}]}}}}"#,
            r#"{"kind":"Deployment","spec":{"replicas":0,"template":{"spec":{"containers":[{"image":"b"}]}}}}"#,
            r#"{"kind":"CronJob","spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"c"}]}}}}}}"#,
            r#"{"kind":"Pod","spec":{"containers":[{"image":"d"},{}]}}"#,
            r#"{"kind":"ConfigMap","data":{"image":"not one"}}"#,
            "no json",
        ];
        let answer = Manifests {
            manifests: manifests.map(str::to_owned).into(),
        };
        let found = Rendered::new(&answer).images;
        let found: Vec<(&str, Runs)> = found
            .iter()
            .map(|(image, runs)| (image.as_str(), *runs))
            .collect();
        use Runs::{Always, NowAndThen};
        assert_eq!(
            found,
            [
                ("i", Always),
                ("a", Always),
                ("b", NowAndThen),
                ("c", NowAndThen),
                ("d", Always)
            ]
        );
    }

    #[test]
    fn of_two_of_one_name_the_later_counts() {
        let pod = |name: &str, image: &str| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{{name}}},"spec":{{"containers":[{{"image":"{image}"}}]}}}}"#
            )
        };
        let web = r#""name":"web""#;
        let manifests = [
            pod(web, "a"),
            pod(r#""generateName":"job-""#, "b"),
            pod(web, "c"),
            pod(r#""generateName":"job-""#, "d"),
            pod(r#""name":"web","namespace":"other""#, "e"),
        ];
        let answer = Manifests {
            manifests: manifests.into(),
        };
        let found = Rendered::new(&answer).images;
        let found: Vec<&str> = found.iter().map(|(image, _)| image.as_str()).collect();
        assert_eq!(found, ["b", "c", "d", "e"]);
    }

    #[test]
    fn a_document_without_a_bottom_is_read_to_a_depth() {
        let deep = format!("{}{}", "{\"a\":".repeat(100), "1".to_owned() + &"}".repeat(100));
        let answer = Manifests {
            manifests: vec![deep],
        };
        assert_eq!(Rendered::new(&answer), Rendered::default());
    }
}
