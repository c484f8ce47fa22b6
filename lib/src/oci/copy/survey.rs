//! Looking before a copy: what the source is, what refers to it, what the targets have and what they lack.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{Either, join, join_all, select};

use super::look::{Look, Planned};
use super::plan::{Beside, MoveTag, Way, compare, must_write};
use super::referrers::Search;
use super::source::Reach;
use super::{Copier, Target};
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Digest, Graph, Manifest, Pointer, Tag};

/// Connections for what the source's manifest is going to list, which is not known yet: most indexes list two or more
/// besides the one that the answer came by.
const SPARE: usize = 2;
/// Blobs of an image that is not read yet, as a guess: its configuration and some layers.
const BLOBS_OF_A_PLATFORM: usize = 4;

/// The source's manifest, and the digest of the whole index if that is more.
type Root = (Option<Digest>, Manifest);

impl Copier {
    /// Finds out what the source is, what refers to it and what the targets have, and checks every target's guard.
    /// What keeps one target from being written to is in the result.
    ///
    /// # Errors
    /// What kept the source from being read: not found (exit 5), denied (4), unavailable (7), as the registry says;
    /// denied (4) when only some platforms would go. Nothing has been written then.
    pub async fn look(&self) -> Result<Look> {
        if let Some(repository) = self.source.repository() {
            repository.open_ahead(SPARE);
        }
        let (digest, root, before) = match self.source.known_digest() {
            Some(digest) if self.settings.platforms.is_empty() => {
                let (root, before) = self.root_unless_there(digest).await?;
                (digest.clone(), root, before)
            }
            _ => {
                // What tags name can be asked before it is known what they are to name.
                let tags = self.targets.iter().map(|target| target.reference.tag());
                let (root, before) = match tags.collect::<Option<Vec<_>>>() {
                    Some(_) => {
                        let (root, before) = join(self.source.root(), self.named(None)).await;
                        (self.reduced(root?)?, before)
                    }
                    None => {
                        let root = self.reduced(self.source.root().await?)?;
                        let before = self.named(Some(root.1.digest())).await;
                        (root, before)
                    }
                };
                (root.1.digest().clone(), Some(root), before)
            }
        };
        let (reduced_from, root) = root.unzip();
        let mut targets: Vec<Result<Planned>> = before
            .into_iter()
            .zip(&self.targets)
            .map(|(before, target)| {
                target.check(&digest)?;
                let before = before?;
                let write = must_write(&target.reference, &digest, before.as_ref(), &target.move_tag)?;
                Ok(Planned {
                    before,
                    write,
                    ..Planned::default()
                })
            })
            .collect();
        let graph = match root {
            Some(root) => Some(self.survey(root, &mut targets).await?),
            None => None,
        };
        Ok(Look {
            digest,
            reduced_from: reduced_from.flatten(),
            graph,
            targets,
        })
    }

    /// The index with only the platforms that are to go, and the digest of the whole one if that is more.
    pub(super) fn reduced(&self, root: Manifest) -> Result<(Option<Digest>, Manifest)> {
        if self.settings.platforms.is_empty() {
            return Ok((None, root));
        }
        let Some(reduced) = root.reduced_to(&self.settings.platforms)? else {
            return Ok((None, root));
        };
        if !self.settings.allow_partial_index {
            return Err(Failure::denied(format!(
                "{} has more platforms than --platform names, and without them it would have another digest",
                root.digest()
            ))
            .hint(
                "promote all of it, or one platform by the digest of its own; --allow-partial-index writes an index with another digest",
            ));
        }
        Ok((Some(root.digest().clone()), reduced))
    }

    /// What the targets name, and the source's manifest unless nobody needs it: then the source need not be there any
    /// more. Where source and targets are different registries, both are asked at once.
    async fn root_unless_there(
        &self,
        digest: &Digest,
    ) -> Result<(Option<Root>, Vec<Result<Option<Digest>>>)> {
        let mut early = None;
        let mut root = Box::pin(self.source.root());
        let named = self.named(Some(digest));
        let before = if self.is_within_one_registry() {
            named.await
        } else {
            match select(Box::pin(named), &mut root).await {
                Either::Left((before, _)) => before,
                Either::Right((read, named)) => {
                    early = Some(read);
                    named.await
                }
            }
        };
        let has =
            |named: &Result<Option<Digest>>| named.as_ref().is_ok_and(|named| named.as_ref() == Some(digest));
        let all_have_it = before.iter().all(has);
        let is_enough = all_have_it && !(self.settings.referrers.wants_any() && self.has_other_places());
        if is_enough {
            return Ok((None, before));
        }
        let root = match early {
            Some(read) => read,
            None => root.await,
        };
        match root {
            Ok(root) => Ok((Some((None, root)), before)),
            // What was promoted is promoted, even when its source was cleared away since or does not answer.
            Err(failure)
                if all_have_it
                    && matches!(failure.kind(), Kind::NotFound | Kind::Unavailable | Kind::Denied) =>
            {
                tracing::warn!(
                    action = "look",
                    object = self.source.to_string(),
                    reason = failure.message(),
                    "the targets have the image; what refers to it at its source cannot be looked for"
                );
                Ok((None, before))
            }
            Err(failure) => Err(failure),
        }
    }

    fn is_within_one_registry(&self) -> bool {
        self.source.repository().is_some_and(|source| {
            let mut targets = self.targets.iter().filter_map(|target| target.store.repository());
            targets.any(|target| source.shares_registry_with(target))
        })
    }

    /// Whether a target is another place than the source.
    fn has_other_places(&self) -> bool {
        (0..self.targets.len()).any(|index| self.way(index) != Way::Held)
    }

    /// What the targets name by their tags, or for those without one whether they have the digest.
    async fn named(&self, digest: Option<&Digest>) -> Vec<Result<Option<Digest>>> {
        let ask = |target: &'_ Target| {
            let pointer = match (target.reference.tag(), digest) {
                (Some(tag), _) => Some(Pointer::Tag(tag.clone())),
                (None, digest) => digest.cloned().map(Pointer::Digest),
            };
            let store = target.store.clone();
            async move {
                match pointer {
                    Some(pointer) => store.resolve(&pointer).await,
                    None => Ok(None),
                }
            }
        };
        join_all(self.targets.iter().map(ask)).await
    }

    /// Reads the image as far as the targets need it, and what refers to it; notes in `targets` what they lack of that.
    async fn survey(&self, root: Manifest, targets: &mut [Result<Planned>]) -> Result<Graph> {
        let concurrency = self.traffic.concurrency();
        let is_wanted = |index: usize| targets[index].as_ref().is_ok_and(|planned| planned.write);
        let needs_all = (0..self.targets.len()).any(|index| is_wanted(index) && self.way(index) != Way::Held);
        let looks_for_referrers = self.settings.referrers.wants_any()
            && self.has_other_places()
            && targets.iter().any(Result::is_ok);
        let search = Search::new(&self.source, &self.settings.referrers, concurrency);
        let children = root.children().iter().map(|child| child.digest.clone());
        let first: Vec<Digest> = std::iter::once(root.digest().clone()).chain(children).collect();
        let mut graph = Graph::new(root);
        let allow = self.settings.allow_partial_index;
        let reach = if needs_all { Reach::All } else { Reach::Indexes };
        if needs_all {
            self.open_ahead(graph.root(), targets);
        }
        // What is listed in the root is known before it is read, so that both can go on at once.
        let (candidates, ()) = tokio::try_join!(
            async {
                if looks_for_referrers {
                    search.candidates(&first).await
                } else {
                    Ok(Vec::new())
                }
            },
            async {
                if needs_all || looks_for_referrers {
                    self.source.complete(&mut graph, concurrency, &reach, allow).await
                } else {
                    Ok(())
                }
            }
        )?;
        if looks_for_referrers {
            search.look_further(&mut graph, &first, candidates).await?;
            for (index, planned) in targets.iter_mut().enumerate() {
                let Ok(known) = planned else { continue };
                if self.way(index) == Way::Held {
                    continue;
                }
                let compared = self.compare(&self.targets[index], known, &graph).await;
                let failure = match compared {
                    Ok(apart) => apart.into_iter().next().map(|(_, failure)| failure),
                    Err(failure) => Some(failure),
                };
                if let Some(failure) = failure {
                    *planned = Err(failure);
                }
            }
        }
        Ok(graph)
    }

    /// Opens connections for reading blobs, while their uploads are being opened.
    pub(super) fn open_source_ahead(&self, blobs: usize) {
        if let Some(source) = self.source.repository() {
            source.open_ahead(blobs.min(self.traffic.concurrency()));
        }
    }

    /// Opens connections for the reading of what the root lists, and for the blobs that come next.
    fn open_ahead(&self, root: &Manifest, targets: &[Result<Planned>]) {
        let most = self.traffic.concurrency();
        let children = root.children().len();
        if let Some(repository) = self.source.repository() {
            repository.open_ahead(children.min(most));
        }
        let blobs = root.blobs().len() + children * BLOBS_OF_A_PLATFORM;
        for (index, planned) in targets.iter().enumerate() {
            let is_written = planned.as_ref().is_ok_and(|planned| planned.write);
            if let Some(repository) = self.targets[index].store.repository()
                && is_written
                && self.way(index) != Way::Held
            {
                repository.open_ahead(blobs.min(most));
            }
        }
    }

    /// Notes what a target lacks of what refers to the image. Gives back what it has instead and would lose, by its
    /// place in the graph.
    pub(super) async fn compare(
        &self,
        target: &Target,
        planned: &mut Planned,
        graph: &Graph,
    ) -> Result<Vec<(usize, Failure)>> {
        let mut apart = Vec::new();
        let mut listed: BTreeMap<&Digest, BTreeSet<Digest>> = BTreeMap::new();
        for (place, referrer) in graph.referrers().iter().enumerate() {
            let lacks = match (&referrer.tag, graph.manifest(&referrer.digest)) {
                (Some(tag), Some(wanted)) => {
                    let held = target.store.resolve(&Pointer::Tag(tag.clone())).await?;
                    match self.beside(target, held.as_ref(), wanted).await? {
                        None => true,
                        Some(Beside::Whole) => {
                            if held.as_ref() != Some(wanted.digest()) {
                                planned.kept.insert(place);
                            }
                            false
                        }
                        Some(Beside::Apart) if target.move_tag != MoveTag::Any => {
                            planned.kept.insert(place);
                            apart.push((place, would_lose(target, tag, wanted)));
                            false
                        }
                        Some(Beside::Part | Beside::Apart) => {
                            planned.tags_before.extend(held.map(|held| (tag.clone(), held)));
                            true
                        }
                    }
                }
                // What is not there has nothing that refers to it.
                _ if planned.write => true,
                _ => {
                    if !listed.contains_key(&referrer.subject) {
                        let there = target.store.referrers(&referrer.subject).await?;
                        listed.insert(&referrer.subject, there);
                    }
                    !listed[&referrer.subject].contains(&referrer.digest)
                }
            };
            if lacks {
                planned.missing.insert(place);
            }
        }
        Ok(apart)
    }

    /// What a tag made of a digest names at the target beside what it is to name; none when there is no such tag.
    async fn beside(
        &self,
        target: &Target,
        held: Option<&Digest>,
        wanted: &Manifest,
    ) -> Result<Option<Beside>> {
        match held {
            None => Ok(None),
            Some(held) if held == wanted.digest() => Ok(Some(Beside::Whole)),
            Some(held) => {
                let there = target.store.manifest(&Pointer::Digest(held.clone())).await?;
                Ok(Some(compare(wanted, &there)))
            }
        }
    }
}

fn would_lose(target: &Target, tag: &Tag, wanted: &Manifest) -> Failure {
    Failure::conflict(format!(
        "{}:{tag} has something of its own, which {} would replace",
        target.name(),
        wanted.digest()
    ))
    .hint("sign what is at the target again, or leave such tags out: --referrers none, or name the types")
}
