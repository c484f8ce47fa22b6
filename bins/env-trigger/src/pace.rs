//! How often GitLab is asked.
//!
//! In any minute there are at most fifteen requests for a pipeline, whatever happens. Within that, the pace follows
//! what is known of the end. Where the jobs that are left ran before, their last durations say when to look closely;
//! elsewhere a job that has just begun may be short, and one that has run for long will run a while longer. While jobs
//! wait behind others, or for a person, nothing ends, and what is not asked then can be asked later.
//!
//! Time is handed in, so that a test can simulate hours. The budget counts all requests of a look, so that a pipeline
//! whose look takes several is looked at less often.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests in any minute, for each pipeline.
const LIMIT: usize = 15;
/// The most of them, however many pipelines there are.
const MOST: usize = 60;
/// The minute, and a little more: requests do not all take equally long to arrive.
const WINDOW: f64 = 60.2;
/// Part of a pause that is random, so that many runs do not ask all at once.
const JITTER: f64 = 0.1;

/// How near a pipeline's end may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All that is left is running: the next thing to happen may be the end.
    Ending,
    /// Jobs wait for a runner, and nothing runs yet: the next one to be taken may be short.
    Starting,
    /// Jobs wait for others that run.
    Busy,
    /// Nothing runs: it waits for a resource, a delay, an outside system or a person.
    Idle,
}

/// When the end is expected, by what the same jobs took before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    /// Seconds from now; below zero when it is overdue.
    pub(crate) seconds: f64,
    /// How long the job that ends last took before, in seconds: the longer, the less exact.
    pub(crate) duration: f64,
}

/// The requests of the last minute and what moved last. All times are counted from the same start.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    limit: usize,
    asked: VecDeque<f64>,
    moved: Duration,
    next_cost: usize,
}

impl Pace {
    /// A full budget at time zero.
    pub(crate) fn new() -> Self {
        Pace {
            limit: LIMIT,
            asked: VecDeque::new(),
            moved: Duration::ZERO,
            next_cost: 1,
        }
    }

    /// So many pipelines are followed at once, and the next look will take so many requests.
    pub(crate) fn expects(&mut self, pipelines: usize, requests: u64) {
        self.limit = LIMIT.saturating_mul(pipelines.max(1)).min(MOST);
        self.next_cost = count(requests);
    }

    /// Something changed.
    pub(crate) fn moved(&mut self, now: Duration) {
        self.moved = now;
    }

    /// A look took this many requests.
    pub(crate) fn spent(&mut self, now: Duration, requests: u64) {
        let now = now.as_secs_f64();
        self.asked.extend(std::iter::repeat_n(now, count(requests)));
        while self.asked.front().is_some_and(|&asked| asked <= now - WINDOW) {
            self.asked.pop_front();
        }
    }

    /// How long to wait before the next look; `chance` is random, from 0 to 1.
    pub(crate) fn pause(
        &self,
        now: Duration,
        phase: Phase,
        expected: Option<Expected>,
        chance: f64,
    ) -> Duration {
        let quiet = now.saturating_sub(self.moved).as_secs_f64();
        let wanted = match (phase, expected) {
            (Phase::Ending, Some(expected)) => near(expected),
            // Where the end is as likely at any moment, no order of fifteen looks a minute beats even ones; a job that
            // has just begun is likelier to be short, and only there a little of the budget is worth spending early.
            (Phase::Ending, None) => (quiet / 4.0).clamp(2.6, 4.1),
            (Phase::Starting, _) => (quiet / 6.0).clamp(3.3, 7.0),
            (Phase::Busy, _) => 7.0,
            (Phase::Idle, _) => (quiet / 8.0).clamp(2.0, 15.0),
        };
        let jittered = wanted * (1.0 - JITTER / 2.0 + JITTER * chance);
        Duration::from_secs_f64(jittered.max(self.affordable(now.as_secs_f64())))
    }

    /// How long to wait after `failures` looks in a row that got no answer.
    pub(crate) fn pause_after_trouble(failures: u32, chance: f64) -> Duration {
        let wanted = f64::from(2_u32.saturating_pow(failures.min(5))).min(30.0);
        Duration::from_secs_f64(wanted * (1.0 - JITTER / 2.0 + JITTER * chance))
    }

    /// The same pause, unless another look has to wait longer than that to fit into the minute.
    pub(crate) fn at_least(&self, now: Duration, pause: Duration) -> Duration {
        pause.max(Duration::from_secs_f64(self.soonest(now.as_secs_f64())))
    }

    /// How soon another look fits into the minute, in seconds.
    fn soonest(&self, now: f64) -> f64 {
        let used = self.recent(now).count();
        let cost = self.next_cost.min(self.limit);
        // As many have to be a minute old as are too many.
        let Some(too_many) = (used + cost).checked_sub(self.limit + 1) else {
            return 0.0;
        };
        let last_of_them = self.recent(now).nth(too_many);
        last_of_them.map_or(0.0, |asked| asked + WINDOW - now)
    }

    /// How long to wait for another look so that the budget lasts for the minute, in seconds.
    fn affordable(&self, now: f64) -> f64 {
        let used = self.recent(now).count();
        let Some(left) = self
            .limit
            .checked_sub(used)
            .filter(|&left| left >= self.next_cost)
        else {
            return self.soonest(now);
        };
        let Some(oldest) = self.recent(now).next() else {
            return 0.0;
        };
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let looks = number(left) / number(self.next_cost);
        // The less is left of the budget, the more evenly it is spread over what is left of the minute.
        (oldest + WINDOW - now) / looks * number(used) / number(self.limit)
    }

    fn recent(&self, now: f64) -> impl Iterator<Item = f64> {
        self.asked
            .iter()
            .copied()
            .filter(move |&asked| asked > now - WINDOW)
    }
}

/// A number of requests that is neither none nor absurd.
fn count(requests: u64) -> usize {
    usize::try_from(requests).unwrap_or(usize::MAX).clamp(1, 1000)
}

/// The pause that fits an expected end: long before it, close around it, and less close again once it is overdue. Where
/// the end may come but is not expected yet, it is as long as the budget of a minute is spread evenly.
fn near(expected: Expected) -> f64 {
    let margin = (0.15 * expected.duration).clamp(1.5, 20.0);
    if expected.seconds > margin {
        let longest = if expected.seconds > 0.35 * expected.duration {
            8.0
        } else {
            4.0
        };
        ((expected.seconds - margin) * 0.6).clamp(2.0, longest)
    } else if expected.seconds > -margin {
        (margin / 4.0).clamp(1.5, 4.0)
    } else {
        ((-expected.seconds - margin) / 4.0).clamp(2.5, 4.0)
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

    /// When durations are asked for, in seconds.
    const LONG: f64 = 30.0;

    /// Follows a pipeline whose stages take these times, one request a look that takes `trip`; `before` is how long the
    /// stages took the last time. Gives back the delay between its end and our noticing it, and when each request went
    /// out.
    fn simulate(stages: &[f64], before: Option<&[f64]>, trip: f64, chance: &mut Chance) -> (f64, Vec<f64>) {
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
        let mut others = Vec::new();
        if before.is_some() {
            // Whoever may ask for durations asks for trigger jobs too, once, and looks for a twin.
            pace.spent(Duration::ZERO, 1);
            asked.push(0.0);
            others = vec![LONG, 13.3, 3.2, 0.2];
        }
        loop {
            let mut beside = 0;
            while others.last().is_some_and(|&at| at <= now) {
                asked.push(now);
                others.pop();
                beside += 1;
            }
            asked.push(now);
            // What the server says is what holds half way through the trip.
            let stage = ends.iter().filter(|&&end| end <= now + trip / 2.0).count();
            now += trip;
            let at = Duration::from_secs_f64(now);
            pace.spent(at, 1 + beside);
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
            let began = if stage == 0 { 0.0 } else { ends[stage - 1] };
            let known = before.filter(|_| others.is_empty());
            let expected = known.map(|before| Expected {
                seconds: before[stage] - (now - began),
                duration: before[stage],
            });
            now += pace.pause(at, phase, expected, chance.next()).as_secs_f64();
        }
    }

    /// Up to five stages, each as long as `length` makes of a number from 0 to 1.
    type Length = fn(f64) -> f64;

    const ANY: Length = |chance| 3.0 * 200_f64.powf(chance);
    const SECONDS: Length = |chance| 2.0 + 18.0 * chance;
    const MINUTES: Length = |chance| 20.0 + 100.0 * chance;
    const HALVES_OF_AN_HOUR: Length = |chance| 300.0 + 1500.0 * chance;

    /// Simulates a thousand pipelines; `noise` is by what part a stage's last duration may have been off, where it is
    /// known.
    fn delays(length: Length, noise: Option<f64>, seed: u64) -> Vec<f64> {
        let mut chance = Chance(seed);
        let mut delays = Vec::new();
        for _ in 0..1000 {
            let count = 1 + (chance.next() * 4.99) as usize;
            let stages: Vec<f64> = (0..count).map(|_| length(chance.next())).collect();
            let before: Option<Vec<f64>> = noise.map(|noise| {
                let off = |stage: &f64| stage * (1.0 - noise + 2.0 * noise * chance.next());
                stages.iter().map(off).collect()
            });
            let (delay, mut asked) = simulate(&stages, before.as_deref(), 0.1, &mut chance);
            delays.push(delay);
            asked.sort_by(f64::total_cmp);
            for (index, &from) in asked.iter().enumerate() {
                let minute = asked[index..].iter().take_while(|&&at| at < from + 60.0).count();
                assert!(minute <= LIMIT, "{minute} requests in a minute for {stages:?}");
            }
        }
        delays.sort_by(f64::total_cmp);
        delays
    }

    #[test]
    fn the_end_is_noticed_as_soon_as_fifteen_requests_in_any_minute_allow() {
        // The highest median and 95th percentile, in seconds, where nothing is known of the end and where something is.
        let shapes = [
            ("any", ANY, (2.1, 5.0), (1.9, 6.5)),
            // What is asked once costs a short one nearly a third of its only minute.
            ("seconds", SECONDS, (1.9, 3.6), (2.5, 6.2)),
            // Looks that are spread evenly over a minute take two seconds and half a trip, and where the end is as likely
            // at any moment that is the least; a thousand random ends are off by a tenth.
            ("minutes", MINUTES, (2.5, 6.0), (2.15, 8.3)),
            ("halves of an hour", HALVES_OF_AN_HOUR, (2.3, 4.2), (2.3, 4.2)),
        ];
        for (shape, length, unknown, known) in shapes {
            for noise in [None, Some(0.1), Some(0.5)] {
                let (median, high) = if noise.is_none() { unknown } else { known };
                for seed in [7, 42, 1_234_567, 555_555_555] {
                    let delays = delays(length, noise, seed);
                    let half = delays[delays.len() / 2];
                    let most = delays[delays.len() * 95 / 100];
                    assert!(
                        half <= median,
                        "the median delay is {half} s: {shape}, {noise:?}, {seed}"
                    );
                    assert!(
                        most <= high,
                        "the 95th percentile is {most} s: {shape}, {noise:?}, {seed}"
                    );
                }
            }
        }
    }

    #[test]
    fn several_requests_a_look_and_quiet_times_slow_it_down() {
        let mut pace = Pace::new();
        let now = Duration::from_secs(600);
        pace.spent(now, 15);
        // The budget of a minute is gone.
        assert!(pace.pause(now, Phase::Ending, None, 0.5) >= Duration::from_secs(60));
        // With four pipelines it is not.
        pace.expects(4, 1);
        assert!(pace.pause(now, Phase::Ending, None, 0.5) < Duration::from_secs(30));
        let mut dear = Pace::new();
        // More than the budget at once is let through, and then paid for.
        dear.spent(now, 40);
        let pause = dear.pause(now, Phase::Ending, None, 0.5);
        assert!(
            pause >= Duration::from_secs(60) && pause <= Duration::from_secs(61),
            "{pause:?}"
        );
        let quiet = Pace::new();
        let pause = |phase, at| {
            quiet
                .pause(Duration::from_secs(at), phase, None, 0.5)
                .as_secs_f64()
        };
        assert!(pause(Phase::Idle, 10) < pause(Phase::Idle, 60));
        assert!(pause(Phase::Idle, 3600) <= 15.0);
        // What has to be looked at again soon waits for the budget too.
        let soon = Duration::from_secs(1);
        assert_eq!(quiet.at_least(now, soon), soon);
        assert!(dear.at_least(now, soon) >= Duration::from_secs(60));
        assert!(Pace::pause_after_trouble(9, 1.0) <= Duration::from_secs(33));
    }
}
