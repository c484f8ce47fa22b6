//! What a commit renders to: which images, and in what they run.

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
        for text in &answer.manifests {
            let Ok(object) = serde_json::from_str::<Value>(text) else {
                continue;
            };
            let kind = object["kind"].as_str().unwrap_or_default();
            let empty = object.pointer("/spec/replicas").and_then(Value::as_u64) == Some(0);
            let runs = if matches!(kind, "Job" | "CronJob") || empty {
                Runs::NowAndThen
            } else {
                Runs::Always
            };
            collect(&object, runs, &mut images, DEPTH);
        }
        Rendered { images }
    }
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
    fn a_document_without_a_bottom_is_read_to_a_depth() {
        let deep = format!("{}{}", "{\"a\":".repeat(100), "1".to_owned() + &"}".repeat(100));
        let answer = Manifests {
            manifests: vec![deep],
        };
        assert_eq!(Rendered::new(&answer), Rendered::default());
    }
}
