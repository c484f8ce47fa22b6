//! How long a run, and each outside call in it, may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::{Failure, Result};

/// As far as a deadline may lie ahead. Clocks cannot count to all that a duration can hold, and whoever gives more means
/// "never".
const FARTHEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The moment a run has to be over. Cheap to copy; every client holds one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this long from now, ten years at most.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Deadline(Instant::now() + duration.min(FARTHEST))
    }

    /// The time that is left; zero when the deadline has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of this deadline and one that lies `duration` from now: the limit of one call within the run.
    #[must_use]
    pub fn within(self, duration: Duration) -> Self {
        Deadline(self.0.min(Self::after(duration).0))
    }

    /// Runs `work` until it is done or the deadline passes.
    ///
    /// # Errors
    /// Deadline (exit 9) naming `what`, which reads as "pushing blob sha256:..."; whatever `work` fails with.
    pub async fn bound<T>(self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout_at(self.0, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::deadline(format!("the deadline passed while {what}"))
                .hint("raise --timeout (TOWPATH_TIMEOUT), or look at what is slow")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_too_long() {
        let deadline = Deadline::after(Duration::MAX);
        assert!(!deadline.passed());
        assert!(!deadline.within(Duration::MAX).passed());
    }
}
