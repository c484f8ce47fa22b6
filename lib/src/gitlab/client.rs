//! A connection to one GitLab with one token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;

use super::project::Project;
use super::refusal::refusal;
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::{self, Method, Request, Response, Settings, StatusCode, Url, header::HeaderName};
use crate::secret::Secret;

/// The most an answer may have, in bytes. A page of 100 jobs has about 300 KB.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// How many pages of 100 one list is read over at most.
pub(super) const PAGE_LIMIT: usize = 100;

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");
const JOB_TOKEN: HeaderName = HeaderName::from_static("job-token");

/// A token and its kind, which decides where it goes in a request and what GitLab lets it do.
#[derive(Clone, Debug)]
pub enum Token {
    /// A personal, project or group access token. May do what its user and scopes may.
    Access(Secret),
    /// `CI_JOB_TOKEN`. May start pipelines and list the jobs of one, and neither read the pipeline, its trigger jobs and
    /// its logs nor cancel it.
    Job(Secret),
    /// A pipeline trigger token. May start pipelines of its one project, and nothing else.
    Trigger(Secret),
}

impl Token {
    /// What the kind is called in messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Token::Access(_) => "access token",
            Token::Job(_) => "job token",
            Token::Trigger(_) => "trigger token",
        }
    }

    /// Whether it may read and cancel pipelines, given the role.
    #[must_use]
    pub fn is_access(&self) -> bool {
        matches!(self, Token::Access(_))
    }
}

/// Requests to one GitLab. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) http: http::Client,
    settings: Settings,
    base: Url,
    pub(super) token: Token,
    /// Whether this GitLab turned out not to have `trigger_jobs` yet.
    pub(super) lacks_trigger_jobs: Arc<AtomicBool>,
}

impl Client {
    /// A client for the API at `base` (`CI_API_V4_URL`). Nothing is sent yet.
    ///
    /// # Errors
    /// As [`http::Client::new`], and whatever [`http::Client::check_url`] refuses.
    pub fn new(settings: Settings, base: Url, token: Token, deadline: Deadline) -> Result<Self> {
        let http = http::Client::new(settings.clone(), deadline)?;
        http.check_url(&base)?;
        Ok(Client {
            http,
            settings,
            base,
            token,
            lacks_trigger_jobs: Arc::new(AtomicBool::new(false)),
        })
    }

    /// The same client with another deadline, for what has to be cleaned up after the run's own has passed.
    ///
    /// # Errors
    /// As [`http::Client::new`].
    pub fn until(&self, deadline: Deadline) -> Result<Self> {
        Ok(Client {
            http: http::Client::new(self.settings.clone(), deadline)?,
            ..self.clone()
        })
    }

    /// The token it was made with.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// How many requests went out so far, repetitions included.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.http.requests_sent()
    }

    /// The address of the API, with a slash at its end.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// The address of something in a project.
    pub(super) fn url(&self, project: &Project, path: &str) -> Result<Url> {
        let slash = if path.is_empty() { "" } else { "/" };
        let path = format!("projects/{}{slash}{path}", project.segment());
        http::below(&self.base, &path)
    }

    /// The address of something that belongs to no project.
    pub(super) fn api_url(&self, path: &str) -> Result<Url> {
        http::below(&self.base, path)
    }

    /// A request that carries the token, unless it belongs into the body.
    pub(super) fn request(&self, method: Method, url: Url) -> Request<'_> {
        let request = self.http.request(method, url);
        match &self.token {
            Token::Access(token) => request.secret_header(PRIVATE_TOKEN, token),
            Token::Job(token) => request.secret_header(JOB_TOKEN, token),
            Token::Trigger(_) => request,
        }
    }

    /// Reads one document.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        project: &Project,
        path: &str,
        object: &str,
    ) -> Result<T> {
        let request = self.request(Method::GET, self.url(project, path)?);
        let response = self.expect_success(request, project, object).await?;
        document(response).await
    }

    /// Sends a request whose answer has to be a success.
    pub(super) async fn expect_success(
        &self,
        request: Request<'_>,
        project: &Project,
        object: &str,
    ) -> Result<Response> {
        let response = request.send().await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response, object, project, &self.token).await)
    }

    /// Reads a list over all its pages.
    pub(super) async fn read_pages<T: DeserializeOwned>(
        &self,
        project: &Project,
        path: &str,
        query: &[(&str, &str)],
        object: &str,
    ) -> Result<Vec<T>> {
        let first = first_page(self.url(project, path)?, query);
        let request = self.request(Method::GET, first.clone());
        let response = self.expect_success(request, project, object).await?;
        self.read_on(response, &first, None, project, object).await
    }

    /// Reads a list over its pages until there are this many, and gives no more.
    pub(super) async fn read_up_to<T: DeserializeOwned>(
        &self,
        project: &Project,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
        object: &str,
    ) -> Result<Vec<T>> {
        let mut first = self.url(project, path)?;
        first
            .query_pairs_mut()
            .extend_pairs(query)
            .append_pair("per_page", &limit.min(100).to_string());
        let request = self.request(Method::GET, first.clone());
        let response = self.expect_success(request, project, object).await?;
        self.read_on(response, &first, Some(limit), project, object).await
    }

    /// The same as [`Client::read_pages`]; none where there is no such list.
    pub(super) async fn find_pages<T: DeserializeOwned>(
        &self,
        project: &Project,
        path: &str,
        query: &[(&str, &str)],
        object: &str,
    ) -> Result<Option<Vec<T>>> {
        let first = first_page(self.url(project, path)?, query);
        let response = self.request(Method::GET, first.clone()).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(refusal(response, object, project, &self.token).await);
        }
        self.read_on(response, &first, None, project, object)
            .await
            .map(Some)
    }

    /// Goes on from the answer to the first page.
    async fn read_on<T: DeserializeOwned>(
        &self,
        mut response: Response,
        first: &Url,
        limit: Option<usize>,
        project: &Project,
        object: &str,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..PAGE_LIMIT {
            let next = next_page(&response, first)?;
            items.append(&mut document::<Vec<T>>(response).await?);
            if let Some(limit) = limit.filter(|limit| items.len() >= *limit) {
                items.truncate(limit);
                return Ok(items);
            }
            let Some(url) = next else { return Ok(items) };
            let request = self.request(Method::GET, url);
            response = self.expect_success(request, project, object).await?;
        }
        Err(Failure::input(format!(
            "{object} go on after {PAGE_LIMIT} pages of 100"
        )))
    }

    /// Reads one page of a list, and where the next one is. `first` is the address of the first page.
    pub(super) async fn read_page<T: DeserializeOwned>(
        &self,
        project: &Project,
        url: Url,
        first: &Url,
        object: &str,
    ) -> Result<(Vec<T>, Option<Url>)> {
        let request = self.request(Method::GET, url);
        let response = self.expect_success(request, project, object).await?;
        let next = next_page(&response, first)?;
        Ok((document(response).await?, next))
    }

    /// Reads up to so many pages of a list, one at a time, so that no more than one is held as it came. Says whether
    /// there are more.
    pub(super) async fn each_page<T: DeserializeOwned>(
        &self,
        project: &Project,
        path: &str,
        query: &[(&str, &str)],
        object: &str,
        limit: usize,
        mut take: impl FnMut(Vec<T>),
    ) -> Result<bool> {
        let first = first_page(self.url(project, path)?, query);
        let mut next = Some(first.clone());
        for _ in 0..limit {
            let Some(url) = next else { return Ok(false) };
            let request = self.request(Method::GET, url);
            let response = self.expect_success(request, project, object).await?;
            next = next_page(&response, &first)?;
            take(document(response).await?);
        }
        Ok(next.is_some())
    }

    /// Remembers that this GitLab is older than 19.2.
    pub(super) fn note_missing_trigger_jobs(&self) {
        self.lacks_trigger_jobs.store(true, Ordering::Relaxed);
    }
}

fn first_page(mut url: Url, query: &[(&str, &str)]) -> Url {
    url.query_pairs_mut()
        .extend_pairs(query)
        .append_pair("per_page", "100");
    url
}

/// Reads an answer's JSON.
///
/// # Errors
/// As [`Response::json`].
pub(super) async fn document<T: DeserializeOwned>(response: Response) -> Result<T> {
    const HINT: &str = "a login page or a proxy may stand before GitLab: check --gitlab-url (CI_API_V4_URL), which ends in \
                        /api/v4, and what the proxy lets through";
    response.json_or_hint(ANSWER_LIMIT, HINT).await
}

/// Where the next page is: by `x-next-page`, which a proxy cannot point elsewhere, else by `Link`, the only one that
/// keyset pagination has.
fn next_page(response: &Response, first: &Url) -> Result<Option<Url>> {
    const NEXT_PAGE: HeaderName = HeaderName::from_static("x-next-page");
    if let Some(number) = response.header(&NEXT_PAGE) {
        return Ok(number.trim().parse::<u32>().ok().map(|number| {
            let mut url = first.clone();
            url.query_pairs_mut().append_pair("page", &number.to_string());
            url
        }));
    }
    let Some(target) = response.header(&http::header::LINK).and_then(next_link) else {
        return Ok(None);
    };
    let url = first.join(target).map_err(|error| {
        Failure::input(format!(
            "the answer to {} names no URL as its next page",
            response.shown()
        ))
        .because(error)
    })?;
    let authority = (url.scheme(), url.host_str(), url.port_or_known_default());
    if authority != (first.scheme(), first.host_str(), first.port_or_known_default()) {
        return Err(Failure::denied(format!(
            "the next page of {} is on another host, {}",
            response.shown(),
            http::authority(&url)
        ))
        .hint("set --gitlab-url (CI_API_V4_URL) to GitLab's external address"));
    }
    Ok(Some(url))
}

/// The target of `rel="next"` in a `Link` header (RFC 8288, section 3).
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| target.trim_start().strip_prefix('<')).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let header = "<https://git.example.com/api/v4/x?page=1>; rel=\"first\", \
                      <https://git.example.com/api/v4/x?page=3&per_page=100>; rel=\"next\"";
        assert_eq!(
            next_link(header),
            Some("https://git.example.com/api/v4/x?page=3&per_page=100")
        );
        assert_eq!(next_link("<https://git.example.com/x>; rel=\"last\""), None);
        assert_eq!(next_link("nonsense"), None);
    }
}
