//! The git repository of one source and its rendering: what Argo CD's repo-server does.
//!
//! Errors are texts in the real one's words, because they end in an application's condition. Every program runs with a
//! time limit, without the user's git configuration and without a terminal to ask on; credentials reach git through
//! its environment (`GIT_CONFIG_*`), never through a URL or an argument.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use super::manifest::Manifest;
use super::settings::{Credentials, Settings, Source};
use crate::guardian::WORLD_VARIABLE;

/// How long one call of git or kubectl may take (the real one's `ARGOCD_EXEC_TIMEOUT` is 90 s).
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);

/// The work tree's name in the repository's own folder.
const SOURCE: &str = "source";

/// A work tree of the repository, removed when dropped.
pub(super) struct Repository {
    git: PathBuf,
    kubectl: PathBuf,
    url: String,
    path: String,
    namespace: String,
    authorization: Option<String>,
    world: Option<String>,
    folder: tempfile::TempDir,
    /// What was rendered last, so that looking again at the same commit costs nothing.
    rendered: Option<(String, Vec<Manifest>)>,
}

impl Repository {
    /// Prepares an empty work tree.
    pub(super) fn new(settings: &Settings, source: &Source, namespace: &str) -> anyhow::Result<Repository> {
        let folder = tempfile::Builder::new()
            .prefix("argocd-")
            .tempdir_in(&settings.folder);
        let folder = folder.context("no folder for the work tree")?;
        // The work tree is not the home of the programs: a file in it must not become their configuration.
        std::fs::create_dir(folder.path().join(SOURCE)).context("no folder for the work tree")?;
        Ok(Repository {
            git: settings.git.clone(),
            kubectl: settings.kubectl.clone(),
            url: source.repo_url.clone(),
            path: source.path.clone(),
            namespace: namespace.to_owned(),
            authorization: settings.repository_credentials(&source.repo_url).map(basic),
            world: settings.world.clone(),
            folder,
            rendered: None,
        })
    }

    /// The commit that `revision` (a branch, a tag, `HEAD` or a commit) means now.
    pub(super) async fn resolve(&self, revision: &str) -> Result<String, String> {
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        let output = self.git(&["ls-remote", "--", self.url.as_str()]).await?;
        if !output.status.success() {
            return Err(format!("failed to list refs: {}", one_line(&output.stderr)));
        }
        let listing = String::from_utf8_lossy(&output.stdout);
        let commit_of = |name: &str| {
            let line = listing
                .lines()
                .find(|line| line.split_once('\t').is_some_and(|(_, found)| found == name));
            line.and_then(|line| line.split('\t').next()).map(str::to_owned)
        };
        let revision = if revision.is_empty() { "HEAD" } else { revision };
        // An annotated tag is an object of its own; the peeled entry is its commit.
        [
            revision.to_owned(),
            format!("refs/heads/{revision}"),
            format!("refs/tags/{revision}^{{}}"),
        ]
        .into_iter()
        .chain([format!("refs/tags/{revision}")])
        .find_map(|name| commit_of(&name))
        .ok_or_else(|| format!("unable to resolve '{revision}' to a commit SHA"))
    }

    /// The manifests of the source's folder at `commit`. `again` renders even what was rendered last.
    pub(super) async fn render(&mut self, commit: &str, again: bool) -> Result<Vec<Manifest>, String> {
        if let Some((rendered, manifests)) = &self.rendered
            && rendered == commit
            && !again
        {
            return Ok(manifests.clone());
        }
        self.check_out(commit).await?;
        let folder = self.source().join(&self.path);
        if !folder.is_dir() {
            return Err(format!("{}: app path does not exist", self.path));
        }
        let arguments = [OsStr::new("kustomize"), folder.as_os_str()];
        let output = run(self.program(&self.kubectl).args(arguments)).await?;
        if !output.status.success() {
            let code = output.status.code().unwrap_or(-1);
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "`kustomize build <path to cached source>/{}` failed exit status {code}: {}",
                self.path,
                self.without_folder(&complaint(&text))
            ));
        }
        let manifests = Manifest::read_all(&String::from_utf8_lossy(&output.stdout), &self.namespace)
            .map_err(|error| format!("{error:#}"))?;
        self.rendered = Some((commit.to_owned(), manifests.clone()));
        Ok(manifests)
    }

    async fn check_out(&self, commit: &str) -> Result<(), String> {
        let steps: [&[&str]; 4] = [
            &["init", "--quiet"],
            &[
                "fetch",
                "--quiet",
                "--depth=1",
                "--no-tags",
                self.url.as_str(),
                commit,
            ],
            &["checkout", "--quiet", "--force", "--detach", commit],
            &["clean", "--quiet", "-ffdx"],
        ];
        for step in steps {
            let output = self.git(step).await?;
            if !output.status.success() {
                return Err(format!(
                    "failed to checkout revision {commit}: {}",
                    one_line(&output.stderr)
                ));
            }
        }
        Ok(())
    }

    async fn git(&self, arguments: &[&str]) -> Result<Output, String> {
        let mut command = self.program(&self.git);
        command
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0");
        // The world is on loopback: no proxy of the environment has a part in it.
        command.env("no_proxy", "*");
        // Whoever runs this may sit in a repository of their own.
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_CONFIG_PARAMETERS",
        ] {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_COUNT", "0");
        if let Some(header) = &self.authorization {
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", self.url));
            command.env("GIT_CONFIG_VALUE_0", header);
        }
        run(&mut command).await
    }

    /// A program that works in the work tree and keeps what it writes besides in this repository's folder.
    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.current_dir(self.source());
        command
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path());
        if let Some(world) = &self.world {
            command.env(WORLD_VARIABLE, world);
        }
        command
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join(SOURCE)
    }

    /// Hides where the work tree lies, as the real one does.
    fn without_folder(&self, text: &str) -> String {
        let folder = self.source();
        // kustomize resolves links, so the folder may appear under its real name.
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let hide =
            |text: &str, path: &Path| text.replace(&*path.to_string_lossy(), "<path to cached source>");
        hide(&hide(text, &real), &folder)
    }
}

async fn run(command: &mut Command) -> Result<Output, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    match tokio::time::timeout(PROGRAM_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(format!("{program} cannot be run: {error}")),
        Err(_) => Err(format!("{program} timeout after {PROGRAM_TIMEOUT:?}")),
    }
}

/// What kustomize complains about. Some builds of kubectl log it (klog's `... "command failed" err="..."`) where the
/// others, and kustomize itself, print a plain `error: ...`.
fn complaint(text: &str) -> String {
    let text = text.trim();
    let logged = text
        .split_once(r#"] "command failed" err="#)
        .map(|(_, quoted)| serde_json::from_str::<String>(quoted));
    match logged {
        Some(Ok(message)) => format!("error: {message}"),
        _ => text.to_owned(),
    }
}

fn basic(credentials: &Credentials) -> String {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    format!("Authorization: Basic {}", STANDARD.encode(pair))
}

/// Whether the text is a full commit id, which needs no look-up.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_reads_the_same_from_every_kubectl() {
        let plain = "error: accumulating resources: no \"a\"\n";
        let logged = "E1121 11:05:53.173673    1716 run.go:72] \"command failed\" \
                      err=\"accumulating resources: no \\\"a\\\"\"\n";
        assert_eq!(complaint(plain), plain.trim());
        assert_eq!(complaint(logged), plain.trim());
    }
}
