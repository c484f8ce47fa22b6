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
use towpath::handoff::Handoff;
use towpath::kaniko::{self, dockerfile};

fn main() -> ExitCode {
    towpath::cli::run(work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    let build_args = args.build_args.iter().cloned().collect();
    let stages = dockerfile::read(&args.dockerfile(), &build_args)?;
    let plan = plan::decide(&args, &stages)?;
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
    let built = run.interruptible("building", building).await?;
    pushing.done(&built.digest);

    if let Some(path) = &args.handoff {
        hand_over(&plan, &built.digest, &run)?.write(path)?;
    }
    let report = BuildReport::built(&plan, builder.name(), &built.digest, started.elapsed());
    Ok(Outcome::report(&report)?)
}

/// Passes on what the builder says.
fn tell(line: &str) {
    if !line.trim().is_empty() {
        note(line);
    }
}

fn hand_over(plan: &Plan, digest: &str, run: &Run) -> towpath::failure::Result<Handoff> {
    use towpath::handoff::{
        IMAGE_DIGEST, IMAGE_REF, IMAGE_REPOSITORY, IMAGE_TAG, SOURCE_COMMIT, SOURCE_PROJECT, TRACEPARENT,
    };
    let mut handoff = Handoff::new();
    handoff.set(IMAGE_REPOSITORY, &plan.repository)?;
    handoff.set(IMAGE_TAG, &plan.tags[0])?;
    handoff.set(IMAGE_DIGEST, digest)?;
    handoff.set(IMAGE_REF, &format!("{}@{digest}", plan.repository))?;
    if let Some(project) = &plan.source_project {
        handoff.set(SOURCE_PROJECT, project)?;
    }
    if let Some(commit) = &plan.revision {
        handoff.set(SOURCE_COMMIT, commit)?;
    }
    handoff.set(TRACEPARENT, &run.trace.to_string())?;
    Ok(handoff)
}
