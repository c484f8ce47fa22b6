//! Blobs of a repository, as streams.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use super::Repository;
use super::auth::{Access, Scopes};
use super::errors::Tried;
use crate::failure::{Failure, Result};
use crate::http::{Body, Method, Repeat, Response, StatusCode, Url, header};
use crate::oci::{Descriptor, Digest};

/// A blob on its way. Nothing has checked its bytes yet.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// How long giving an upload back may take: it is a courtesy.
const ABANDON_LIMIT: Duration = Duration::from_secs(5);

/// How an upload began.
#[derive(Debug)]
pub enum Begun {
    /// There was nothing to upload: the registry had the blob, and now this repository has it too.
    Mounted,
    /// The blob has to be sent.
    Upload(Upload),
}

/// An upload session that waits for its blob. Finish it or give it back.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    location: Url,
}

impl Repository {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (exit 7), as the registry says.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let scopes = self.scopes(Access::Pull);
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self
            .place
            .session
            .send(&scopes, || {
                self.place
                    .client
                    .request(Method::HEAD, url.clone())
                    .answered_elsewhere()
            })
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.tried_blob("looking for", digest, &scopes, response).await),
        }
    }

    /// Opens a blob for reading. It may come from another host, which gets no credentials.
    ///
    /// # Errors
    /// Not found (exit 5), denied (4) or unavailable (7), as the registry says.
    pub async fn blob(&self, blob: &Descriptor) -> Result<BlobStream> {
        let scopes = self.scopes(Access::Pull);
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        let response = self
            .place
            .session
            .send(&scopes, || {
                self.place.client.get(url.clone()).answered_elsewhere().streams()
            })
            .await?;
        if response.status() != StatusCode::OK {
            return Err(self.tried_blob("reading", &blob.digest, &scopes, response).await);
        }
        Ok(Box::pin(response.stream()))
    }

    /// Begins an upload. With `mount_from`, a repository at the same registry, the registry is asked to take the blob
    /// from there; naming this repository itself asks whether it has the blob already. Either way one request does
    /// it, and where the registry cannot, its answer is the upload session.
    ///
    /// # Errors
    /// Denied (exit 4) or unavailable (exit 7), as the registry says.
    pub async fn begin_upload(&self, digest: &Digest, mount_from: Option<&Repository>) -> Result<Begun> {
        let mut url = self.url("blobs/uploads/")?;
        let mut scopes = self.scopes(Access::Push);
        if let Some(from) = mount_from {
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from.reference().repository());
            scopes = scopes.and(&from.scopes(Access::Pull));
        }
        // A session opened twice is one session too many, which expires; nothing is written.
        let response = self
            .place
            .session
            .send(&scopes, || {
                self.place.client.post(url.clone()).repeat(Repeat::Safe)
            })
            .await?;
        match response.status() {
            StatusCode::CREATED if mount_from.is_some() => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => Ok(Begun::Upload(Upload {
                repository: self.clone(),
                location: self.upload_location(&response)?,
            })),
            _ => Err(self.tried_blob("uploading", digest, &scopes, response).await),
        }
    }

    fn upload_location(&self, response: &Response) -> Result<Url> {
        let broken = || {
            Failure::unavailable(format!(
                "{} opened an upload without saying where",
                self.reference().endpoint()
            ))
        };
        let location = response.header(&header::LOCATION).ok_or_else(broken)?;
        let mut location = self.place.base.join(location).map_err(|_| broken())?;
        // A registry behind a TLS proxy often does not know that it is.
        if self.place.base.scheme() == "https"
            && location.scheme() == "http"
            && location.host() == self.place.base.host()
        {
            location = Url::parse(&location.as_str().replacen("http", "https", 1)).map_err(|_| broken())?;
            let _ = location.set_port(self.place.base.port());
        }
        Ok(location)
    }

    async fn tried_blob(
        &self,
        verb: &'static str,
        digest: &Digest,
        scopes: &Scopes,
        response: Response,
    ) -> Failure {
        let tried = Tried {
            repository: self,
            verb,
            object: format!("the blob {}@{digest}", self.reference()),
            scopes,
        };
        tried.refused(response).await
    }
}

impl Upload {
    /// Sends the whole blob in one stream and closes the upload. It cannot be sent again: after a failure, give the
    /// upload back and begin another. How long it takes is for the caller to watch.
    ///
    /// # Errors
    /// Unavailable (exit 7) when it breaks off; denied (exit 4) as the registry says.
    pub async fn finish(&self, digest: &Digest, body: Body) -> Result<()> {
        let repository = &self.repository;
        let scopes = repository.scopes(Access::Push);
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut request = repository
            .place
            .client
            .put(url)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .timeout(repository.deadline().remaining())
            .body(body);
        let at_home = self.is_at_home();
        if at_home {
            request = repository.place.session.proof(&scopes).await?.on(request);
        }
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // The token may have run out while the upload waited; the next attempt asks for another.
            StatusCode::UNAUTHORIZED if at_home => {
                let proof = repository.place.session.proof(&scopes).await?;
                if repository.place.session.reconsider(&proof, &response).await? {
                    return Err(Failure::unavailable(format!(
                        "{} let our token run out before the blob {digest} was there",
                        repository.reference().endpoint()
                    )));
                }
                Err(repository
                    .tried_blob("uploading", digest, &scopes, response)
                    .await)
            }
            _ => Err(repository
                .tried_blob("uploading", digest, &scopes, response)
                .await),
        }
    }

    /// Gives the upload back, so that the registry need not keep its beginnings. Best effort: it would expire too, and
    /// docker-registry refuses once half a blob went in, at an offset whose signature it never got to hand out.
    pub async fn abandon(self) {
        let repository = &self.repository;
        let scopes = repository.scopes(Access::Push);
        let work = async {
            let mut request = repository
                .place
                .client
                .request(Method::DELETE, self.location.clone())
                .timeout(ABANDON_LIMIT);
            if self.is_at_home() {
                request = repository.place.session.proof(&scopes).await?.on(request);
            }
            request.send().await
        };
        match tokio::time::timeout(ABANDON_LIMIT, work).await {
            Ok(Ok(response)) if response.status().is_success() => {}
            _ => tracing::debug!(
                action = "abandon",
                object = repository.reference().name(),
                "an upload was left to expire"
            ),
        }
    }

    /// Whether the upload goes to the registry itself: no other host gets our credentials.
    fn is_at_home(&self) -> bool {
        self.location.origin() == self.repository.place.base.origin()
    }
}
