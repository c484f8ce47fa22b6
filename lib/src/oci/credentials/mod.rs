//! Who we are at which registry.
//!
//! Sources: Docker's documentation, "docker login", sections "Credential stores" and "Credential helpers", for
//! `config.json`; containers-auth.json(5) for keys that name a repository. A key is a host, or a host and the first
//! parts of a repository; the longest one that fits counts, so that two projects on one host can have two logins.
//! What was given for a repository directly comes before any document, earlier documents before later ones, and what a
//! platform gives its jobs last.

mod document;
mod platform;
mod program;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod rendering;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use self::document::{Document, Found};
use super::Reference;
use crate::deadline::Deadline;
use crate::failure::{Failure, Kind, Result};
use crate::secret::Secret;

pub use self::document::render;
pub use self::platform::{Platforms, SecretVariable};
pub use self::rendering::render_logins;

pub(super) use self::platform::variables_for;

/// What a registry, or the token server behind it, is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password or token that stands for one.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged at the token server.
    IdentityToken(Secret),
    /// A bearer token that the registry takes as it is.
    RegistryToken(Secret),
}

/// A credential and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The credential.
    pub credential: Credential,
    /// Its source, for logs and hints: a file, a variable, a program. Never a secret.
    pub origin: String,
}

/// A file that may hold credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was asked for by name, so that its absence is an error.
    pub required: bool,
}

/// Everything we know about who we are. Reading the files starts no program; asking for a repository may.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    direct: BTreeMap<String, Credential>,
    documents: Vec<Document>,
    platforms: Option<Platforms>,
    helped: Arc<Mutex<Helped>>,
}

/// What helpers said of servers.
type Helped = BTreeMap<(PathBuf, String), Option<Credential>>;

impl Credentials {
    /// Reads the files, in the order of their weight.
    ///
    /// # Errors
    /// Usage (exit 2) when a required file is absent or one cannot be read; input (exit 3) when one is malformed.
    pub fn read(files: &[ConfigFile]) -> Result<Self> {
        let mut credentials = Credentials::default();
        for file in files {
            credentials.read_file(file)?;
        }
        Ok(credentials)
    }

    /// Reads another file, which counts after what was read before.
    ///
    /// # Errors
    /// As [`Credentials::read`].
    pub fn read_file(&mut self, file: &ConfigFile) -> Result<()> {
        self.documents.extend(Document::read(file)?);
        Ok(())
    }

    /// Reads a document of the same form that is at hand, and counts after what was read before. `origin` names it.
    /// It may have been written for somebody else, so helpers in it that are not there are passed over.
    ///
    /// # Errors
    /// Input (exit 3) when it is malformed.
    pub fn read_text(&mut self, text: &Secret, origin: &str) -> Result<()> {
        self.documents
            .push(Document::parse(text.expose(), origin)?.ambient());
        Ok(())
    }

    /// Falls back on what platforms give their jobs, each for its own hosts.
    pub fn fall_back_on(&mut self, platforms: Platforms) {
        self.platforms = Some(platforms);
    }

    /// Adds a credential for the reference's repository and what lies below it.
    ///
    /// # Errors
    /// Usage (exit 2) when another one was added for it already.
    pub fn add(&mut self, reference: &Reference, credential: Credential) -> Result<()> {
        let name = reference.name();
        match self.direct.insert(name.clone(), credential.clone()) {
            Some(earlier) if earlier != credential => Err(Failure::usage(format!(
                "two different logins were given for the repository {name}"
            ))
            .hint("a repository that is source and target at once takes one login that may do both")),
            _ => Ok(()),
        }
    }

    /// The login for a repository; none when it is to be asked anonymously.
    ///
    /// # Errors
    /// Usage (exit 2) when a helper program is missing; denied (exit 4) when it fails; usage or input (exit 3) when
    /// what a platform gives is of no use.
    pub async fn find(&self, reference: &Reference, deadline: Deadline) -> Result<Option<Login>> {
        let keys = keys(reference);
        if let Some(credential) = keys.iter().find_map(|key| self.direct.get(key)) {
            return Ok(Some(Login {
                credential: credential.clone(),
                origin: "the command line".to_owned(),
            }));
        }
        for document in &self.documents {
            for found in document.find(&keys) {
                match found {
                    Found::Login(login) => return Ok(Some(login)),
                    Found::Helper { program, server } => {
                        let origin = format!("{}, as {} says", program.display(), document.origin());
                        match self.helped(program, server, deadline).await {
                            Ok(Some(credential)) => return Ok(Some(Login { credential, origin })),
                            Ok(None) => {}
                            // Helpers of the runner's own need not be where the job runs.
                            Err(failure) if document.is_ambient() && failure.kind() == Kind::Usage => {
                                tracing::debug!(action = "login", object = origin, reason = %failure, "passed over");
                            }
                            Err(failure) => return Err(failure),
                        }
                    }
                }
            }
        }
        match &self.platforms {
            Some(platforms) => platforms.find(reference.registry()),
            None => Ok(None),
        }
    }
}

impl Credentials {
    /// Asks a helper, once for each server: it may take its time, and some give another token each time, with which two
    /// repositories of one registry would be two logins.
    async fn helped(
        &self,
        program: PathBuf,
        server: String,
        deadline: Deadline,
    ) -> Result<Option<Credential>> {
        let mut helped = self.helped.lock().await;
        let key = (program, server);
        if let Some(known) = helped.get(&key) {
            return Ok(known.clone());
        }
        let credential = program::get(&key.0, &key.1, deadline).await?;
        helped.insert(key, credential.clone());
        Ok(credential)
    }
}

/// The keys that fit a repository, longest first: `host/a/b`, `host/a`, `host`.
fn keys(reference: &Reference) -> Vec<String> {
    let mut key = reference.name();
    let mut keys = vec![key.clone()];
    while let Some((shorter, _)) = key.rsplit_once('/') {
        key = shorter.to_owned();
        keys.push(key.clone());
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    fn written(folder: &Path, text: &str) -> Result<Credentials> {
        let path = folder.join("config.json");
        std::fs::write(&path, text).unwrap();
        Credentials::read(&[ConfigFile { path, required: true }])
    }

    async fn user_for(credentials: &Credentials, reference: &str) -> Option<String> {
        let reference = reference.parse().unwrap();
        let login = credentials.find(&reference, soon()).await.unwrap()?;
        match login.credential {
            Credential::Password { user, .. } => Some(user),
            other => panic!("unexpected {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_longest_key_that_fits_counts() {
        let folder = tempfile::tempdir().unwrap();
        // The auth fields read host:p, team:p, app:p, hub:p.
        let credentials = written(
            folder.path(),
            r#"{"auths": {
                "registry.example.com": {"auth": "aG9zdDpw"},
                "registry.example.com/team": {"auth": "dGVhbTpw"},
                "registry.example.com/team/app": {"username": "app", "password": "p"},
                "https://index.docker.io/v1/": {"auth": "aHViOnA="},
                "empty.example.com": {}
            }, "HttpHeaders": {"User-Agent": "x"}}"#,
        )
        .unwrap();
        for (reference, user) in [
            ("registry.example.com/team/app:1", Some("app")),
            ("registry.example.com/team/app/sub", Some("app")),
            ("registry.example.com/team/application", Some("team")),
            ("registry.example.com/teams/app", Some("host")),
            ("registry.example.com:5000/team/app", None),
            ("docker.io/alpine", Some("hub")),
            ("empty.example.com/app", None),
        ] {
            assert_eq!(
                user_for(&credentials, reference).await.as_deref(),
                user,
                "{reference}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_given_directly_comes_first_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut credentials = written(
            folder.path(),
            r#"{"auths": {"example.com": {"auth": "aG9zdDpw"}}}"#,
        )
        .unwrap();
        let login = |user: &str| Credential::Password {
            user: user.to_owned(),
            password: Secret::new("p"),
        };
        let app: Reference = "example.com/app:1".parse().unwrap();
        credentials.add(&app, login("direct")).unwrap();
        credentials.add(&app, login("direct")).unwrap();
        assert_eq!(
            user_for(&credentials, "example.com/app:2").await.as_deref(),
            Some("direct")
        );
        assert_eq!(
            user_for(&credentials, "example.com/other").await.as_deref(),
            Some("host")
        );
        assert_eq!(
            credentials
                .add(&app, login("another"))
                .expect_err("two logins")
                .kind(),
            Kind::Usage
        );
    }

    #[tokio::test]
    async fn documents_count_in_their_order_and_platforms_last() {
        let folder = tempfile::tempdir().unwrap();
        // The auth fields read host:p, team:p, app:p.
        let mut credentials = written(
            folder.path(),
            r#"{"auths": {"rg.fr-par.scw.cloud": {"auth": "aG9zdDpw"}}}"#,
        )
        .unwrap();
        let text = r#"{"auths": {"rg.fr-par.scw.cloud": {"auth": "dGVhbTpw"}, "rg.nl-ams.scw.cloud": {"auth": "YXBwOnA="}}}"#;
        let variable = "the variable DOCKER_AUTH_CONFIG";
        credentials.read_text(&Secret::new(text), variable).unwrap();
        credentials.fall_back_on(Platforms {
            gitlab_registry: None,
            gitlab_user: None,
            google_key_file: None,
            secret: |_| Ok(Some(Secret::new("canary-of-the-platform"))),
        });
        for (reference, user, origin) in [
            ("rg.fr-par.scw.cloud/ns/app", "host", "config.json"),
            ("rg.nl-ams.scw.cloud/ns/app", "app", variable),
            (
                "rg.pl-waw.scw.cloud/ns/app",
                "nologin",
                "the variable SCW_SECRET_KEY",
            ),
        ] {
            assert_eq!(user_for(&credentials, reference).await.as_deref(), Some(user));
            let login = credentials.find(&reference.parse().unwrap(), soon()).await;
            let found = login.unwrap().unwrap().origin;
            assert!(found.contains(origin), "{reference}: {found}");
        }
        assert_eq!(user_for(&credentials, "registry.example.com/app").await, None);
        // A file is the user's own, and a variable may be the runner's.
        let absent = Secret::new("{\"credsStore\": \"towpath-has-no-such-helper\"}");
        credentials.read_text(&absent, variable).unwrap();
        assert_eq!(user_for(&credentials, "registry.example.com/app").await, None);
        let own = written(folder.path(), absent.expose()).unwrap();
        let failure = own
            .find(&"registry.example.com/app".parse().unwrap(), soon())
            .await;
        assert_eq!(failure.expect_err("no helper").kind(), Kind::Usage);
        let failure = credentials
            .read_text(&Secret::new("{\"auths\": \"canary-no-map\"}"), variable)
            .expect_err("malformed");
        assert_eq!(failure.kind(), Kind::Input);
        assert!(failure.message().contains(variable) && !format!("{failure:?}").contains("canary"));
    }

    #[tokio::test]
    async fn tokens_are_told_apart_from_passwords() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = written(
            folder.path(),
            r#"{"auths": {
                "id.example.com": {"auth": "dXNlcjo=", "identitytoken": "canary-identity"},
                "reg.example.com": {"registrytoken": "canary-registry"}
            }}"#,
        )
        .unwrap();
        let find = async |reference: &str| {
            let login = credentials.find(&reference.parse().unwrap(), soon()).await;
            login.unwrap().map(|login| login.credential)
        };
        assert_eq!(
            find("id.example.com/app").await,
            Some(Credential::IdentityToken(Secret::new("canary-identity")))
        );
        assert_eq!(
            find("reg.example.com/app").await,
            Some(Credential::RegistryToken(Secret::new("canary-registry")))
        );
    }

    #[test]
    fn malformed_files_are_named_and_their_secrets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "[]",
            r#"{"auths": []}"#,
            r#"{"auths": {"example.com": {"auth": "canary-not-base64!"}}}"#,
            r#"{"auths": {"example.com": {"auth": "bm8tY29sb24="}}}"#,
            r#"{"auths": {"example.com": {"auth": "//8="}}}"#,
            r#"{"auths": {"example.com": {"auth": 7, "password": "canary-in-a-broken-file"}}}"#,
            r#"{"credsStore": "../evil"}"#,
            r#"{"credHelpers": {"example.com": ""}}"#,
        ] {
            let failure = written(folder.path(), text).expect_err(text);
            assert_eq!(failure.kind(), Kind::Input, "{text}");
            let shown = format!("{failure:?}");
            assert!(shown.contains("config.json"), "{shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn an_absent_file_matters_only_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = |required| ConfigFile {
            path: folder.path().join("config.json"),
            required,
        };
        Credentials::read(&[file(false)]).unwrap();
        assert_eq!(
            Credentials::read(&[file(true)]).expect_err("absent").kind(),
            Kind::Usage
        );
    }

    #[tokio::test]
    async fn helpers_are_asked_and_may_know_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-test");
        let script = "#!/bin/sh\nread -r server\n[ \"$1\" = get ] || exit 9\ncase \"$server\" in\n\
            known.example.com) echo '{\"ServerURL\":\"known.example.com\",\"Username\":\"helped\",\"Secret\":\"canary-helper\"}';;\n\
            token.example.com) echo '{\"Username\":\"<token>\",\"Secret\":\"canary-helper\"}';;\n\
            odd.example.com) echo 'canary-helper is odd';;\n\
            locked.example.com) echo 'the keyring is locked'; exit 1;;\n\
            *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let get = async |server: &str| program::get(&program, server, soon()).await;
        let known = get("known.example.com").await.unwrap();
        assert!(matches!(known, Some(Credential::Password { user, .. }) if user == "helped"));
        assert!(matches!(
            get("token.example.com").await.unwrap(),
            Some(Credential::IdentityToken(_))
        ));
        assert_eq!(get("unknown.example.com").await.unwrap(), None);
        let locked = get("locked.example.com").await.expect_err("locked");
        assert_eq!(locked.kind(), Kind::Denied);
        assert!(locked.message().contains("docker-credential-test"));
        let odd = get("odd.example.com").await.expect_err("odd");
        assert_eq!(odd.kind(), Kind::Input);
        assert!(!format!("{odd:?}").contains("canary"), "{odd:?}");
        let absent = program::get(&folder.path().join("docker-credential-absent"), "x", soon()).await;
        assert_eq!(absent.expect_err("absent").kind(), Kind::Usage);
    }

    #[tokio::test]
    async fn a_helper_that_never_says_the_same_twice_is_asked_once_for_each_server() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-fickle");
        let script = format!(
            "#!/bin/sh\nread -r server\necho \"$server\" >> {0}/asked\n\
            echo \"{{\\\"Username\\\":\\\"u\\\",\\\"Secret\\\":\\\"canary-$(wc -l < {0}/asked)\\\"}}\"\n",
            folder.path().display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let credentials = Credentials::default();
        let helped = async |server: &str| {
            let helped = credentials
                .helped(program.clone(), server.to_owned(), soon())
                .await;
            helped.unwrap().unwrap()
        };
        let first = helped("a.example").await;
        assert_eq!(helped("a.example").await, first);
        assert_ne!(helped("b.example").await, first);
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked, "a.example\nb.example\n");
    }

    #[tokio::test]
    async fn what_is_rendered_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let text = render(&[
            (
                "rg.fr-par.scw.cloud".to_owned(),
                "nologin".to_owned(),
                Secret::new("canary-render"),
            ),
            ("docker.io".to_owned(), "hub".to_owned(), Secret::new("p")),
        ])
        .unwrap();
        assert_eq!(format!("{text:?}"), "****");
        let credentials = written(folder.path(), text.expose()).unwrap();
        assert_eq!(
            user_for(&credentials, "rg.fr-par.scw.cloud/ns/app")
                .await
                .as_deref(),
            Some("nologin")
        );
        assert_eq!(
            user_for(&credentials, "docker.io/app").await.as_deref(),
            Some("hub")
        );
    }
}
