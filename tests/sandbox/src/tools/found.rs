//! What is there so far: looked for, completed by installing, and turned into [`Tools`].

use std::path::PathBuf;

use anyhow::Context as _;
use futures_util::future::join_all;

use super::builder::{Builder, BuilderKind, Kaniko};
use super::cache::{Cache, Lock};
use super::install::Installer;
use super::machine::Machine;
use super::progress::Progress;
use super::search_path::Answers;
use super::tofu::Tofu;
use super::wanted::{BUILDAH, TOOLS, Wanted};
use super::wrappers::Commands;
use super::{Missing, Tools, npm};
use crate::guardian::Guardian;

/// What is to be run with the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// An image's way to the cluster.
    Delivery,
    /// That, and the infrastructure repository's pipeline.
    Infrastructure,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Found {
    /// In the order of [`TOOLS`].
    programs: [Option<PathBuf>; TOOLS.len()],
    kaniko: Kaniko,
    /// The second builder. It may lack as long as kaniko is there, or may still be got.
    buildah: Option<PathBuf>,
    /// `None` where nobody asked for it.
    tofu: Option<Tofu>,
}

impl Found {
    pub(super) async fn look(cache: &Cache, answers: &mut Answers, scope: Scope) -> anyhow::Result<Self> {
        let mut programs = [const { None }; TOOLS.len()];
        for (program, wanted) in programs.iter_mut().zip(&TOOLS) {
            *program = wanted.look(cache, answers).await;
        }
        let kaniko = Kaniko::look(cache, answers).await?;
        Ok(Self {
            programs,
            kaniko,
            buildah: BUILDAH.look(cache, answers).await,
            tofu: match scope {
                Scope::Infrastructure => Some(Tofu::look(cache, answers).await),
                Scope::Delivery => None,
            },
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.programs.iter().all(Option::is_some)
            && self.tofu.as_ref().is_none_or(Tofu::is_ready)
            && match self.kaniko {
                Kaniko::Ready { .. } => true,
                Kaniko::Installable => false,
                Kaniko::Unavailable { .. } => self.buildah.is_some(),
            }
    }

    /// Adds what lacks and cannot be installed here.
    pub(super) async fn list_obstacles(&self, missing: &mut Missing) {
        for wanted in self.lacking() {
            if let Some(why) = wanted.obstacle().await {
                missing.add(wanted.name, &why, &format!("install that, or {}", wanted.instead));
            }
        }
        if let Some(tofu) = &self.tofu {
            tofu.list_obstacle(missing);
        }
    }

    /// Installs what lacks, everything that can be at the same time.
    pub(super) async fn install(
        &mut self,
        cache: &Cache,
        lock: &Lock,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let guardian = Guardian::start()?;
        let installer = Installer::new(cache, lock, progress, &guardian);
        let mut missing = Missing::default();
        let tools = TOOLS.iter().zip(&mut self.programs);
        let tools = join_all(tools.map(|(wanted, program)| complete(wanted, program, &installer)));
        let builder = async {
            if matches!(self.kaniko, Kaniko::Installable) {
                self.kaniko = Kaniko::install(&installer).await?;
            }
            if matches!(self.kaniko, Kaniko::Unavailable { .. }) {
                complete(&BUILDAH, &mut self.buildah, &installer).await?;
            }
            Ok(())
        };
        let tofu = async {
            if matches!(self.tofu, Some(Tofu::Installable)) {
                self.tofu = Some(Tofu::install(&installer).await?);
            }
            anyhow::Ok(())
        };
        let (tools, builder, tofu) = tokio::join!(tools, builder, tofu);
        let outcomes = TOOLS.iter().zip(tools).chain([(&BUILDAH, builder)]);
        for (wanted, outcome) in outcomes {
            if let Err(error) = outcome {
                missing.add(wanted.name, &format!("{error:#}"), wanted.instead);
            }
        }
        if let Err(error) = tofu {
            missing.add("tofu", &format!("{error:#}"), Tofu::INSTEAD);
        }
        guardian.stop().await?;
        missing.into_result()
    }

    pub(super) async fn into_tools(
        self,
        cache: &Cache,
        machine: Machine,
        lock: Option<Lock>,
        progress: &Progress,
    ) -> anyhow::Result<(Tools, Option<PathBuf>)> {
        let mut commands = Commands::default();
        for (wanted, program) in TOOLS.iter().zip(self.programs.iter().flatten()) {
            commands.with_libraries(wanted.name, program, wanted.libraries(cache, program));
        }
        let mut builder = self.builder()?;
        if builder.kind == BuilderKind::Buildah {
            commands.buildah(&builder.program, BUILDAH.libraries(cache, &builder.program));
        }
        let bin_dir = commands.folder(cache, lock, progress).await?;
        if builder.kind == BuilderKind::Buildah {
            builder.program = bin_dir.join(BUILDAH.name);
        }
        let [bao, kubectl, docker_registry, rsync, busybox, gitlab_ci_local] =
            TOOLS.map(|wanted| bin_dir.join(wanted.name));
        let entry = cache
            .entry(&npm::entry())
            .context("gitlab-ci-local is not in the cache")?;
        let tofu = match self.tofu {
            Some(Tofu::Ready(program)) => Some(program),
            _ => None,
        };
        let Machine { git, node, bash } = machine;
        let tools = Tools {
            bao,
            kubectl,
            docker_registry,
            rsync,
            busybox,
            gitlab_ci_local,
            gitlab_ci_schema: npm::schema_in(&entry),
            builder,
            git,
            node,
            bash,
            bin_dir,
        };
        Ok((tools, tofu))
    }

    fn lacking(&self) -> impl Iterator<Item = &Wanted> {
        let buildah = matches!(self.kaniko, Kaniko::Unavailable { .. }) && self.buildah.is_none();
        TOOLS
            .iter()
            .zip(&self.programs)
            .filter(|(_, program)| program.is_none())
            .map(|(wanted, _)| wanted)
            .chain(buildah.then_some(&BUILDAH))
    }

    fn builder(&self) -> anyhow::Result<Builder> {
        match &self.kaniko {
            Kaniko::Ready { program, why } => Ok(Builder {
                kind: BuilderKind::Kaniko,
                program: program.clone(),
                why: format!("kaniko builds: {why}"),
            }),
            Kaniko::Unavailable { why } => Ok(Builder {
                kind: BuilderKind::Buildah,
                program: self.buildah.clone().context("no builder was found")?,
                why: format!("buildah builds: {why}"),
            }),
            Kaniko::Installable => anyhow::bail!("kaniko was to be installed first"),
        }
    }
}

async fn complete(
    wanted: &Wanted,
    program: &mut Option<PathBuf>,
    installer: &Installer<'_>,
) -> anyhow::Result<()> {
    if program.is_none() {
        *program = Some(wanted.install(installer).await?);
    }
    Ok(())
}
