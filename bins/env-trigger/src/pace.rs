//! How often GitLab is asked. A budget bounds the requests a minute whatever happens; within it the pace follows what
//! is known of the end: a job that has just begun may be short, one that has run for long will run a while longer,
//! and nothing ends while jobs wait behind others.
//!
//! Time is handed in, so that a test can simulate hours. The budget counts all requests of a look, so that a pipeline
//! whose jobs fill many pages is looked at less often.

use std::time::Duration;

/// Requests a second in the long run: fifteen a minute.
const RATE: f64 = 15.0 / 60.0;
/// How many requests can be saved up, for the moments when much happens.
const SAVINGS: f64 = 10.0;
/// Part of a pause that is random, so that many runs do not ask all at once.
const JITTER: f64 = 0.2;

/// How near a pipeline's end may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All that is left is running: the next thing to happen may be the end.
    Ending,
    /// Jobs wait for a runner or for other jobs.
    Busy,
    /// Nothing runs: it waits for a resource, a delay, an outside system or a person.
    Idle,
}

/// The budget and what moved last. All times are counted from the same start.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    savings: f64,
    settled: Duration,
    moved: Duration,
    last_cost: f64,
}

impl Pace {
    /// A full budget at time zero.
    pub(crate) fn new() -> Self {
        Pace {
            savings: SAVINGS,
            settled: Duration::ZERO,
            moved: Duration::ZERO,
            last_cost: 1.0,
        }
    }

    /// Something changed.
    pub(crate) fn moved(&mut self, now: Duration) {
        self.moved = now;
    }

    /// A look took this many requests.
    pub(crate) fn spent(&mut self, now: Duration, requests: u64) {
        let earned = now.saturating_sub(self.settled).as_secs_f64() * RATE;
        self.settled = now;
        // A look has a handful of requests, rarely some dozens.
        self.last_cost = f64::from(u32::try_from(requests).unwrap_or(u32::MAX)).max(1.0);
        self.savings = (self.savings + earned).min(SAVINGS) - self.last_cost;
    }

    /// How long to wait before the next look; `chance` is random, from 0 to 1.
    pub(crate) fn pause(&self, now: Duration, phase: Phase, chance: f64) -> Duration {
        let quiet = now.saturating_sub(self.moved).as_secs_f64();
        let wanted = match phase {
            // Long jobs get the whole budget: their end is what everyone waits for.
            Phase::Ending => (quiet / 12.0).clamp(1.0, 1.0 / RATE),
            Phase::Busy => (quiet / 10.0).clamp(1.5, 6.0),
            Phase::Idle => (quiet / 8.0).clamp(2.0, 15.0),
        };
        let affordable = (self.last_cost - self.savings) / RATE;
        let pause = wanted * (1.0 - JITTER / 2.0 + JITTER * chance);
        Duration::from_secs_f64(pause.max(affordable))
    }

    /// How long to wait after `failures` looks in a row that got no answer.
    pub(crate) fn pause_after_trouble(failures: u32, chance: f64) -> Duration {
        let wanted = f64::from(2_u32.saturating_pow(failures.min(5))).min(30.0);
        Duration::from_secs_f64(wanted * (1.0 - JITTER / 2.0 + JITTER * chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from 0 to 1 that are the same in every run (a linear congruential generator, Knuth's MMIX).
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
        }
    }

    /// Follows a pipeline whose stages take these times, one request a look that takes `trip`. Gives back the delay
    /// between its end and our noticing it, and when each request went out.
    fn simulate(stages: &[f64], trip: f64, chance: &mut Chance) -> (f64, Vec<f64>) {
        let mut ends = Vec::new();
        let mut total = 0.0;
        for stage in stages {
            total += stage;
            ends.push(total);
        }
        let mut pace = Pace::new();
        let mut now: f64 = 0.0;
        let mut asked = Vec::new();
        let mut stage_seen = 0;
        loop {
            asked.push(now);
            // What the server says is what holds half way through the trip.
            let stage = ends.iter().filter(|&&end| end <= now + trip / 2.0).count();
            now += trip;
            let at = Duration::from_secs_f64(now);
            pace.spent(at, 1);
            if stage == stages.len() {
                return (now - total, asked);
            }
            if stage != stage_seen {
                stage_seen = stage;
                pace.moved(at);
            }
            let phase = if stage + 1 == stages.len() {
                Phase::Ending
            } else {
                Phase::Busy
            };
            now += pace.pause(at, phase, chance.next()).as_secs_f64();
        }
    }

    #[test]
    fn the_end_is_noticed_within_two_seconds_at_the_median_on_a_bounded_budget() {
        let mut chance = Chance(7);
        let mut delays = Vec::new();
        for _ in 0..2000 {
            // Up to five stages of three seconds to ten minutes each, short ones more often than long ones.
            let count = 1 + (chance.next() * 4.99) as usize;
            let stages: Vec<f64> = (0..count).map(|_| 3.0 * 200_f64.powf(chance.next())).collect();
            let (delay, asked) = simulate(&stages, 0.1, &mut chance);
            delays.push(delay);
            for (index, &from) in asked.iter().enumerate() {
                let minute = asked[index..].iter().take_while(|&&at| at < from + 60.0).count();
                assert!(
                    minute <= 15 + 10 + 1,
                    "{minute} requests in a minute for {stages:?}"
                );
            }
        }
        delays.sort_by(f64::total_cmp);
        let median = delays[delays.len() / 2];
        assert!(median <= 2.0, "the median delay is {median} s");
        assert!(delays[delays.len() * 95 / 100] <= 6.0);
    }

    #[test]
    fn a_long_job_costs_at_most_fifteen_requests_a_minute() {
        let mut chance = Chance(11);
        let (_, asked) = simulate(&[1800.0], 0.1, &mut chance);
        for minute in 2..30 {
            let from = f64::from(minute) * 60.0;
            let count = asked
                .iter()
                .filter(|&&at| (from..from + 60.0).contains(&at))
                .count();
            assert!(count <= 15, "{count} requests in minute {minute}");
        }
    }

    #[test]
    fn many_pages_and_quiet_times_slow_it_down() {
        let mut pace = Pace::new();
        let now = Duration::from_secs(600);
        pace.spent(now, 20);
        // Twenty requests a look at fifteen a minute are a look in eighty seconds, once the savings are gone.
        pace.spent(now + Duration::from_secs(80), 20);
        assert!(pace.pause(now + Duration::from_secs(80), Phase::Ending, 0.5) >= Duration::from_secs(80));
        let quiet = Pace::new();
        let pause = |phase, at| quiet.pause(Duration::from_secs(at), phase, 0.5).as_secs_f64();
        assert!(pause(Phase::Idle, 10) < pause(Phase::Idle, 60));
        assert!(pause(Phase::Idle, 3600) <= 15.0);
        assert!(Pace::pause_after_trouble(9, 1.0) <= Duration::from_secs(33));
    }
}
