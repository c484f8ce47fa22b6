//! Getting a change onto a branch that others change as well, over the Commits API.
//!
//! The API has no compare-and-swap of the branch: it builds on whatever the branch is at. What keeps a decision and its
//! commit together is the lock on each file that is written, a guard for each that must not be there, and afterwards a
//! look at what the commit was built on: GitLab compares the locks before it looks what to build on, so that a change in
//! between is met by none of them.

use std::collections::BTreeMap;

use super::write::{Made, Sent};
use super::{Branch, Stored};
use crate::failure::{Failure, Kind, Result};
use crate::git::commit::{Change, NewCommit};
use crate::git::landing::{
    ATTEMPTS, BREAKDOWNS, Decision, LONGEST_PAUSE, Landed, REFUSALS, pause_after, pauses,
};
use crate::git::revision::TAKES_BACK;

/// As many files of a commit as GitLab shows at the least (GitLab documentation, "Diff limits administration").
const SHOWN: usize = 1000;
/// How far back a commit is looked for whose answer was lost.
const LOOKED_BACK: usize = 100;

/// A commit whose answer was lost: how it would be known again.
#[derive(Debug)]
struct Adrift {
    message: String,
    path: String,
    /// The last commit of that file before.
    before: Option<String>,
}

impl Branch {
    /// Decides on the tip and commits; when somebody else was faster, decides again on the new tip.
    ///
    /// # Errors
    /// Whatever `decide` fails with; denied (exit 4) when GitLab turns the commit down; conflict (exit 6) when the race
    /// was lost 60 times, or when what landed is not what was sent; unavailable (exit 7).
    pub async fn land<T>(
        &mut self,
        mut decide: impl AsyncFnMut(&mut Branch) -> Result<Decision<T>>,
    ) -> Result<Landed<T>> {
        let mut pauses = pauses();
        let (mut refusals, mut breakdowns) = (0, 0);
        // Each with what was decided for it, which is what was done if it is there after all.
        let mut adrift: Vec<(Adrift, T)> = Vec::new();
        let mut taken_back: Vec<String> = Vec::new();
        for attempts in 1..=ATTEMPTS {
            // What came on top of it came later, and is not to be changed back.
            if let Some((id, decided)) = self.find(&mut adrift, &taken_back).await? {
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
            let parent = self.tip.clone();
            // Deciding may have taken long, as where another repository was asked, and nothing but what is written is
            // locked: what came meanwhile is looked at now, rather than found by taking a commit back.
            self.refresh().await?;
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if self.tip != parent {
                // Somebody is at work on it, and others may be; whoever asks too often is in everybody's way.
                self.pause(pause).await;
                self.refresh().await?;
                continue;
            }
            let effect = crate::cli::effect("commit", format!("{} {}", self.project, self.name));
            // A GitLab that refuses the guards themselves, as by a rule about who may touch the files that they name, gets
            // the commit without them; what it overtook is then found afterwards.
            match self.send(&commit, refusals == 0).await? {
                Sent::Made(made) => {
                    let changed = self.changed_by(&made.id).await?;
                    if let Some(path) = self.overtaken(&made, &parent).await? {
                        effect.done("overtaken");
                        // One whose answer was lost may be what overtook it, and says the same.
                        if !changed.is_empty() {
                            self.take_back(&made, &commit, &path).await?;
                        }
                        taken_back.push(made.id);
                        self.refresh().await?;
                        continue;
                    }
                    self.check(&made, &changed, &commit)?;
                    effect.done("done");
                    return Ok(Landed {
                        commit: Some(made.id),
                        outcome,
                        attempts,
                    });
                }
                Sent::Refused(failure) => {
                    breakdowns = 0;
                    effect.done("refused");
                    self.pause(pause.max(pause_after(refusals))).await;
                    self.refresh().await?;
                    // A branch that stands still was not raced for: there is a rule against this commit. GitLab is
                    // asked again all the same, since a competitor may be about to move the branch.
                    refusals = if self.tip == parent { refusals + 1 } else { 0 };
                    if refusals >= REFUSALS {
                        return Err(self.refused(&failure));
                    }
                }
                Sent::Unknown(failure) => {
                    drop(effect);
                    breakdowns += 1;
                    adrift.extend(self.adrift(&commit).map(|lost| (lost, outcome)));
                    self.pause(pause).await;
                    while let Err(unreachable) = self.refresh().await {
                        breakdowns += 1;
                        if unreachable.kind() != Kind::Unavailable || breakdowns >= BREAKDOWNS {
                            return Err(unreachable);
                        }
                        self.pause(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                    }
                    if let Some((id, decided)) = self.find(&mut adrift, &taken_back).await? {
                        return Ok(Landed {
                            commit: Some(id),
                            outcome: decided,
                            attempts,
                        });
                    }
                    if breakdowns >= BREAKDOWNS {
                        return Err(Failure::unavailable(format!(
                            "committing to {} failed {BREAKDOWNS} times in a row",
                            self.project
                        ))
                        .because(failure)
                        .hint("try again later: a rerun finds out what arrived"));
                    }
                }
            }
        }
        Err(Failure::conflict(format!(
            "{} {} moved before each of {ATTEMPTS} commits",
            self.project, self.name
        ))
        .hint("try again; with this many jobs committing at once, put them into one resource_group"))
    }

    pub(super) async fn pause(&self, pause: std::time::Duration) {
        let left = self.client.http.deadline().remaining();
        tokio::time::sleep(pause.min(left)).await;
    }

    fn adrift(&self, commit: &NewCommit) -> Option<Adrift> {
        let path = commit.changes.first()?.path.clone();
        let known = self.known();
        let stored = known.get(&path).and_then(Option::as_ref);
        Some(Adrift {
            message: commit.message(),
            before: stored.map(|stored| stored.last_commit.clone()),
            path,
        })
    }

    /// The first of the commits whose answer was lost that is on the branch all the same, with what was decided for it.
    /// Those that were taken back say the same.
    async fn find<T>(
        &self,
        adrift: &mut Vec<(Adrift, T)>,
        taken_back: &[String],
    ) -> Result<Option<(String, T)>> {
        for index in 0..adrift.len() {
            let lost = &adrift[index].0;
            let since = self.commits_of(&lost.path, &self.tip, LOOKED_BACK).await?;
            let found = since
                .into_iter()
                .take_while(|commit| lost.before.as_ref() != Some(&commit.id))
                .filter(|commit| !taken_back.contains(&commit.id))
                .find(|commit| commit.message.trim_end() == lost.message.trim_end());
            if let Some(commit) = found {
                return Ok(Some((commit.id, adrift.swap_remove(index).1)));
            }
        }
        Ok(None)
    }

    /// Checks a commit that GitLab made against what was sent.
    fn check(&self, made: &Made, changed: &[String], commit: &NewCommit) -> Result<()> {
        let mut sent: Vec<&str> = commit.changes.iter().map(|change| change.path.as_str()).collect();
        sent.sort_unstable();
        let is_cut = sent.len() > SHOWN && changed.iter().all(|path| sent.contains(&path.as_str()));
        if changed == sent || is_cut {
            return Ok(());
        }
        Err(Failure::conflict(format!(
            "commit {} on {} of {} changed {}, not {}",
            made.id,
            self.name,
            self.project,
            changed.join(", "),
            sent.join(", ")
        ))
        .hint("look at that commit: something besides this tool changes what is committed there"))
    }

    /// A file that the decision had read and that somebody else changed before GitLab made the commit, unnoticed by the
    /// locks: they cover only what is written, and are looked at a moment early.
    async fn overtaken(&self, made: &Made, parent: &str) -> Result<Option<String>> {
        let [built_on] = made.parent_ids.as_slice() else {
            return Ok(None);
        };
        if built_on == parent {
            return Ok(None);
        }
        let read: BTreeMap<String, Option<Stored>> = self.known().clone();
        let paths: Vec<String> = read.keys().cloned().collect();
        let before = self.at(built_on).read(&paths).await?;
        Ok(read
            .into_iter()
            .find(|(path, stored)| {
                before.get(path) != stored.as_ref().map(|stored| stored.content.as_slice())
            })
            .map(|(path, _)| path))
    }

    /// Undoes a commit of ours, so that it can be decided anew on what it should have been built on.
    async fn take_back(&mut self, made: &Made, commit: &NewCommit, overtaken_by: &str) -> Result<()> {
        let [built_on] = made.parent_ids.as_slice() else {
            return Ok(());
        };
        let paths: Vec<String> = commit.changes.iter().map(|change| change.path.clone()).collect();
        let before = self.at(built_on).read(&paths).await?;
        let changes = paths
            .into_iter()
            .map(|path| Change {
                content: before.get(&path).map(<[u8]>::to_vec),
                path,
            })
            .collect();
        let undo = NewCommit {
            identity: commit.identity.clone(),
            subject: format!("Take back {}, which {overtaken_by} overtook", made.id),
            body: String::new(),
            trailers: vec![
                ("Towpath-Action", "take-back".to_owned()),
                (TAKES_BACK, made.id.clone()),
            ],
            changes,
            absent: Vec::new(),
            signing: None,
        };
        let effect = crate::cli::effect("take back", format!("{} {}", self.project, made.id));
        let beside = Failure::conflict(format!(
            "commit {} on {} of {} landed beside a change of {overtaken_by}, and could not be taken back",
            made.id, self.name, self.project
        ))
        .hint("look at both commits, and decide which is to stand");
        match self.at(&made.id).send(&undo, true).await? {
            Sent::Made(undone) if self.was_as_sent(&undone, made, commit).await? => {
                effect.done("done");
                Ok(())
            }
            Sent::Made(_) => {
                effect.done("overtaken");
                Err(beside)
            }
            Sent::Refused(failure) | Sent::Unknown(failure) => Err(beside.because(failure)),
        }
    }

    /// Whether the files of a commit were still as it left them when another one was made on top.
    async fn was_as_sent(&self, later: &Made, made: &Made, commit: &NewCommit) -> Result<bool> {
        let [built_on] = later.parent_ids.as_slice() else {
            return Ok(true);
        };
        if *built_on == made.id {
            return Ok(true);
        }
        let paths: Vec<String> = commit.changes.iter().map(|change| change.path.clone()).collect();
        let there = self.at(built_on).read(&paths).await?;
        let mut changes = commit.changes.iter();
        Ok(changes.all(|change| there.get(&change.path) == change.content.as_deref()))
    }

    /// The same branch as it was, or is, at another commit.
    pub(super) fn at(&self, commit: &str) -> Branch {
        Branch {
            client: self.client.clone(),
            project: self.project.clone(),
            about: self.about.clone(),
            name: self.name.clone(),
            tip: commit.to_owned(),
            may_push: self.may_push,
            read: std::sync::Mutex::default(),
            contents: std::sync::Mutex::default(),
            depth: self.depth,
        }
    }

    fn refused(&self, failure: &Failure) -> Failure {
        let hint = if self.may_push == Some(false) {
            "the branch is protected; use a token that may push to it, or --merge-request"
        } else {
            "GitLab's own words say which rule is against it"
        };
        Failure::denied(failure.message()).hint(hint)
    }
}
