//! Towpath's own binaries, built from this checkout.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::guardian::Guardian;

/// The binaries, by name.
pub const NAMES: [&str; 6] = [
    "vault-scw-creds",
    "image-build",
    "image-promote-by-digest",
    "env-trigger",
    "kustomize-bump",
    "argocd-wait",
];

/// Builds them in the profile of the running program and gives back the folder they are in. Quick when they are built.
///
/// # Errors
/// When cargo fails; what it says goes to standard error.
pub fn build() -> anyhow::Result<PathBuf> {
    let build = Build::like_own()?;
    let mut command = Command::new(&build.cargo);
    for name in told_by_cargo() {
        command.env_remove(name);
    }
    let status = command.args(&build.arguments).status();
    build.finish(status)
}

/// The same as a process of the guardian's world, so that an interrupt ends cargo together with its compilers.
///
/// # Errors
/// When cargo fails.
pub async fn build_within(guardian: &Guardian) -> anyhow::Result<PathBuf> {
    let build = Build::like_own()?;
    let mut command = guardian.command(&build.cargo);
    for name in told_by_cargo() {
        command.env_remove(name);
    }
    let status = command.args(&build.arguments).status().await;
    build.finish(status)
}

/// The binary behind `cargo demo`, for tests of it as a process. It is built with the others.
///
/// # Errors
/// When cargo fails; what it says goes to standard error.
pub fn build_demo() -> anyhow::Result<PathBuf> {
    Ok(build()?.join("towpath-demo"))
}

/// The checkout that this program was built from, an absolute path.
pub(crate) fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// The target folder that the running program was built into.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let profile = profile_folder()?;
    let target = profile
        .parent()
        .context("the profile's folder is in the target folder")?;
    Ok(target.to_owned())
}

/// Its folder there, which is named like its profile.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    // target/<profile>/towpath-demo, target/<profile>/deps/test-0123 or target/<profile>/examples/x
    let mut folder = own.parent().context("a program is in a folder")?;
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().context("deps is in the profile's folder")?;
    }
    Ok(folder.to_owned())
}

struct Build {
    cargo: OsString,
    arguments: Vec<OsString>,
    /// Where the binaries will be.
    folder: PathBuf,
}

impl Build {
    /// A build of the same profile, into the same folder, as the running program's.
    fn like_own() -> anyhow::Result<Self> {
        let folder = profile_folder()?;
        let target = target_folder()?;
        let manifest = repository().join("Cargo.toml");
        let mut arguments: Vec<OsString> = vec![
            "build".into(),
            "--quiet".into(),
            "--manifest-path".into(),
            manifest.into(),
            "--target-dir".into(),
            target.into(),
        ];
        // The whole workspace, as `cargo demo` and `cargo test` take it: naming packages would select other features of
        // the dependencies, and build half of them anew.
        arguments.extend(["--workspace".into(), "--bins".into()]);
        if folder.ends_with("release") {
            arguments.push("--release".into());
        }
        Ok(Self {
            // The demo is run by cargo, which says where it is; a program that was copied elsewhere asks PATH.
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            arguments,
            folder,
        })
    }

    fn finish(self, status: std::io::Result<std::process::ExitStatus>) -> anyhow::Result<PathBuf> {
        let status = status.context("running cargo to build Towpath's binaries")?;
        ensure!(status.success(), "cargo could not build Towpath's binaries");
        Ok(self.folder)
    }
}

/// The variables in which cargo tells the program that it runs about that program's package. To another cargo they
/// mean that build scripts which watch them (ring's does) are out of date, and everything on top of them with it.
pub(crate) fn told_by_cargo() -> impl Iterator<Item = OsString> {
    const PREFIXES: [&str; 6] = [
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PRIMARY_",
        "CARGO_TARGET_TMPDIR",
    ];
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        name.to_str()
            .is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    })
}
