//! Getting a change onto a branch that others push to as well.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::commit::NewCommit;
use super::remote::Service;
use super::snapshot::{Pushed, Snapshot};
use crate::failure::{Failure, Kind, Result};

/// How often a change is decided and pushed at most. Every lost race means that somebody else's change landed, so
/// this many competitors at one time are survived.
const ATTEMPTS: u32 = 60;
/// How often in a row the server itself may turn a push down although the branch did not move.
const REFUSALS: u32 = 2;
/// How often the connection may fail.
const BREAKDOWNS: u32 = 6;
/// Pauses grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

/// What is to be done on the tip that was looked at.
#[derive(Debug)]
pub struct Decision<T> {
    /// What to commit; none when everything is as it should be.
    pub commit: Option<NewCommit>,
    /// What the caller wants to know about it.
    pub outcome: T,
}

/// A decision that was carried out.
#[derive(Debug)]
pub struct Landed<T> {
    /// The commit that is on the branch now; none when there was nothing to do.
    pub commit: Option<String>,
    /// What came with the decision.
    pub outcome: T,
    /// How many times it had to be decided.
    pub attempts: u32,
}

impl Snapshot {
    /// Decides on the tip, commits and pushes; when somebody else was faster, decides again on the new tip.
    ///
    /// # Errors
    /// Whatever `decide` fails with; denied (exit 4) when the server turns the commit down; conflict (exit 6) when
    /// the race was lost 60 times; unavailable (exit 7).
    pub async fn land<T>(
        &mut self,
        mut decide: impl AsyncFnMut(&mut Snapshot) -> Result<Decision<T>>,
    ) -> Result<Landed<T>> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_factor(1.3)
            .with_jitter()
            .without_max_times()
            .build();
        let (mut refusals, mut breakdowns) = (0, 0);
        for attempts in 1..=ATTEMPTS {
            let Decision { commit, outcome } = decide(self).await?;
            let Some(commit) = commit else {
                return Ok(Landed {
                    commit: None,
                    outcome,
                    attempts,
                });
            };
            let id = self.commit(&commit).await?;
            let parent = self.tip().to_owned();
            let effect = crate::cli::effect("push", format!("{} {}", self.remote.location(), self.branch()));
            let (pushed, tail) = self.push(&id).await?;
            match pushed {
                Pushed::Landed => {
                    effect.done("done");
                    return Ok(Landed {
                        commit: Some(id),
                        outcome,
                        attempts,
                    });
                }
                Pushed::Raced => effect.done("raced"),
                Pushed::Refused => effect.done("refused"),
                Pushed::Unknown => drop(effect),
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            tokio::time::sleep(pause.min(self.runner.deadline().remaining())).await;
            if pushed == Pushed::Unknown {
                breakdowns += 1;
                if self.find_after_breakdown(&id, breakdowns, &tail).await? {
                    return Ok(Landed {
                        commit: Some(id),
                        outcome,
                        attempts,
                    });
                }
                continue;
            }
            self.refresh().await?;
            if self.tip() == id {
                return Ok(Landed {
                    commit: Some(id),
                    outcome,
                    attempts,
                });
            }
            // A branch that stands still was not raced for: the server has a rule against this commit. It is asked
            // once more all the same, since a competitor may hold the branch's lock and not have moved it yet.
            refusals = if self.tip() == parent { refusals + 1 } else { 0 };
            if refusals >= REFUSALS && pushed == Pushed::Refused {
                return Err(self.refused(&tail));
            }
        }
        Err(Failure::conflict(format!(
            "{} {} moved before each of {ATTEMPTS} pushes",
            self.remote.location(),
            self.branch()
        ))
        .hint("try again; with this many jobs pushing at once, put them into one resource_group"))
    }

    /// After a broken connection: whether the commit arrived. Waits out a server that is down for a moment.
    async fn find_after_breakdown(&mut self, id: &str, breakdowns: u32, tail: &str) -> Result<bool> {
        let looked = self.refresh().await;
        match looked {
            Ok(()) => {
                if self.has_landed(id).await? {
                    return Ok(true);
                }
                if breakdowns < BREAKDOWNS {
                    // Reading works. When writing is denied, trying again is of no use.
                    let branch = self.branch().to_owned();
                    let failure = self
                        .remote
                        .diagnose(&self.runner, Some(&branch), Service::Write, tail)
                        .await;
                    return if failure.kind() == Kind::Unavailable {
                        Ok(false)
                    } else {
                        Err(failure)
                    };
                }
            }
            Err(failure) if failure.kind() == Kind::Unavailable && breakdowns < BREAKDOWNS => {
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        }
        Err(Failure::unavailable(format!(
            "pushing to {} failed {BREAKDOWNS} times",
            self.remote.location()
        ))
        .hint("try again later: a rerun finds out what arrived"))
    }

    fn refused(&self, tail: &str) -> Failure {
        let said: Vec<&str> = tail
            .lines()
            .filter_map(|line| line.strip_prefix("remote:"))
            .map(str::trim)
            .collect();
        let said = said
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let said = if said.is_empty() {
            String::new()
        } else {
            format!(": {said}")
        };
        Failure::denied(format!(
            "{} does not take a commit on {}{said}",
            self.remote.location(),
            self.branch()
        ))
        .hint("is the branch protected, and may this token push to it?")
    }
}
