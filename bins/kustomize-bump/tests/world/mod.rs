//! A GitLab stand-in with one environment repository, and runs of the binary against it.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "these helpers are a test's"
)]

pub(crate) mod proxy;
pub(crate) mod victim;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::Value;
use tokio::process::Command;
use towpath_sandbox::gitlab::{GitLab, ProjectSettings, Role, Scope, Settings};
use towpath_sandbox::tools::{Progress, Tools};

pub(crate) const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const C: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// The digest that consists of one hexadecimal number.
pub(crate) fn digest(number: usize) -> String {
    format!("sha256:{number:064x}")
}

/// How the binary gets to the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Git,
    Api,
}

/// Makes one test of a function for each way.
#[allow(unused_macros, reason = "each test binary uses its own part")]
macro_rules! both_ways {
    ($($name:ident),* $(,)?) => {
        mod by_git {
            $(#[tokio::test] async fn $name() { super::$name(super::world::Way::Git).await; })*
        }
        mod by_api {
            $(#[tokio::test] async fn $name() { super::$name(super::world::Way::Api).await; })*
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use both_ways;

pub(crate) struct World {
    pub(crate) gitlab: GitLab,
    pub(crate) project: u64,
    /// A token for git by the way of git, one for the API by the way of the API.
    pub(crate) token: String,
    pub(crate) way: Way,
    pub(crate) folder: tempfile::TempDir,
}

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The report of a run that has to have gone well.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.document()
    }

    /// The report, whatever the exit code.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that the run was refused in these words.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} is not in {}", self.stderr);
    }
}

impl World {
    /// An environment repository `env/shop` with these files on `main`, reached by git.
    pub(crate) async fn with(files: &[(&str, &str)]) -> World {
        World::over(Way::Git, files).await
    }

    /// The same, reached by this way.
    pub(crate) async fn over(way: Way, files: &[(&str, &str)]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        // No pipeline runs here, so the program that would run one is never looked for.
        let gitlab = GitLab::start(Settings::new(
            folder.path().join("gitlab"),
            "gitlab-ci-local",
            path,
        ))
        .await
        .unwrap();
        let project = gitlab
            .create_project("env/shop", ProjectSettings::default())
            .await
            .unwrap();
        let scope = match way {
            Way::Git => Scope::WriteRepository,
            Way::Api => Scope::Api,
        };
        let token = gitlab
            .project_access_token(project, Role::Maintainer, &[scope])
            .unwrap();
        let world = World {
            gitlab,
            project,
            token,
            way,
            folder,
        };
        world.push(files).await;
        world
    }

    pub(crate) fn url(&self) -> String {
        self.gitlab.clone_url("env/shop")
    }

    /// Commits files on top of `main`, straight into the bare repository.
    pub(crate) async fn push(&self, files: &[(&str, &str)]) -> String {
        let mut stream =
            String::from("commit refs/heads/main\ncommitter Test <test@example.com> now\ndata 5\nFiles");
        if self
            .git(&["rev-parse", "--verify", "--quiet", "main"])
            .await
            .is_ok()
        {
            stream.push_str("\nfrom refs/heads/main^0");
        }
        for (path, content) in files {
            stream.push_str(&format!(
                "\nM 100644 inline {path}\ndata {}\n{content}",
                content.len()
            ));
        }
        stream.push_str("\n\n");
        self.import(&stream).await;
        self.git(&["rev-parse", "main"]).await.unwrap()
    }

    async fn import(&self, stream: &str) {
        let file = self.folder.path().join("stream");
        std::fs::write(&file, stream).unwrap();
        let status = git(
            &self.repository(),
            &["fast-import", "--quiet", "--date-format=now"],
        )
        .stdin(std::fs::File::open(&file).unwrap())
        .status()
        .await
        .unwrap();
        assert!(status.success());
    }

    /// Moves a file on `main`, straight in the bare repository.
    pub(crate) async fn rename(&self, from: &str, to: &str) {
        let content = self.file(from).await;
        let stream = format!(
            "commit refs/heads/main\ncommitter Test <test@example.com> now\ndata 4\nMove\nfrom refs/heads/main^0\n\
             D {from}\nM 100644 inline {to}\ndata {}\n{content}\n\n",
            content.len()
        );
        self.import(&stream).await;
    }

    /// Merges a branch whose changes do not meet those of `main`, as GitLab does.
    pub(crate) async fn merge(&self, branch: &str) {
        let merge = ["merge-tree", "--write-tree", "main", branch];
        let tree = self.git(&merge).await.unwrap();
        let message = format!("Merge branch '{branch}' into 'main'\n\nSee merge request env/shop!1");
        let (main, side) = ("refs/heads/main", format!("refs/heads/{branch}"));
        let commit = [
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.com",
            "commit-tree",
            &tree,
            "-p",
            main,
            "-p",
            &side,
            "-m",
            &message,
        ];
        let commit = self.git(&commit).await.unwrap();
        self.git(&["update-ref", main, &commit]).await.unwrap();
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.gitlab.repository(self.project).unwrap()
    }

    /// Runs git in the bare repository.
    pub(crate) async fn git(&self, arguments: &[&str]) -> Result<String, String> {
        let output = git(&self.repository(), arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)
                .unwrap()
                .trim_end_matches('\n')
                .to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// A file on `main`, as it is now.
    pub(crate) async fn file(&self, path: &str) -> String {
        let output = git(&self.repository(), &["show", &format!("main:{path}")])
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn commits(&self) -> usize {
        self.git(&["rev-list", "--count", "main"])
            .await
            .unwrap()
            .parse()
            .unwrap()
    }

    /// The environment that a job would give, with the token.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = scrubbed(self.folder.path());
        let (url, api) = (self.url(), self.gitlab.api_url());
        let place = match self.way {
            Way::Git => [("TOWPATH_REPO", url.as_str()), ("TOWPATH_VIA", "git")],
            Way::Api => [("TOWPATH_PROJECT", "env/shop"), ("CI_API_V4_URL", api.as_str())],
        };
        for (name, value) in place {
            environment.insert(name.into(), value.into());
        }
        for (name, value) in [
            ("TOWPATH_PATH", "overlays/prod"),
            ("TOWPATH_GIT_TOKEN", &self.token),
            ("GITLAB_USER_NAME", "Ada"),
            ("GITLAB_USER_EMAIL", "ada@example.com"),
        ] {
            environment.insert(name.into(), value.into());
        }
        environment
    }

    /// Runs the binary against this world.
    pub(crate) async fn bump(&self, arguments: &[&str]) -> Ended {
        run(arguments, &self.environment(), self.folder.path()).await
    }

    /// The same, with variables set, or taken away where empty.
    pub(crate) async fn bump_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let mut environment = self.environment();
        for (name, value) in variables {
            if value.is_empty() {
                environment.remove(*name);
            } else {
                environment.insert((*name).into(), (*value).into());
            }
        }
        run(arguments, &environment, self.folder.path()).await
    }
}

/// Commits a hold on `app` at a digest straight into a bare repository, between two requests.
pub(crate) fn hold_unseen(repository: &Path, digest: &str) {
    let hold = serde_json::json!({
        "schema": "towpath.hold/1", "path": "overlays/prod", "image": "app", "held_at": format!("app@{digest}"),
        "digest": digest, "by": "Ada <ada@example.com>", "since": "2025-03-01T03:00:00Z", "reason": "checkout fails",
    });
    commit_unseen(
        repository,
        ".towpath/holds/overlays/prod/app.json",
        &hold.to_string(),
    );
}

/// Commits a file straight into a bare repository, between two requests.
pub(crate) fn commit_unseen(repository: &Path, path: &str, text: &str) {
    let stream = format!(
        "commit refs/heads/main\ncommitter Ada <ada@example.com> now\ndata 4\nHold\nfrom refs/heads/main^0\n\
         M 100644 inline {path}\ndata {}\n{text}\n\n",
        text.len()
    );
    let mut child = std::process::Command::new("git")
        .args(["fast-import", "--quiet", "--date-format=now"])
        .current_dir(repository)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stream.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Numbers that are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    pub(crate) fn pick<'all>(&mut self, all: &[&'all str]) -> &'all str {
        all[self.below(all.len())]
    }
}

/// kubectl with kustomize inside: the one on `PATH`, else the sandbox's own.
pub(crate) fn kubectl() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join("kubectl"));
        on_path
            .into_iter()
            .find(|file| file.is_file())
            .unwrap_or_else(|| {
                // A runtime of its own, since some who ask are within one already.
                let install = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let (runtime, progress) = (runtime.unwrap(), Progress::lines());
                    runtime
                        .block_on(Tools::find_or_install(&progress))
                        .unwrap()
                        .kubectl
                };
                std::thread::spawn(install).join().unwrap()
            })
    })
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn git(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// Nothing but what a process needs: no variable of the machine that runs the tests gets in.
pub(crate) fn scrubbed(home: &Path) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("PATH".into(), std::env::var("PATH").unwrap()),
        ("HOME".into(), home.display().to_string()),
        ("TMPDIR".into(), home.display().to_string()),
        ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
    ])
}

/// Runs the binary with this environment and nothing else.
pub(crate) async fn run(arguments: &[&str], environment: &BTreeMap<String, String>, folder: &Path) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_kustomize-bump"))
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
