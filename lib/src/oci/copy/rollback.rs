//! Putting tags back to where they were before a delivery, by its journal.
//!
//! [`Trail::decide`] decides from what a tag names now; [`Rollback`] looks, and acts under the same guards as a copy: a
//! tag is only touched while it names what the journal says was written.

use std::future::Future;
use std::pin::{Pin, pin};

use futures_util::future::{Either, select};
use futures_util::stream::{self, StreamExt as _};

use super::TIDY_LIMIT;
use super::journal::Journal;
use super::store::Store;
use super::trail::{Step, Trail, shown};
use super::transfer::stopped;
use crate::cli::effect;
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Access, Digest, Manifest, Pointer, Registries};

/// One tag, looked at.
#[derive(Debug)]
struct Looked {
    trail: Trail,
    /// The place and what it names; none when that could not be found out.
    found: Option<(Store, Option<Digest>)>,
    /// What has to be done, with the manifest where one is put back.
    planned: Result<(Step, Option<Manifest>)>,
}

/// What is going to happen to one tag, or happened.
#[derive(Clone, Debug)]
pub struct Return {
    /// What the tag names before it is touched.
    pub now: Option<Digest>,
    /// What is done about it.
    pub step: Step,
}

/// Tags on their way back.
#[derive(Debug)]
pub struct Rollback {
    tags: Vec<Looked>,
}

impl Rollback {
    /// Finds out what the tags name now and whether what they named before is still there. What is wrong with one tag
    /// is in its own plan, and keeps no other from being put back. `concurrency` requests run at once.
    pub async fn look(
        trails: Vec<Trail>,
        registries: &Registries,
        delete_new: bool,
        concurrency: usize,
    ) -> Self {
        let mut opened = Vec::with_capacity(trails.len());
        // All of them first, so that one token is asked for at each registry.
        for trail in trails {
            let store = Store::open(&trail.reference, registries).await;
            if let Some(repository) = store.as_ref().ok().and_then(Store::repository) {
                repository.expect(if delete_new { Access::Delete } else { Access::Push });
            }
            opened.push((trail, store));
        }
        let tags = stream::iter(opened)
            .map(|(trail, store)| look_at(trail, store, delete_new))
            .buffered(concurrency.max(1))
            .collect()
            .await;
        Rollback { tags }
    }

    /// How each tag was moved, in their order.
    pub fn trails(&self) -> impl Iterator<Item = &Trail> {
        self.tags.iter().map(|looked| &looked.trail)
    }

    /// What is going to happen to each tag, in their order, or what keeps it from being put back.
    #[must_use]
    pub fn plan(&self) -> Vec<Result<Return, &Failure>> {
        self.tags.iter().map(Looked::plan).collect()
    }

    /// What each tag names now, where that could be found out.
    pub fn now(&self) -> impl Iterator<Item = Option<&Digest>> {
        self.tags.iter().map(Looked::now)
    }

    /// What keeps the first of those tags from being put back that cannot be.
    #[must_use]
    pub fn into_failure(self) -> Option<Failure> {
        self.tags.into_iter().find_map(|looked| looked.planned.err())
    }

    /// Does it, a tag at a time. What befell each tag is in their order. When `interrupted` resolves, the tag that is
    /// under way is the last one, and has a few seconds left.
    pub async fn act(
        self,
        journal: Option<&Journal>,
        interrupted: impl Future<Output = ()>,
    ) -> Vec<Result<Return>> {
        let mut interrupted = pin!(interrupted);
        let mut is_interrupted = false;
        let mut outcomes = Vec::with_capacity(self.tags.len());
        for looked in self.tags {
            if !is_interrupted {
                let ready = pin!(std::future::ready(()));
                is_interrupted = matches!(select(&mut interrupted, ready).await, Either::Left(_));
            }
            outcomes.push(if is_interrupted {
                Err(stopped())
            } else {
                let reference = looked.trail.reference.to_string();
                let put_back = looked.put_back(journal);
                let ended = end_soon(put_back, &mut interrupted, &mut is_interrupted).await;
                ended.unwrap_or_else(|| Err(unknown(&reference)))
            });
        }
        outcomes
    }
}

/// Does `work`, of which once `interrupted` resolves only what ends within [`TIDY_LIMIT`] still counts. `interrupted` is
/// not to be polled again when it `is_interrupted`.
async fn end_soon<T>(
    work: impl Future<Output = T>,
    interrupted: &mut Pin<&mut impl Future<Output = ()>>,
    is_interrupted: &mut bool,
) -> Option<T> {
    match select(pin!(work), interrupted).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), work)) => {
            *is_interrupted = true;
            tokio::time::timeout(TIDY_LIMIT, work).await.ok()
        }
    }
}

fn unknown(reference: &str) -> Failure {
    Failure::deadline(format!(
        "interrupted while putting back {reference}: what it names now is unknown"
    ))
    .hint("roll back again: a tag that is back already stays as it is")
}

async fn look_at(trail: Trail, store: Result<Store>, delete_new: bool) -> Looked {
    let mut found = None;
    let planned = async {
        let store = store?;
        let now = store.resolve(&Pointer::Tag(trail.tag.clone())).await?;
        let (store, now) = found.insert((store, now));
        let step = trail.decide(now.as_ref(), delete_new)?;
        let manifest = match &step {
            Step::PutBack(digest) => Some(still_there(&trail, store, digest).await?),
            _ => None,
        };
        Ok((step, manifest))
    };
    let planned = planned.await;
    Looked {
        trail,
        found,
        planned,
    }
}

async fn still_there(trail: &Trail, store: &Store, digest: &Digest) -> Result<Manifest> {
    let read = store.manifest(&Pointer::Digest(digest.clone())).await;
    read.map_err(|failure| match failure.kind() {
        Kind::NotFound => Failure::not_found(format!(
            "{}@{digest}, which {} is to name again, is not there any more",
            trail.reference.name(),
            trail.tag
        ))
        .hint("it was cleared away: promote it again from where it still is, and then move the tag"),
        _ => failure,
    })
}

impl Looked {
    fn now(&self) -> Option<&Digest> {
        self.found.as_ref().and_then(|(_, now)| now.as_ref())
    }

    fn plan(&self) -> Result<Return, &Failure> {
        let (step, _) = self.planned.as_ref()?;
        Ok(Return {
            now: self.now().cloned(),
            step: step.clone(),
        })
    }

    async fn put_back(self, journal: Option<&Journal>) -> Result<Return> {
        let (step, manifest) = self.planned?;
        let Trail { reference, tag, .. } = &self.trail;
        let pointer = Pointer::Tag(tag.clone());
        let Some((store, now)) = &self.found else {
            return Err(Failure::internal(format!("{reference} was not looked at")));
        };
        let before = match &step {
            Step::Unchanged | Step::Leave => {
                return Ok(Return {
                    now: now.clone(),
                    step,
                });
            }
            Step::PutBack(before) => Some(before),
            Step::Delete => None,
        };
        let again = store.resolve(&pointer).await?;
        if again != *now {
            return Err(Failure::conflict(format!(
                "{reference} names {} by now, and named {} a moment ago",
                shown(again.as_ref()),
                shown(now.as_ref())
            ))
            .hint("somebody else writes this tag too: find out who, then roll back again"));
        }
        if let Some(journal) = journal {
            let name = reference.name();
            journal.record_return(&name, tag, now.as_ref(), before, &self.trail.trace_id)?;
        }
        let effect = effect("roll back", format!("{reference} to {}", shown(before)));
        match &manifest {
            Some(manifest) => {
                store.name(&pointer, manifest, now.as_ref()).await?;
            }
            None => store.delete(tag, now.as_ref()).await?,
        }
        let named = store.resolve(&pointer).await?;
        if named.as_ref() != before {
            return Err(Failure::conflict(format!(
                "{reference} names {} right after it was put back to {}",
                shown(named.as_ref()),
                shown(before)
            ))
            .hint("somebody else writes this tag too: find out who, then roll back again"));
        }
        effect.done("done");
        Ok(Return {
            now: now.clone(),
            step,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_at_an_interruption_has_a_few_seconds_left() {
        let second = Duration::from_secs(1);
        for (interruption, work, took, interrupted) in [
            (9, 5, Some(5), false),
            (3, 5, Some(5), true),
            (3, 500, None, true),
        ] {
            let start = Instant::now();
            let mut stop = pin!(sleep(second * interruption));
            let mut is_interrupted = false;
            let work = async {
                sleep(second * work).await;
                start.elapsed()
            };
            let ended = end_soon(work, &mut stop, &mut is_interrupted).await;
            assert_eq!(ended, took.map(Duration::from_secs));
            assert_eq!(is_interrupted, interrupted);
            assert!(start.elapsed() <= second * interruption + TIDY_LIMIT);
        }
        let failure = unknown("example.com/app:1");
        assert_eq!(failure.kind(), Kind::Deadline);
        assert!(failure.message().contains("example.com/app:1"));
    }
}
