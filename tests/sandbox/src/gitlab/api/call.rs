//! One API request, and the answers GitLab gives when it will not do it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::extract::FromRequest;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::hub::{Hub, Shared};
use super::super::settings::{Role, Scope};
use super::super::state::{Pipeline, Project};
use super::super::tokens::{Caller, Token};
use super::params::Params;

/// The most bytes of a request body.
const MAX_BODY: usize = 300 << 20;

/// Whether a route looks at job tokens; at the others a job token is as good as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobTokens {
    Allowed,
    Ignored,
}

/// One API request.
pub(super) struct Call {
    pub(super) hub: Shared,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) params: Params,
}

/// An answer that refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: RefusalBody,
    fields: Vec<(&'static str, String)>,
}

#[derive(Debug)]
enum RefusalBody {
    Json(Value),
    Text(String),
}

impl Refusal {
    /// `{"message": ...}` with a status.
    pub(super) fn message(status: StatusCode, message: impl Into<Value>) -> Refusal {
        Refusal {
            status,
            body: RefusalBody::Json(json!({ "message": message.into() })),
            fields: Vec::new(),
        }
    }

    /// `{"error": ...}`: a parameter is missing or wrong.
    pub(super) fn parameter(error: &str) -> Refusal {
        let body = RefusalBody::Json(json!({ "error": error }));
        Refusal {
            status: StatusCode::BAD_REQUEST,
            body,
            fields: Vec::new(),
        }
    }

    pub(super) fn unauthorized() -> Refusal {
        Refusal::message(StatusCode::UNAUTHORIZED, "401 Unauthorized")
    }

    pub(super) fn forbidden(reason: Option<&str>) -> Refusal {
        let reason = reason.map(|reason| format!(" - {reason}")).unwrap_or_default();
        Refusal::message(StatusCode::FORBIDDEN, format!("403 Forbidden{reason}"))
    }

    /// `404 <what> Not Found`.
    pub(super) fn not_found(what: &str) -> Refusal {
        let what = if what.is_empty() {
            String::new()
        } else {
            format!("{what} ")
        };
        Refusal::message(StatusCode::NOT_FOUND, format!("404 {what}Not Found"))
    }

    pub(super) fn bad_request(message: impl Into<Value>) -> Refusal {
        Refusal::message(StatusCode::BAD_REQUEST, message)
    }

    fn insufficient_scope() -> Refusal {
        let body = json!({
            "error": "insufficient_scope",
            "error_description": "The request requires higher privileges than provided by the access token.",
            "scope": "api read_api",
        });
        Refusal {
            status: StatusCode::FORBIDDEN,
            body: RefusalBody::Json(body),
            fields: Vec::new(),
        }
    }

    /// An application limit of one endpoint: no header says how long to wait.
    fn limited() -> Refusal {
        let text = "This endpoint has been requested too many times. Try again later.";
        Refusal::message(StatusCode::TOO_MANY_REQUESTS, json!({ "error": text }))
    }

    /// The limit of requests of a user: plain text with the headers of "Rate limit headers".
    pub(super) fn throttled(limit: usize, wait: Duration) -> Refusal {
        let seconds = wait.as_secs().max(1);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let fields = vec![
            ("Retry-After", seconds.to_string()),
            ("RateLimit-Limit", limit.to_string()),
            ("RateLimit-Name", "throttle_authenticated_api".to_owned()),
            ("RateLimit-Observed", (limit + 1).to_string()),
            ("RateLimit-Remaining", "0".to_owned()),
            ("RateLimit-Reset", (now + seconds).to_string()),
            ("RateLimit-ResetTime", http_date(now + seconds)),
        ];
        let body = RefusalBody::Text("Retry later\n".to_owned());
        Refusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            body,
            fields,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            RefusalBody::Json(body) => (self.status, axum::Json(body)).into_response(),
            RefusalBody::Text(text) => (self.status, text).into_response(),
        };
        for (name, value) in self.fields {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        Refusal::message(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("500 Internal Server Error: {error:#}"),
        )
    }
}

impl FromRequest<Shared> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request<Body>, hub: &Shared) -> Result<Call, Refusal> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, MAX_BODY)
            .await
            .map_err(|_| Refusal::message(StatusCode::PAYLOAD_TOO_LARGE, "413 Request Entity Too Large"))?;
        let content_type = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let params = Params::read(parts.uri.query(), content_type.unwrap_or_default(), &body)
            .map_err(|error| Refusal::parameter(&error))?;
        let hub = hub.clone();
        let call = Call {
            hub,
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            params,
        };
        call.count()?;
        Ok(call)
    }
}

impl Call {
    fn count(&self) -> Result<(), Refusal> {
        let Some(limit) = self.hub.settings.limits.requests_per_minute else {
            return Ok(());
        };
        let mut state = self.hub.state();
        let user = self
            .token()
            .and_then(|token| state.caller(&token))
            .and_then(|caller| caller.user());
        let what = user.map_or_else(|| "requests".to_owned(), |user| format!("requests:{user}"));
        state
            .count_event(what, limit, self.hub.settings.limits.minute)
            .map(drop)
            // Whole seconds, and never too early.
            .map_err(|wait| Refusal::throttled(limit, wait + Duration::from_secs(1)))
    }

    /// Counts a list of a project's jobs towards its own limit.
    pub(super) fn count_job_list(&self, caller: &Caller) -> Result<(), Refusal> {
        let limits = &self.hub.settings.limits;
        let what = format!("job lists:{:?}", caller.user());
        let counted = self
            .hub
            .state()
            .count_event(what, limits.job_lists_per_minute, limits.minute);
        counted.map(drop).map_err(|_| Refusal::limited())
    }

    /// What a route of pipelines makes of job tokens in this release.
    pub(super) fn pipelines_for_job_tokens(&self) -> JobTokens {
        if self.hub.settings.version.lets_job_tokens_read_pipelines() {
            JobTokens::Allowed
        } else {
            JobTokens::Ignored
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    fn token(&self) -> Option<String> {
        let bearer = || {
            self.header("authorization")?
                .strip_prefix("Bearer ")
                .map(str::to_owned)
        };
        let job = || self.header("job-token").or_else(|| self.params.text("job_token"));
        let private = || {
            self.header("private-token")
                .or_else(|| self.params.text("private_token"))
        };
        job().or_else(private).or_else(bearer)
    }

    /// Who calls.
    ///
    /// # Errors
    /// 401 for a token nobody holds, 403 for one without the scope this method needs.
    pub(super) fn caller(&self, job_tokens: JobTokens) -> Result<Caller, Refusal> {
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        self.caller_with(
            job_tokens,
            if reads {
                &[Scope::Api, Scope::ReadApi]
            } else {
                &[Scope::Api]
            },
        )
    }

    /// Who calls, where other scopes count.
    pub(super) fn caller_with(&self, job_tokens: JobTokens, scopes: &[Scope]) -> Result<Caller, Refusal> {
        let Some(token) = self.token() else {
            return Ok(Caller::Anonymous);
        };
        let is_job_token = token.starts_with("glcbt-") || self.header("job-token").is_some();
        if is_job_token && job_tokens == JobTokens::Ignored {
            return Ok(Caller::Anonymous);
        }
        let state = self.hub.state();
        let caller = state.caller(&token).ok_or_else(Refusal::unauthorized)?;
        let in_place = matches!(caller, Caller::Job { .. }) == is_job_token;
        if !in_place {
            return Err(Refusal::unauthorized());
        }
        if caller.has_scope(scopes) {
            Ok(caller)
        } else {
            Err(Refusal::insufficient_scope())
        }
    }

    /// The project a path names, if it exists for the caller and gives it at least this role.
    ///
    /// # Errors
    /// 404 for a project that is not there or not to be seen, 401 or 403 for what the caller may not do.
    pub(super) fn project(&self, id: &str, caller: &Caller, role: Role) -> Result<Project, Refusal> {
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        if !reads && matches!(caller, Caller::Anonymous) {
            return Err(Refusal::unauthorized());
        }
        let state = self.hub.state();
        let project = state
            .project_by(id)
            .ok_or_else(|| Refusal::not_found("Project"))?;
        if !state.can_read(caller, project) {
            if let Caller::Job { project: own, .. } = caller
                && !state.job_token_reaches(caller, project)
            {
                let own = state.projects.get(own).map_or("", |project| project.name());
                return Err(Refusal::forbidden(Some(&format!(
                    "Authentication by CI/CD job token not allowed from {own} to {}.",
                    project.name()
                ))));
            }
            return Err(Refusal::not_found("Project"));
        }
        if !state.has_role(caller, project, role) {
            return Err(Refusal::forbidden(None));
        }
        Ok(project.clone())
    }

    /// The user of a caller that must be one.
    pub(super) fn user(&self, caller: &Caller) -> Result<u64, Refusal> {
        caller.user().ok_or_else(Refusal::unauthorized)
    }

    /// A text that must be given.
    pub(super) fn required(&self, key: &str) -> Result<String, Refusal> {
        let text = self.params.text(key);
        let text = text.ok_or_else(|| Refusal::parameter(&format!("{key} is missing")))?;
        if text.is_empty() {
            Err(Refusal::parameter(&format!("{key} is empty")))
        } else {
            Ok(text)
        }
    }

    /// A pipeline of a project.
    pub(super) fn pipeline(&self, project: &Project, id: &str) -> Result<Pipeline, Refusal> {
        let id = id
            .parse()
            .map_err(|_| Refusal::parameter("pipeline_id is invalid"))?;
        let state = self.hub.state();
        let pipeline = state
            .pipelines
            .get(&id)
            .filter(|pipeline| pipeline.project == project.id);
        pipeline.cloned().ok_or_else(|| Refusal::not_found(""))
    }

    /// One page of a list, with GitLab's paging headers.
    pub(super) fn page<T>(&self, items: Vec<T>, show: impl Fn(&Hub, &T) -> Value) -> Response {
        let per_page = self.params.number("per_page").unwrap_or(20).clamp(1, 100);
        let page = self.params.number("page").unwrap_or(1).max(1);
        let total = items.len() as u64;
        let pages = total.div_ceil(per_page).max(1);
        let skip = usize::try_from((page - 1) * per_page).unwrap_or(usize::MAX);
        let take = usize::try_from(per_page).unwrap_or(usize::MAX);
        let shown: Vec<Value> = items
            .iter()
            .skip(skip)
            .take(take)
            .map(|item| show(&self.hub, item))
            .collect();
        let mut response = axum::Json(shown).into_response();
        let next = if page < pages {
            (page + 1).to_string()
        } else {
            String::new()
        };
        let previous = if page > 1 {
            (page - 1).to_string()
        } else {
            String::new()
        };
        let link = |to: u64, rel: &str| format!("<{}>; rel=\"{rel}\"", self.page_url(to, per_page));
        let mut links = Vec::new();
        if page > 1 {
            links.push(link(page - 1, "prev"));
        }
        if page < pages {
            links.push(link(page + 1, "next"));
        }
        links.extend([link(1, "first"), link(pages, "last")]);
        for (name, value) in [
            ("link", links.join(", ")),
            ("x-next-page", next),
            ("x-page", page.to_string()),
            ("x-per-page", per_page.to_string()),
            ("x-prev-page", previous),
            ("x-total", total.to_string()),
            ("x-total-pages", pages.to_string()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// The first page of what is left of a list, with the address of the next one in `Link` alone.
    pub(super) fn keyset_page(&self, items: Vec<Value>, token: impl Fn(&Value) -> String) -> Response {
        let per_page = self.params.number("per_page").unwrap_or(20).clamp(1, 100);
        let take = usize::try_from(per_page).unwrap_or(usize::MAX);
        let more = items.len() > take;
        let shown: Vec<Value> = items.into_iter().take(take).collect();
        let last = shown.last().map(token).unwrap_or_default();
        let mut response = axum::Json(shown).into_response();
        if more {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            let given = self.uri.query().unwrap_or_default();
            for (key, value) in url::form_urlencoded::parse(given.as_bytes()) {
                if !matches!(&*key, "page_token" | "private_token" | "job_token") {
                    query.append_pair(&key, &value);
                }
            }
            query.append_pair("page_token", &last);
            let link = format!(
                "<{}{}?{}>; rel=\"next\"",
                self.hub.url,
                self.uri.path(),
                query.finish()
            );
            if let Ok(link) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(header::LINK, link);
            }
        }
        response
    }

    fn page_url(&self, page: u64, per_page: u64) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let given = self.uri.query().unwrap_or_default();
        for (key, value) in url::form_urlencoded::parse(given.as_bytes()) {
            if !matches!(&*key, "page" | "per_page" | "private_token" | "job_token") {
                query.append_pair(&key, &value);
            }
        }
        query
            .append_pair("page", &page.to_string())
            .append_pair("per_page", &per_page.to_string());
        format!("{}{}?{}", self.hub.url, self.uri.path(), query.finish())
    }

    /// What a trigger or job token in the `token` parameter stands for.
    pub(super) fn parameter_token(&self) -> Result<Option<Token>, Refusal> {
        let token = self.required("token")?;
        Ok(self.hub.state().tokens.get(&token).cloned())
    }
}

/// Seconds since the epoch as HTTP writes a date (RFC 9110, section 5.6.7).
fn http_date(seconds: u64) -> String {
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.map_or_else(String::new, |at| {
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    })
}
