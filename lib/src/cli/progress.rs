//! Progress of long work: a bar on a terminal, a line now and then in a job log.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Job logs get a line at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// The bars of all work that goes on at once, one below the other.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
static SHOWN: AtomicUsize = AtomicUsize::new(0);

/// Writes to the terminal with the bars out of the way.
pub(super) fn aside<T>(write: impl FnOnce() -> T) -> T {
    if SHOWN.load(Ordering::SeqCst) == 0 {
        write()
    } else {
        BARS.suspend(write)
    }
}

/// Work of a known size, counted in bytes or in things.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: Unit,
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Things,
}

#[derive(Debug)]
struct Lines {
    total: u64,
    done: u64,
    /// When the last line was written, and how much was done by then.
    said: Instant,
    done_then: u64,
    started: Instant,
}

impl Progress {
    /// Work on `total` bytes.
    #[must_use]
    pub fn bytes(what: impl Into<String>, total: u64) -> Self {
        Self::new(
            what.into(),
            Unit::Bytes,
            total,
            "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// Work on `total` things.
    #[must_use]
    pub fn count(what: impl Into<String>, total: u64) -> Self {
        Self::new(
            what.into(),
            Unit::Things,
            total,
            "{msg} [{bar:30}] {pos}/{len} {elapsed}",
        )
    }

    fn new(what: String, unit: Unit, total: u64, template: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = BARS.add(ProgressBar::new(total));
            SHOWN.fetch_add(1, Ordering::SeqCst);
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(short(&what));
            bar
        });
        let now = Instant::now();
        Progress {
            what,
            unit,
            bar,
            lines: Mutex::new(Lines {
                total,
                done: 0,
                said: now,
                done_then: 0,
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
            let news = lines.done - lines.done_then;
            let rate = (news as f64 / lines.said.elapsed().as_secs_f64()) as u64;
            lines.said = Instant::now();
            lines.done_then = lines.done;
            tracing::info!(
                action = "progress",
                object = self.what,
                done = lines.done,
                total = lines.total,
                per_second = rate,
                seconds = lines.started.elapsed().as_secs(),
                "{}",
                self.unit.words(lines.done, lines.total, rate)
            );
        }
    }
}

impl Unit {
    /// `35% (182.0 MiB of 520.0 MiB), 48.2 MiB/s`
    fn words(self, done: u64, total: u64, rate: u64) -> String {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        match self {
            Unit::Bytes => format!("{percent}% ({} of {}), {}/s", size(done), size(total), size(rate)),
            Unit::Things => format!("{percent}% ({done} of {total}), {rate}/s"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            BARS.remove(bar);
            SHOWN.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// What the work is on, for a line that a bar has to fit into: a whole digest takes all of it.
fn short(what: &str) -> String {
    let words = what.split(' ').map(|word| match word.char_indices().nth(19) {
        Some((at, _)) if word.starts_with("sha") => &word[..at],
        _ => word,
    });
    words.collect::<Vec<&str>>().join(" ")
}

/// A number of bytes, for people: `1.5 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut shown = bytes as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if shown < 1024.0 {
            break;
        }
        shown /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{shown:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(520 * 1024 * 1024), "520.0 MiB");
    }

    #[test]
    fn a_bar_has_room_beside_a_digest() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(short(&format!("copying {digest}")), "copying sha256:0123456789ab");
        assert_eq!(short("building team/app"), "building team/app");
    }

    #[test]
    fn a_line_tells_how_far_it_is_and_how_fast_it_goes() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(
            Unit::Bytes.words(182 * MIB, 520 * MIB, 48 * MIB),
            "35% (182.0 MiB of 520.0 MiB), 48.0 MiB/s"
        );
        assert_eq!(Unit::Things.words(3, 12, 1), "25% (3 of 12), 1/s");
        // Of nothing, all is done.
        assert_eq!(Unit::Bytes.words(0, 0, 0), "100% (0 B of 0 B), 0 B/s");
        assert!(Unit::Bytes.words(u64::MAX, u64::MAX, 0).contains('%'));
    }
}
