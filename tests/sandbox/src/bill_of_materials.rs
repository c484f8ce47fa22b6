//! What a program is made of, as a file that scanners read (SPDX 2.3): syft makes it from the list of crates that
//! cargo-auditable put into the program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::tools::{Progress, Tools};

/// It reads a program of ten megabytes; on a busy machine that takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// Writes the list of a program, under the name that it is released by and in the version of this repository. It carries the
/// program's SHA-256, so that the two are known to belong together.
///
/// # Errors
/// When syft cannot be had, fails (what it says goes to standard error), or does not end within five minutes.
pub async fn write(progress: &Progress, program: &Path, name: &str, to: &Path) -> anyhow::Result<()> {
    let syft = Tools::syft(progress).await?;
    let mut command = Command::new(syft);
    command
        .args(["scan", "--quiet", "--source-name", name])
        .args(["--source-version", env!("CARGO_PKG_VERSION"), "--output"])
        .arg(format!("spdx-json={}", to.display()))
        .arg(format!("file:{}", program.display()))
        // It would ask its maker for a newer one.
        .env("SYFT_CHECK_FOR_APP_UPDATE", "false")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let status = tokio::time::timeout(LIMIT, command.status())
        .await
        .with_context(|| format!("syft did not end within {} s", LIMIT.as_secs()))?
        .context("starting syft")?;
    ensure!(
        status.success(),
        "syft could not list what {} is made of",
        program.display()
    );
    Ok(())
}
