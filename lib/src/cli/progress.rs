//! Progress of long work: a bar on a terminal, a line now and then in a job log.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Job logs get a line at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// Work of a known size, counted in bytes or in things.
#[derive(Debug)]
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    total: u64,
    done: u64,
    said: Instant,
    started: Instant,
}

impl Progress {
    /// Work on `total` bytes.
    #[must_use]
    pub fn bytes(what: impl Into<String>, total: u64) -> Self {
        Self::new(
            what.into(),
            total,
            "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// Work on `total` things.
    #[must_use]
    pub fn count(what: impl Into<String>, total: u64) -> Self {
        Self::new(what.into(), total, "{msg} [{bar:30}] {pos}/{len} {elapsed}")
    }

    fn new(what: String, total: u64, template: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(what.clone());
            bar
        });
        let now = Instant::now();
        Progress {
            what,
            bar,
            lines: Mutex::new(Lines {
                total,
                done: 0,
                said: now,
                started: now,
            }),
        }
    }

    /// More work turned up.
    pub fn grow(&self, by: u64) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.total = lines.total.saturating_add(by);
        if let Some(bar) = &self.bar {
            bar.set_length(lines.total);
        }
    }

    /// Some of the work is done.
    pub fn advance(&self, by: u64) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.done = lines.done.saturating_add(by);
        if let Some(bar) = &self.bar {
            bar.inc(by);
        } else if lines.said.elapsed() >= EVERY {
            lines.said = Instant::now();
            tracing::info!(
                action = "progress",
                object = self.what,
                done = lines.done,
                total = lines.total,
                seconds = lines.started.elapsed().as_secs(),
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
