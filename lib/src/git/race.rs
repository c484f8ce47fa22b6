//! Getting a change onto a branch that others push to as well.

use super::landing::{ATTEMPTS, BREAKDOWNS, Decision, LONGEST_PAUSE, Landed, REFUSALS, pause_after, pauses};
use super::remote::Service;
use super::snapshot::{Pushed, Snapshot};
use crate::failure::{Failure, Kind, Result};

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
        let mut pauses = pauses();
        let (mut refusals, mut breakdowns) = (0, 0);
        // Commits that were not on the branch when it was looked at after a push that broke off, or was refused for
        // whatever reason: a slow server may still have taken one, and then what was decided for it is what was done.
        let mut adrift: Vec<(String, T)> = Vec::new();
        for attempts in 1..=ATTEMPTS {
            if let Some((id, decided)) = self.find(&mut adrift).await? {
                return Ok(Landed {
                    commit: Some(id),
                    outcome: decided,
                    attempts,
                });
            }
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
            let mut pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if pushed == Pushed::Refused {
                pause = pause.max(pause_after(refusals));
            }
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
                adrift.push((id, outcome));
                continue;
            }
            breakdowns = 0;
            self.refresh().await?;
            if self.tip() == id {
                return Ok(Landed {
                    commit: Some(id),
                    outcome,
                    attempts,
                });
            }
            // A branch that stands still was not raced for: the server has a rule against this commit. It is asked
            // again all the same, since a competitor may hold the branch's lock and not have moved it yet.
            refusals = if self.tip() == parent { refusals + 1 } else { 0 };
            if refusals >= REFUSALS && pushed == Pushed::Refused {
                return Err(self.refused(&tail));
            }
            // curl sends a request again whose connection broke off, and the second one is refused for the first.
            if pushed == Pushed::Refused {
                adrift.push((id, outcome));
            }
        }
        Err(Failure::conflict(format!(
            "{} {} moved before each of {ATTEMPTS} pushes",
            self.remote.location(),
            self.branch()
        ))
        .hint("try again; with this many jobs pushing at once, put them into one resource_group"))
    }

    /// The first of the commits adrift that is on the branch after all. What came on top of it came later, and is not to be
    /// changed back. One that arrives after this look is met by the next push, which then finds another tip.
    async fn find<T>(&mut self, adrift: &mut Vec<(String, T)>) -> Result<Option<(String, T)>> {
        for index in 0..adrift.len() {
            let id = adrift[index].0.clone();
            match self.has_landed(&id).await {
                Ok(true) => return Ok(Some(adrift.swap_remove(index))),
                Ok(false) => {}
                // The next push finds out.
                Err(failure) if failure.kind() == Kind::Unavailable => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        Ok(None)
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
            "pushing to {} failed {BREAKDOWNS} times in a row",
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
