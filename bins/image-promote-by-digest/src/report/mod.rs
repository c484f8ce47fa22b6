//! The public formats of the results.

mod promotion;
mod rollback;
mod verification;

pub(crate) use promotion::PromotionReport;
pub(crate) use rollback::RollbackReport;
pub(crate) use verification::VerificationReport;

use std::time::Duration;

/// What all of them begin with.
const SCHEMA: &str = "towpath.image-promote-by-digest/1";

/// Seconds; milliseconds are as exact as anybody can use.
fn seconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1000.0).round() / 1000.0
}
