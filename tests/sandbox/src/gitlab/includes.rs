//! Inputs of included files, checked where gitlab-ci-local lets everything pass.
//!
//! gitlab-ci-local fetches what is included and fills the inputs in, but ignores `regex` and inputs that the file does
//! not know. GitLab refuses both, so the same files are looked at once more. Includes by `template`, interpolation
//! functions, and components by a range of versions are not looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;
use serde_norway::Value as Yaml;

use super::inputs;

/// As deep as GitLab's includes may nest.
const MAX_DEPTH: usize = 100;

/// Where an included file's own `local` includes are.
#[derive(Clone)]
enum Origin {
    Clone,
    Project {
        project: String,
        reference: String,
    },
    /// A file from an address has no project: GitLab refuses a `local` include in it.
    Remote,
}

/// Checks the inputs of everything a configuration includes.
///
/// # Errors
/// GitLab's sentence about the first file whose inputs are wrong.
pub(super) fn check(clone: &Path, state: &Path, content: &str) -> anyhow::Result<()> {
    check_file(clone, state, content, &BTreeMap::new(), &Origin::Clone, 0)
}

fn check_file(
    clone: &Path,
    state: &Path,
    content: &str,
    given: &BTreeMap<String, Value>,
    origin: &Origin,
    depth: usize,
) -> anyhow::Result<()> {
    let values =
        inputs::checked_inputs(content, given).map_err(|errors| anyhow::anyhow!(errors.join(", ")))?;
    // What cannot be read here was read by gitlab-ci-local, which has said what is wrong with it.
    let Ok(body) = serde_norway::from_str::<Yaml>(inputs::body(content)) else {
        return Ok(());
    };
    let entries = match body.get("include") {
        Some(Yaml::Sequence(entries)) => entries.clone(),
        Some(entry) => vec![entry.clone()],
        None => Vec::new(),
    };
    if depth >= MAX_DEPTH {
        bail!("Maximum of {MAX_DEPTH} nested includes are allowed!");
    }
    for entry in &entries {
        for (name, path, origin) in files(clone, state, entry, origin) {
            // A file behind `rules` that did not match was not fetched.
            let Ok(content) = std::fs::read_to_string(path) else {
                continue;
            };
            let given = given_inputs(entry, &values);
            if let Err(error) = check_file(clone, state, &content, &given, &origin, depth + 1) {
                bail!("`{name}`: {error}");
            }
        }
    }
    Ok(())
}

/// The files one entry of `include` means, by their names and where they are.
fn files(clone: &Path, state: &Path, entry: &Yaml, origin: &Origin) -> Vec<(String, PathBuf, Origin)> {
    let fetched = |project: &str, reference: &str, file: &str| {
        let folder = state
            .join("includes")
            .join("127.0.0.1")
            .join(project)
            .join(reference);
        folder.join(file.trim_start_matches('/'))
    };
    let text = |key: &str| entry.get(key).and_then(Yaml::as_str);
    if let Some(project) = text("project") {
        let reference = text("ref").unwrap_or("HEAD");
        let names = match entry.get("file") {
            Some(Yaml::Sequence(names)) => names.iter().filter_map(Yaml::as_str).collect(),
            Some(Yaml::String(name)) => vec![name.as_str()],
            _ => Vec::new(),
        };
        let origin = Origin::Project {
            project: project.to_owned(),
            reference: reference.to_owned(),
        };
        let found = names.into_iter();
        return found
            .map(|name| (name.to_owned(), fetched(project, reference, name), origin.clone()))
            .collect();
    }
    if let Some(component) = text("component")
        && let Some((address, reference)) = component.rsplit_once('@')
        && let Some((project, name)) = address.rsplit_once('/')
    {
        // What stands before the first slash is the instance, or the variable that means it.
        let project = project.split_once('/').map_or(project, |(_, project)| project);
        let origin = Origin::Project {
            project: project.to_owned(),
            reference: reference.to_owned(),
        };
        let found = [
            format!("templates/{name}.yml"),
            format!("templates/{name}/template.yml"),
        ];
        let mut found = found.iter().map(|file| fetched(project, reference, file));
        let path = found.rfind(|path| path.exists());
        return path
            .map(|path| (component.to_owned(), path, origin))
            .into_iter()
            .collect();
    }
    let is_address = |text: &&str| text.starts_with("http://") || text.starts_with("https://");
    if let Some(address) = text("remote").or(entry.as_str().filter(is_address)) {
        let name = address.split_once("://").map_or(address, |(_, name)| name);
        let path = state.join("includes").join(name);
        return vec![(address.to_owned(), path, Origin::Remote)];
    }
    let Some(name) = text("local").or(entry.as_str()) else {
        return Vec::new();
    };
    let path = match origin {
        Origin::Clone => clone.join(name.trim_start_matches('/')),
        Origin::Project { project, reference } => fetched(project, reference, name),
        Origin::Remote => return Vec::new(),
    };
    vec![(name.to_owned(), path, origin.clone())]
}

/// The inputs of an entry, with the including file's own inputs filled in.
fn given_inputs(entry: &Yaml, values: &BTreeMap<String, Yaml>) -> BTreeMap<String, Value> {
    let given = entry
        .get("inputs")
        .and_then(Yaml::as_mapping)
        .into_iter()
        .flatten();
    given
        .filter_map(|(name, value)| {
            let value = match value {
                Yaml::String(text) => filled(text, values),
                other => other.clone(),
            };
            Some((name.as_str()?.to_owned(), serde_json::to_value(value).ok()?))
        })
        .collect()
}

fn filled(text: &str, values: &BTreeMap<String, Yaml>) -> Yaml {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$[[") {
        let Some((name, after)) = after.split_once("]]") else {
            break;
        };
        let value = name
            .trim()
            .strip_prefix("inputs.")
            .and_then(|name| values.get(name));
        if before.is_empty() && after.is_empty() && result.is_empty() {
            // An input by itself keeps its type.
            return value.cloned().unwrap_or_default();
        }
        result.push_str(before);
        match value {
            Some(Yaml::String(text)) => result.push_str(text),
            Some(other) => result.push_str(serde_norway::to_string(other).unwrap_or_default().trim()),
            None => {}
        }
        rest = after;
    }
    result.push_str(rest);
    Yaml::String(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_reach_nested_includes_and_are_checked_there() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("state/includes/127.0.0.1/group/t/v1");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(
            inner.join("outer.yml"),
            "spec:\n  inputs: {digest: {}}\n---\ninclude:\n  - local: /inner.yml\n    inputs: {image: 'app@$[[ inputs.digest ]]'}\n",
        )
        .unwrap();
        std::fs::write(
            inner.join("inner.yml"),
            "spec:\n  inputs: {image: {regex: '^app@sha256:[0-9a-f]+$'}}\n---\njob: {script: !reference [a, b]}\n",
        )
        .unwrap();
        let with = |digest: &str| {
            let content = format!(
                "include:\n  - project: group/t\n    ref: v1\n    file: outer.yml\n    inputs: {{digest: '{digest}'}}\n"
            );
            check(folder.path(), &folder.path().join("state"), &content)
        };
        with("sha256:ab").unwrap();
        let refused = with("latest; rm").unwrap_err().to_string();
        assert_eq!(
            refused,
            "`outer.yml`: `/inner.yml`: `image` input: provided value does not match required RegEx pattern"
        );
    }
}
