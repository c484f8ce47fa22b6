//! Tags of a repository, and among them those that are made of digests.
//!
//! Sources: OCI Distribution Specification, "Listing Tags" and "Referrers Tag Schema"; cosign's "Signature
//! Specification" for `.sig` and its like.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Repository;
use super::auth::Access;
use super::errors::Tried;
use super::manifests::Pointer;
use super::referrers::Lookout;
use crate::failure::{Failure, Result};
use crate::http::{Response, StatusCode, Url, header};
use crate::oci::manifest::SIZE_LIMIT;
use crate::oci::{Digest, Tag};

/// How many tags one page holds, and how many pages are read: far more than a repository should have.
const PAGE: usize = 1000;
const PAGES: usize = 1000;
/// How many pages are read to find tags made of digests, before they are asked for one by one.
const SEARCHED_PAGES: usize = 5;
/// Comes before all tags made of digests (`sha256-...`, `sha512-...`), and after tags such as `sha-1f3c...`.
const BEFORE: &str = "sha2";
/// Comes after all of them.
const AFTER: &str = "sha513";
/// The endings of tags made of a digest: none is the referrers tag, the others are cosign's.
const ENDINGS: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// A tag made of a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DigestTag {
    /// What it is about.
    pub(crate) subject: Digest,
    /// The whole tag.
    pub(crate) tag: Tag,
    /// `.sig`, `.att`, `.sbom`; empty for the list of referrers of registries without that API.
    pub(crate) ending: &'static str,
}

/// The tags made of these digests, whether they are there or not.
pub(crate) fn digest_tags(subjects: &[Digest]) -> Vec<DigestTag> {
    let of = |subject: &Digest| {
        let name = format!("{}-{}", subject.algorithm().name(), subject.hex());
        let subject = subject.clone();
        ENDINGS.iter().filter_map(move |ending| {
            Some(DigestTag {
                subject: subject.clone(),
                // A digest's algorithm and hex digits are within what a tag may hold.
                tag: format!("{name}{ending}").parse().ok()?,
                ending,
            })
        })
    };
    subjects.iter().flat_map(of).collect()
}

/// What a repository's list says of tags made of digests. Asked for once.
#[derive(Debug)]
pub(super) enum Search {
    /// These are all.
    All(BTreeSet<String>),
    /// There are many; those around a digest can be asked for.
    Around,
    /// The list is of no help.
    One,
}

#[derive(Deserialize)]
struct List {
    // Null when there is none.
    tags: Option<Vec<String>>,
}

impl Repository {
    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// Not found (exit 5), denied (4) or unavailable (7), as the registry says; input (3) when it lists no tags.
    pub async fn tags(&self) -> Result<Vec<Tag>> {
        let mut url = self.tags_url(PAGE, None)?;
        let mut tags = Vec::new();
        for _ in 0..PAGES {
            let response = self.ask_tags(&url).await?;
            if !response.status().is_success() {
                return Err(self.tried_listing(response).await);
            }
            let next = self.next_page(&url, &response, "its list of tags")?;
            let list: List = response.json(SIZE_LIMIT).await?;
            for tag in list.tags.unwrap_or_default() {
                tags.push(tag.parse().map_err(|failure: Failure| {
                    Failure::input(format!("{} lists a tag that is none", self.reference())).because(failure)
                })?);
            }
            match next {
                Some(next) => url = next,
                None => return Ok(tags),
            }
        }
        Err(Failure::input(format!(
            "{} has more than {} tags",
            self.reference(),
            PAGE * PAGES
        )))
    }

    fn tags_url(&self, page: usize, last: Option<&str>) -> Result<Url> {
        let mut url = self.url("tags/list")?;
        url.query_pairs_mut().append_pair("n", &page.to_string());
        if let Some(last) = last {
            url.query_pairs_mut().append_pair("last", last);
        }
        Ok(url)
    }

    async fn ask_tags(&self, url: &Url) -> Result<Response> {
        let scopes = self.scopes(Access::Pull);
        self.place
            .session
            .send(&scopes, || self.place.client.get(url.clone()))
            .await
    }

    async fn tried_listing(&self, response: Response) -> Failure {
        let tried = Tried {
            repository: self,
            verb: "listing",
            object: format!("the tags of {}", self.reference()),
            scopes: &self.scopes(Access::Pull),
        };
        tried.refused(response).await
    }

    /// Where a list goes on. Credentials go along, so that has to be at the same host.
    pub(super) fn next_page(&self, url: &Url, response: &Response, what: &str) -> Result<Option<Url>> {
        let Some(next) = response.header(&header::LINK).and_then(next_page) else {
            return Ok(None);
        };
        let Ok(next) = url.join(next) else {
            return Ok(None);
        };
        if next.origin() != self.place.base.origin() {
            return Err(Failure::denied(format!(
                "{} continues {what} on another host",
                self.reference()
            )));
        }
        Ok(Some(next))
    }
}

impl Lookout {
    /// Which tags are there that are made of these digests. One request finds them for all digests of an image, where
    /// the registry lists tags in their order, as it should; the list is kept for the next time.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (7), as the registry says.
    pub(crate) async fn digest_tags(&self, subjects: &[Digest]) -> Result<Vec<DigestTag>> {
        let search = self.tags.get_or_try_init(|| self.search()).await?;
        let mut there = Vec::new();
        match search {
            Search::All(tags) => {
                let is_there = |tag: &DigestTag| tags.contains(tag.tag.as_str());
                there.extend(digest_tags(subjects).into_iter().filter(is_there));
            }
            Search::Around => {
                for subject in subjects {
                    let subject = std::slice::from_ref(subject);
                    let Some(tags) = self.around(&subject[0]).await? else {
                        there.extend(self.one_by_one(subject).await?);
                        continue;
                    };
                    let is_there = |tag: &DigestTag| tags.contains(tag.tag.as_str());
                    there.extend(digest_tags(subject).into_iter().filter(is_there));
                }
            }
            Search::One => there = self.one_by_one(subjects).await?,
        }
        Ok(there)
    }

    async fn one_by_one(&self, subjects: &[Digest]) -> Result<Vec<DigestTag>> {
        let mut there = Vec::new();
        for tag in digest_tags(subjects) {
            let pointer = Pointer::Tag(tag.tag.clone());
            if self.repository.resolve(&pointer).await?.is_some() {
                there.push(tag);
            }
        }
        Ok(there)
    }

    async fn search(&self) -> Result<Search> {
        let repository = &self.repository;
        let mut url = repository.tags_url(PAGE, Some(BEFORE))?;
        let mut found = BTreeSet::new();
        for _ in 0..SEARCHED_PAGES {
            let response = repository.ask_tags(&url).await?;
            match response.status() {
                status if status.is_success() => {}
                status if is_no_listing(status) => return Ok(Search::One),
                _ => return Err(repository.tried_listing(response).await),
            }
            let next = repository.next_page(&url, &response, "its list of tags")?;
            let list: List = response.json(SIZE_LIMIT).await?;
            let tags = list.tags.unwrap_or_default();
            let heeds_order = tags.iter().all(|tag| tag.as_str() > BEFORE);
            let is_past = heeds_order && tags.last().is_some_and(|tag| tag.as_str() >= AFTER);
            // A full page without a word about the next may be cut off all the same.
            let may_go_on = next.is_some() || tags.len() >= PAGE;
            let looks_made_of_digest = |tag: &String| tag.as_str() > BEFORE && tag.as_str() < AFTER;
            found.extend(tags.into_iter().filter(looks_made_of_digest));
            match next {
                _ if is_past || !may_go_on => return Ok(Search::All(found)),
                _ if heeds_order => return Ok(Search::Around),
                Some(next) => url = next,
                None => return Ok(Search::One),
            }
        }
        Ok(Search::One)
    }

    /// None when the list is of no help after all.
    async fn around(&self, subject: &Digest) -> Result<Option<BTreeSet<String>>> {
        let repository = &self.repository;
        let hex = subject.hex();
        // What a tag begins with comes right before it.
        let before = format!("{}-{}", subject.algorithm().name(), &hex[..hex.len() - 1]);
        let response = repository
            .ask_tags(&repository.tags_url(ENDINGS.len() * 4, Some(&before))?)
            .await?;
        match response.status() {
            status if status.is_success() => {}
            status if is_no_listing(status) => return Ok(None),
            _ => return Err(repository.tried_listing(response).await),
        }
        let list: List = response.json(SIZE_LIMIT).await?;
        Ok(Some(list.tags.unwrap_or_default().into_iter().collect()))
    }
}

/// Listing can be forbidden, or missing, where reading is not; and some registries take no `last` that is not a tag.
fn is_no_listing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// The target of `Link: <...>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let is_next = parameters
        .split(';')
        .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        assert_eq!(
            next_page("</v2/app/tags/list?last=b&n=2>; rel=\"next\""),
            Some("/v2/app/tags/list?last=b&n=2")
        );
        assert_eq!(next_page("<x>; rel=next"), Some("x"));
        assert_eq!(next_page("<x>; rel=\"prev\""), None);
        assert_eq!(next_page("x; rel=next"), None);
    }

    #[test]
    fn tags_made_of_digests_are_between_the_bounds_of_the_search() {
        let digest = Digest::of(b"x");
        let tags = digest_tags(std::slice::from_ref(&digest));
        assert_eq!(tags.len(), 4);
        for tag in tags {
            assert!(tag.tag.as_str().starts_with(&format!("sha256-{}", digest.hex())));
            assert!(tag.tag.as_str() > BEFORE && tag.tag.as_str() < AFTER);
        }
        assert!("sha-1f3c2b" < BEFORE && "sha512-00" < AFTER);
    }
}
