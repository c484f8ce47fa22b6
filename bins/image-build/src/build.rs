//! The order of effects of a build: read, look, decide, build, push, hand over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use towpath::cli::{Outcome, Run, effect, note, search_path, secret_variable, variables_named, warn};
use towpath::failure::{Kind, Result};
use towpath::handoff::Handoff;
use towpath::kaniko::dockerfile::{self, Dockerfile};
use towpath::kaniko::{self, Builder, Built, Cache, Isolation, Recipe};
use towpath::oci::copy::{ImageReference, MoveTag, Referrers};
use towpath::oci::credentials::render_logins;
use towpath::oci::{Digest, LayoutReference, PlatformImage, Reference, Registries, Tag};

use crate::args::{self, BuildArgs};
use crate::plan::{self, Base, Decision, Found};
use crate::push::{self, Errand, hand_over};
use crate::report::BuildReport;
use crate::{look, tags};

/// What is known before the build.
struct Known {
    repository: Reference,
    first: Tag,
    dockerfile: Dockerfile,
    shown: String,
    bases: Vec<Base>,
    digests: BTreeMap<Reference, Digest>,
    found: Vec<Found>,
    cache: Option<Reference>,
    builder: Builder,
    /// The folder that the image is written to, too.
    layout: Option<PathBuf>,
}

/// Builds an image, or with `--dry-run` says what would be built.
///
/// # Errors
/// See the table of exit codes on the tool's page.
pub(crate) async fn build(args: &BuildArgs, run: &Run) -> anyhow::Result<Outcome> {
    // A RUN step in the same container must not read the job's variables from this process.
    towpath::process::keep_memory_private();
    let started = Instant::now();
    let repository = args.target.repository()?;
    let wanted = tags::wanted(&args.target)?;
    let cache = args.cache_repository()?;
    let first = wanted[0].tag.clone();
    kaniko::check_context(&args.context)?;
    let shown = args.dockerfile().display().to_string();
    let dockerfile = dockerfile::read(&args.dockerfile(), &args.build_args())?;
    let target = dockerfile.target(args.stage.as_deref())?;
    let bases = plan::bases(&dockerfile, target, &args.allowed_bases, &shown)?;
    // Whatever is wrong with the handoff has to be known before the build, and where it is may be wiped by it.
    let handoff = args.target.handoff.as_deref().map(kaniko::standing).transpose()?;
    if let Some(path) = &handoff {
        Handoff::check_place(path)?;
        hand_over(&args.target, &repository, &first, &Digest::of(b""), true, run)?;
    }
    let layout = args.oci_layout.as_deref().map(kaniko::standing).transpose()?;
    let builder = find_builder(args)?;
    if let Some(folder) = builder.own_folder(&args.kaniko_dir) {
        for warning in plan::keep_out(&dockerfile, target, folder, &shown)? {
            warn(&warning);
        }
    }

    let registries = push::open(&args.registry, run)?;
    let (found, left) = if args.no_push {
        let unseen = |wanted| Found {
            wanted,
            digest: None,
            revision: None,
        };
        (wanted.into_iter().map(unseen).collect(), Vec::new())
    } else {
        let looking = look::at_tags(&registries, &repository, &args.target, wanted);
        run.interruptible("looking at the tags", looking).await?
    };
    let revision = args.target.revision.as_deref();
    let decision = plan::decide(&repository, &found, revision, args.rebuild, args.target.move_tag)?;
    let mut known = Known {
        repository,
        first,
        dockerfile,
        shown,
        bases,
        digests: BTreeMap::new(),
        found,
        cache,
        builder,
        layout,
    };
    if decision == Decision::Build {
        let looking = look::at_bases(&registries, &known.bases, &known.shown);
        known.digests = run.interruptible("looking at the base images", looking).await?;
    }
    let mut report = BuildReport::planned(
        known.builder.name(),
        &known.repository,
        &known.found,
        left,
        &known.bases,
        &known.digests,
        args.pin_bases,
    );
    report.labels(known.labels(args));
    if let Some(platform) = &args.platform {
        report.platform(platform);
    }
    if args.dry_run {
        if let Decision::Keep(digest) = &decision {
            report.keeps(&known.repository, digest);
        }
        return Ok(Outcome::report(&report)?);
    }

    let (digest, changed) = match &decision {
        Decision::Keep(digest) => {
            note(&format!(
                "{}@{digest} was built from this commit already; --rebuild (TOWPATH_REBUILD) builds it again",
                known.repository.name()
            ));
            let source = known.repository.clone().with_digest(Some(digest.clone()));
            known.bring(args, source.into(), None, &registries, run).await?
        }
        Decision::Build => {
            if !args.no_push {
                let asking = look::may_push(&registries, &known.repository);
                run.interruptible("asking whether we may push", asking).await?;
            }
            let building = known.build(args, &registries, run);
            let built = run
                .interruptible(&format!("building {}", known.repository.name()), building)
                .await?;
            let digest: Digest = built.digest.parse()?;
            let source = LayoutReference {
                path: built.layout.clone(),
                tag: None,
                digest: None,
            };
            let platform = PlatformImage::open(&source).await?.platform().clone();
            plan::is_for(args.platform.as_ref(), &platform)?;
            report.platform(&platform);
            known
                .bring(
                    args,
                    ImageReference::Layout(source),
                    Some(digest),
                    &registries,
                    run,
                )
                .await?
        }
    };
    if let Some(path) = &handoff {
        if known.is_wiped() {
            kaniko::restore_folder_of(path)?;
        }
        let is_pushed = !args.no_push;
        hand_over(
            &args.target,
            &known.repository,
            &known.first,
            &digest,
            is_pushed,
            run,
        )?
        .write(path)?;
    }
    report.done(
        &known.repository,
        &digest,
        changed,
        !args.no_push,
        args.oci_layout.as_deref(),
        started.elapsed(),
    );
    Ok(Outcome::report(&report)?)
}

/// The builder, if it may run where it would.
fn find_builder(args: &BuildArgs) -> Result<Builder> {
    let (builder, why) = kaniko::find(
        args.builder.map(args::BuilderChoice::name),
        args.kaniko.as_deref(),
        &args.kaniko_dir,
        args.isolation.map(Into::into),
        &search_path(),
    )?;
    note(&why);
    if !args.outside_container {
        builder.check_place(args.kubernetes_service_host.is_some())?;
    }
    Ok(builder)
}

impl Known {
    /// Whether the build wipes what is around us.
    fn is_wiped(&self) -> bool {
        matches!(
            self.builder,
            Builder::Kaniko {
                isolation: Isolation::Container,
                ..
            }
        )
    }

    /// The image that the built stage stands on is the last one that a FROM line names before its end.
    fn labels(&self, args: &BuildArgs) -> BTreeMap<String, String> {
        let target = self.dockerfile.target(args.stage.as_deref()).ok();
        let base = target.and_then(|target| {
            let place = self.dockerfile.base_of(target)?;
            let base = self.bases.iter().find(|base| base.place == place)?;
            Some((base, self.digests.get(&base.reference)?))
        });
        plan::labels(args, &self.first, base)
    }

    async fn build(&self, args: &BuildArgs, registries: &Registries, run: &Run) -> Result<Built> {
        let recipe = self.recipe(args, run).await?;
        let building = effect("build", self.repository.name());
        match self.builder.build(&recipe, run.deadline, tell).await {
            Ok(built) => {
                building.done(&built.digest);
                Ok(built)
            }
            Err(failure) if failure.kind() == Kind::Unsuccessful => {
                // A builder has one exit code for whatever goes wrong between it and a registry: whether that answers is
                // asked once more.
                match look::at_bases(registries, &self.bases, &self.shown).await {
                    Err(away) if away.kind() == Kind::Unavailable => Err(away),
                    _ => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    async fn recipe(&self, args: &BuildArgs, run: &Run) -> Result<Recipe> {
        let needed = self.bases.iter().filter(|base| base.is_needed);
        let spoken_to: Vec<Reference> = needed
            .map(|base| base.reference.clone())
            .chain(self.cache.clone())
            .collect();
        if secret_variable("DOCKER_AUTH_CONFIG")?.is_some() {
            note(
                "DOCKER_AUTH_CONFIG is set: it counts after config.json, and the builder gets from it what it needs and no more",
            );
        }
        let logins = look::logins(&args.registry.credentials()?, &spoken_to, run.deadline).await?;
        let mut hosts: Vec<String> = spoken_to.iter().map(|one| one.registry().to_owned()).collect();
        hosts.sort();
        hosts.dedup();
        let text = if args.pin_bases {
            self.dockerfile.with_images(&self.pinned())
        } else {
            self.dockerfile.text().to_owned()
        };
        Ok(Recipe {
            context: args.context.clone(),
            dockerfile: args.dockerfile(),
            dockerfile_text: text,
            labels: self.labels(args),
            build_args: args.build_args(),
            target: args.stage.clone(),
            platform: args.platform.clone(),
            created: args.created,
            plain_http: plan::plain_http(args, &spoken_to),
            hosts,
            ca_file: args.registry.ca_file.clone(),
            logins: if logins.is_empty() {
                None
            } else {
                Some(render_logins(&logins)?)
            },
            cache: self.cache.clone().map(|repository| Cache {
                repository,
                longest: args.cache_ttl,
            }),
            kaniko_folder: args.kaniko_dir.clone(),
            environment: variables_named(kaniko::is_kept),
        })
    }

    /// The images by the digests that were found, by their places in the Dockerfile.
    fn pinned(&self) -> BTreeMap<usize, String> {
        let pinned = |base: &Base| {
            let digest = self.digests.get(&base.reference)?;
            Some((base.place, format!("{}@{digest}", base.reference.name())))
        };
        self.bases.iter().filter_map(pinned).collect()
    }

    /// Brings the image into the layout that was asked for, and to the registry.
    async fn bring(
        &self,
        args: &BuildArgs,
        source: ImageReference,
        expected: Option<Digest>,
        registries: &Registries,
        run: &Run,
    ) -> Result<(Digest, bool)> {
        let mut targets = Vec::new();
        if let Some(path) = &self.layout {
            if self.is_wiped() {
                kaniko::restore_folder_of(path)?;
            }
            let layout = LayoutReference {
                path: path.clone(),
                tag: Some(self.first.clone()),
                digest: None,
            };
            targets.push((ImageReference::Layout(layout), MoveTag::Any));
        }
        if !args.no_push {
            targets.extend(push::targets(&self.repository, &self.found, args.target.move_tag));
        }
        let errand = Errand {
            source,
            targets,
            expected,
            referrers: Referrers::None,
        };
        errand.run(registries, false, run).await
    }
}

/// Passes on what the builder says.
fn tell(line: &str) {
    if !line.trim().is_empty() {
        note(line);
    }
}
