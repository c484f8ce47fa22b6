//! Where a repository is, and how one gets in.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};
use crate::http::{Client, PlainHttp, Settings, StatusCode, Url, header};
use crate::secret::Secret;

use super::command::Runner;
use crate::deadline::Deadline;

/// The exit code of `git ls-remote --exit-code` when the server answers and has no such ref.
const NO_SUCH_REF: i32 = 2;

/// The address of a repository, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `https://` or `http://`.
    Http(Url),
    /// `ssh://user@host/path` or `user@host:path`.
    Ssh(String),
    /// A bare repository on this machine, by absolute path or `file://`.
    Local(PathBuf),
}

impl Location {
    /// Parses an address. `flag` names its origin in errors.
    ///
    /// # Errors
    /// Usage (exit 2) for an address of another kind, or one that carries credentials. The address itself is in the
    /// error only when it carries none.
    pub fn parse(flag: &str, text: &str) -> Result<Self> {
        let hint =
            "give it as https://HOST/PATH.git, ssh://git@HOST/PATH.git, git@HOST:PATH.git or /PATH.git";
        if text.starts_with('/') {
            return Ok(Location::Local(PathBuf::from(text)));
        }
        if let Ok(url) = Url::parse(text) {
            if let Some(password) = url.password() {
                // It is known from here on, so that no message can show it.
                let _ = Secret::new(password);
            }
            let has_user = !url.username().is_empty();
            match url.scheme() {
                "https" | "http" if has_user || url.password().is_some() => {
                    return Err(
                        Failure::usage(format!("{flag} carries credentials in the URL")).hint(
                            "take them out of the URL; a token is given by TOWPATH_GIT_TOKEN or --token-file",
                        ),
                    );
                }
                "https" | "http" if url.has_host() => return Ok(Location::Http(url)),
                "ssh" if url.password().is_none() && url.has_host() && !text.contains("//-") => {
                    return Ok(Location::Ssh(text.to_owned()));
                }
                "file" => {
                    return url.to_file_path().map(Location::Local).map_err(|()| {
                        Failure::usage(format!("{flag} is not a path on this machine")).hint(hint)
                    });
                }
                _ => {}
            }
        }
        let is_scp_like = text.split_once(':').is_some_and(|(host, path)| {
            host.contains('@')
                && !host.starts_with(['-', '@'])
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"@._-".contains(&b))
                && !path.is_empty()
                && !path.starts_with([':', '/', '-'])
        });
        if is_scp_like {
            return Ok(Location::Ssh(text.to_owned()));
        }
        Err(Failure::usage(format!("{flag} is not the address of a git repository")).hint(hint))
    }

    /// Another project on the same GitLab, reached the same way; none for a path on this machine.
    #[must_use]
    pub fn beside(&self, project: &str) -> Option<Self> {
        let address = match self {
            Location::Http(url) => {
                let mut url = url.clone();
                url.set_query(None);
                url.set_path(&format!("{project}.git"));
                url.to_string()
            }
            Location::Ssh(address) => match Url::parse(address) {
                Ok(mut url) => {
                    url.set_path(&format!("{project}.git"));
                    url.to_string()
                }
                Err(_) => format!("{}:{project}.git", address.split_once(':')?.0),
            },
            Location::Local(_) => return None,
        };
        Self::parse("the source project", &address).ok()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Http(url) => f.write_str(url.as_str()),
            Location::Ssh(address) => f.write_str(address),
            Location::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A user name and a token for HTTP.
#[derive(Clone, Debug)]
pub struct Credentials {
    user: String,
    token: Secret,
}

impl Credentials {
    /// Credentials as git's helper protocol can carry them.
    ///
    /// # Errors
    /// Usage (exit 2) when one is empty or holds a line break.
    pub fn new(user: &str, token: Secret) -> Result<Self> {
        let broken = |text: &str| text.is_empty() || text.chars().any(char::is_control);
        if broken(user) || broken(token.expose()) {
            return Err(
                Failure::usage("the git user name or token is empty or has several lines")
                    .hint("give the token alone, on one line"),
            );
        }
        Ok(Credentials {
            user: user.to_owned(),
            token,
        })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn token(&self) -> &Secret {
        &self.token
    }
}

/// How the repository is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Credentials for HTTP; without them git asks the helpers that the user configured.
    pub credentials: Option<Credentials>,
    /// A PEM file with the certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// Whether plain `http` may leave the machine.
    pub plain_http: bool,
}

/// A repository elsewhere.
#[derive(Clone, Debug)]
pub struct Remote {
    location: Location,
    access: Access,
}

/// What git wanted from the server when it failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Service {
    Read,
    Write,
}

impl Remote {
    /// A repository and the way in.
    ///
    /// # Errors
    /// Usage (exit 2) for credentials with an address that takes none.
    pub fn new(location: Location, access: Access) -> Result<Self> {
        if matches!(location, Location::Ssh(_)) && access.credentials.is_some() {
            return Err(Failure::usage(format!(
                "a token was given for {location}, which is reached by SSH"
            ))
            .hint("give the https:// address of the repository, or no token"));
        }
        Ok(Remote { location, access })
    }

    /// The address.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Refuses what would send a token in the clear.
    ///
    /// # Errors
    /// Denied (exit 4) for plain `http` to another machine; usage (exit 2) when the CA file cannot be read.
    pub(super) fn check(&self, deadline: Deadline) -> Result<()> {
        match &self.location {
            Location::Http(url) => self.http(deadline)?.check_url(url),
            Location::Ssh(_) | Location::Local(_) => Ok(()),
        }
    }

    fn http(&self, deadline: Deadline) -> Result<Client> {
        let mut settings = Settings::new("git");
        settings.ca_file = self.access.ca_file.clone();
        if self.access.plain_http {
            settings.plain_http = PlainHttp::Allowed;
        }
        Client::new(settings, deadline)
    }

    /// Finds out why git could not reach the repository, or the branch in it.
    pub(super) async fn diagnose(
        &self,
        runner: &Runner,
        branch: Option<&str>,
        service: Service,
        tail: &str,
    ) -> Failure {
        let shown = &self.location;
        let answer = match &self.location {
            Location::Http(url) => self.diagnose_http(runner.deadline(), url, service).await,
            Location::Local(path) if !path.is_dir() => {
                Some(Failure::not_found(format!("there is no repository at {shown}")))
            }
            Location::Local(_) | Location::Ssh(_) => None,
        };
        if let Some(failure) = answer {
            return failure;
        }
        let reference = branch.map_or("HEAD".to_owned(), |branch| format!("refs/heads/{branch}"));
        let listed = runner
            .git("ls-remote")
            .args(["--exit-code", "--", &shown.to_string(), &reference])
            .capture(runner.network_deadline())
            .await;
        match listed {
            Ok(ended) if ended.code() == NO_SUCH_REF => match branch {
                Some(branch) => Failure::not_found(format!("{shown} has no branch {branch}"))
                    .hint("check --branch (TOWPATH_BRANCH)"),
                None => Failure::not_found(format!("{shown} has no commit yet")),
            },
            Err(failure) => failure,
            Ok(_) if !runner.has_room() => Failure::internal(format!(
                "no room is left in {} for git",
                runner.folder().display()
            ))
            .hint("make room there, or set TMPDIR to a folder that has some"),
            Ok(ended) => {
                let said = if ended.success() { tail } else { &ended.tail };
                Failure::unavailable(format!("git cannot work with {shown}: {}", last_line(said)))
                    .hint("is the address right, is the host up, and may this key or token in? Trying again may help")
            }
        }
    }

    /// Whether the repository can be listed.
    pub(super) async fn answers(&self, runner: &Runner) -> bool {
        let list = runner
            .git("ls-remote")
            .args(["--", &self.location.to_string(), "HEAD"])
            .capture(runner.network_deadline())
            .await;
        list.is_ok_and(|ended| ended.success())
    }

    /// Asks an HTTP server the first question that git asks it, and reads the status. None when it answers well.
    pub(super) async fn diagnose_http(
        &self,
        deadline: Deadline,
        url: &Url,
        service: Service,
    ) -> Option<Failure> {
        let shown = &self.location;
        let service = match service {
            Service::Read => "git-upload-pack",
            Service::Write => "git-receive-pack",
        };
        let mut question = url.clone();
        question.set_path(&format!("{}/info/refs", url.path().trim_end_matches('/')));
        let client = match self.http(deadline) {
            Ok(client) => client,
            Err(failure) => return Some(failure),
        };
        let mut request = client.get(question).query("service", service);
        if let Some(credentials) = &self.access.credentials {
            request = request.basic(credentials.user(), credentials.token());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(failure) => return Some(failure),
        };
        let advertises = response
            .header(&header::CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with(&format!("application/x-{service}-advertisement")));
        let status = response.status();
        let who = match &self.access.credentials {
            Some(credentials) => format!("the token of {}", credentials.user()),
            None => "access without a token".to_owned(),
        };
        match status {
            StatusCode::OK if advertises => None,
            // A login page, a proxy, or a server that knows git's oldest protocol alone, which takes no pushes.
            StatusCode::OK => Some(Failure::input(format!(
                "{shown} answers, but not as a git server does"
            ))
            .hint("check --repo (TOWPATH_REPO): is it the address that git clones from?")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Some(Failure::denied(format!("{shown} refuses {who}")).hint(
                    "check TOWPATH_GIT_TOKEN or --token-file and --git-user: the token needs write_repository here, \
                     and a job token needs this project's allowlist",
                ))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                Some(Failure::not_found(format!("there is no repository at {shown}"))
                    .hint("check --repo (TOWPATH_REPO); a server also says so to a token that may not see it"))
            }
            other => Some(Failure::unavailable(format!("{shown} answers {other}")).hint("try again later")),
        }
    }
}

/// The last line of what git said: the one that says why.
pub(super) fn last_line(tail: &str) -> &str {
    tail.lines().next_back().unwrap_or("it said nothing")
}

/// Looks for the folder alone; whether there is a repository in it or above it is git's to say.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(Failure::not_found(format!("there is no folder {}", folder.display())).hint("check --checkout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let http = Location::parse("--repo", "https://gitlab.example.com/env/shop.git").unwrap();
        assert!(matches!(http, Location::Http(_)));
        assert_eq!(
            Location::parse("--repo", "git@gitlab.example.com:env/shop.git").unwrap(),
            Location::Ssh("git@gitlab.example.com:env/shop.git".into())
        );
        assert_eq!(
            Location::parse("--repo", "file:///srv/shop.git").unwrap(),
            Location::Local("/srv/shop.git".into())
        );
    }

    #[test]
    fn another_project_is_found_beside_a_repository() {
        let beside = |address: &str| {
            let location = Location::parse("--repo", address).unwrap();
            location.beside("team/app").map(|location| location.to_string())
        };
        let some = |address: &str| Some(address.to_owned());
        assert_eq!(
            beside("https://git.example.com/env/shop.git"),
            some("https://git.example.com/team/app.git")
        );
        assert_eq!(
            beside("git@git.example.com:env/shop.git"),
            some("git@git.example.com:team/app.git")
        );
        assert_eq!(
            beside("ssh://git@git.example.com:2222/env/shop.git"),
            some("ssh://git@git.example.com:2222/team/app.git")
        );
        assert_eq!(beside("/srv/shop.git"), None);
    }

    #[test]
    fn addresses_that_carry_credentials_or_commands_are_refused() {
        for address in [
            "https://oauth2:canary-in-a-url@gitlab.example.com/shop.git",
            "https://user@gitlab.example.com/shop.git",
            "ext::sh -c true",
            "--upload-pack=touch x",
            "ssh://-oProxyCommand=x/y",
            "-oProxyCommand=x@y:z",
            "fd::17",
            "shop.git",
            "",
        ] {
            let failure = Location::parse("--repo", address).expect_err(address);
            assert_eq!(failure.kind(), crate::failure::Kind::Usage, "{address}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }
}
