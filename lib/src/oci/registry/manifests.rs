//! Manifests and tags of a repository.

use std::fmt;

use bytes::Bytes;

use super::Repository;
use super::auth::Access;
use super::errors::Tried;
use crate::failure::{Failure, Result};
use crate::http::header::{self, HeaderName};
use crate::http::{Body, Method, Response, StatusCode};
use crate::oci::manifest::{ACCEPTED, SIZE_LIMIT};
use crate::oci::{Algorithm, Digest, Manifest, Reference, Tag};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How a registry with the referrers API says that it noted the subject of what it was given.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// What to do where a registry names things its own way.
const OTHER_ALGORITHM: &str =
    "build the image with SHA-256 digests, which every registry knows, or use a registry that knows others";

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// A tag, which may name another manifest tomorrow.
    Tag(Tag),
    /// A digest, which cannot.
    Digest(Digest),
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pointer::Tag(tag) => tag.fmt(f),
            Pointer::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Reference {
    /// What the reference points to: the digest where it has one, else the tag.
    #[must_use]
    pub fn pointer(&self) -> Option<Pointer> {
        match (self.digest(), self.tag()) {
            (Some(digest), _) => Some(Pointer::Digest(digest.clone())),
            (None, Some(tag)) => Some(Pointer::Tag(tag.clone())),
            (None, None) => None,
        }
    }
}

/// A manifest whose bytes are what its digest names, and may be anything.
pub(super) struct Unread {
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
    served_as: Option<String>,
}

impl Repository {
    /// The digest that a pointer stands for now; none when there is no such manifest.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (exit 7), as the registry says.
    pub async fn resolve(&self, pointer: &Pointer) -> Result<Option<Digest>> {
        let response = self.ask(Method::HEAD, pointer, &[]).await?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if status.is_success() => {}
            _ => return Err(self.tried_reading(pointer, response).await),
        }
        match response.header(&CONTENT_DIGEST).map(str::parse::<Digest>) {
            Some(Ok(digest)) => Ok(Some(digest)),
            // The header is optional; the bytes are not.
            _ => Ok(Some(self.manifest(pointer, None).await?.digest().clone())),
        }
    }

    /// Reads a manifest and checks its bytes against the digest asked for, or against the one that the registry gives
    /// for a tag. `media_type` is what an index lists it as.
    ///
    /// # Errors
    /// Not found (exit 5), denied (4) or unavailable (7), as the registry says; conflict (6) when the bytes are not
    /// what their digest names; input (3) when they are no manifest.
    pub async fn manifest(&self, pointer: &Pointer, media_type: Option<&str>) -> Result<Manifest> {
        let Unread {
            bytes,
            digest,
            served_as,
        } = self.unread(pointer, media_type).await?;
        Manifest::read(bytes, digest, served_as.as_deref(), &self.named(pointer))
    }

    /// As [`Repository::manifest`], without looking into it.
    pub(super) async fn unread(&self, pointer: &Pointer, media_type: Option<&str>) -> Result<Unread> {
        let extra: Vec<&str> = media_type
            .into_iter()
            .filter(|own| !ACCEPTED.contains(own))
            .collect();
        let response = self.ask(Method::GET, pointer, &extra).await?;
        if !response.status().is_success() {
            return Err(self.tried_reading(pointer, response).await);
        }
        let promised = match pointer {
            Pointer::Digest(digest) => Some(digest.clone()),
            Pointer::Tag(_) => response
                .header(&CONTENT_DIGEST)
                .and_then(|text| text.parse().ok()),
        };
        let served_as = response.header(&header::CONTENT_TYPE).map(str::to_owned);
        let bytes = response.bytes(SIZE_LIMIT).await?;
        let origin = self.named(pointer);
        let digest = promised.unwrap_or_else(|| Digest::of(&bytes));
        if !digest.names(&bytes) {
            return Err(Failure::conflict(format!(
                "{} gives other bytes for the manifest {origin} than its digest {digest} names",
                self.reference().endpoint()
            ))
            .hint("do not use this image; ask the registry's operator, or what stands between it and you"));
        }
        Ok(Unread {
            bytes,
            digest,
            served_as,
        })
    }

    /// Writes a manifest, byte for byte, under a tag or its digest. Writing it twice is no different from once. Tells
    /// whether the registry noted what the manifest refers to (`OCI-Subject`).
    ///
    /// A request that names a tag cannot say by which algorithm the manifest is to be named: a registry may have the
    /// tag name the same bytes by SHA-256 where their digest is another.
    ///
    /// # Errors
    /// Denied (exit 4), conflict (6) for a tag that the registry keeps from changing, unavailable (7); conflict when
    /// the registry answers with another digest.
    pub async fn put_manifest(&self, pointer: &Pointer, manifest: &Manifest) -> Result<bool> {
        let url = self.url(&format!("manifests/{pointer}"))?;
        let scopes = self.scopes(Access::Push);
        let response = self
            .place
            .session
            .send(&scopes, || {
                self.place
                    .client
                    .put(url.clone())
                    .header(header::CONTENT_TYPE, manifest.media_type())
                    .body(Body::Bytes(manifest.bytes().clone()))
            })
            .await?;
        if !response.status().is_success() {
            let tried = Tried {
                repository: self,
                verb: "pushing",
                object: format!("the manifest {}", self.named(pointer)),
                scopes: &scopes,
            };
            let is_malformed = response.status() == StatusCode::BAD_REQUEST;
            let refused = tried.refused(response).await;
            return Err(match pointer {
                Pointer::Digest(digest) if is_malformed && digest.algorithm() != Algorithm::Sha256 => {
                    self.knows_no_such_algorithm(pointer, digest).because(refused)
                }
                _ => refused,
            });
        }
        match response.header(&CONTENT_DIGEST) {
            Some(digest) if !is_answer(pointer, manifest, digest) => Err(Failure::conflict(format!(
                "{} stored the manifest {} as {digest} instead of {}",
                self.reference().endpoint(),
                self.named(pointer),
                manifest.digest()
            ))
            .hint(OTHER_ALGORITHM)),
            _ => Ok(response.header(&SUBJECT).is_some()),
        }
    }

    fn knows_no_such_algorithm(&self, pointer: &Pointer, digest: &Digest) -> Failure {
        Failure::denied(format!(
            "{} does not take the manifest {}: it may not know digests by {}",
            self.reference().endpoint(),
            self.named(pointer),
            digest.algorithm().name()
        ))
        .hint(OTHER_ALGORITHM)
    }

    /// Deletes a tag, and not the manifest that it names. A tag that is gone already is deleted.
    ///
    /// # Errors
    /// Denied (exit 4) when the registry does not allow it, or has no such thing; unavailable (7), as it says.
    pub async fn delete_tag(&self, tag: &Tag) -> Result<()> {
        let url = self.url(&format!("manifests/{tag}"))?;
        let scopes = self.scopes(Access::Delete);
        let response = self
            .place
            .session
            .send(&scopes, || self.place.client.request(Method::DELETE, url.clone()))
            .await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Ok(()),
            // docker-registry takes the tag for a digest that is malformed.
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                let endpoint = self.reference().endpoint();
                Err(Failure::denied(format!(
                    "{endpoint} does not support deleting the tag {}:{tag} alone",
                    self.reference()
                ))
                .hint("delete it with the registry's own tools; by its digest, what else names that image would go too"))
            }
            _ => {
                let tried = Tried {
                    repository: self,
                    verb: "deleting",
                    object: format!("the tag {}:{tag}", self.reference()),
                    scopes: &scopes,
                };
                Err(tried.refused(response).await)
            }
        }
    }

    async fn ask(&self, method: Method, pointer: &Pointer, extra: &[&str]) -> Result<Response> {
        let url = self.url(&format!("manifests/{pointer}"))?;
        let accepted = [&ACCEPTED[..], extra].concat().join(", ");
        self.place
            .session
            .send(&self.scopes(Access::Pull), || {
                let request = self
                    .place
                    .client
                    .request(method.clone(), url.clone())
                    .header(header::ACCEPT, &accepted);
                match pointer {
                    // The digest vouches for the bytes, wherever they come from.
                    Pointer::Digest(_) => request.answered_elsewhere(),
                    Pointer::Tag(_) => request,
                }
            })
            .await
    }

    async fn tried_reading(&self, pointer: &Pointer, response: Response) -> Failure {
        let tried = Tried {
            repository: self,
            verb: "reading",
            object: format!("the manifest {}", self.named(pointer)),
            scopes: &self.scopes(Access::Pull),
        };
        tried.refused(response).await
    }

    fn named(&self, pointer: &Pointer) -> String {
        match pointer {
            Pointer::Tag(tag) => format!("{}:{tag}", self.reference()),
            Pointer::Digest(digest) => format!("{}@{digest}", self.reference()),
        }
    }
}

/// Whether a registry that was given a manifest and says that it has `digest` now has what it was given.
fn is_answer(pointer: &Pointer, manifest: &Manifest, digest: &str) -> bool {
    if digest == manifest.digest().as_str() {
        return true;
    }
    let other = digest.parse::<Digest>();
    matches!(pointer, Pointer::Tag(_)) && other.is_ok_and(|other| other.names(manifest.bytes()))
}
