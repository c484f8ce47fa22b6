//! Copies an image between repositories by digest, with every platform, and moves tags last and never by accident.

mod args;
mod plan;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use args::{Args, login};
use plan::Wanted;
use report::PromotionReport;
use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Result};
use towpath::handoff::{self, Handoff};
use towpath::oci::copy::{Copier, CopySettings, ImageReference, Journal, Traffic};
use towpath::oci::{Digest, Registries};

fn main() -> ExitCode {
    towpath::cli::run(work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let wanted = plan::decide(&args)?;
    if let Some(path) = &args.handoff {
        Handoff::check_place(path)?;
    }
    let registries = registries(&args, &wanted, &run)?;
    let traffic = Traffic::new(args.concurrency.get().into());
    let settings = CopySettings {
        move_tag: args.move_tag_from.clone(),
        referrers: args.referrers.clone(),
        platforms: args.platforms.clone(),
        allow_partial_index: args.allow_partial_index,
    };
    let copier = run
        .interruptible(
            "looking for logins",
            Copier::new(
                &args.source,
                &wanted.references(),
                &registries,
                &traffic,
                settings,
            ),
        )
        .await?;
    let looking = format!("looking at {} and its targets", args.source);
    let look = run
        .interruptible(&looking, async { copier.look().await?.all_or_none() })
        .await?;
    wanted.check(look.digest())?;

    let mut report = PromotionReport::new(&args.source, &wanted, &look);
    if args.dry_run {
        let foresee = async { copier.foresee(look).await.into_iter().collect::<Result<Vec<_>>>() };
        report.foresee(&run.interruptible(&looking, foresee).await?);
        report.count(registries.requests_sent(), started.elapsed());
        return Ok(Outcome::report(&report)?);
    }

    // Whatever is wrong with it has to be known before a tag is written.
    let handoff = match &args.handoff {
        Some(path) => {
            let mut handoff = Handoff::read_or_new(path)?;
            hand_over(&mut handoff, &args, &wanted, look.digest(), &run)?;
            Some((path, handoff))
        }
        None => None,
    };
    let journal = match &args.journal {
        Some(path) => Some(Journal::open(path, run.trace.trace_id())?),
        None => None,
    };
    let outcomes = copier.act(look, journal.as_ref(), run.interrupted()).await?;
    let first_is_there = matches!(outcomes.first(), Some(Ok(_)));
    let failure = report.conclude(outcomes);
    report.count(registries.requests_sent(), started.elapsed());
    if let Some((path, handoff)) = handoff.filter(|_| first_is_there) {
        handoff.write(path)?;
    }
    let outcome = Outcome::report(&report)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

fn registries(args: &Args, wanted: &Wanted, run: &Run) -> Result<Registries> {
    let mut credentials = args.registry.credentials()?;
    if let Some(credential) = login(
        "source",
        args.source_user.as_ref(),
        args.source_password_file.as_deref(),
    )? {
        match &args.source {
            ImageReference::Registry(reference) => credentials.add(reference, credential)?,
            ImageReference::Layout(layout) => {
                return Err(Failure::usage(format!("the folder {layout} takes no login"))
                    .hint("leave --source-user (TOWPATH_SOURCE_USER) out"));
            }
        }
    }
    if let Some(credential) = login(
        "target",
        args.target_user.as_ref(),
        args.target_password_file.as_deref(),
    )? {
        for target in wanted.references() {
            if let ImageReference::Registry(target) = &target {
                credentials.add(target, credential.clone())?;
            }
        }
    }
    Registries::new(args.registry.settings(), credentials, run.deadline)
}

/// The first target is the one that the next job works with.
fn hand_over(handoff: &mut Handoff, args: &Args, wanted: &Wanted, digest: &Digest, run: &Run) -> Result<()> {
    let first = wanted.first();
    let name = first.name();
    handoff.set(handoff::IMAGE_REPOSITORY, &name)?;
    if let Some(tag) = first.tag() {
        handoff.set(handoff::IMAGE_TAG, tag.as_str())?;
    }
    handoff.set(handoff::IMAGE_DIGEST, digest.as_str())?;
    handoff.set(handoff::IMAGE_REF, &format!("{name}@{digest}"))?;
    for (name, value) in [
        (handoff::SOURCE_PROJECT, &args.source_project),
        (handoff::SOURCE_COMMIT, &args.source_commit),
    ] {
        if let Some(value) = value {
            handoff.set(name, value)?;
        }
    }
    handoff.set(handoff::TRACEPARENT, &run.trace.to_string())
}
