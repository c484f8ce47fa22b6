//! `cargo release-binaries`: the program of a release, static and for both processors, with what it is made of and checksums.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use sha2::{Digest as _, Sha256};

use crate::bill_of_materials;
use crate::static_binaries::{self, PLATFORMS, PROGRAM, Platform};
use crate::tools::Progress;

/// Where checksums are, in the format of `sha256sum`.
const CHECKSUMS: &str = "SHA256SUMS";

/// Build Towpath as it is released: one program that is every tool, static, stripped, for amd64 and arm64, with checksums.
///
/// Writes `DIR/ARCHITECTURE/towpath`, a link to it for each tool, `DIR/towpath-linux-ARCHITECTURE.spdx.json`, which lists the crates
/// it is made of (SPDX 2.3, by syft), and `DIR/SHA256SUMS`, which `sha256sum --check` takes, and prints the sizes in bytes. `docker/Dockerfile` takes the folder's parent as its context. Compilers that lack are installed into the cache folder
/// (TOWPATH_CACHE, else ~/.cache/towpath), pinned by version and checksum, and the targets' standard libraries by rustup.
#[derive(Debug, Parser)]
#[command(
    name = "cargo release-binaries --",
    after_help = "Exit codes: 0 it is there, 1 it is not."
)]
struct Arguments {
    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = "target/images/binaries")]
    output: PathBuf,

    /// Build for this platform alone, linux/amd64 or linux/arm64; may be given twice
    #[arg(long = "platform", value_name = "PLATFORM", value_parser = Platform::parse)]
    platforms: Vec<Platform>,
}

/// Parses the command line and builds; `main` returns what this returns.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(release(&arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "the release was not built: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn release(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.output;
    let mut platforms = arguments.platforms.clone();
    if platforms.is_empty() {
        platforms.extend(PLATFORMS);
    }
    // What an earlier run left must not look like a part of this one.
    if folder.exists() {
        clear(folder)?;
    }
    let progress = Progress::lines();
    static_binaries::build(&progress, &platforms, "release", folder).await?;
    let mut files = Vec::new();
    for platform in &platforms {
        let program = format!("{}/{PROGRAM}", platform.architecture);
        let (name, list) = (released_as(platform), list_of(platform));
        bill_of_materials::write(&progress, &folder.join(&program), &name, &folder.join(&list)).await?;
        files.extend([program, list]);
    }
    files.sort();
    let (sums, table) = checksums(folder, &files)?;
    fs::write(folder.join(CHECKSUMS), sums)?;
    Ok(std::io::stdout().write_all(table.as_bytes())?)
}

/// What the program is called beside those of other processors.
fn released_as(platform: &Platform) -> String {
    format!("{PROGRAM}-linux-{}", platform.architecture)
}

/// The file that says what it is made of.
fn list_of(platform: &Platform) -> String {
    format!("{}.spdx.json", released_as(platform))
}

/// Removes what a run writes, and nothing else that may be in the folder.
fn clear(folder: &Path) -> Result<()> {
    let ours = PLATFORMS.map(|platform| folder.join(platform.architecture));
    for old in ours.iter().filter(|old| old.exists()) {
        fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
    }
    let lists = PLATFORMS.each_ref().map(list_of);
    let files = lists.iter().map(String::as_str).chain([CHECKSUMS]);
    for old in files.map(|file| folder.join(file)).filter(|old| old.exists()) {
        fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
    }
    Ok(())
}

/// The lines of the checksum file, and a table of sizes in bytes for people.
fn checksums(folder: &Path, files: &[String]) -> Result<(String, String)> {
    let (mut sums, mut table) = (String::new(), String::new());
    for file in files {
        let bytes = fs::read(folder.join(file)).with_context(|| format!("reading {file}"))?;
        let sum: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        sums.push_str(&format!("{sum}  {file}\n"));
        table.push_str(&format!("{:>10}  {file}\n", bytes.len()));
    }
    Ok((sums, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_what_sha256sum_checks() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("amd64")).unwrap();
        fs::write(folder.path().join("amd64/towpath"), "a program").unwrap();
        let (sums, table) = checksums(folder.path(), &["amd64/towpath".to_owned()]).unwrap();
        fs::write(folder.path().join(CHECKSUMS), sums).unwrap();
        let mut check = std::process::Command::new("sha256sum");
        let checked = check
            .args(["--check", "--strict", CHECKSUMS])
            .current_dir(folder.path());
        assert!(checked.status().unwrap().success());
        assert_eq!(table, "         9  amd64/towpath\n");
    }

    #[test]
    fn a_run_clears_what_it_writes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "amd64/towpath",
            "towpath-linux-amd64.spdx.json",
            "SHA256SUMS",
            "notes.txt",
        ] {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "old").unwrap();
        }
        clear(folder.path()).unwrap();
        let left = fs::read_dir(folder.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }
}
