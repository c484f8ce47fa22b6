//! The GitLab that a repository is on, for what git cannot say or do.

use towpath::cli::secret_variable;
use towpath::failure::Result;
use towpath::git::Location;
use towpath::gitlab::{Project, Token};
use towpath::http::{PlainHttp, Settings, Url};

use crate::args::PlaceArgs;
use crate::source::access_token;

/// How it is reached.
pub(super) fn settings(place: &PlaceArgs) -> Settings {
    Settings {
        ca_file: place.ca_file.clone(),
        plain_http: if place.plain_http {
            PlainHttp::Allowed
        } else {
            PlainHttp::LoopbackOnly
        },
        ..Settings::new("gitlab")
    }
}

/// The API and the project that the repository is: as given, or as its own address tells.
pub(super) fn address(place: &PlaceArgs) -> Result<Option<(Url, Project)>> {
    if let Some(project) = &place.project {
        return Ok(Some((place.api()?, project.clone())));
    }
    let own = place.project_url.as_ref().filter(|_| place.checkout.is_none());
    let Some(repository) = place.repo.as_ref().or(own) else {
        return Ok(None);
    };
    let Location::Http(url) = Location::parse("--repo (TOWPATH_REPO)", repository)? else {
        return Ok(None);
    };
    // A GitLab below a path of its host says so in CI_SERVER_URL.
    let root = place
        .server_url
        .as_ref()
        .and_then(|server| Url::parse(server).ok())
        .filter(|server| server.origin() == url.origin())
        .map_or_else(String::new, |server| server.path().trim_matches('/').to_owned());
    let path = url.path().trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let path = path.strip_prefix(&root).unwrap_or(path).trim_matches('/');
    let Ok(project) = path.parse() else {
        return Ok(None);
    };
    let mut api = url.clone();
    api.set_query(None);
    api.set_path(format!("{root}/api/v4").trim_matches('/'));
    towpath::http::parse_base_url("--repo (TOWPATH_REPO)", api.as_str()).map(|api| Some((api, project)))
}

/// The token for the API: its own; else the job's, for the job's own GitLab; else the one that
/// the project or the repository is reached by, for its own host.
pub(super) fn token(place: &PlaceArgs, api: &Url) -> Result<Option<Token>> {
    if let Some(token) = secret_variable("TOWPATH_GITLAB_TOKEN")? {
        return Ok(Some(Token::Access(token)));
    }
    let is_on = |address: &Option<String>| {
        address
            .as_ref()
            .and_then(|address| Url::parse(address).ok())
            .is_some_and(|address| address.origin() == api.origin())
    };
    if (is_on(&place.server_url) || is_on(&place.project_url))
        && let Some(token) = secret_variable("CI_JOB_TOKEN")?
    {
        return Ok(Some(Token::Job(token)));
    }
    if place.project.is_none() && !is_on(&place.repo) {
        return Ok(None);
    }
    Ok(access_token(place)?.map(Token::Access))
}
