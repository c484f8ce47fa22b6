//! Requests to one Argo CD.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::application::{Application, Sync};
use super::manifests::{Manifests, Rendered};
use super::refusal::refusal;
use super::stream::Changes;
use super::tree::Tree;
use super::windows::SyncWindows;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::{self, Method, Repeat, Request, Settings, Url};
use crate::secret::Secret;

/// The most a document or a line of the stream may have, in bytes. etcd takes objects of 1.5 MiB.
const DOCUMENT_LIMIT: usize = 4 * 1024 * 1024;
/// The most that trees and manifests may have, which no single object bounds.
const LIST_LIMIT: usize = 32 * 1024 * 1024;
/// Argo CD answers a refresh once the comparison is made, which fetches and renders the repository.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(90);

/// What to do about an answer that cannot be Argo CD's.
const HINT: &str = "is ARGOCD_SERVER Argo CD's own address? A login page or a proxy may stand before it";

/// Where an application is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Its name.
    pub name: String,
    /// The namespace it lives in, where that is not Argo CD's own.
    pub namespace: Option<String>,
    /// Its project. Whoever names it is told 404 instead of 403.
    pub project: Option<String>,
}

impl FromStr for Located {
    type Err = Failure;

    /// Reads `NAME` or `NAMESPACE/NAME`, as Argo CD writes them.
    fn from_str(text: &str) -> Result<Self> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        // What Kubernetes takes for a name (RFC 1123), so that it is safe in a path.
        let plain = |part: &str| {
            let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            part.len() <= 253
                && ends_well(part.chars().next())
                && ends_well(part.chars().last())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        if !plain(name) || !namespace.is_none_or(plain) {
            return Err(Failure::usage(format!("malformed application {text:?}"))
                .hint("give NAME or NAMESPACE/NAME in lowercase letters, digits, '-' and '.'"));
        }
        Ok(Located {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            project: None,
        })
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Requests to one Argo CD. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: http::Client,
    base: Url,
    token: Secret,
}

#[derive(Deserialize)]
struct RevisionMetadata {
    date: Option<String>,
}

impl Client {
    /// A client for the server at `base`. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`http::Client::new`], and whatever [`http::Client::check_url`] refuses.
    pub fn new(settings: Settings, base: Url, token: Secret, deadline: Deadline) -> Result<Self> {
        let http = http::Client::new(settings, deadline)?;
        http.check_url(&base)?;
        Ok(Client { http, base, token })
    }

    /// The same client with another deadline, for what is asked once the run's own time is over.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Client {
            http: self.http.with_deadline(deadline),
            ..self.clone()
        }
    }

    /// The server's host and port, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        http::authority(&self.base)
    }

    /// How many requests went out so far, repetitions included.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.http.requests_sent()
    }

    /// The application as it is.
    ///
    /// # Errors
    /// Denied (exit 4), not found (exit 5) or unavailable (exit 7), as Argo CD answers.
    pub async fn application(&self, located: &Located) -> Result<Application> {
        let request = self.get(located, "")?;
        let application = self
            .document(request, located, "the state", DOCUMENT_LIMIT)
            .await?;
        self.named(application, located)
    }

    /// Asks for a comparison with the repository, and gives the application after it. Sent once.
    ///
    /// # Errors
    /// As [`Client::application`]; unavailable (exit 7) when the comparison takes too long.
    pub async fn refresh(&self, located: &Located) -> Result<Application> {
        let request = self
            .get(located, "")?
            .query("refresh", "normal")
            .timeout(REFRESH_TIMEOUT)
            .repeat(Repeat::Unsafe);
        let application = self
            .document(request, located, "a refresh", DOCUMENT_LIMIT)
            .await?;
        self.named(application, located)
    }

    /// Every field of an application may be absent but its name: what has none would be waited for without end.
    fn named(&self, application: Application, located: &Located) -> Result<Application> {
        if application.metadata.name.is_empty() {
            let message = format!(
                "the answer of {} for application {located} is no application: it has no name",
                self.host()
            );
            return Err(Failure::input(message).hint(HINT));
        }
        Ok(application)
    }

    /// The changes of the application, beginning with how it is now.
    ///
    /// # Errors
    /// As [`Client::application`].
    pub async fn changes(&self, located: &Located) -> Result<Changes> {
        let url = self.url("api/v1/stream/applications")?;
        let mut request = self
            .request(Method::GET, url)
            .query("name", &located.name)
            .streams();
        if let Some(namespace) = &located.namespace {
            request = request.query("appNamespace", namespace);
        }
        if let Some(project) = &located.project {
            request = request.query("project", project);
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response, located, "the stream").await);
        }
        Ok(Changes::new(response.lines(DOCUMENT_LIMIT)))
    }

    /// The application's resources and what came of them.
    ///
    /// # Errors
    /// As [`Client::application`].
    pub async fn tree(&self, located: &Located) -> Result<Tree> {
        let request = self.get(located, "/resource-tree")?;
        self.document(request, located, "the resource tree", LIST_LIMIT)
            .await
    }

    /// The images that the manifests name at what an application was compared to: the one source at a commit, or several
    /// at one each, in their order.
    ///
    /// # Errors
    /// As [`Client::application`].
    pub async fn rendered(&self, located: &Located, compared: &Sync) -> Result<Rendered> {
        let mut request = self.get(located, "/manifests")?;
        if compared.revisions.is_empty() {
            request = request.query("revision", &compared.revision);
        }
        for (index, revision) in compared.revisions.iter().enumerate() {
            let position = (index + 1).to_string();
            request = request
                .query("revisions", revision)
                .query("sourcePositions", &position);
        }
        let answer: Manifests = self
            .document(request, located, "the manifests", LIST_LIMIT)
            .await?;
        Ok(Rendered::new(&answer))
    }

    /// When a commit was written, as it says itself (RFC 3339). Of several sources, the one at this place is asked, which begins
    /// with 0.
    ///
    /// # Errors
    /// As [`Client::application`]; a commit that the repository has not is unavailable (exit 7).
    pub async fn commit_date(
        &self,
        located: &Located,
        revision: &str,
        source: usize,
    ) -> Result<Option<String>> {
        let mut request = self.get(located, &format!("/revisions/{revision}/metadata"))?;
        if source > 0 {
            request = request.query("sourceIndex", &source.to_string());
        }
        let answer: RevisionMetadata = self
            .document(request, located, "a commit", DOCUMENT_LIMIT)
            .await?;
        Ok(answer.date)
    }

    /// The windows in which it may be synced.
    ///
    /// # Errors
    /// As [`Client::application`].
    pub async fn sync_windows(&self, located: &Located) -> Result<SyncWindows> {
        let request = self.get(located, "/syncwindows")?;
        self.document(request, located, "the sync windows", DOCUMENT_LIMIT)
            .await
    }

    /// Asks for a sync to a commit.
    ///
    /// # Errors
    /// As [`Client::application`]; conflict (exit 6) when another operation is running.
    pub async fn sync(&self, located: &Located, revision: &str) -> Result<()> {
        let url = self.url(&format!("api/v1/applications/{}/sync", located.name))?;
        let mut body = json!({ "revision": revision, "prune": false, "strategy": { "hook": {} } });
        if let Some(namespace) = &located.namespace {
            body["appNamespace"] = json!(namespace);
        }
        if let Some(project) = &located.project {
            body["project"] = json!(project);
        }
        let response = self.request(Method::POST, url).json(&body).send().await?;
        if !response.status().is_success() {
            return Err(refusal(response, located, "a sync").await);
        }
        Ok(())
    }

    fn url(&self, path: &str) -> Result<Url> {
        http::below(&self.base, path)
    }

    fn request(&self, method: Method, url: Url) -> Request<'_> {
        self.http.request(method, url).bearer(&self.token)
    }

    fn get(&self, located: &Located, below: &str) -> Result<Request<'_>> {
        let url = self.url(&format!("api/v1/applications/{}{below}", located.name))?;
        let mut request = self.request(Method::GET, url);
        if let Some(namespace) = &located.namespace {
            request = request.query("appNamespace", namespace);
        }
        if let Some(project) = &located.project {
            request = request.query("project", project);
        }
        Ok(request)
    }

    async fn document<T: DeserializeOwned>(
        &self,
        request: Request<'_>,
        located: &Located,
        asked: &str,
        limit: usize,
    ) -> Result<T> {
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response, located, asked).await);
        }
        response.json_or_hint(limit, HINT).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_path_are_refused() {
        for (text, namespace, name) in [
            ("web-prod", None, "web-prod"),
            ("team-a/web.prod", Some("team-a"), "web.prod"),
        ] {
            let located: Located = text.parse().unwrap();
            assert_eq!(
                (located.namespace.as_deref(), located.name.as_str()),
                (namespace, name)
            );
            assert_eq!(located.to_string(), text);
        }
        for wrong in [
            "", "/", "a/", "/a", "a/b/c", "..", "A", "a?b", "a%2f", "-a", "a b",
        ] {
            assert!(wrong.parse::<Located>().is_err(), "{wrong:?}");
        }
    }
}
