//! Image builders: kaniko first, buildah where kaniko cannot be had.
//!
//! A [`Recipe`] says what to build; a [`Builder`] does it, and leaves the image in an OCI layout. It pushes nothing but a
//! cache: what it may push with, the steps of a build could read, and the bytes that were looked at are the ones that
//! have to go. kaniko wipes the file system it runs in between the stages of a build. In its own container that is meant
//! to happen; anywhere else it is run in a private root (`root`).
//!
//! Facts about kaniko were checked with the executor 1.28.3 of osscontainertools/kaniko, about buildah with 1.28.2.
//!
//! Deliberately absent: which tags and labels an image gets. That is the tool's decision.

mod base;
mod buildah;
mod container;
pub mod dockerfile;
mod executor;
mod ground;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod root;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::oci::platform::Platform;
use crate::oci::reference::Reference;
use crate::process::Ended;
use crate::secret::Secret;

pub use base::{BasePattern, full_name};
use ground::Ground;

/// What a builder keeps of a job's environment. A RUN step is no child of ours, but in a container of its own it can read
/// the builder's environment in `/proc`, so that nothing of a job's may be there that is not needed. `DOCKER_AUTH_CONFIG`
/// would also take precedence over the logins that are meant, and runners often set it to something else.
const KEPT_VARIABLES: [&str; 13] = [
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "GODEBUG",
    "GOMEMLIMIT",
    "GOMAXPROCS",
];

/// How many of a builder's last lines stand in its failure.
const LAST_LINES: usize = 5;

/// The annotations that are set besides the labels of the same names.
const ANNOTATED: &str = "org.opencontainers.image.";
/// Less than this is no room, in bytes.
const NO_ROOM: u64 = 16 * 1024 * 1024;

/// What to build.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The folder that `COPY` and `ADD` read from.
    pub context: PathBuf,
    /// Where the Dockerfile is: an ignore file may stand beside it.
    pub dockerfile: PathBuf,
    /// The Dockerfile that is built, which may name other images than the one that is there.
    pub dockerfile_text: String,
    /// Labels of the image's configuration. Those of the specification become annotations of its manifest, too.
    pub labels: BTreeMap<String, String>,
    /// Values for the Dockerfile's `ARG` lines. Not for secrets: they end up in the image's history.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build, where it is not the last one.
    pub target: Option<String>,
    /// What the image runs on, where that is not what this machine is.
    pub platform: Option<Platform>,
    /// Stamped on the image and its files, so that the same commit gives the same digest.
    pub created: Option<Timestamp>,
    /// Registry hosts (`host[:port]`) that speak plain http.
    pub plain_http: Vec<String>,
    /// The registry hosts that the builder speaks to.
    pub hosts: Vec<String>,
    /// A PEM file with certificates to trust at those, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The `config.json` with the logins that the builder needs; none for no login.
    pub logins: Option<Secret>,
    /// Where finished steps are kept for the next build.
    pub cache: Option<Cache>,
    /// kaniko's own folder, when it runs in its container.
    pub kaniko_folder: PathBuf,
    /// The builder's environment; see [`is_kept`].
    pub environment: Vec<(OsString, OsString)>,
}

/// A repository with the results of finished steps. Whoever may write there decides what is built.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Without tag and digest.
    pub repository: Reference,
    /// How old a result may be.
    pub longest: Option<Duration>,
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

/// What a builder left. The layout is removed when this is dropped.
#[derive(Debug)]
pub struct Built {
    /// The digest of the manifest, as the builder told it.
    pub digest: String,
    /// The OCI layout that holds the image, and nothing else.
    pub layout: PathBuf,
    _ground: Ground,
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

    /// The folder that the builder keeps to itself, as the steps of a build see it: what is written there stays out of the
    /// image. `kaniko_folder` is kaniko's own where it runs in its container.
    #[must_use]
    pub fn own_folder<'a>(&self, kaniko_folder: &'a Path) -> Option<&'a Path> {
        match self {
            Builder::Kaniko {
                isolation: Isolation::Container,
                ..
            } => Some(kaniko_folder),
            Builder::Kaniko {
                isolation: Isolation::Chroot,
                ..
            } => Some(Path::new(root::KANIKO)),
            Builder::Buildah { .. } => None,
        }
    }

    /// Refuses to have the file system wiped that this runs in, unless it is a container's. `in_kubernetes` says whether
    /// Kubernetes told so.
    ///
    /// # Errors
    /// Denied (exit 4), naming what would be deleted.
    pub fn check_place(&self, in_kubernetes: bool) -> Result<()> {
        match self {
            Builder::Kaniko {
                isolation: Isolation::Container,
                ..
            } => container::check(in_kubernetes),
            _ => Ok(()),
        }
    }

    /// Builds. Each line that the builder prints goes to `line`, redacted.
    ///
    /// # Errors
    /// Unsuccessful (exit 8) when the build fails, with the builder's exit code and last lines; denied (exit 4) when
    /// a private root is needed and cannot be made; usage (exit 2) when the builder is not there; deadline (exit 9).
    pub async fn build(&self, recipe: &Recipe, deadline: Deadline, line: impl FnMut(&str)) -> Result<Built> {
        check_context(&recipe.context)?;
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
    /// The labels that become annotations, too.
    fn annotations(&self) -> impl Iterator<Item = (&String, &String)> {
        self.labels.iter().filter(|(name, _)| name.starts_with(ANNOTATED))
    }
}

/// Whether a builder is given this variable of a job.
#[must_use]
pub fn is_kept(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let is_proxy = upper.ends_with("_PROXY") && KEPT_VARIABLES.contains(&upper.as_str());
    is_proxy || KEPT_VARIABLES.contains(&name) || name.starts_with("FF_KANIKO_")
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

/// The whole path of a file, which stays its own when a build wipes what is around us.
///
/// # Errors
/// Usage (exit 2) when the path is relative, and the folder that we stand in is gone.
pub fn standing(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Failure::usage(format!(
            "the folder that {} is relative to is gone",
            path.display()
        ))
        .because(error)
        .hint(
            "a build in this container wiped it: go into the project's folder again (cd \"$CI_PROJECT_DIR\")",
        )
    })
}

/// Makes the folder of a file again that a build in this container may have wiped.
///
/// # Errors
/// Internal (exit 1) when it cannot be made.
pub fn restore_folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::internal(format!("cannot make the folder {} again", folder.display())).because(error)
    })
}

/// Finds the builder to use: the one asked for, else the first that is there of kaniko (the given path, `executor` in
/// kaniko's own folder, `executor` on PATH) and buildah on PATH. The second value says in a sentence which one and why.
///
/// # Errors
/// Usage (exit 2) when none, or not the one asked for, is there.
pub fn find(
    asked: Option<&str>,
    kaniko: Option<&Path>,
    kaniko_folder: &Path,
    isolation: Option<Isolation>,
    search_path: &[PathBuf],
) -> Result<(Builder, String)> {
    let on_path = |name: &str| {
        search_path
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    };
    let own = kaniko_folder.join("executor");
    let executor = match kaniko {
        Some(path) if path.is_file() => Some((path.to_owned(), "named by --kaniko (TOWPATH_KANIKO)")),
        Some(path) => {
            return Err(
                Failure::usage(format!("there is no kaniko executor at {}", path.display()))
                    .hint("correct or unset --kaniko (TOWPATH_KANIKO)"),
            );
        }
        None if own.is_file() => Some((own.clone(), "this is kaniko's container")),
        None => on_path("executor").map(|path| (path, "found on PATH")),
    };
    let chosen_isolation = |executor: &Path| {
        isolation.unwrap_or(if executor == own.as_path() {
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

/// Turns a builder's bad end into a failure that says what it was. `place` is the folder it worked in.
fn ended_badly(name: &str, ended: &Ended, place: &Path) -> Failure {
    let code = ended.code();
    let room = rustix::fs::statvfs(place).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    let hint = match code {
        _ if room < NO_ROOM => {
            "the disk is full: give the job more room, or another temporary folder (TMPDIR)"
        }
        137 => "it was killed, most often for want of memory: raise the job's memory limit",
        143 => "it was stopped from outside",
        255 => "a step that is killed ends so, most often for want of memory: raise the job's memory limit",
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
fn finish(ground: Ground, digest_file: &Path, layout: PathBuf, name: &str) -> Result<Built> {
    let digest = read_digest(digest_file, name)?;
    if !layout.join("index.json").is_file() {
        return Err(Failure::internal(format!("{name} ended well but left no image")));
    }
    Ok(Built {
        digest,
        layout,
        _ground: ground,
    })
}

fn read_digest(path: &Path, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::internal(format!("{name} ended well but left no digest")).because(error))?;
    let digest = text.trim();
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Failure::internal(format!(
            "{name} wrote a digest that is none: {digest:?}"
        )));
    }
    Ok(digest.to_owned())
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

    fn nowhere() -> &'static Path {
        Path::new("/nowhere")
    }

    #[test]
    fn kaniko_comes_before_buildah() {
        let both = folder_with(&["executor", "buildah"]);
        let path = [both.path().to_owned()];
        let (builder, why) = find(None, None, nowhere(), None, &path).unwrap();
        assert_eq!(builder.name(), "kaniko");
        assert!(why.contains("private root"), "{why}");
        let (_, why) = find(None, None, both.path(), None, &[]).unwrap();
        assert!(why.contains("in this container"), "{why}");
        assert_eq!(
            find(Some("buildah"), None, nowhere(), None, &path)
                .unwrap()
                .0
                .name(),
            "buildah"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let only_buildah = folder_with(&["buildah"]);
        let path = [only_buildah.path().to_owned()];
        assert_eq!(
            find(None, None, nowhere(), None, &path).unwrap().0.name(),
            "buildah"
        );
        assert_eq!(
            find(Some("kaniko"), None, nowhere(), None, &path)
                .expect_err("no kaniko")
                .kind(),
            Kind::Usage
        );
        assert_eq!(
            find(None, None, nowhere(), None, &[])
                .expect_err("nothing")
                .kind(),
            Kind::Usage
        );
        let failure =
            find(None, Some(Path::new("/nowhere/executor")), nowhere(), None, &path).expect_err("wrong path");
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
        assert_eq!(read_digest(&path, "kaniko").unwrap(), digest);
    }
}
