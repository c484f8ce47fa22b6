//! Root folders of Debian packages, which base images of either processor are made of without running anything in them.
//!
//! The packages are unpacked, not installed: what their scripts would do, as far as a job needs it, is done here. They
//! are what the archive offers, checked by apt's signed index.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::Cache;
use super::debian::{Apt, Package};
use super::outside;
use super::progress::Progress;
use crate::guardian::Guardian;

const DEADLINE: Duration = Duration::from_secs(600);

/// git with the libraries that itself needs (not those of its helpers for HTTP), and the rest of what a job needs.
const PACKAGES: [&str; 6] = [
    "busybox-static",
    "ca-certificates",
    "git",
    "libc6",
    "libpcre2-8-0",
    "zlib1g",
];

/// What jobs' scripts call.
const PROGRAMS: [&str; 18] = [
    "cat", "chmod", "cp", "cut", "env", "grep", "head", "id", "ls", "mkdir", "mv", "rm", "sed", "sh", "sort",
    "tail", "tr", "wc",
];

pub(super) async fn find_or_make(progress: &Progress, architecture: &'static str) -> anyhow::Result<PathBuf> {
    let cache = Cache::open()?;
    let name = format!("debian-root-1-{architecture}");
    if let Some(entry) = cache.entry(&name) {
        return Ok(entry.join("root"));
    }
    if let Some(why) = Package::obstacle() {
        anyhow::bail!("{why}");
    }
    let lock = cache.lock(progress).await?;
    let guardian = Guardian::start()?;
    let made = cache.make(&lock, &name, async |partial| {
        unpack(progress, &guardian, architecture, partial).await
    });
    let entry = progress
        .step(format!("unpack Debian packages for {architecture}"), made)
        .await;
    guardian.stop().await?;
    Ok(entry?.join("root"))
}

async fn unpack(
    progress: &Progress,
    guardian: &Guardian,
    architecture: &'static str,
    into: &Path,
) -> anyhow::Result<()> {
    let mut apt = Apt::of_empty(progress, guardian, architecture);
    apt.update().await?;
    let (root, download) = (into.join("root"), into.join("download"));
    fs::create_dir(&download)?;
    apt.download(&PACKAGES, &download).await?;
    // As on Debian since 12, whichever of the two places a package has its files in.
    for folder in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    let notes = root.join("var/lib/dpkg/status.d");
    fs::create_dir_all(&notes)?;
    for file in fs::read_dir(&download)? {
        let file = file?.path();
        // Through tar, which can be told to leave the links above alone.
        let mut extract = guardian.command("sh");
        extract
            .args([
                "-c",
                "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --keep-directory-symlink --directory \"$2\"",
                "sh",
            ])
            .arg(&file)
            .arg(&root);
        outside::output_of(&mut extract, DEADLINE).await?;
        let mut field = guardian.command("dpkg-deb");
        let facts = outside::output_of(field.arg("--field").arg(&file), DEADLINE).await?;
        let name = facts
            .lines()
            .find_map(|line| line.strip_prefix("Package: "))
            .unwrap_or_default();
        fs::write(notes.join(name), &facts)?;
    }
    fs::remove_dir_all(download)?;
    finish(&root)?;
    Ok(())
}

/// What the packages' scripts, and `base-files`, would do.
fn finish(root: &Path) -> anyhow::Result<()> {
    for program in PROGRAMS {
        let link = root.join("usr/bin").join(program);
        if !link.exists() {
            symlink("busybox", link)?;
        }
    }
    let mut certificates: Vec<PathBuf> = fs::read_dir(root.join("usr/share/ca-certificates/mozilla"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    certificates.sort();
    let mut bundle = Vec::new();
    for certificate in certificates {
        bundle.extend(fs::read(certificate)?);
    }
    fs::create_dir_all(root.join("etc/ssl/certs"))?;
    fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), bundle)?;
    fs::copy("/etc/os-release", root.join("etc/os-release"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for folder in ["dev", "proc", "sys", "root", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    // Pages that nobody reads in a job.
    for folder in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
        fs::remove_dir_all(root.join(folder)).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}
