//! Included files: laid out where gitlab-ci-local looks for them, and their inputs checked where it lets everything pass.
//!
//! gitlab-ci-local makes a clone for each file of another project, which takes most of a pipeline's making. GitLab reads such
//! a file from the repository, as whoever the pipeline's user is; so does [`provide`] before. What it leaves out is fetched as
//! ever: components, includes with `rules`, with variables or patterns, and whatever cannot be had, since gitlab-ci-local says
//! why not.
//!
//! gitlab-ci-local fills the inputs in, but ignores `regex` and inputs that the file does
//! not know. GitLab refuses both, so the same files are looked at once more. Includes by `template`, interpolation
//! functions, and components by a range of versions are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;
use serde_norway::Value as Yaml;

use super::hub::Hub;
use super::inputs;
use super::settings::{Role, Scope};
use super::tokens::Caller;

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

/// Lays out the files of other projects that a configuration includes, directly or not, as far as `user` may read them.
pub(super) async fn provide(hub: &Hub, user: u64, clone: &Path, state: &Path, content: &str) {
    let mut known = BTreeSet::new();
    let mut left = vec![(content.to_owned(), Origin::Clone)];
    while let Some((content, origin)) = left.pop() {
        let plain = |entry: &&Yaml| entry.get("rules").is_none() && entry.get("component").is_none();
        for entry in entries(&content).iter().filter(plain) {
            for (name, path, origin) in files(clone, state, entry, &origin) {
                let place = path.to_string_lossy();
                if place.contains(['$', '*']) || place.contains("..") || !known.insert(path.clone()) {
                    continue;
                }
                let content = match &origin {
                    Origin::Clone => tokio::fs::read(&path).await.ok(),
                    Origin::Remote => None,
                    Origin::Project { project, reference } => {
                        let found = of_project(hub, user, project, reference, &name).await;
                        match found {
                            Some(content) if lay_out(&path, &content).await.is_ok() => Some(content),
                            _ => None,
                        }
                    }
                };
                if let Some(content) = content {
                    left.push((String::from_utf8_lossy(&content).into_owned(), origin));
                }
            }
        }
    }
}

/// A file of a project at a branch or tag, when this user may fetch it; by the rules of a fetch with the user's token.
async fn of_project(hub: &Hub, user: u64, path: &str, reference: &str, file: &str) -> Option<Vec<u8>> {
    let project = {
        let state = hub.state();
        let caller = Caller::User {
            user,
            scopes: vec![Scope::ReadRepository],
        };
        let project = state.projects.values().find(|project| project.path == path)?;
        let may = state.can_read(&caller, project) && state.has_role(&caller, project, Role::Reporter);
        may.then(|| project.clone())?
    };
    // gitlab-ci-local has `HEAD` for no ref, and takes names as they stand beside `refs/heads/` and `refs/tags/`.
    if reference == "HEAD" || reference.starts_with("refs/") {
        return None;
    }
    let repository = hub.repository(&project);
    let at = repository.resolve(reference).await.ok()?;
    repository.file(&at.sha, file.trim_start_matches('/')).await
}

async fn lay_out(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    tokio::fs::write(path, content).await
}

/// What `include` lists; nothing where the file cannot be read, which gitlab-ci-local says.
fn entries(content: &str) -> Vec<Yaml> {
    let body = serde_norway::from_str::<Yaml>(inputs::body(content)).unwrap_or_default();
    match body.get("include") {
        Some(Yaml::Sequence(entries)) => entries.clone(),
        Some(entry) => vec![entry.clone()],
        None => Vec::new(),
    }
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
    if depth >= MAX_DEPTH {
        bail!("Maximum of {MAX_DEPTH} nested includes are allowed!");
    }
    for entry in &entries(content) {
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
