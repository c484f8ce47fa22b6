//! Towpath's tools as they go into images and releases: one static program for each processor, by one call of cargo, and
//! a link for each tool.
//!
//! `cargo-zigbuild` has zig compile what is C and link against zig's own musl, for either processor on either. The Rust
//! standard library of the targets comes through rustup. `cargo-auditable` writes into the program which crates it is made
//! of, where scanners look for that. Paths of the machine are taken out, so that two checkouts in two places make the same
//! bytes.

mod elf;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::tools::{Progress, Tools};
use crate::towpath_binaries::{NAMES, repository, target_folder, told_by_cargo};

/// A platform that images and releases are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The processor as the OCI image specification names it (GOARCH).
    pub architecture: &'static str,
    /// The target as Rust names it.
    pub target: &'static str,
    machine: elf::Machine,
}

/// All of them; each has a static musl target.
pub const PLATFORMS: [Platform; 2] = [
    Platform {
        architecture: "amd64",
        target: "x86_64-unknown-linux-musl",
        machine: elf::Machine::X86_64,
    },
    Platform {
        architecture: "arm64",
        target: "aarch64-unknown-linux-musl",
        machine: elf::Machine::Aarch64,
    },
];

impl Platform {
    /// The platform of an image's name for it, `linux/amd64`.
    ///
    /// # Errors
    /// When no binaries are made for it; the message lists those that are.
    pub fn parse(text: &str) -> Result<Self, String> {
        PLATFORMS
            .into_iter()
            .find(|platform| platform.to_string() == text)
            .ok_or_else(|| format!("no binaries are made for {text}: choose linux/amd64 or linux/arm64"))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)
    }
}

/// The program that holds every tool.
pub const PROGRAM: &str = "towpath";
/// The package that it is built from.
const PACKAGE: &str = "towpath-toolbox";

/// Builds the program for these platforms in a profile of the root `Cargo.toml`, copies it to `folder/<architecture>/towpath`,
/// and makes a relative link to it for each tool. It was seen to be static.
///
/// # Errors
/// When zig, cargo-auditable or a target's standard library cannot be had, cargo fails (what it says goes to standard
/// error), or a program came out that asks for a loader.
pub async fn build(
    progress: &Progress,
    platforms: &[Platform],
    profile: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let (zig, zigbuild) = Tools::zig(progress).await?;
    let auditable = Tools::auditable(progress).await?;
    for platform in platforms {
        add_standard_library(platform.target)?;
    }
    let target = target_folder()?;
    let mut command = Command::new(auditable);
    for name in told_by_cargo() {
        command.env_remove(name);
    }
    command
        .args(["auditable", "zigbuild", "--locked"])
        // By name: the whole workspace would bring the features that only tests want.
        .args(["--package", PACKAGE, "--bin", PROGRAM, "--profile", profile])
        .arg("--target-dir")
        .arg(&target)
        .arg("--manifest-path")
        .arg(repository().join("Cargo.toml"));
    for platform in platforms {
        command.args(["--target", platform.target]);
    }
    let caches = target.join("zig");
    command
        .env("PATH", first_on_path(&zigbuild)?)
        .env("CARGO_ZIGBUILD_ZIG_PATH", zig)
        .env("CARGO_ZIGBUILD_CACHE_DIR", caches.join("zigbuild"))
        .env("ZIG_GLOBAL_CACHE_DIR", caches.join("global"))
        .env("ZIG_LOCAL_CACHE_DIR", caches.join("local"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags()?)
        .stdin(Stdio::null());
    let status = command.status().context("starting cargo-zigbuild")?;
    ensure!(status.success(), "cargo could not build the static binaries");
    for platform in platforms {
        let made = target.join(platform.target).join(profile);
        let into = folder.join(platform.architecture);
        fs::create_dir_all(&into).with_context(|| format!("making {}", into.display()))?;
        let binary = made.join(PROGRAM);
        elf::ensure_static(&binary, platform.machine)?;
        // Not over the old file, which may be running.
        let partial = into.join(format!(".{PROGRAM}.partial"));
        fs::copy(&binary, &partial).with_context(|| format!("copying {}", binary.display()))?;
        fs::rename(&partial, into.join(PROGRAM))?;
        link(&into)?;
    }
    Ok(())
}

/// Makes the tools' links, unless they are there. They are relative, and so hold wherever the folder goes.
///
/// # Errors
/// When the folder is not there or cannot be written to.
pub fn link(folder: &Path) -> anyhow::Result<()> {
    for name in NAMES {
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == Path::new(PROGRAM)) {
            continue;
        }
        symlink(PROGRAM, &link).with_context(|| format!("making the link {}", link.display()))?;
    }
    Ok(())
}

/// `PATH`, with the folder of a program of cargo's before the others: that is how cargo finds its own commands.
fn first_on_path(program: &Path) -> anyhow::Result<OsString> {
    let folder = program.parent().context("a program is in a folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}

/// Has rustup add a target's standard library, unless it is there.
fn add_standard_library(target: &str) -> anyhow::Result<()> {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(repository())
        .output()
        .context("starting rustc")?;
    let folder = String::from_utf8(asked.stdout).context("reading where rustc has its libraries")?;
    if asked.status.success() && Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup")
        .args(["target", "add", target])
        .current_dir(repository())
        .stdin(Stdio::null())
        .status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("rustup could not add the target {target}: {status}"),
        Err(error) => bail!("rustc has no standard library for {target}, and rustup does not start: {error}"),
    }
}

/// Flags for rustc, in cargo's encoding.
fn flags() -> anyhow::Result<OsString> {
    let crates = match (std::env::var_os("CARGO_HOME"), std::env::var_os("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(&home).join(".cargo"),
        (None, None) => bail!("no folder of cargo's is known: set CARGO_HOME or HOME"),
    };
    let mut flags = OsString::new();
    for (folder, name) in [(crates, "/cargo"), (repository(), "/towpath")] {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(folder);
        flags.push("=");
        flags.push(name);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_named_as_images_name_them() {
        assert_eq!(Platform::parse("linux/amd64"), Ok(PLATFORMS[0]));
        assert_eq!(Platform::parse("linux/arm64"), Ok(PLATFORMS[1]));
        for wrong in ["", "amd64", "linux/arm", "linux/arm64/v8", "windows/amd64"] {
            assert!(
                Platform::parse(wrong).unwrap_err().contains("linux/arm64"),
                "{wrong}"
            );
        }
    }
}
