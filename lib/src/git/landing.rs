//! What every way of getting a change onto a shared branch has in common: the decision, what became of it, and patience.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use super::commit::NewCommit;

/// How often a change is decided and sent at most. Every lost race means that somebody else's change landed, so this
/// many competitors at one time are survived.
pub(crate) const ATTEMPTS: u32 = 60;
/// How often in a row the server itself may turn a change down although the branch did not move, within some four
/// seconds: what has a lock on the branch, or a hook that fails now and then, is over by then, and a rule is not.
pub(crate) const REFUSALS: u32 = 5;
/// How often in a row the connection may fail.
pub(crate) const BREAKDOWNS: u32 = 10;
/// Pauses grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

/// The pauses between attempts; they never end.
pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(1.3)
        .with_jitter()
        .without_max_times()
        .build()
}

/// How long to wait after a refusal, when there were so many before it on a branch that did not move: 0, then a quarter of a
/// second, doubled each time.
pub(crate) fn pause_after(refusals: u32) -> Duration {
    Duration::from_millis(125) * (1 << refusals.min(REFUSALS)) * u32::from(refusals > 0)
}

/// What is to be done on the tip that was looked at.
#[derive(Debug)]
pub struct Decision<T> {
    /// What to commit; none when everything is as it should be.
    pub commit: Option<NewCommit>,
    /// What the caller wants to know about it.
    pub outcome: T,
}

/// A decision that was carried out.
#[derive(Debug)]
pub struct Landed<T> {
    /// The commit that is on the branch now; none when there was nothing to do.
    pub commit: Option<String>,
    /// What came with the decision.
    pub outcome: T,
    /// How many times it had to be decided.
    pub attempts: u32,
}
