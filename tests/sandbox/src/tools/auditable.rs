//! cargo-auditable, which cargo builds from its crate: it writes into a program which crates that is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::cache::Cache;
use super::install::Installer;
use super::outside;
use super::progress::Progress;
use crate::guardian::Guardian;
use crate::towpath_binaries::{repository, told_by_cargo};

/// cargo's name for it.
const CRATE: &str = "cargo-auditable";
const VERSION: &str = "0.7.7";
/// The crate's SHA-256. Of the crates below it, that of each is in its own lock file, which `--locked` holds cargo to.
const SHA256: &str = "ccdd489bc94d1338cd04389a842e00661300331ec915fb376b4810ef7d480b5d";
/// On two busy cores it takes a few minutes.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The program, which is built unless it is in the cache.
///
/// Several processes may ask at once: one builds, the others wait for it.
pub(super) async fn find_or_build(progress: &Progress) -> anyhow::Result<PathBuf> {
    let name = format!("{CRATE}-{VERSION}-{}", std::env::consts::ARCH);
    let cache = Cache::open()?;
    if let Some(entry) = cache.entry(&name) {
        return Ok(entry.join(CRATE));
    }
    let lock = cache.lock(progress).await?;
    // Meanwhile another process may have built it.
    if let Some(entry) = cache.entry(&name) {
        return Ok(entry.join(CRATE));
    }
    let guardian = Guardian::start()?;
    let installer = Installer::new(&cache, &lock, progress, &guardian);
    let made = cache.make(&lock, &name, async |partial| build(&installer, partial).await);
    let step = format!("build {CRATE} {VERSION} with cargo (once)");
    let entry = progress.step(step, made).await;
    guardian.stop().await?;
    Ok(entry?.join(CRATE))
}

async fn build(installer: &Installer<'_>, partial: &Path) -> anyhow::Result<()> {
    let work = partial.join("work");
    check(installer, &work.join("pin")).await?;
    let mut install = cargo(installer);
    install
        .args(["install", "--quiet", "--locked", "--version"])
        .arg(format!("={VERSION}"))
        .arg("--root")
        .arg(&work)
        .arg("--target-dir")
        .arg(work.join("target"))
        .arg(CRATE);
    outside::output_of(&mut install, DEADLINE).await?;
    fs::rename(work.join("bin").join(CRATE), partial.join(CRATE))?;
    Ok(fs::remove_dir_all(work)?)
}

/// Looks at which sum the registry has for the crate, which cargo then holds the download to.
async fn check(installer: &Installer<'_>, package: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src/lib.rs"), "")?;
    let manifest = package.join("Cargo.toml");
    fs::write(
        &manifest,
        format!(
            "[package]\nname = \"pin\"\nedition = \"2024\"\n[dependencies]\n{CRATE} = \"={VERSION}\"\n[workspace]\n"
        ),
    )?;
    let mut lock = cargo(installer);
    lock.args(["generate-lockfile", "--quiet", "--manifest-path"])
        .arg(manifest);
    outside::output_of(&mut lock, DEADLINE).await?;
    let locked = fs::read_to_string(package.join("Cargo.lock")).context("reading what cargo locked")?;
    let entry = locked
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("name = \"{CRATE}\"\n")))
        .with_context(|| format!("cargo locked no {CRATE}"))?;
    ensure!(
        entry.contains(&format!("checksum = \"{SHA256}\"\n")),
        "the registry has another {CRATE} {VERSION} than the one that is pinned"
    );
    Ok(())
}

/// cargo, in the version that the repository is built with.
fn cargo(installer: &Installer<'_>) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = installer.guardian.command(program);
    for name in told_by_cargo() {
        cargo.env_remove(name);
    }
    cargo.current_dir(repository());
    cargo
}
