//! What a real cluster is made of: etcd, Kubernetes, kwok and Argo CD, which Go builds, and Debian's redis.
//!
//! Building takes minutes, once, so it is done only for who asks for the cluster. Each module lies in `go/` with a
//! `go.sum` that pins every part of it. Kubernetes publishes its parts as modules of their own, which its `go.mod` there
//! names instead of the folders that its own one does; Argo CD's repeats the versions that Argo CD itself replaces.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Missing;
use super::cache::Cache;
use super::go::{Amendment, GoProgram};
use super::install::Installer;
use super::progress::Progress;
use super::search_path::Answers;
use super::wanted::REDIS;
use crate::guardian::Guardian;

const GO_INSTEAD: &str = "install Go 1.21 or later (without GOTOOLCHAIN=local)";

const ETCD: GoProgram = GoProgram {
    title: "etcd",
    name: "etcd",
    entry: "etcd",
    requirement: "go.etcd.io/etcd/server/v3 ",
    module: &[
        ("go.mod", include_str!("../../go/etcd/go.mod")),
        ("go.sum", include_str!("../../go/etcd/go.sum")),
    ],
    package: "go.etcd.io/etcd/server/v3",
    version_variables: None,
    keeps: &[],
    amendment: None,
};

const fn kubernetes(name: &'static str, package: &'static str) -> GoProgram {
    GoProgram {
        title: name,
        name,
        entry: name,
        requirement: "k8s.io/kubernetes ",
        module: &[
            ("go.mod", include_str!("../../go/kubernetes/go.mod")),
            ("go.sum", include_str!("../../go/kubernetes/go.sum")),
        ],
        package,
        // Clients cannot parse the version of a server that was not told it.
        version_variables: Some("k8s.io/component-base/version"),
        keeps: &[],
        amendment: None,
    }
}

const KWOK: GoProgram = GoProgram {
    title: "kwok",
    name: "kwok",
    entry: "kwok",
    requirement: "sigs.k8s.io/kwok ",
    module: &[
        ("go.mod", include_str!("../../go/kwok/go.mod")),
        ("go.sum", include_str!("../../go/kwok/go.sum")),
    ],
    package: "sigs.k8s.io/kwok/cmd/kwok",
    version_variables: None,
    keeps: &[
        ("sigs.k8s.io/kwok", "kustomize/stage", "stages"),
        ("sigs.k8s.io/kwok", "kustomize/crd/bases", "crds"),
    ],
    amendment: None,
};

const ARGOCD: GoProgram = GoProgram {
    title: "Argo CD",
    name: "argocd",
    entry: "argocd",
    requirement: "github.com/argoproj/argo-cd/v3 ",
    module: &[
        ("go.mod", include_str!("../../go/argocd/go.mod")),
        ("go.sum", include_str!("../../go/argocd/go.sum")),
    ],
    package: "github.com/argoproj/argo-cd/v3/cmd",
    version_variables: None,
    keeps: &[("github.com/argoproj/argo-cd/v3", "manifests/crds", "crds")],
    // The one listener of Argo CD whose address cannot be set: nothing here listens on more than loopback.
    amendment: Some(&Amendment {
        module: "github.com/argoproj/argo-cd/v3",
        file: "controller/appcontroller.go",
        published: r#"metricsAddr := fmt.Sprintf("0.0.0.0:%d", metricsPort)"#,
        built: r#"metricsAddr := fmt.Sprintf("127.0.0.1:%d", metricsPort)"#,
    }),
};

/// In the order in which they are built: what fails early should be what is quick.
pub(super) const PROGRAMS: [GoProgram; 6] = [
    ETCD,
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    kubernetes(
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    KWOK,
    ARGOCD,
];

/// Absolute paths of everything that a cluster runs.
#[derive(Clone, Debug)]
pub struct ClusterTools {
    /// etcd 3.6.
    pub etcd: PathBuf,
    /// The API server of Kubernetes 1.36.
    pub kube_apiserver: PathBuf,
    /// Its controllers.
    pub kube_controller_manager: PathBuf,
    /// Its scheduler.
    pub kube_scheduler: PathBuf,
    /// kwok, which stands for the kubelets.
    pub kwok: PathBuf,
    /// Every part of Argo CD 3.2: which one it is, `ARGOCD_BINARY_NAME` says.
    pub argocd: PathBuf,
    /// redis.
    pub redis: PathBuf,
    /// Folders of libraries that redis needs, where it was unpacked and not installed.
    pub redis_libraries: Vec<PathBuf>,
}

impl ClusterTools {
    /// What is in the cache (or, for redis, on `PATH`), when that is all of it. Nothing is built.
    ///
    /// # Errors
    /// When there is no cache folder.
    pub async fn find() -> anyhow::Result<Option<Self>> {
        let cache = Cache::open()?;
        Ok(Found::look(&cache).await.into_tools(&cache))
    }

    /// What there is, after building what lacks. Several processes may ask at once: one builds, the others wait for it.
    ///
    /// # Errors
    /// When something cannot be had: one error that lists everything missing and, for each, how to get it.
    pub async fn find_or_build(progress: &Progress) -> anyhow::Result<Self> {
        let cache = Cache::open()?;
        let mut found = Found::look(&cache).await;
        if !found.is_complete() {
            // Nothing is built for a machine that will lack something else anyway.
            found.obstacles(&cache).await.into_result()?;
            let lock = cache.lock(progress).await?;
            // Meanwhile another process may have built it.
            found = Found::look(&cache).await;
            let guardian = Guardian::start()?;
            let installer = Installer::new(&cache, &lock, progress, &guardian);
            let outcome = found.complete(&installer).await;
            guardian.stop().await?;
            outcome?;
        }
        found
            .into_tools(&cache)
            .context("a part of the cluster was built and is not there")
    }

    /// The custom resource definitions of Argo CD: a folder.
    #[must_use]
    pub fn argocd_definitions(&self) -> PathBuf {
        beside(&self.argocd, "crds")
    }

    /// The definition of kwok's stages: a file.
    #[must_use]
    pub fn stage_definition(&self) -> PathBuf {
        beside(&self.kwok, "crds/kwok.x-k8s.io_stages.yaml")
    }

    /// kwok's own stages: a folder with those of nodes and pods.
    #[must_use]
    pub fn stages(&self) -> PathBuf {
        beside(&self.kwok, "stages")
    }
}

/// What was kept of a program's modules lies where the program does.
fn beside(program: &Path, name: &str) -> PathBuf {
    program.with_file_name(name)
}

struct Found {
    /// In the order of [`PROGRAMS`].
    programs: [Option<PathBuf>; PROGRAMS.len()],
    redis: Option<PathBuf>,
}

impl Found {
    async fn look(cache: &Cache) -> Self {
        let mut programs = [const { None }; PROGRAMS.len()];
        for (program, wanted) in programs.iter_mut().zip(&PROGRAMS) {
            *program = wanted.in_cache(cache);
        }
        let mut answers = Answers::open(cache.dir());
        Self {
            programs,
            redis: REDIS.look(cache, &mut answers).await,
        }
    }

    fn is_complete(&self) -> bool {
        self.programs.iter().all(Option::is_some) && self.redis.is_some()
    }

    async fn obstacles(&self, cache: &Cache) -> Missing {
        let mut missing = Missing::default();
        for (program, wanted) in self.programs.iter().zip(&PROGRAMS) {
            if program.is_none()
                && let Some(why) = wanted.obstacle(cache).await
            {
                missing.add(wanted.name, &why, GO_INSTEAD);
            }
        }
        if self.redis.is_none()
            && let Some(why) = REDIS.obstacle().await
        {
            missing.add(REDIS.name, &why, &format!("install that, or {}", REDIS.instead));
        }
        missing
    }

    /// One after the other: Go uses every core for each.
    async fn complete(&mut self, installer: &Installer<'_>) -> anyhow::Result<()> {
        if self.redis.is_none() {
            self.redis = Some(REDIS.install(installer).await?);
        }
        for (program, wanted) in self.programs.iter_mut().zip(&PROGRAMS) {
            if program.is_none() {
                *program = Some(wanted.install(installer).await?);
            }
        }
        Ok(())
    }

    fn into_tools(self, cache: &Cache) -> Option<ClusterTools> {
        let [
            etcd,
            kube_apiserver,
            kube_controller_manager,
            kube_scheduler,
            kwok,
            argocd,
        ] = self.programs;
        let redis = self.redis?;
        Some(ClusterTools {
            etcd: etcd?,
            kube_apiserver: kube_apiserver?,
            kube_controller_manager: kube_controller_manager?,
            kube_scheduler: kube_scheduler?,
            kwok: kwok?,
            argocd: argocd?,
            redis_libraries: REDIS.libraries(cache, &redis),
            redis,
        })
    }
}
