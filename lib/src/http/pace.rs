//! How fast a server lets itself be asked, found out by asking.
//!
//! Nothing is held back until a server turns a request away (429, or 503 with `Retry-After`). From then on half as many
//! requests as were under way may run at once, and one more after each round that went well. While the server asks
//! for a pause, all requests to it wait together, instead of each fetching a refusal of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use reqwest::Url;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::authority;
use crate::deadline::Deadline;

/// How many times a request is repeated at most.
pub(super) const REPETITIONS: usize = 4;
/// The longest pause that a server may ask for before we give up instead.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What is known of one server. Pure.
#[derive(Debug, Default)]
struct Rhythm {
    /// How many requests may be under way at once; none while the server never complained.
    limit: Option<usize>,
    running: usize,
    /// How many went well since the limit last changed.
    well: usize,
    not_before: Option<Instant>,
    /// When the limit was last cut.
    cut: Option<Instant>,
}

/// Whether a request may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Now,
    NotBefore(Instant),
    AfterAnother,
}

impl Rhythm {
    fn turn(&self, now: Instant, urgent: bool) -> Turn {
        if let Some(instant) = self.not_before.filter(|instant| *instant > now) {
            return Turn::NotBefore(instant);
        }
        match self.limit {
            Some(limit) if self.running >= limit && !urgent => Turn::AfterAnother,
            _ => Turn::Now,
        }
    }

    fn begin(&mut self) {
        self.running += 1;
    }

    fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    fn went_well(&mut self) {
        let Some(limit) = self.limit else { return };
        self.well += 1;
        if self.well >= limit {
            self.limit = Some(limit + 1);
            self.well = 0;
        }
    }

    /// A request that went out at `sent`, and is still counted as running, was turned away for `pause`.
    fn turned_away(&mut self, sent: Instant, now: Instant, pause: Duration) {
        // What went out before the limit was cut says nothing about the new one.
        if self.cut.is_none_or(|cut| sent >= cut) {
            let fits = self.limit.unwrap_or(usize::MAX).min(self.running);
            self.limit = Some((fits / 2).max(1));
            self.well = 0;
            self.cut = Some(now);
        }
        self.not_before = self.not_before.max(Some(now + pause));
    }
}

/// One server's rhythm, shared by everything that asks it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rhythm: Mutex<Rhythm>,
    freed: Notify,
}

/// A request under way. It is over when this is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    pace: Arc<Pace>,
    sent: Instant,
}

impl Pace {
    fn rhythm(&self) -> MutexGuard<'_, Rhythm> {
        self.rhythm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may go out. An urgent one, which something under way waits for, does not queue behind
    /// the others.
    ///
    /// # Errors
    /// How long it would have to wait, when that is too long.
    pub(super) async fn enter(self: &Arc<Self>, deadline: Deadline, urgent: bool) -> Result<Pass, Duration> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let now = Instant::now();
            let turn = {
                let mut rhythm = self.rhythm();
                let turn = rhythm.turn(now, urgent);
                if turn == Turn::Now {
                    rhythm.begin();
                }
                turn
            };
            match turn {
                Turn::Now => {
                    return Ok(Pass {
                        pace: self.clone(),
                        sent: now,
                    });
                }
                Turn::NotBefore(instant) => {
                    let pause = instant - now;
                    if pause > LONGEST_PAUSE || pause >= deadline.remaining() {
                        return Err(pause);
                    }
                    tokio::time::sleep_until(instant).await;
                }
                // Whatever is under way ends before the deadline, as every request does.
                Turn::AfterAnother => freed.await,
            }
        }
    }
}

impl Pass {
    /// The server took the request.
    pub(super) fn went_well(self) {
        self.pace.rhythm().went_well();
    }

    /// The server turned the request away, and nobody may ask again before the pause is over.
    pub(super) fn turned_away(self, pause: Duration) {
        self.pace.rhythm().turned_away(self.sent, Instant::now(), pause);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.pace.rhythm().end();
        self.pace.freed.notify_waiters();
    }
}

/// The pace of each server, by host and port.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<BTreeMap<String, Arc<Pace>>>);

impl Paces {
    pub(super) fn of(&self, url: &Url) -> Arc<Pace> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.entry(authority(url)).or_default().clone()
    }
}

/// Pauses between repetitions, before they are bounded.
pub(super) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
}

/// How long a request that is turned away goes on.
pub(crate) struct Refusals {
    pauses: backon::ExponentialBackoff,
    left: usize,
    patience: Duration,
    first: Option<Instant>,
}

impl Refusals {
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Refusals {
            pauses: pauses().without_max_times().build(),
            left: REPETITIONS,
            patience: patience.unwrap_or_default(),
            first: None,
        }
    }

    /// How long to wait, by our own measure or longer if the server asks for that; none when it is time to give up. A
    /// server that asks for no pause at all would else be sent requests as fast as it answers.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        let goes_on = self.left > 0 || now - first < self.patience;
        self.left = self.left.saturating_sub(1);
        let own = self.pauses.next();
        asked.max(own).filter(|_| goes_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn running(number: usize) -> Rhythm {
        Rhythm {
            running: number,
            ..Rhythm::default()
        }
    }

    #[test]
    fn nothing_is_held_back_until_the_server_complains() {
        assert_eq!(running(1000).turn(Instant::now(), false), Turn::Now);
    }

    #[test]
    fn a_burst_of_refusals_halves_once_and_the_longest_pause_counts() {
        let start = Instant::now();
        let mut rhythm = running(16);
        rhythm.turned_away(start, start + SECOND, SECOND * 3);
        rhythm.end();
        rhythm.turned_away(start, start + SECOND, SECOND);
        rhythm.end();
        assert_eq!(rhythm.limit, Some(8));
        let over = start + SECOND * 4;
        assert_eq!(rhythm.turn(start + SECOND * 2, true), Turn::NotBefore(over));
        // 14 are still under way.
        assert_eq!(rhythm.turn(over, false), Turn::AfterAnother);
        assert_eq!(rhythm.turn(over, true), Turn::Now);
        for _ in 0..7 {
            rhythm.end();
        }
        assert_eq!(rhythm.turn(over, false), Turn::Now);
    }

    #[test]
    fn it_falls_to_one_at_least_and_rises_by_one_a_round() {
        let mut now = Instant::now();
        let mut rhythm = running(3);
        for _ in 0..5 {
            now += SECOND;
            rhythm.turned_away(now, now, SECOND);
        }
        assert_eq!(rhythm.limit, Some(1));
        let mut limits = Vec::new();
        for _ in 0..6 {
            rhythm.went_well();
            limits.push(rhythm.limit.unwrap());
        }
        assert_eq!(limits, [2, 2, 3, 3, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_go_when_the_pause_is_over_and_one_at_a_time() {
        let pace = Arc::new(Pace::default());
        let deadline = Deadline::after(SECOND * 600);
        let start = Instant::now();
        pace.enter(deadline, false).await.unwrap().turned_away(SECOND * 7);
        let first = pace.enter(deadline, false).await.unwrap();
        assert_eq!(start.elapsed(), SECOND * 7);
        let second = {
            let pace = pace.clone();
            tokio::spawn(async move { pace.enter(deadline, false).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_too_long_is_not_waited_for() {
        let pace = Arc::new(Pace::default());
        let (far, near) = (Deadline::after(SECOND * 6000), Deadline::after(SECOND * 5));
        pace.enter(far, false).await.unwrap().turned_away(SECOND * 10);
        assert_eq!(pace.enter(near, false).await.unwrap_err(), SECOND * 10);
        pace.enter(far, false).await.unwrap().turned_away(SECOND * 300);
        assert_eq!(pace.enter(far, true).await.unwrap_err(), SECOND * 300);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_borne_a_few_times_and_as_long_as_there_is_patience() {
        let minute = SECOND * 60;
        let mut refusals = Refusals::new(None);
        let pauses: Vec<_> = std::iter::from_fn(|| refusals.next(Some(minute))).collect();
        assert_eq!(pauses, [minute; REPETITIONS]);
        let mut refusals = Refusals::new(Some(minute));
        let mut waited = Duration::ZERO;
        while let Some(pause) = refusals.next(None) {
            waited += pause;
            tokio::time::advance(pause).await;
        }
        assert!((60..75).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_no_pause_is_not_asked_faster_than_by_our_own_measure() {
        let mut refusals = Refusals::new(Some(SECOND * 60));
        let mut pauses = Vec::new();
        while let Some(pause) = refusals.next(Some(Duration::ZERO)) {
            pauses.push(pause);
            tokio::time::advance(pause).await;
        }
        assert!(
            pauses.iter().all(|pause| *pause >= SECOND / 5) && pauses.len() < 20,
            "{pauses:?}"
        );
    }
}
