//! Git over HTTP at `/<project>.git/...`: real `git http-backend`, behind GitLab's authentication.
//!
//! The password is the token and the username any non-empty name, except that a job token goes with
//! `gitlab-ci-token`. No or wrong credentials are 401, a project that the user may not see 404, a missing scope or
//! permission 403 with GitLab's sentence. A job token may fetch its own project and those that allow it, and push
//! where the setting allows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use base64::Engine as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_util::io::ReaderStream;

use super::hub::Shared;
use super::pushes::{self, Push};
use super::settings::{Role, Scope, Visibility};
use super::state::Project;
use super::tokens::{Caller, random_token};

const ACCESS_DENIED: &str = "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or you're required to use a token instead of a password.";
const NOT_FOUND: &str =
    "The project you were looking for could not be found or you don't have permission to view it.";

/// One of the requests of git's smart HTTP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Fetch,
    Push,
}

/// Answers a git request, or says that the path is none.
pub(super) async fn answer(
    hub: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Option<Response<Body>> {
    let (path, rest, service) = parse(method, uri)?;
    let Some(path) = path.strip_suffix(".git") else {
        let location = format!("/{path}.git/{rest}?{}", uri.query().unwrap_or_default());
        return Some(response(
            StatusCode::MOVED_PERMANENTLY,
            "",
            &[(header::LOCATION, &location)],
        ));
    };
    let (caller, project) = match authorize(hub, headers, path, service) {
        Ok(found) => found,
        Err(refused) => return Some(*refused),
    };
    let request = Request {
        path_info: format!("/{path}.git/{rest}"),
        method,
        uri,
        headers,
        body,
    };
    Some(match backend(hub, request, &caller, project, service).await {
        Ok(response) => response,
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}"), &[]),
    })
}

/// The project path (with `.git`), what follows it, and the service.
fn parse(method: &Method, uri: &Uri) -> Option<(String, &'static str, Service)> {
    let path = uri.path().strip_prefix('/')?;
    let (path, rest) = ["info/refs", "git-upload-pack", "git-receive-pack"]
        .into_iter()
        .find_map(|rest| Some((path.strip_suffix(rest)?.strip_suffix('/')?, rest)))?;
    let service = match (method, rest) {
        (&Method::GET, "info/refs") if uri.query() == Some("service=git-receive-pack") => Service::Push,
        (&Method::GET, "info/refs") if uri.query() == Some("service=git-upload-pack") => Service::Fetch,
        (&Method::POST, "git-upload-pack") => Service::Fetch,
        (&Method::POST, "git-receive-pack") => Service::Push,
        _ => return None,
    };
    Some((path.to_owned(), rest, service))
}

fn authorize(
    hub: &Shared,
    headers: &HeaderMap,
    path: &str,
    service: Service,
) -> Result<(Caller, Project), Box<Response<Body>>> {
    let refuse = |status, text: &str| Err(Box::new(response(status, text, &[])));
    let unauthorized = || {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"GitLab\"")];
        Err(Box::new(response(
            StatusCode::UNAUTHORIZED,
            ACCESS_DENIED,
            &challenge,
        )))
    };
    let state = hub.state();
    let caller = match basic(headers) {
        None => Caller::Anonymous,
        Some((username, password)) => match state.caller(&password) {
            Some(Caller::Job { .. }) if username != "gitlab-ci-token" => return unauthorized(),
            Some(caller) if !username.is_empty() => caller,
            _ => return unauthorized(),
        },
    };
    let project = state.projects.values().find(|project| project.path == path);
    if matches!(caller, Caller::Anonymous) {
        let open = project.is_some_and(|project| project.settings.visibility == Visibility::Public);
        if !open || service == Service::Push {
            return unauthorized();
        }
    }
    let Some(project) = project else {
        return refuse(StatusCode::NOT_FOUND, NOT_FOUND);
    };
    let scopes: &[Scope] = match service {
        Service::Fetch => &[Scope::Api, Scope::ReadRepository, Scope::WriteRepository],
        Service::Push => &[Scope::Api, Scope::WriteRepository],
    };
    if !caller.has_scope(scopes) {
        let text = match service {
            Service::Fetch => "You are not allowed to download code.",
            Service::Push => "You are not allowed to upload code.",
        };
        return refuse(StatusCode::FORBIDDEN, text);
    }
    if let Caller::Job { project: own, .. } = &caller
        && !state.job_token_reaches(&caller, project)
    {
        let own = state.projects.get(own).map_or("", |project| project.name());
        return refuse(
            StatusCode::FORBIDDEN,
            &format!(
                "Authentication by CI/CD job token not allowed from {own} to {}.",
                project.name()
            ),
        );
    }
    if !state.can_read(&caller, project) {
        return refuse(StatusCode::NOT_FOUND, NOT_FOUND);
    }
    let allowed = match (service, &caller) {
        (Service::Fetch, _) => state.has_role(&caller, project, Role::Reporter),
        (Service::Push, Caller::Job { project: own, .. }) => {
            let setting = if *own == project.id {
                project.settings.job_token_may_push
            } else {
                project.settings.job_token_may_push_from_others
            };
            setting && state.has_role(&caller, project, Role::Developer)
        }
        (Service::Push, _) => state.has_role(&caller, project, Role::Developer),
    };
    if !allowed {
        let text = match service {
            Service::Fetch => "You are not allowed to download code from this project.",
            Service::Push => "You are not allowed to push code to this project.",
        };
        return refuse(StatusCode::FORBIDDEN, text);
    }
    Ok((caller, project.clone()))
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

struct Request<'a> {
    path_info: String,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    body: Bytes,
}

/// Runs `git http-backend` as the CGI program it is.
async fn backend(
    hub: &Shared,
    request: Request<'_>,
    caller: &Caller,
    project: Project,
    service: Service,
) -> anyhow::Result<Response<Body>> {
    let user = caller.user();
    let username = {
        let state = hub.state();
        user.and_then(|user| state.users.get(&user))
            .map_or_else(String::new, |user| user.username.clone())
    };
    let record = hub.settings.folder.join("pushes").join(random_token("")?);
    let mut environment = BTreeMap::from([
        ("GIT_PROJECT_ROOT", hub.repositories_folder().into_os_string()),
        ("GIT_HTTP_EXPORT_ALL", "1".into()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
        ("PATH_INFO", request.path_info.into()),
        ("REQUEST_METHOD", request.method.as_str().into()),
        ("QUERY_STRING", request.uri.query().unwrap_or_default().into()),
        ("CONTENT_LENGTH", request.body.len().to_string().into()),
        ("REMOTE_ADDR", "127.0.0.1".into()),
        (pushes::RECORD, record.clone().into_os_string()),
        (
            pushes::PROTECTED,
            project.settings.protected_branches.join(" ").into(),
        ),
    ]);
    if !username.is_empty() {
        environment.insert("REMOTE_USER", username.into());
    }
    let trusted = user.and_then(|user| project.role(user));
    let trusted = trusted.is_some_and(|role| role >= project.settings.protected_push_role);
    environment.insert(pushes::MAY_PUSH_PROTECTED, trusted.to_string().into());
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.headers.get(name).and_then(|value| value.to_str().ok()) {
            environment.insert(variable, value.into());
        }
    }
    let pushes = service == Service::Push && request.method == Method::POST;
    if pushes {
        tokio::fs::create_dir_all(hub.settings.folder.join("pushes")).await?;
    }
    let mut command = hub.clean_command(&hub.git);
    command.arg("http-backend").envs(environment).kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start git http-backend")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let body = request.body;
    let feed = tokio::spawn(async move {
        // The backend may answer without reading everything.
        let _ = stdin.write_all(&body).await;
    });
    let mut stdout = BufReader::new(stdout);
    let head = read_head(&mut stdout).await?;
    let mut response = Response::builder().status(head.status);
    for (name, value) in &head.fields {
        response = response.header(name, value);
    }
    if !pushes {
        let stream = ReaderStream::new(Finishing {
            stdout,
            _child: child,
        });
        return Ok(response.body(Body::from_stream(stream))?);
    }
    // The answer to a push is short, and must not reach the client before the push counts as done.
    let mut body = Vec::new();
    tokio::io::copy(&mut stdout, &mut body).await?;
    child.wait().await?;
    let _ = feed.await;
    if let Ok(text) = tokio::fs::read_to_string(&record).await {
        let _ = tokio::fs::remove_file(&record).await;
        let quiet = matches!(caller, Caller::Job { .. });
        let user = user.context("a push has a user")?;
        tokio::spawn(pushes::accepted(
            Arc::clone(hub),
            project.id,
            user,
            Push::read(&text),
            quiet,
        ));
    }
    Ok(response.body(Body::from(body))?)
}

struct Head {
    status: StatusCode,
    fields: Vec<(String, String)>,
}

async fn read_head(output: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> anyhow::Result<Head> {
    let mut head = Head {
        status: StatusCode::OK,
        fields: Vec::new(),
    };
    let mut line = String::new();
    loop {
        line.clear();
        let read = output.read_line(&mut line).await?;
        anyhow::ensure!(read > 0, "git http-backend answered nothing");
        let text = line.trim_end();
        if text.is_empty() {
            return Ok(head);
        }
        let Some((name, value)) = text.split_once(": ") else {
            continue;
        };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            head.status = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else {
            head.fields.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// The backend's output, with the process held until all of it was read.
struct Finishing {
    stdout: BufReader<tokio::process::ChildStdout>,
    _child: tokio::process::Child,
}

impl tokio::io::AsyncRead for Finishing {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

fn response(status: StatusCode, text: &str, fields: &[(header::HeaderName, &str)]) -> Response<Body> {
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    for (name, value) in fields {
        response = response.header(name, *value);
    }
    response.body(Body::from(text.to_owned())).unwrap_or_else(|_| {
        let mut plain = Response::new(Body::empty());
        *plain.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        plain
    })
}

/// The git program on a search path.
///
/// # Errors
/// When there is none.
pub(super) fn find_git(path: &std::ffi::OsStr) -> anyhow::Result<std::path::PathBuf> {
    let found = std::env::split_paths(path)
        .map(|folder| folder.join("git"))
        .find(|git| Path::is_file(git));
    found.context("git is not on the PATH given to the GitLab stand-in")
}
