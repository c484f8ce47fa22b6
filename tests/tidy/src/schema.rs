//! GitLab's JSON schema of `.gitlab-ci.yml`, as gitlab-ci-local ships it, with the validator that gitlab-ci-local uses.

use std::path::Path;
use std::process::Command;

const VALIDATE: &str = include_str!("validate.js");

/// What the schema says against YAML files: nothing, or a line for each error.
///
/// # Errors
/// What the schema complains of; also what node says when it cannot run.
pub fn check(
    node: &Path,
    gitlab_ci_local: &Path,
    schema: &Path,
    documents: &[impl AsRef<Path>],
) -> Result<(), String> {
    let program = gitlab_ci_local
        .canonicalize()
        .map_err(|error| format!("{}: {error}", gitlab_ci_local.display()))?;
    let modules = program
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "node_modules"))
        .ok_or("gitlab-ci-local is no npm package")?;
    let output = Command::new(node)
        .args(["-e", VALIDATE, "--"])
        .arg(modules)
        .arg(schema)
        .args(documents.iter().map(AsRef::as_ref))
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
