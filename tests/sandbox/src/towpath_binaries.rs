//! Towpath's own binaries, built from this checkout.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, ensure};

use crate::guardian::Guardian;

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
    let profile = Profile::of_running_program()?;
    let mut command = Command::new(cargo());
    command.args(profile.arguments());
    for name in NAMES {
        command.args(["--package", name]);
    }
    finish(profile, command.status())
}

/// The same as [`build`], with cargo and its compilers as processes of a world: they end with it, in whatever way.
///
/// # Errors
/// When cargo fails; what it says goes to standard error.
pub async fn build_within(guardian: &Guardian) -> anyhow::Result<PathBuf> {
    let profile = Profile::of_running_program()?;
    let mut command = guardian.command(cargo());
    command.args(profile.arguments());
    for name in NAMES {
        command.args(["--package", name]);
    }
    finish(profile, command.status().await)
}

/// Builds the binary behind `cargo demo`, for tests of it as a process.
///
/// # Errors
/// When cargo fails; what it says goes to standard error.
pub fn build_demo() -> anyhow::Result<PathBuf> {
    let profile = Profile::of_running_program()?;
    let mut command = Command::new(cargo());
    command.args(profile.arguments());
    command.args(["--package", env!("CARGO_PKG_NAME"), "--bin", "towpath-demo"]);
    let folder = finish(profile, command.status())?;
    Ok(folder.join("towpath-demo"))
}

/// The folder that cargo put the running program's profile in, such as `target/debug`.
struct Profile {
    folder: PathBuf,
}

impl Profile {
    fn of_running_program() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("finding the running program")?;
        // target/<profile>/towpath-demo, target/<profile>/deps/test-0123 or target/<profile>/examples/x
        let mut folder = own.parent().context("a program is in a folder")?;
        if folder.ends_with("deps") || folder.ends_with("examples") {
            folder = folder.parent().context("deps is in the profile's folder")?;
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// What cargo is told besides the packages.
    fn arguments(&self) -> Vec<OsString> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let mut arguments: Vec<OsString> = ["build", "--quiet", "--manifest-path"]
            .map(OsString::from)
            .to_vec();
        arguments.push(manifest.into());
        if let Some(target) = self.folder.parent() {
            arguments.extend(["--target-dir".into(), target.into()]);
        }
        if self.folder.ends_with("release") {
            arguments.push("--release".into());
        }
        arguments
    }
}

/// The demo and tests are run by cargo, which says where it is; a program that was copied elsewhere asks `PATH`.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn finish(profile: Profile, status: std::io::Result<ExitStatus>) -> anyhow::Result<PathBuf> {
    let status = status.context("running cargo to build Towpath's binaries")?;
    ensure!(
        status.success(),
        "cargo could not build Towpath's binaries: {status}"
    );
    Ok(profile.folder)
}
