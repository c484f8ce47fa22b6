//! What refers to the manifests of a repository.
//!
//! Source: OCI Distribution Specification 1.1, "Listing Referrers" and "Referrers Tag Schema".
//!
//! Whoever may write to a repository may write such a list. What is wrong in it is passed over, and said: it must not
//! keep the image from going where it should.

use bytes::Bytes;
use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::Repository;
use super::auth::Access;
use super::errors::Tried;
use super::manifests::{Pointer, Unread};
use super::tags::{DigestTag, Search};
use crate::failure::{Failure, Kind, Result};
use crate::http::{StatusCode, header};
use crate::oci::manifest::SIZE_LIMIT;
use crate::oci::{Descriptor, Digest, Tag};

/// How many pages of one list are read, and how many entries there may be: more than anybody signs an image.
const PAGES: usize = 50;
const ENTRIES: usize = 1000;

/// An entry of a list of referrers. Its own manifest has the last word on whether it is one.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) descriptor: Descriptor,
    pub(crate) artifact_type: Option<String>,
}

/// Looks for what refers to the manifests of one repository, and keeps what is true of the repository as a whole. As
/// old as its first look: after writing, take another.
#[derive(Debug)]
pub(crate) struct Lookout {
    pub(super) repository: Repository,
    has_api: OnceCell<bool>,
    pub(super) tags: OnceCell<Search>,
}

/// A list of referrers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries {
    pub(crate) listed: Vec<Listed>,
    /// How many more are malformed.
    pub(crate) malformed: usize,
}

/// What a repository has under the referrers tag of a subject.
#[derive(Clone, Debug)]
pub(crate) struct HeldList {
    /// As it is there, whatever it is.
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
}

impl Repository {
    /// What is under a referrers tag; none when there is nothing. There are registries where such a tag names the
    /// subject itself, which is no list, either.
    ///
    /// # Errors
    /// As [`Repository::manifest`], but nothing is looked into.
    pub(crate) async fn held_list(&self, tag: &Tag, subject: &Digest) -> Result<Option<HeldList>> {
        match self.unread(&Pointer::Tag(tag.clone()), None).await {
            Ok(Unread { bytes, digest, .. }) => {
                let held = HeldList { bytes, digest };
                Ok(Some(held).filter(|held| !subject.names(&held.bytes)))
            }
            Err(failure) if failure.kind() == Kind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What a referrers tag lists.
    ///
    /// # Errors
    /// As [`Repository::held_list`]; input (exit 3) when it lists too much.
    pub(crate) async fn listed_by_tag(&self, list: &DigestTag) -> Result<Vec<Listed>> {
        let Some(held) = self.held_list(&list.tag, &list.subject).await? else {
            return Ok(Vec::new());
        };
        let shown = format!("{}:{}", self.reference(), list.tag);
        let listed = read_list(&held.bytes, &shown, &list.subject);
        self.check_length(listed.len(), &list.subject)?;
        Ok(listed)
    }

    fn check_length(&self, length: usize, subject: &Digest) -> Result<()> {
        if length > ENTRIES {
            return Err(Failure::input(format!(
                "{} lists more than {ENTRIES} manifests that refer to {subject}",
                self.reference()
            ))
            .hint("leave them out with --referrers none, or delete those that nobody needs"));
        }
        Ok(())
    }

    /// A lookout for what refers to manifests. Nothing is asked yet.
    pub(crate) fn lookout(&self) -> Lookout {
        Lookout {
            repository: self.clone(),
            has_api: OnceCell::new(),
            tags: OnceCell::new(),
        }
    }
}

impl Lookout {
    /// What refers to a manifest; none when the registry has no such API, which is asked once.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (7), as the registry says; input (3) when the list is malformed or endless.
    pub(crate) async fn listed(&self, subject: &Digest) -> Result<Option<Vec<Listed>>> {
        let mut first = None;
        let has_api = self.has_api.get_or_try_init(|| async {
            first = self.list(subject).await?;
            Ok::<_, Failure>(first.is_some())
        });
        if !*has_api.await? {
            return Ok(None);
        }
        match first {
            Some(list) => Ok(Some(list)),
            None => Ok(Some(self.list(subject).await?.unwrap_or_default())),
        }
    }

    async fn list(&self, subject: &Digest) -> Result<Option<Vec<Listed>>> {
        let repository = &self.repository;
        let scopes = repository.scopes(Access::Pull);
        let mut url = repository.url(&format!("referrers/{subject}"))?;
        let mut found = Vec::new();
        for page in 0..PAGES {
            let response = repository
                .place
                .session
                .send(&scopes, || {
                    repository
                        .place
                        .client
                        .get(url.clone())
                        .header(header::ACCEPT, OCI_IMAGE_INDEX_MEDIA_TYPE)
                })
                .await?;
            match response.status() {
                status if status.is_success() => {}
                // "A registry that supports this API MUST NOT answer 404"; older ones know no such path.
                StatusCode::NOT_FOUND
                | StatusCode::BAD_REQUEST
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_ACCEPTABLE
                | StatusCode::NOT_IMPLEMENTED
                    if page == 0 =>
                {
                    return Ok(None);
                }
                _ => {
                    let tried = Tried {
                        repository,
                        verb: "listing",
                        object: format!("what refers to {}@{subject}", repository.reference()),
                        scopes: &scopes,
                    };
                    let refused = tried.refused(response).await;
                    return Err(refused.hint("leave out what refers to the image with --referrers none"));
                }
            }
            let next = repository.next_page(&url, &response, "its list of referrers")?;
            let bytes = response.bytes(SIZE_LIMIT).await?;
            match entries(&bytes) {
                Some(entries) => {
                    entries.warn(&repository.reference().to_string(), subject);
                    found.extend(entries.listed);
                }
                // Something answers every path with a page of its own: that is no such API.
                None if page == 0 => return Ok(None),
                None => return Err(self.malformed(subject)),
            }
            repository.check_length(found.len(), subject)?;
            match next {
                Some(next) => url = next,
                None => return Ok(Some(found)),
            }
        }
        Err(self.malformed(subject))
    }

    fn malformed(&self, subject: &Digest) -> Failure {
        Failure::input(format!(
            "{} gives a malformed list of what refers to {subject}",
            self.repository.reference()
        ))
        .hint("leave it out with --referrers none, and tell the registry's operator")
    }
}

impl Entries {
    /// Says that some were passed over. `shown` is where the list is.
    fn warn(&self, shown: &str, subject: &Digest) {
        if self.malformed > 0 {
            tracing::warn!(
                action = "look",
                object = shown,
                subject = subject.as_str(),
                "passed over what is malformed in its list of referrers: {} of {} entries",
                self.malformed,
                self.malformed + self.listed.len()
            );
        }
    }
}

/// The entries of a list that may be none, which is said, as is what is malformed in it. `shown` is where it is.
pub(crate) fn read_list(bytes: &[u8], shown: &str, subject: &Digest) -> Vec<Listed> {
    let Some(entries) = entries(bytes) else {
        tracing::warn!(
            action = "look",
            object = shown,
            subject = subject.as_str(),
            "passed over: this name is for a list of what refers to an image, and this is none"
        );
        return Vec::new();
    };
    entries.warn(shown, subject);
    entries.listed
}

/// The entries of a list of referrers, which has to be an index.
fn entries(bytes: &[u8]) -> Option<Entries> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        schema_version: u64,
        // Null when there is none.
        manifests: Option<Vec<Value>>,
        // Of images, which are no lists.
        config: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        media_type: String,
        digest: Digest,
        size: u64,
        artifact_type: Option<String>,
    }
    let list: List = serde_json::from_slice(bytes).ok()?;
    if list.schema_version != 2 || list.config.is_some() || list.layers.is_some() {
        return None;
    }
    let mut entries = Entries::default();
    for entry in list.manifests.into_iter().flatten() {
        match serde_json::from_value::<Entry>(entry) {
            Ok(entry) => entries.listed.push(Listed {
                descriptor: Descriptor {
                    media_type: entry.media_type,
                    digest: entry.digest,
                    size: entry.size,
                },
                artifact_type: entry.artifact_type.filter(|own| !own.is_empty()),
            }),
            Err(_) => entries.malformed += 1,
        }
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_an_index_and_nothing_else() {
        let digest = Digest::of(b"signature");
        let entry = json!({"mediaType": "m", "digest": digest.as_str(), "size": 9, "artifactType": "a"});
        let read = |document: Value| entries(document.to_string().as_bytes());
        let found = read(json!({"schemaVersion": 2, "manifests": [entry]})).expect("a list");
        assert_eq!(found.listed[0].descriptor.digest, digest);
        assert_eq!(found.listed[0].artifact_type.as_deref(), Some("a"));
        let empty = read(json!({"schemaVersion": 2, "manifests": null})).expect("empty");
        assert!(empty.listed.is_empty());
        // One that is malformed does not spoil the others.
        for bad in [
            json!({"mediaType": "m", "digest": "latest", "size": 9}),
            json!({"mediaType": "m", "digest": digest.as_str(), "size": -1}),
            json!({"digest": digest.as_str(), "size": 9}),
            json!(7),
        ] {
            let found = read(json!({"schemaVersion": 2, "manifests": [bad, entry]})).expect("a list");
            assert_eq!((found.listed.len(), found.malformed), (1, 1), "{bad}");
        }
        for other in [
            json!({}),
            json!([]),
            json!({"schemaVersion": 1, "manifests": []}),
            json!({"schemaVersion": 2, "config": entry, "layers": []}),
        ] {
            assert!(read(other.clone()).is_none(), "{other}");
        }
        assert!(entries(b"<html>").is_none());
    }
}
