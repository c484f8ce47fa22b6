//! What is known of a blob on its way, on both sides of the HTTP client.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cli::Progress;
use crate::failure::Failure;
use crate::oci::Verifier;

/// A target that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// Once all bytes are sent, a registry may take long to put them where they belong.
const SETTLE: Duration = Duration::from_secs(600);

/// Why the bytes of a blob end too early.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) failure: Failure,
    /// Whether reading all of it anew may help.
    pub(super) again: bool,
}

impl Flaw {
    pub(super) fn last(failure: Failure) -> Self {
        Flaw {
            failure,
            again: false,
        }
    }
}

/// The state of the hash at some offsets, so that a blob can be read on from there.
#[derive(Debug)]
pub(super) struct Marks {
    every: u64,
    taken: Vec<(u64, Verifier)>,
}

impl Marks {
    /// How many are kept; beyond, every second one is dropped.
    const MOST: usize = 64;

    pub(super) fn note(&mut self, at: u64, verifier: &Verifier) {
        let last = self.taken.last().map_or(0, |(at, _)| *at);
        if at < last.saturating_add(self.every) {
            return;
        }
        self.taken.push((at, verifier.clone()));
        if self.taken.len() > Self::MOST {
            let mut index = 0;
            self.taken.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.every *= 2;
        }
    }

    /// The last one that is not behind `offset`.
    pub(super) fn before(&self, offset: u64) -> Option<(u64, Verifier)> {
        self.taken.iter().rev().find(|(at, _)| *at <= offset).cloned()
    }
}

impl Default for Marks {
    fn default() -> Self {
        Marks {
            every: 1024 * 1024,
            taken: Vec::new(),
        }
    }
}

/// What is known of a blob on its way, on both sides of the HTTP client.
#[derive(Debug)]
pub(super) struct Record {
    marks: Arc<Mutex<Marks>>,
    /// How far it was handed to the HTTP client, and how far at most before it broke off.
    at: AtomicU64,
    farthest: AtomicU64,
    /// Nobody can take what is not there yet.
    waits: AtomicBool,
    flaw: Mutex<Option<Flaw>>,
    progress: Arc<Progress>,
}

impl Record {
    /// Of a blob that was not sent yet. Those who read it together share the marks.
    pub(super) fn new(progress: Arc<Progress>, marks: Arc<Mutex<Marks>>) -> Arc<Self> {
        Arc::new(Record {
            marks,
            at: AtomicU64::new(0),
            farthest: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            flaw: Mutex::new(None),
            progress,
        })
    }

    pub(super) fn farthest(&self) -> u64 {
        self.farthest.load(Ordering::Relaxed)
    }

    pub(super) fn start_at(&self, offset: u64) {
        self.at.store(offset, Ordering::Relaxed);
    }

    /// What is waited for is not the target's fault.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, bytes: u64) {
        let at = self.at.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let before = self.farthest.fetch_max(at, Ordering::Relaxed);
        // What is sent a second time was counted the first time.
        self.progress.advance(at.saturating_sub(before).min(bytes));
    }

    pub(super) fn fail(&self, flaw: Flaw) {
        *self.flaw.lock().unwrap_or_else(PoisonError::into_inner) = Some(flaw);
    }

    pub(super) fn take_flaw(&self) -> Option<Flaw> {
        self.flaw.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Resolves when nothing was taken for too long.
    pub(super) async fn stalls(&self, size: u64) {
        loop {
            let seen = self.at.load(Ordering::Relaxed);
            let patience = if seen >= size { SETTLE } else { STALL };
            tokio::time::sleep(patience).await;
            let moved = self.at.load(Ordering::Relaxed) != seen;
            if !moved && !self.waits.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn marks_of_any_blob_stay_few_and_near_enough() {
        let mut marks = Marks::default();
        let verifier = Digest::of(b"").verifier();
        let mebibyte = 1024 * 1024;
        let end = 4096;
        for at in 1..=end {
            marks.note(at * mebibyte, &verifier);
            assert!(marks.taken.len() <= Marks::MOST);
        }
        for offset in [0, 1, 100, 2048, end] {
            let (at, _) = marks.before(offset * mebibyte).unwrap_or((0, verifier.clone()));
            assert!(at <= offset * mebibyte);
            assert!(offset * mebibyte - at <= end * mebibyte / 16, "{offset}: {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_stalls_when_it_takes_nothing_though_there_is_something() {
        let record = Record::new(Arc::new(Progress::bytes("test", 0)), Arc::default());
        let started = tokio::time::Instant::now();
        let moving = async {
            for _ in 0..20 {
                tokio::time::sleep(SECOND * 30).await;
                record.advance(1);
            }
            record.waits(true);
            tokio::time::sleep(SECOND * 600).await;
            record.waits(false);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = record.stalls(100) => {}
            () = moving => {}
        }
        let waited = started.elapsed().as_secs();
        assert!((1200..=1200 + 2 * STALL.as_secs()).contains(&waited), "{waited}");
    }
}
