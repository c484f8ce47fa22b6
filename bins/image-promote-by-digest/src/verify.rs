//! The order of effects of a verification: look at everything, bring what is missing if there is a source, look again.

use std::time::Instant;

use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Result};
use towpath::oci::Registries;
use towpath::oci::copy::{BlobCheck, Copier, CopySettings, ImageReference, Traffic, Verified};

use crate::args::{Blobs, VerifyArgs};
use crate::report::VerificationReport;

/// Looks at all of an image, and repairs it from a source.
///
/// # Errors
/// As [`Copier::verify_source`] and [`Copier::look_for_repair`]; conflict (exit 6) when something is missing still.
pub(crate) async fn verify(args: &VerifyArgs, run: &Run) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let registries = registries(args, run)?;
    let traffic = Traffic::new(args.concurrency.get());
    let check = match args.blobs {
        Blobs::Present => BlobCheck::Present,
        Blobs::Read => BlobCheck::Read,
    };
    let settings = CopySettings {
        referrers: args.which.clone(),
        verify: Some(check),
        ..CopySettings::default()
    };
    let source = args.from.as_ref().unwrap_or(&args.image);
    let targets: Vec<ImageReference> = args.from.iter().map(|_| args.image.clone()).collect();
    let opening = Copier::new(source, &targets, &registries, &traffic, settings);
    let copier = run.interruptible("looking for logins", opening).await?;
    let looking = format!("looking at all of {}", args.image);
    let mut report = VerificationReport::new(&args.image, args.from.as_ref(), args.dry_run);
    let found = if args.from.is_none() {
        // A digest says what is read; the tag beside it has to name that.
        let tag = args.image.tag().filter(|_| args.image.digest().is_some());
        run.interruptible(&looking, copier.verify_source(check, tag))
            .await?
    } else {
        compare(&copier, check, &looking, &mut report, args.dry_run, run).await?
    };
    let failure = found.failure(&args.image.to_string());
    report.finish(found, registries.requests_sent(), started.elapsed());
    let outcome = Outcome::report(&report)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// Compares with the source, and brings what is missing.
async fn compare(
    copier: &Copier,
    check: BlobCheck,
    looking: &str,
    report: &mut VerificationReport,
    dry_run: bool,
    run: &Run,
) -> Result<Verified> {
    let look = async {
        let (look, found) = copier.look_for_repair(check).await?;
        Ok((look.all_or_none()?, found))
    };
    let (look, found) = run.interruptible(looking, look).await?;
    let lost = || Failure::internal("a verification of one image has no outcome");
    let found = found.into_iter().flatten().next().ok_or_else(lost)?;
    // A tag is moved by promoting, not by looking.
    if found.is_whole() || dry_run || found.names.is_some() {
        return Ok(found);
    }
    // The same image is looked at again, whatever the source's tag names by then.
    for outcome in copier.act(look, None, run.interrupted()).await? {
        let done = outcome?;
        report.repaired(&found, &done);
        if let Some(verified) = done.verified {
            return Ok(verified);
        }
        if let Some(failure) = done.unproven {
            return Err(failure);
        }
    }
    Err(lost())
}

fn registries(args: &VerifyArgs, run: &Run) -> Result<Registries> {
    let mut credentials = args.registry.credentials()?;
    let logins = [
        (args.from.as_ref(), args.source_login.login()?),
        (Some(&args.image), args.target_login.login()?),
    ];
    for (reference, login) in logins {
        if let (Some(ImageReference::Registry(reference)), Some(login)) = (reference, login) {
            credentials.add(reference, login)?;
        }
    }
    Registries::new(args.registry.settings(), credentials, run.deadline)
}
