//! gitlab-ci-local, had through the machine's own npm from a lock file that pins each package by its integrity.
//!
//! No install script is run. A gitlab-ci-local on `PATH` is not looked for: its jobs and its copy of GitLab's schema
//! are what the templates are tested against, so both must be exactly the pinned ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::install::Installer;
use super::{outside, search_path};

const DEADLINE: Duration = Duration::from_secs(600);
const PACKAGE: &str = include_str!("../../npm/package.json");
const LOCK: &str = include_str!("../../npm/package-lock.json");
/// The schema is a JavaScript module, since that is how the package is compiled.
const WRITE_SCHEMA: &str =
    "import(process.argv[1]).then(m => process.stdout.write(JSON.stringify(m.schema)))";

/// The name of its entry in the cache.
pub(super) fn entry() -> String {
    let sum = Sha256::digest([PACKAGE, LOCK].concat());
    let sum: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("npm-{sum}")
}

pub(super) fn program_in(entry: &Path) -> PathBuf {
    entry.join("node_modules/.bin/gitlab-ci-local")
}

/// GitLab's JSON schema of `.gitlab-ci.yml`, as JSON.
pub(super) fn schema_in(entry: &Path) -> PathBuf {
    entry.join("gitlab-ci-schema.json")
}

/// What keeps this machine from getting the packages, if anything does.
pub(super) fn obstacle() -> Option<String> {
    search_path::find("npm")
        .is_none()
        .then(|| "npm is not on PATH (Debian: npm)".to_owned())
}

pub(super) async fn install(installer: &Installer<'_>) -> anyhow::Result<PathBuf> {
    let name = entry();
    let made = installer.cache.make(installer.lock, &name, async |partial| {
        fs::write(partial.join("package.json"), PACKAGE)?;
        fs::write(partial.join("package-lock.json"), LOCK)?;
        let mut npm = installer.guardian.command("npm");
        npm.args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-progress",
            "--loglevel=error",
        ]);
        outside::output_of(npm.current_dir(partial), DEADLINE).await?;
        let module = partial.join("node_modules/gitlab-ci-local/src/schema/schema.js");
        let mut node = installer.guardian.command("node");
        let schema = outside::output_of(node.args(["-e", WRITE_SCHEMA]).arg(module), DEADLINE).await?;
        Ok(fs::write(schema_in(partial), schema)?)
    });
    Ok(program_in(
        &installer
            .progress
            .step("install gitlab-ci-local with npm", made)
            .await?,
    ))
}

#[cfg(test)]
mod tests {
    use super::LOCK;

    #[test]
    fn every_locked_package_has_an_integrity_and_names_no_host() {
        let lock: serde_json::Value = serde_json::from_str(LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert_eq!(packages["node_modules/gitlab-ci-local"]["version"], "4.65.1");
        for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
            assert!(
                package["integrity"]
                    .as_str()
                    .is_some_and(|sum| sum.starts_with("sha512-")),
                "{path}"
            );
            assert!(package.get("resolved").is_none(), "{path}");
        }
    }
}
