//! Builds a container image with kaniko or buildah and hands its digest to the next job.

mod args;
mod plan;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use args::Args;
use plan::Plan;
use report::BuildReport;
use towpath::cli::{Outcome, Run, effect, note, search_path};
use towpath::failure::{Failure, Result};
use towpath::handoff::{self, Handoff};
use towpath::kaniko::{self, dockerfile};
use towpath::oci::{Digest, Pointer, Registries, RegistrySettings};

fn main() -> ExitCode {
    towpath::cli::run(work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    // A RUN step in the same container must not read the job's variables from this process.
    towpath::process::keep_memory_private();
    let build_args = args.build_args.iter().cloned().collect();
    kaniko::check_context(&args.context)?;
    let stages = dockerfile::read(&args.dockerfile(), &build_args)?;
    let plan = plan::decide(&args, &stages)?;
    // Whatever is wrong with the handoff has to be known before the build.
    let mut handoff = hand_over(&plan, &run)?;
    if let Some(path) = &args.handoff {
        Handoff::check_place(path)?;
    }
    let (builder, why) = kaniko::find(
        args.builder.map(args::BuilderChoice::name),
        args.kaniko.as_deref(),
        args.isolation.map(Into::into),
        &search_path(),
    )?;
    note(&why);
    if args.dry_run {
        return Ok(Outcome::report(&BuildReport::planned(&plan, builder.name()))?);
    }

    let started = Instant::now();
    let pushing = effect("build", plan.recipe.destinations.join(" "));
    let building = builder.build(&plan.recipe, run.deadline, tell);
    let built = run
        .interruptible(
            &format!("building {}", plan.recipe.destinations.join(" ")),
            building,
        )
        .await?;
    let digest: Digest = built.digest.parse()?;
    pushing.done(digest.as_str());
    run.interruptible(
        "asking the registry what was pushed",
        confirm(&args, &plan, &digest, &run),
    )
    .await?;

    if let Some(path) = &args.handoff {
        handoff.set(handoff::IMAGE_DIGEST, digest.as_str())?;
        handoff.set(
            handoff::IMAGE_REF,
            &format!("{}@{digest}", plan.repository.name()),
        )?;
        handoff.write(path)?;
    }
    let report = BuildReport::built(&plan, builder.name(), &digest, started.elapsed());
    Ok(Outcome::report(&report)?)
}

/// Asks the registry what each tag names now: the builder's word alone is not proof of a push.
async fn confirm(args: &Args, plan: &Plan, digest: &Digest, run: &Run) -> Result<()> {
    let settings = RegistrySettings {
        plain_http_hosts: plan.recipe.plain_http.clone(),
        ..args.registry.settings()
    };
    let registries = Registries::new(settings, args.registry.credentials()?, run.deadline)?;
    let repository = registries.repository(&plan.repository).await?;
    for tag in &plan.tags {
        let found = repository.resolve(&Pointer::Tag(tag.clone())).await?;
        if found.as_ref() != Some(digest) {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
            return Err(Failure::conflict(format!(
                "{}:{tag} names {found} in the registry, and the builder pushed {digest}",
                plan.repository.name()
            ))
            .hint("another build of this tag may run at the same time: give tags to one pipeline each"));
        }
    }
    Ok(())
}

/// Passes on what the builder says.
fn tell(line: &str) {
    if !line.trim().is_empty() {
        note(line);
    }
}

/// What the next job is told, but for the digest.
fn hand_over(plan: &Plan, run: &Run) -> Result<Handoff> {
    let mut handoff = Handoff::new();
    handoff.set(handoff::IMAGE_REPOSITORY, &plan.repository.name())?;
    handoff.set(handoff::IMAGE_TAG, plan.tags[0].as_str())?;
    if let Some(project) = &plan.source_project {
        handoff.set(handoff::SOURCE_PROJECT, project)?;
    }
    if let Some(commit) = &plan.revision {
        handoff.set(handoff::SOURCE_COMMIT, commit)?;
    }
    handoff.set(handoff::TRACEPARENT, &run.trace.to_string())?;
    Ok(handoff)
}
