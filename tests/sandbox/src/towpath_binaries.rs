//! Towpath's own binaries, built from this checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The binaries, by name.
pub const NAMES: [&str; 5] = [
    "vault-scw-creds",
    "image-build",
    "image-promote-by-digest",
    "env-trigger",
    "kustomize-bump",
];

/// Builds them in the profile of the running program and gives back the folder they are in. Quick when they are built.
///
/// # Errors
/// When cargo fails; what it says goes to standard error.
pub fn build() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    // target/<profile>/towpath-demo, target/<profile>/deps/test-0123 or target/<profile>/examples/x
    let mut folder = own.parent().context("a program is in a folder")?;
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().context("deps is in the profile's folder")?;
    }
    let target = folder
        .parent()
        .context("the profile's folder is in the target folder")?;
    // The demo is run by cargo, which says where it is; a program that was copied elsewhere asks PATH.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    // The whole workspace, as `cargo demo` and `cargo test` take it: naming packages would select other features of the
    // dependencies, and build half of them anew.
    command.args(["--workspace", "--bins"]);
    // What cargo tells the program it runs about that program's package: to the cargo below, changed variables mean that
    // build scripts which watch them (ring's does) are out of date, and everything on top of them with it.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            [
                "CARGO_MANIFEST_",
                "CARGO_PKG_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
                "CARGO_PRIMARY_",
                "CARGO_TARGET_TMPDIR",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        });
        if told {
            command.env_remove(name);
        }
    }
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command
        .status()
        .context("running cargo to build Towpath's binaries")?;
    ensure!(status.success(), "cargo could not build Towpath's binaries");
    Ok(folder.to_owned())
}
