//! Measuring programs, for the benchmarks of the tools and their peers.

use std::fmt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::Child;

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// Wall time in seconds, from start to end of the program.
    pub seconds: f64,
    /// The most memory it held, in MiB (`VmHWM`).
    pub peak: f64,
}

impl Took {
    /// Watches a child that was started at `start` to its end, looking at its memory this often. The last look counts:
    /// the kernel keeps the peak itself.
    ///
    /// # Errors
    /// When it cannot be waited for, or does not end within `limit`.
    pub async fn watch(
        child: &mut Child,
        start: Instant,
        look: Duration,
        limit: Duration,
    ) -> anyhow::Result<(ExitStatus, Self)> {
        let status = format!("/proc/{}/status", child.id().context("it was waited for")?);
        let mut peak = 0.0;
        let ended = async {
            loop {
                if let Ok(ended) = tokio::time::timeout(look, child.wait()).await {
                    return ended;
                }
                peak = peak_of(&status).unwrap_or(peak);
            }
        };
        let ended = tokio::time::timeout(limit, ended)
            .await
            .context("it does not end")??;
        let seconds = start.elapsed().as_secs_f64();
        Ok((ended, Took { seconds, peak }))
    }
}

/// In MiB; none once the process has ended.
fn peak_of(status: &str) -> Option<f64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// A Markdown table: a row for each kind of work, a column for each tool.
#[derive(Debug)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(heads: Vec<String>) -> Self {
        Table {
            heads,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, work: &str, cells: Vec<String>) {
        self.rows.push((work.to_owned(), cells));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| work | {} |", self.heads.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(self.heads.len()))?;
        for (work, cells) in &self.rows {
            writeln!(f, "| {work} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// The middle one of some numbers, the higher one when there are two.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn median(numbers: Vec<f64>) -> f64 {
    percentile(numbers, 50)
}

/// The number that so many percent of some numbers are below; the highest one for 100.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn percentile(mut numbers: Vec<f64>, percent: usize) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() * percent / 100).min(numbers.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_in_the_middle_the_higher_one_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 3.0);
        let hundred: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(percentile(hundred.clone(), 95), 95.0);
        assert_eq!(percentile(hundred, 100), 99.0);
    }
}
