//! Finding what refers to an image at its source: by the referrers API, by the referrers tag of registries that have
//! none, and by cosign's tags.
//!
//! What a list says is checked: an entry counts when its manifest names the subject itself. On some registries a tag
//! made of a digest resolves to the image of that digest, so a list has to be another manifest than its subject.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::selection::Referrers;
use super::source::{Reach, Source};
use crate::failure::{Kind, Result};
use crate::oci::{
    Descriptor, Digest, DigestTag, Graph, Listed, Lookout, Manifest, Pointer, Referrer, Tag, digest_tags,
    read_list,
};

/// What has no type of its own is counted under this name.
const UNNAMED: &str = "unknown";

/// Something that may refer to a manifest.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    subject: Digest,
    /// Where a list says what it is; a tag of its own says nothing.
    listed: Option<Descriptor>,
    kind: Option<String>,
    tag: Option<Tag>,
}

impl Candidate {
    fn listed(subject: &Digest, listed: Listed) -> Self {
        Candidate {
            subject: subject.clone(),
            listed: Some(listed.descriptor),
            kind: listed.artifact_type,
            tag: None,
        }
    }

    fn tagged(tag: DigestTag) -> Self {
        Candidate {
            subject: tag.subject,
            listed: None,
            kind: Some(tag.ending.to_owned()),
            tag: Some(tag.tag),
        }
    }

    fn origin(&self) -> String {
        match (&self.tag, &self.listed) {
            (Some(tag), _) => tag.to_string(),
            (None, Some(listed)) => listed.digest.to_string(),
            (None, None) => self.subject.to_string(),
        }
    }
}

/// Looks for what refers to manifests of one source.
pub(super) struct Search<'a> {
    source: &'a Source,
    lookout: Option<Lookout>,
    wanted: &'a Referrers,
    concurrency: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(source: &'a Source, wanted: &'a Referrers, concurrency: usize) -> Self {
        Search {
            source,
            lookout: source.repository().map(|repository| repository.lookout()),
            wanted,
            concurrency: concurrency.max(1),
        }
    }

    /// What may refer to these manifests. On a registry with the API that is a request for each, on one without one for
    /// all of them, and one more for the tags made of digests.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (7), as the registry says.
    pub(super) async fn candidates(&self, subjects: &[Digest]) -> Result<Vec<Candidate>> {
        if subjects.is_empty() {
            return Ok(Vec::new());
        }
        let Some(lookout) = &self.lookout else {
            return self.listed_in_folder(subjects).await;
        };
        let listing = async {
            let mut found = Vec::new();
            let mut has_api = true;
            // Whoever asks first finds out whether there is such an API; the others wait for that.
            let mut asked = stream::iter(subjects)
                .map(|subject| async move {
                    Ok::<_, crate::failure::Failure>((subject, lookout.listed(subject).await?))
                })
                .buffer_unordered(self.concurrency);
            while let Some((subject, listed)) = asked.try_next().await? {
                match listed {
                    Some(listed) => {
                        found.extend(listed.into_iter().map(|one| Candidate::listed(subject, one)));
                    }
                    None => has_api = false,
                }
            }
            Ok((found, has_api))
        };
        let ((mut found, has_api), tags) = tokio::try_join!(listing, lookout.digest_tags(subjects))?;
        let (lists, attached): (Vec<DigestTag>, Vec<DigestTag>) =
            tags.into_iter().partition(|tag| tag.ending.is_empty());
        if let Some(repository) = self.source.repository().filter(|_| !has_api) {
            let listed = lists.iter().map(|list| async move {
                let listed = repository.listed_by_tag(list).await?;
                Ok::<_, crate::failure::Failure>((list, listed))
            });
            for (list, listed) in try_join_all(listed).await? {
                found.extend(
                    listed
                        .into_iter()
                        .map(|one| Candidate::listed(&list.subject, one)),
                );
            }
        }
        found.extend(attached.into_iter().map(Candidate::tagged));
        Ok(found)
    }

    /// What a folder lists beside the image: manifests that name their subject, and tags made of digests, among them
    /// lists like those of a registry without the API.
    async fn listed_in_folder(&self, subjects: &[Digest]) -> Result<Vec<Candidate>> {
        let Source::Layout(layout) = self.source else {
            return Ok(Vec::new());
        };
        let tags = digest_tags(subjects);
        let mut found = Vec::new();
        for entry in layout.entries() {
            let descriptor = &entry.descriptor;
            let name = entry.name.as_deref();
            let named = tags.iter().find(|tag| name == Some(tag.tag.as_str()));
            if let Some(tag) = named.filter(|tag| !tag.ending.is_empty()) {
                found.push(Candidate {
                    listed: Some(descriptor.clone()),
                    ..Candidate::tagged(tag.clone())
                });
                continue;
            }
            if let Some(list) = named
                && list.subject != descriptor.digest
            {
                match layout.unread(&descriptor.digest).await {
                    Ok(bytes) => {
                        let listed = read_list(&bytes, list.tag.as_str(), &list.subject);
                        let candidates = listed.into_iter();
                        found.extend(candidates.map(|one| Candidate::listed(&list.subject, one)));
                    }
                    Err(failure) => tracing::warn!(
                        action = "look",
                        object = list.tag.as_str(),
                        subject = list.subject.as_str(),
                        "a list of referrers is passed over: {}",
                        failure.message()
                    ),
                }
                continue;
            }
            let Ok(manifest) = layout.manifest(descriptor).await else {
                continue;
            };
            if let Some(subject) = manifest
                .subject()
                .filter(|subject| subjects.contains(&subject.digest))
            {
                found.push(Candidate {
                    subject: subject.digest.clone(),
                    listed: Some(descriptor.clone()),
                    kind: None,
                    tag: None,
                });
            }
        }
        Ok(found)
    }

    /// Reads what was found so far, and looks on where the first look did not reach: at what nested indexes list, and at
    /// what refers to referrers. `asked` are the manifests of the first look.
    ///
    /// # Errors
    /// As [`Search::candidates`] and [`Search::adopt`].
    pub(super) async fn look_further(
        &self,
        graph: &mut Graph,
        asked: &[Digest],
        mut candidates: Vec<Candidate>,
    ) -> Result<()> {
        let mut asked: BTreeSet<Digest> = asked.iter().cloned().collect();
        let nested = graph.known().into_iter().filter(|digest| !asked.contains(digest));
        let nested: Vec<Digest> = nested.collect();
        candidates.extend(self.candidates(&nested).await?);
        asked.extend(nested);
        self.adopt(graph, candidates, asked).await
    }

    /// Reads the candidates, and whatever refers to them in turn, into the graph.
    ///
    /// # Errors
    /// As [`Source::manifest`] and [`Graph::add`].
    async fn adopt(
        &self,
        graph: &mut Graph,
        mut candidates: Vec<Candidate>,
        mut asked: BTreeSet<Digest>,
    ) -> Result<()> {
        loop {
            let may_be_wanted = |one: &Candidate| {
                let ending = one.kind.as_ref().filter(|_| one.tag.is_some());
                ending.is_none_or(|ending| self.wanted.wants(ending))
            };
            candidates.retain(may_be_wanted);
            let mut reading = stream::iter(std::mem::take(&mut candidates))
                .map(|candidate| async {
                    let read = self.read(&candidate).await?;
                    Ok::<_, crate::failure::Failure>((candidate, read))
                })
                .buffered(self.concurrency);
            let mut news = Vec::new();
            while let Some((candidate, manifest)) = reading.try_next().await? {
                let Some(manifest) = manifest else { continue };
                // Some registries list the media type of the configuration where the manifest names a type of its own.
                let kind = match (&candidate.tag, manifest.artifact_type()) {
                    (None, Some(own)) if !own.is_empty() => own.to_owned(),
                    _ => candidate.kind.unwrap_or_else(|| UNNAMED.to_owned()),
                };
                if !self.wanted.wants(&kind) {
                    continue;
                }
                let referrer = Referrer {
                    subject: candidate.subject,
                    digest: manifest.digest().clone(),
                    kind,
                    tag: candidate.tag,
                };
                if graph.refer(referrer, &manifest)? {
                    news.push(manifest.digest().clone());
                }
            }
            drop(reading);
            let below = Reach::Below(news.clone());
            self.source
                .complete(graph, self.concurrency, &below, false)
                .await?;
            let parts = news.iter().flat_map(|top| graph.part(top));
            let subjects: Vec<Digest> = parts
                .filter(|digest| asked.insert((*digest).clone()))
                .cloned()
                .collect();
            if subjects.is_empty() {
                return Ok(());
            }
            candidates = self.candidates(&subjects).await?;
        }
    }

    /// A candidate's manifest, if it is there and what it is taken for.
    async fn read(&self, candidate: &Candidate) -> Result<Option<Manifest>> {
        let pointer = match (&candidate.tag, &candidate.listed) {
            (Some(tag), _) => Pointer::Tag(tag.clone()),
            (None, Some(listed)) => Pointer::Digest(listed.digest.clone()),
            (None, None) => return Ok(None),
        };
        let passed_over = |why: &str| {
            tracing::warn!(
                action = "look",
                object = candidate.origin(),
                subject = candidate.subject.as_str(),
                "not taken for a referrer: {why}"
            );
            Ok(None)
        };
        let manifest = match self.source.manifest(&pointer, candidate.listed.as_ref()).await {
            Ok(manifest) => manifest,
            Err(failure) if failure.kind() == Kind::NotFound => {
                return passed_over("it is listed and not there");
            }
            // Another length than the list says, or no manifest at all.
            Err(failure) if failure.kind() == Kind::Input => {
                return passed_over(failure.message());
            }
            Err(failure) => return Err(failure),
        };
        if candidate.tag.is_some() {
            if *manifest.digest() == candidate.subject {
                return passed_over("its tag names the image itself");
            }
        } else if manifest
            .subject()
            .is_none_or(|subject| subject.digest != candidate.subject)
        {
            return passed_over("it names another subject");
        }
        Ok(Some(manifest))
    }
}
