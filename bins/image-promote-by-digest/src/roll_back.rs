//! The order of effects of a rollback: read the journal, look at what the tags name, decide, ask, act.

use std::path::PathBuf;
use std::time::Instant;

use towpath::cli::{Outcome, Report as _, Run, note};
use towpath::failure::{Failure, Result};
use towpath::oci::Registries;
use towpath::oci::copy::{ImageReference, Journal, Recorded, Rollback, Trail, trails};

use crate::args::RollbackArgs;
use crate::report::RollbackReport;

/// Puts tags back by a journal, or says which would be.
///
/// # Errors
/// As [`Recorded::read`] and [`trails`]; what befell a tag is in the report.
pub(crate) async fn roll_back(args: &RollbackArgs, run: &Run) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let origin = args.recorded.display().to_string();
    let recorded = Recorded::read(&args.recorded)?;
    if let Some(line) = recorded.torn {
        note(&format!(
            "line {line} of {origin} breaks off: that run was killed before it moved the tag"
        ));
    }
    let trails = trails(&recorded, &args.deliveries(), &origin)?;
    let registries = registries(args, &trails, run)?;
    let concurrency = args.concurrency.get();
    let looking =
        async { Ok::<_, Failure>(Rollback::look(trails, &registries, args.delete_new, concurrency).await) };
    let rollback = run
        .interruptible("looking at what the tags name", looking)
        .await?;
    let mut report = RollbackReport::new(origin, recorded.torn, &rollback);
    report.finish(registries.requests_sent(), started.elapsed());
    let mut refused = None;
    let act = if args.dry_run {
        false
    } else if !report.is_work() || args.yes || !run.is_interactive() {
        true
    } else {
        let go = run
            .confirm(&format!("{}\nput these tags back?", report.text()))
            .await?;
        if !go {
            refused = Some(
                Failure::deadline("the rollback is not confirmed").hint("pass --yes to act without asking"),
            );
        }
        go
    };
    let failure = if act {
        let open = |path: &PathBuf| Journal::open(path, run.trace.trace_id());
        let journal = args.journal.as_ref().map(open).transpose()?;
        report.conclude(rollback.act(journal.as_ref(), run.interrupted()).await)
    } else {
        refused.or_else(|| rollback.into_failure())
    };
    report.finish(registries.requests_sent(), started.elapsed());
    let outcome = Outcome::report(&report)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

fn registries(args: &RollbackArgs, trails: &[Trail], run: &Run) -> Result<Registries> {
    let mut credentials = args.registry.credentials()?;
    if let Some(credential) = args.target_login.login()? {
        for trail in trails {
            if let ImageReference::Registry(target) = &trail.reference {
                credentials.add(target, credential.clone())?;
            }
        }
    }
    Registries::new(args.registry.settings(), credentials, run.deadline)
}
