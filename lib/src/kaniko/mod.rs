//! Image builders: kaniko first, buildah where kaniko cannot be had.
//!
//! A [`Recipe`] says what to build and where to push it; a [`Builder`] does it and gives back the digest it pushed.
//! kaniko wipes the file system it runs in between the stages of a build. In its own container that is meant to
//! happen; anywhere else it is run in a private root (see [`root`]).
//!
//! Facts about kaniko were checked with the executor 1.28.3 of osscontainertools/kaniko, about buildah with 1.28.2.
//!
//! Deliberately absent: which tags and labels an image gets. That is the tool's decision.

pub mod buildah;
pub mod dockerfile;
mod executor;
pub mod root;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::{Command, Ended};

/// Variables of a job that hold secrets and that no builder needs, since it logs in by `config.json`. A RUN step is no
/// child of ours, but in a container of its own it can read the environment of the builder in `/proc`. The last one
/// would also take precedence over `config.json`, and runners often set it to something else.
const JOB_SECRETS: [&str; 19] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "CI_DEPENDENCY_PROXY_PASSWORD",
    "CI_DEPLOY_PASSWORD",
    "CI_JOB_TOKEN",
    "CI_REGISTRY_PASSWORD",
    "CI_REPOSITORY_URL",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "SCW_ACCESS_KEY",
    "SCW_SECRET_KEY",
    "TOWPATH_GITLAB_TOKEN",
    "TOWPATH_GIT_TOKEN",
    "TOWPATH_SOURCE_PASSWORD",
    "TOWPATH_TARGET_PASSWORD",
    "TOWPATH_TRIGGER_TOKEN",
    "VAULT_ID_TOKEN",
    "VAULT_TOKEN",
    "DOCKER_AUTH_CONFIG",
];

/// How many of a builder's last lines stand in its failure.
const LAST_LINES: usize = 5;

/// What to build, and where to push it.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The folder that `COPY` and `ADD` read from.
    pub context: PathBuf,
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// References with a tag that the image is pushed to. At least one, all of one repository.
    pub destinations: Vec<String>,
    /// Labels of the image's configuration.
    pub labels: BTreeMap<String, String>,
    /// Values for the Dockerfile's `ARG` lines. Not for secrets: they end up in the image's history.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build, where it is not the last one.
    pub target: Option<String>,
    /// Stamped on the image and its files, so that the same commit gives the same digest.
    pub created: Option<Timestamp>,
    /// Registry hosts (`host[:port]`) that speak plain http.
    pub plain_http: Vec<String>,
    /// The folder with the `config.json` that holds registry credentials.
    pub docker_config: Option<PathBuf>,
}

/// A program that builds images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The kaniko executor.
    Kaniko {
        /// Where the executor is.
        executor: PathBuf,
        /// Where it runs.
        isolation: Isolation,
    },
    /// buildah, with its chroot isolation and vfs storage, which need no daemon and no device.
    Buildah {
        /// Where buildah is, or its name on `PATH`.
        program: PathBuf,
    },
}

/// Where the kaniko executor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Right here: this is kaniko's own container, and its file system may be wiped.
    Container,
    /// In a private root of its own. Needs root.
    Chroot,
}

/// What a builder pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The digest of the manifest it pushed, as it told.
    pub digest: String,
}

impl Builder {
    /// The builder's name as it stands in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Builder::Kaniko { .. } => "kaniko",
            Builder::Buildah { .. } => "buildah",
        }
    }

    /// Builds and pushes. Each line that the builder prints goes to `line`, redacted.
    ///
    /// # Errors
    /// Unsuccessful (exit 8) when the build fails, with the builder's exit code and last lines; denied (exit 4) when
    /// a private root is needed and cannot be made; usage (exit 2) when the builder is not there; deadline (exit 9).
    pub async fn build(&self, recipe: &Recipe, deadline: Deadline, line: impl FnMut(&str)) -> Result<Built> {
        recipe.check()?;
        match self {
            Builder::Kaniko {
                executor,
                isolation: Isolation::Container,
            } => executor::build(executor, recipe, deadline, line).await,
            Builder::Kaniko {
                executor,
                isolation: Isolation::Chroot,
            } => root::build(executor, recipe, deadline, line).await,
            Builder::Buildah { program } => buildah::build(program, recipe, deadline, line).await,
        }
    }
}

impl Recipe {
    fn check(&self) -> Result<()> {
        check_context(&self.context)?;
        if !self.dockerfile.is_file() {
            return Err(
                Failure::usage(format!("there is no Dockerfile at {}", self.dockerfile.display()))
                    .hint("pass its path as --dockerfile (TOWPATH_DOCKERFILE)"),
            );
        }
        if self.destinations.is_empty() {
            return Err(Failure::internal("a build without a destination"));
        }
        Ok(())
    }
}

/// Checks that a build context is a folder, before anything is looked for in it.
///
/// # Errors
/// Usage (exit 2), naming it.
pub fn check_context(context: &Path) -> Result<()> {
    if context.is_dir() {
        return Ok(());
    }
    Err(
        Failure::usage(format!("the build context {} is not a folder", context.display()))
            .hint("pass the folder that COPY reads from as --context (TOWPATH_CONTEXT)"),
    )
}

/// Finds the builder to use: the one asked for, else the first that is there of kaniko (the given path,
/// `/kaniko/executor`, `executor` on PATH) and buildah on PATH. The second value says in a sentence which one and why.
///
/// # Errors
/// Usage (exit 2) when none, or not the one asked for, is there.
pub fn find(
    asked: Option<&str>,
    kaniko: Option<&Path>,
    isolation: Option<Isolation>,
    search_path: &[PathBuf],
) -> Result<(Builder, String)> {
    let on_path = |name: &str| {
        search_path
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    };
    let own = Path::new("/kaniko/executor");
    let executor = match kaniko {
        Some(path) if path.is_file() => Some((path.to_owned(), "named by --kaniko (TOWPATH_KANIKO)")),
        Some(path) => {
            return Err(
                Failure::usage(format!("there is no kaniko executor at {}", path.display()))
                    .hint("correct or unset --kaniko (TOWPATH_KANIKO)"),
            );
        }
        None if own.is_file() => Some((own.to_owned(), "this is kaniko's container")),
        None => on_path("executor").map(|path| (path, "found on PATH")),
    };
    let chosen_isolation = |executor: &Path| {
        isolation.unwrap_or(if executor == own {
            Isolation::Container
        } else {
            Isolation::Chroot
        })
    };
    match (asked, executor) {
        (None | Some("kaniko"), Some((executor, why))) => {
            let isolation = chosen_isolation(&executor);
            let place = match isolation {
                Isolation::Container => "in this container",
                Isolation::Chroot => "in a private root",
            };
            Ok((
                Builder::Kaniko { executor, isolation },
                format!("kaniko {place}: {why}"),
            ))
        }
        (Some("kaniko"), None) => Err(Failure::usage("the kaniko executor is not there")
            .hint("name it by --kaniko (TOWPATH_KANIKO), put it on PATH, or use --builder buildah")),
        (asked, _) => {
            let program = on_path("buildah").ok_or_else(|| {
                Failure::usage("no image builder is there: neither the kaniko executor nor buildah")
                    .hint("use an image with one of them, or name the executor by --kaniko (TOWPATH_KANIKO)")
            })?;
            let why = if asked.is_some() {
                "asked for"
            } else {
                "no kaniko executor is here"
            };
            Ok((Builder::Buildah { program }, format!("buildah: {why}")))
        }
    }
}

/// Takes what is secret in a job out of a builder's environment.
fn without_secrets(command: Command) -> Command {
    JOB_SECRETS
        .into_iter()
        .fold(command, |command, name| command.env_remove(name))
}

/// Turns a builder's bad end into a failure that says what it was.
fn ended_badly(name: &str, ended: &Ended) -> Failure {
    let code = ended.code();
    let hint = match code {
        137 => "it was killed, most often for want of memory: raise the job's memory limit",
        143 => "it was stopped from outside",
        _ => "the builder's own lines above say which step failed",
    };
    // The log above has all of it; these few are for whoever sees the failure alone.
    let lines: Vec<&str> = ended.tail.lines().collect();
    let tail = match lines.len() {
        0 => "it printed nothing".to_owned(),
        count => lines[count.saturating_sub(LAST_LINES)..].join("\n"),
    };
    Failure::unsuccessful(format!("{name} ended with code {code}"))
        .because(tail)
        .hint(hint)
}

/// Reads the digest file that both builders write.
fn read_digest(path: &Path, name: &str) -> Result<Built> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::internal(format!("{name} ended well but left no digest")).because(error))?;
    let digest = text.trim();
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Failure::internal(format!(
            "{name} wrote a digest that is none: {digest:?}"
        )));
    }
    Ok(Built {
        digest: digest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn kaniko_comes_before_buildah() {
        let both = folder_with(&["executor", "buildah"]);
        let path = [both.path().to_owned()];
        let (builder, why) = find(None, None, None, &path).unwrap();
        assert_eq!(builder.name(), "kaniko");
        assert!(why.contains("private root"), "{why}");
        assert_eq!(
            find(Some("buildah"), None, None, &path).unwrap().0.name(),
            "buildah"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let only_buildah = folder_with(&["buildah"]);
        let path = [only_buildah.path().to_owned()];
        assert_eq!(find(None, None, None, &path).unwrap().0.name(), "buildah");
        assert_eq!(
            find(Some("kaniko"), None, None, &path)
                .expect_err("no kaniko")
                .kind(),
            Kind::Usage
        );
        assert_eq!(
            find(None, None, None, &[]).expect_err("nothing").kind(),
            Kind::Usage
        );
        let failure = find(None, Some(Path::new("/nowhere/executor")), None, &path).expect_err("wrong path");
        assert!(failure.message().contains("/nowhere/executor"));
    }

    #[test]
    fn a_context_that_is_no_folder_is_named() {
        let failure = check_context(Path::new("/nowhere/app")).expect_err("no folder");
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(failure.message().contains("/nowhere/app"));
        check_context(folder_with(&[]).path()).unwrap();
    }

    #[test]
    fn a_digest_file_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest");
        assert!(read_digest(&path, "kaniko").is_err());
        std::fs::write(&path, "sha256:abc").unwrap();
        assert!(read_digest(&path, "kaniko").is_err());
        let digest = format!("sha256:{}", "0a".repeat(32));
        std::fs::write(&path, &digest).unwrap();
        assert_eq!(read_digest(&path, "kaniko").unwrap().digest, digest);
    }
}
