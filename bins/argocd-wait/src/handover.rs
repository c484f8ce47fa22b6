//! What the jobs after this one are told.

use towpath::failure::Result;
use towpath::handoff::{
    ENV_COMMIT, ENV_HEALTHY_SECONDS, ENV_SYNCED_SECONDS, ENV_VERDICT, Handoff, IMAGE_DIGEST, IMAGE_REF,
    IMAGE_REPOSITORY, TRACEPARENT,
};
use towpath::trace::TraceParent;

use crate::plan::Wanted;
use crate::report::Waited;

/// Adds the outcome to what an earlier job handed over, so that the jobs after this one need this one alone.
///
/// # Errors
/// Input (exit 3) for a value that GitLab's dotenv reports cannot hold.
pub(crate) fn add(
    mut handoff: Handoff,
    wanted: &Wanted,
    waited: &Waited,
    trace: &TraceParent,
) -> Result<Handoff> {
    handoff.set(ENV_COMMIT, &wanted.revision)?;
    if let Some(verdict) = waited.verdict {
        handoff.set(ENV_VERDICT, verdict)?;
    }
    // A handoff names one image.
    if let [image] = wanted.images.as_slice() {
        handoff.set(IMAGE_REPOSITORY, &image.name)?;
        handoff.set(IMAGE_DIGEST, &image.digest)?;
        handoff.set(IMAGE_REF, &image.to_string())?;
    }
    // Of several applications the slowest counts.
    let longest = |seconds: fn(&crate::report::ApplicationReport) -> Option<f64>| {
        waited
            .applications
            .iter()
            .filter_map(seconds)
            .max_by(f64::total_cmp)
    };
    for (name, seconds) in [
        (
            ENV_SYNCED_SECONDS,
            longest(|application| application.synced_seconds),
        ),
        (
            ENV_HEALTHY_SECONDS,
            longest(|application| application.healthy_seconds),
        ),
    ] {
        if let Some(seconds) = seconds {
            handoff.set(name, &seconds.to_string())?;
        }
    }
    handoff.set(TRACEPARENT, &trace.to_string())?;
    Ok(handoff)
}
