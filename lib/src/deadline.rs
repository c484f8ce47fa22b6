//! How long a run, and each outside call in it, may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::{Failure, Result};

/// Longer than any run lasts, and short enough for every clock.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment a run has to be over. Cheap to copy; every client holds one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this long from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        // The clock cannot hold every duration that can be asked for; a year stands for "never".
        Deadline(Instant::now() + duration.min(NEVER))
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
        Deadline(self.0.min(Deadline::after(duration).0))
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

    #[tokio::test]
    async fn no_duration_is_too_long_for_the_clock() {
        assert!(!Deadline::after(Duration::MAX).within(Duration::MAX).passed());
    }
}
