//! The order of effects of a verification: look at everything, bring what is missing if there is a source, look again.

use std::time::Instant;

use towpath::cli::{Outcome, Run};
use towpath::failure::Result;
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
    let settings = CopySettings {
        referrers: args.which.clone(),
        ..CopySettings::default()
    };
    let check = match args.blobs {
        Blobs::Present => BlobCheck::Present,
        Blobs::Read => BlobCheck::Read,
    };
    let source = args.from.as_ref().unwrap_or(&args.image);
    let targets: Vec<ImageReference> = args.from.iter().map(|_| args.image.clone()).collect();
    let opening = Copier::new(source, &targets, &registries, &traffic, settings);
    let copier = run.interruptible("looking for logins", opening).await?;
    let looking = format!("looking at all of {}", args.image);
    let mut report = VerificationReport::new(&args.image, args.from.as_ref(), args.dry_run);
    let found = if args.from.is_none() {
        run.interruptible(&looking, copier.verify_source(check)).await?
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
    let first = found.into_iter().flatten().next();
    match first {
        Some(found) if found.is_whole() || dry_run => Ok(found),
        found => {
            let outcomes = copier.act(look, None, run.interrupted()).await?;
            for outcome in outcomes {
                report.repaired(found.as_ref(), &outcome?);
            }
            let mut again = run.interruptible(looking, copier.verify(check)).await?;
            match again.pop() {
                Some(verified) => verified,
                None => Err(towpath::failure::Failure::internal(
                    "a verification of one image has no outcome",
                )),
            }
        }
    }
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
