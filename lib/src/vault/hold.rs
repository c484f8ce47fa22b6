//! Holding token and lease while something runs, and giving both back when it ends, however it ends.
//!
//! Each is renewed when about two thirds of its time are over. What cannot be renewed any more is told of, and what runs
//! goes on: it may well be done in time, and is the one to notice otherwise. A panic of ours is an end like any other,
//! which is why no profile may abort on one.

#[cfg(not(panic = "unwind"))]
compile_error!("a lease could not be given back after a panic: build with panic = \"unwind\"");

use std::convert::Infallible;
use std::future::{Future, pending};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::lease::{Lease, Term};
use super::{Revocation, Session};
use crate::cli::effect;
use crate::deadline::Deadline;
use crate::failure::{Kind, Result, survive};

/// How long giving back may take in all, where a server limits our rate; one that does not answer takes 10 s at most, 5 s
/// for each request. It has its own time, since the run's may be over by then.
const RELEASE_WITHIN: Duration = Duration::from_secs(30);
/// How much of that the lease may take, so that the token has its turn.
const LEASE_WITHIN: Duration = Duration::from_secs(15);
/// How long one renewal may take.
const RENEW_WITHIN: Duration = Duration::from_secs(30);
/// No renewal is sooner than this after another.
const SOONEST: Duration = Duration::from_secs(1);
/// An end that moved by less has not been put off: the answer took that long.
const PUT_OFF: Duration = Duration::from_secs(1);

/// What became of lease and token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The lease; none when the server could not be asked, or would not.
    pub lease: Option<Revocation>,
    /// The token; none when the server could not be asked.
    pub token: Option<Revocation>,
}

impl Session {
    /// Runs `work` with token and lease kept alive, and gives both back when it is done, has failed or panicked.
    ///
    /// # Errors
    /// The first is what became of the work: internal (exit 1) when it panicked.
    pub async fn hold<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> (Result<T>, Released) {
        let outcome = survive(async {
            tokio::select! {
                outcome = work => outcome,
                never = self.keep(lease) => match never {},
            }
        })
        .await;
        (outcome, self.release(lease).await)
    }

    /// Runs `work` with the token kept alive, as far as it can be renewed.
    pub async fn kept<T>(&self, work: impl Future<Output = T>) -> T {
        let term = self.term();
        if !term.renewable || self.ends_soon() {
            return work.await;
        }
        let shown = self.vault().shown();
        let keeping = async {
            keep("token", &shown, term, |deadline| self.prolong(deadline)).await;
            pending::<Infallible>().await
        };
        tokio::select! {
            outcome = work => outcome,
            never = keeping => match never {},
        }
    }

    /// Renews token and lease for as long as it is polled.
    async fn keep(&self, lease: &Lease) -> Infallible {
        let shown = self.vault().shown();
        let term = self.term();
        let token = keep("token", &shown, term, |deadline| self.prolong(deadline));
        let object = lease.path().to_string();
        let renew = |deadline| self.renew_lease(lease, deadline);
        tokio::join!(token, keep("lease", &object, lease.term(), renew));
        pending().await
    }

    /// Ends the lease, and then the token if it is ours. Each outcome is logged.
    pub async fn release(&self, lease: &Lease) -> Released {
        let deadline = Deadline::after(RELEASE_WITHIN);
        let done = effect("revoke", format!("lease {}", lease.path()));
        let revoked = self.revoke_lease(lease, deadline.within(LEASE_WITHIN)).await;
        let token = match &revoked {
            Ok(outcome) => {
                done.done(outcome.name());
                self.release_token(deadline).await
            }
            Err(failure) => {
                let token = self.release_token(deadline).await;
                if token == Some(Revocation::Revoked) {
                    // The server ends every lease of a token with it.
                    done.done("revoked with its token");
                } else {
                    drop(done);
                    tracing::error!(
                        action = "revoke",
                        lease_seconds = lease.length().as_secs(),
                        hint = failure.next_action(),
                        "the lease {} lives on until it ends: {failure}",
                        lease.path(),
                    );
                }
                token
            }
        };
        let lease = match revoked {
            Ok(outcome) => Some(outcome),
            Err(_) => token.filter(|token| *token == Revocation::Revoked),
        };
        Released { lease, token }
    }

    /// Gives the token back; none when the server could not be asked, which is logged.
    pub async fn release_token(&self, deadline: Deadline) -> Option<Revocation> {
        let done = effect("revoke", format!("token of {}", self.vault().shown()));
        match self.revoke(deadline).await {
            Ok(outcome) => {
                done.done(outcome.name());
                Some(outcome)
            }
            Err(failure) => {
                drop(done);
                tracing::warn!(
                    action = "revoke",
                    lease_seconds = self.lease().as_secs(),
                    "the token lives on until its lease ends: {failure}"
                );
                None
            }
        }
    }
}

/// Renews one of the two until that is of no use any more.
async fn keep<F: Future<Output = Result<Term>>>(
    what: &'static str,
    object: &str,
    mut term: Term,
    renew: impl Fn(Deadline) -> F,
) {
    let mut retry = None;
    loop {
        let Some(left) = term.left(Instant::now()) else {
            return;
        };
        if !term.renewable {
            tell(what, object, left, "cannot be renewed");
            return;
        }
        let wait = retry.take().unwrap_or_else(|| {
            let at = term.since + due(term.length, jitter());
            at.saturating_duration_since(Instant::now())
        });
        tokio::time::sleep(wait.min(left)).await;
        let left = term.left(Instant::now()).unwrap_or_default();
        if left.is_zero() {
            tell(what, object, left, "could not be renewed in time");
            return;
        }
        let before = term.since + term.length;
        match renew(Deadline::after(left.min(RENEW_WITHIN))).await {
            Ok(renewed) => {
                tracing::info!(
                    action = "renew",
                    object,
                    what,
                    outcome = "done",
                    seconds = renewed.length.as_secs()
                );
                term = renewed;
                if !term.length.is_zero() && term.since + term.length <= before + PUT_OFF {
                    let left = term.left(Instant::now()).unwrap_or_default();
                    tell(what, object, left, "has reached the longest time it may live");
                    return;
                }
            }
            Err(failure) if matches!(failure.kind(), Kind::Unavailable | Kind::Deadline) => {
                tracing::warn!(action = "renew", object, what, outcome = "failed", "{failure}");
                retry = Some((left / 4).max(SOONEST));
            }
            Err(failure) => {
                tracing::warn!(
                    action = "renew",
                    object,
                    what,
                    outcome = "failed",
                    hint = failure.next_action(),
                    "{failure}"
                );
                let left = term.left(Instant::now()).unwrap_or_default();
                tell(what, object, left, "cannot be renewed any more");
                return;
            }
        }
    }
}

fn tell(what: &'static str, object: &str, left: Duration, why: &str) {
    tracing::warn!(
        action = "renew",
        object,
        what,
        seconds = left.as_secs(),
        "the {what} {why}: it ends in {} s, and the command goes on",
        left.as_secs()
    );
}

/// How long after its beginning a term is renewed: at two thirds, give or take a twelfth, by `jitter` from 0 to 1.
fn due(length: Duration, jitter: f64) -> Duration {
    length.mul_f64(7.0 / 12.0 + jitter / 6.0).max(SOONEST)
}

/// Anything from 0 to 1, so that many jobs that began together do not renew together.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(random).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::failure::Failure;

    const MINUTE: u64 = 60;

    /// Keeps a term of a minute with these answers, and gives back when each renewal was, in seconds.
    async fn renewals(answers: Vec<Result<u64>>) -> Vec<u64> {
        let start = Instant::now();
        let (answers, asked) = (RefCell::new(answers.into_iter()), RefCell::new(Vec::new()));
        let renew = |_deadline| {
            asked.borrow_mut().push(start.elapsed().as_secs());
            let answer = answers.borrow_mut().next().expect("no more renewals");
            async move { answer.map(|seconds| Term::new(seconds, true)) }
        };
        let keeping = keep("lease", "engine/creds/ci", Term::new(MINUTE, true), renew);
        tokio::time::timeout(Duration::from_secs(3600), keeping)
            .await
            .expect("it ends");
        asked.into_inner()
    }

    #[test]
    fn a_term_is_renewed_at_about_two_thirds() {
        for (jitter, least, most) in [(0.0, 34, 36), (1.0, 44, 46), (jitter(), 34, 46)] {
            let due = due(Duration::from_secs(MINUTE), jitter).as_secs();
            assert!((least..=most).contains(&due), "{due}");
        }
        assert_eq!(due(Duration::from_millis(1), 0.0), SOONEST);
    }

    #[tokio::test(start_paused = true)]
    async fn renewing_stops_at_the_longest_time_it_may_live() {
        let asked = renewals(vec![Ok(MINUTE), Ok(30), Ok(1)]).await;
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!((35..=46).contains(&asked[0]), "{asked:?}");
        assert!((35..=46).contains(&(asked[1] - asked[0])), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_asked_until_the_term_is_over() {
        let away = || Err(Failure::unavailable("away"));
        let asked = renewals(vec![away(), away(), Ok(MINUTE), Err(Failure::denied("no"))]).await;
        assert_eq!(asked.len(), 4, "{asked:?}");
        let asked = renewals((0..60).map(|_| away()).collect()).await;
        assert!(asked.len() > 4, "{asked:?}");
        assert!(asked.iter().all(|second| *second <= MINUTE), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_beyond_all_clocks_is_held() {
        let never = |_| async { panic!("asked") };
        let keeping = keep("lease", "engine/creds/ci", Term::new(u64::MAX, true), never);
        let held = tokio::time::timeout(Duration::from_secs(3600), keeping).await;
        assert!(held.is_err(), "it is not held any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_or_cannot_be_renewed_is_left_alone() {
        let never = |_| async { panic!("asked") };
        keep("token", "vault", Term::new(0, true), never).await;
        keep("token", "vault", Term::new(MINUTE, false), never).await;
    }
}
