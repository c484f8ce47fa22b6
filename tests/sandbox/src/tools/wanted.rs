//! The tools that a world needs, and where each of them may come from.

use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::debian::{self, Package};
use super::install::Installer;
use super::npm;
use super::search_path::{self, Answers};
use super::wheel::{self, Wheel};

/// A tool that is taken from the cache, from `PATH`, or installed, in this order.
pub(super) struct Wanted {
    pub(super) name: &'static str,
    /// `None` where only the pinned one will do.
    on_path: Option<OnPath>,
    /// What a person may put on `PATH` instead.
    pub(super) instead: &'static str,
    source: Source,
}

/// Which program on `PATH` will do.
struct OnPath {
    ask: &'static [&'static str],
    suits: fn(&str) -> bool,
}

enum Source {
    Wheel(&'static Wheel),
    Debian(&'static Package),
    Npm,
}

const BAO: Wanted = Wanted {
    name: "bao",
    on_path: Some(OnPath {
        ask: &["version"],
        suits: |said| said.starts_with("OpenBao v2."),
    }),
    instead: "put `bao` 2.x on PATH",
    source: Source::Wheel(&wheel::OPENBAO),
};
const KUBECTL: Wanted = Wanted {
    name: "kubectl",
    on_path: Some(OnPath {
        ask: &["version", "--client"],
        suits: |said| said.contains("Kustomize Version: v5."),
    }),
    instead: "put a `kubectl` with kustomize 5 on PATH",
    source: Source::Wheel(&wheel::KUBECTL),
};
const DOCKER_REGISTRY: Wanted = Wanted {
    name: "docker-registry",
    on_path: Some(OnPath {
        ask: &["--version"],
        suits: |said| said.contains("/distribution 2."),
    }),
    instead: "put `docker-registry` 2.x on PATH",
    source: Source::Debian(&debian::DOCKER_REGISTRY),
};
const RSYNC: Wanted = Wanted {
    name: "rsync",
    on_path: Some(OnPath {
        ask: &["--version"],
        suits: |said| said.contains("version 3."),
    }),
    instead: "put `rsync` 3.x on PATH",
    source: Source::Debian(&debian::RSYNC),
};
const BUSYBOX: Wanted = Wanted {
    name: "busybox",
    on_path: None,
    instead: "run where Debian packages can be had",
    source: Source::Debian(&debian::BUSYBOX),
};
const GITLAB_CI_LOCAL: Wanted = Wanted {
    name: "gitlab-ci-local",
    on_path: None,
    instead: "run where npm reaches a package registry",
    source: Source::Npm,
};
pub(super) const BUILDAH: Wanted = Wanted {
    name: "buildah",
    on_path: Some(OnPath {
        ask: &["--version"],
        suits: |said| said.starts_with("buildah version 1."),
    }),
    instead: "put `buildah` 1.x on PATH, or name kaniko's executor in TOWPATH_KANIKO",
    source: Source::Debian(&debian::BUILDAH),
};

/// What Argo CD keeps its rendered manifests in.
pub(super) const REDIS: Wanted = Wanted {
    name: "redis-server",
    on_path: Some(OnPath {
        ask: &["--version"],
        suits: |said| said.contains(" v=6.") || said.contains(" v=7."),
    }),
    instead: "put `redis-server` 6 or 7 on PATH",
    source: Source::Debian(&debian::REDIS),
};

impl Wanted {
    pub(super) async fn look(&self, cache: &Cache, answers: &mut Answers) -> Option<PathBuf> {
        let cached = match self.source {
            Source::Wheel(wheel) => cache.entry(&wheel.entry()).map(|entry| wheel.program_in(&entry)),
            Source::Debian(package) => cache
                .entry(&package.entry())
                .and_then(|entry| package.program_in(&entry)),
            Source::Npm => cache.entry(&npm::entry()).map(|entry| npm::program_in(&entry)),
        };
        if cached.is_some() {
            return cached;
        }
        let OnPath { ask, suits } = self.on_path.as_ref()?;
        let program = search_path::find(self.name)?;
        answers
            .ask(&program, ask)
            .await
            .is_some_and(|said| suits(&said))
            .then_some(program)
    }

    /// What keeps this machine from installing it, if anything does.
    pub(super) async fn obstacle(&self) -> Option<String> {
        match self.source {
            Source::Wheel(wheel) => wheel.obstacle().await,
            Source::Debian(_) => Package::obstacle(),
            Source::Npm => npm::obstacle(),
        }
    }

    pub(super) async fn install(&self, installer: &Installer<'_>) -> anyhow::Result<PathBuf> {
        match self.source {
            Source::Wheel(wheel) => wheel.install(installer).await,
            Source::Debian(package) => package.install(installer).await,
            Source::Npm => npm::install(installer).await,
        }
    }

    /// Folders of libraries that came with the program, when it is one that was unpacked.
    pub(super) fn libraries(&self, cache: &Cache, program: &Path) -> Vec<PathBuf> {
        let Source::Debian(package) = self.source else {
            return Vec::new();
        };
        let Some(entry) = cache.entry(&package.entry()) else {
            return Vec::new();
        };
        if program.starts_with(&entry) {
            debian::library_folders(&entry)
        } else {
            Vec::new()
        }
    }
}

/// The tools that every world has.
pub(super) const TOOLS: [Wanted; 6] = [BAO, KUBECTL, DOCKER_REGISTRY, RSYNC, BUSYBOX, GITLAB_CI_LOCAL];
