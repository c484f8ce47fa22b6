//! What refers to the manifests of a repository.
//!
//! Source: OCI Distribution Specification 1.1, "Listing Referrers".

use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::Repository;
use super::auth::Access;
use super::errors::Tried;
use super::tags::Search;
use crate::failure::{Failure, Result};
use crate::http::{StatusCode, header};
use crate::oci::manifest::SIZE_LIMIT;
use crate::oci::{Descriptor, Digest};

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

impl Repository {
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
                Some(entries) => found.extend(entries),
                // Something answers every path with a page of its own: that is no such API.
                None if page == 0 => return Ok(None),
                None => return Err(self.malformed(subject)),
            }
            if found.len() > ENTRIES {
                return Err(Failure::input(format!(
                    "{} lists more than {ENTRIES} manifests that refer to {subject}",
                    repository.reference()
                ))
                .hint("leave them out with --referrers none, or name the types that matter"));
            }
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

/// The entries of a list of referrers, which has to be an index.
pub(crate) fn entries(bytes: &[u8]) -> Option<Vec<Listed>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        schema_version: u64,
        // Null when there is none.
        manifests: Option<Vec<Entry>>,
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
    let listed = |entry: Entry| Listed {
        descriptor: Descriptor {
            media_type: entry.media_type,
            digest: entry.digest,
            size: entry.size,
        },
        artifact_type: entry.artifact_type.filter(|own| !own.is_empty()),
    };
    (list.schema_version == 2).then(|| list.manifests.into_iter().flatten().map(listed).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_an_index_and_nothing_else() {
        let digest = Digest::of(b"signature");
        let entry = json!({"mediaType": "m", "digest": digest.as_str(), "size": 9, "artifactType": "a"});
        let read = |document: serde_json::Value| entries(document.to_string().as_bytes());
        let found = read(json!({"schemaVersion": 2, "manifests": [entry]})).expect("a list");
        assert_eq!(found[0].descriptor.digest, digest);
        assert_eq!(found[0].artifact_type.as_deref(), Some("a"));
        assert!(
            read(json!({"schemaVersion": 2, "manifests": null}))
                .expect("empty")
                .is_empty()
        );
        for other in [
            json!({}),
            json!([]),
            json!({"schemaVersion": 1, "manifests": []}),
            json!({"schemaVersion": 2, "manifests": [{"mediaType": "m", "digest": "latest", "size": 9}]}),
            json!({"schemaVersion": 2, "manifests": [{"mediaType": "m", "digest": digest.as_str(), "size": -1}]}),
        ] {
            assert!(read(other.clone()).is_none(), "{other}");
        }
        assert!(entries(b"<html>").is_none());
    }
}
