//! Which program builds images here, and why that one.
//!
//! kaniko comes first, since it is what builds on the runners. It works in a private root (unshare and chroot), so only
//! root can use it outside a container. buildah builds where kaniko cannot be had.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::geteuid;
use tokio::process::Command;

use super::cache::Cache;
use super::install::Installer;
use super::outside;
use super::search_path::{self, Answers};

const VERSION: &str = "v1.28.3";
const MODULE: &str = "github.com/osscontainertools/kaniko/cmd/executor";
/// From no module in Go's cache on two cores it takes about 80 s.
const DEADLINE: Duration = Duration::from_secs(900);
/// A module that cannot be had now will hardly be there at the next run, which need not wait for another refusal.
const REFUSAL_HOLDS: Duration = Duration::from_secs(24 * 60 * 60);

/// What kind of builder was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderKind {
    /// kaniko's executor, to be run in a private root.
    Kaniko,
    /// buildah, which is run as it is.
    Buildah,
}

impl BuilderKind {
    /// `kaniko` or `buildah`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kaniko => "kaniko",
            Self::Buildah => "buildah",
        }
    }
}

/// The program that builds images, see [`BuilderKind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    /// Which one it is.
    pub kind: BuilderKind,
    /// Its absolute path.
    pub program: PathBuf,
    /// One sentence that says which builder it is and why.
    pub why: String,
}

/// Whether kaniko can build here.
#[derive(Debug)]
pub(super) enum Kaniko {
    Ready {
        program: PathBuf,
        why: String,
    },
    /// `go install` may get it.
    Installable,
    Unavailable {
        why: String,
    },
}

impl Kaniko {
    /// Looks without installing anything.
    ///
    /// # Errors
    /// When `TOWPATH_KANIKO` names no program: whoever set it wants that one, so no other is taken in silence.
    pub(super) async fn look(cache: &Cache, answers: &mut Answers) -> anyhow::Result<Self> {
        let given = match std::env::var_os("TOWPATH_KANIKO") {
            Some(path) if path.is_empty() => bail!("TOWPATH_KANIKO is set but empty"),
            Some(path) => {
                let program = std::path::absolute(PathBuf::from(path))?;
                if !search_path::is_program(&program) {
                    bail!("TOWPATH_KANIKO names {}, which is no program", program.display());
                }
                Some((program, "TOWPATH_KANIKO names it"))
            }
            None => None,
        };
        if !geteuid().is_root() {
            let why = "kaniko needs a private root, which only root can make".to_owned();
            return Ok(Self::Unavailable { why });
        }
        if let Some((program, why)) = given {
            return Ok(Self::Ready {
                program,
                why: why.to_owned(),
            });
        }
        if let Some(program) = search_path::find("executor")
            && answers
                .ask(&program, &["version"])
                .await
                .is_some_and(|said| said.contains("Kaniko"))
        {
            return Ok(Self::Ready {
                program,
                why: "its executor is on PATH".to_owned(),
            });
        }
        let image = Path::new("/kaniko/executor");
        if search_path::is_program(image) {
            return Ok(Self::Ready {
                program: image.to_owned(),
                why: "this is kaniko's own image".to_owned(),
            });
        }
        if let Some(entry) = cache.entry(&entry()) {
            let why = format!("Go built {VERSION} from its module");
            return Ok(Self::Ready {
                program: entry.join("executor"),
                why,
            });
        }
        if search_path::find("go").is_none() {
            return Ok(Self::Unavailable {
                why: "there is no kaniko here, and no Go to build it with".to_owned(),
            });
        }
        Ok(match refusal(cache) {
            Some(why) => Self::Unavailable { why },
            None => Self::Installable,
        })
    }

    /// Lets Go build it. A failure is no error, for there is a second builder; it is remembered for a day.
    pub(super) async fn install(installer: &Installer<'_>) -> anyhow::Result<Self> {
        let name = entry();
        let made = installer.cache.make(installer.lock, &name, async |partial| {
            let mut go = installer.guardian.command("go");
            // The private root has no C library.
            go.args(["install", &format!("{MODULE}@{VERSION}")])
                .env("GOBIN", partial)
                .env("CGO_ENABLED", "0");
            outside::output_of(&mut go, DEADLINE).await.map(drop)
        });
        match installer
            .progress
            .step(format!("build kaniko {VERSION} with Go"), made)
            .await
        {
            Ok(entry) => {
                let why = format!("Go built {VERSION} from its module");
                Ok(Self::Ready {
                    program: entry.join("executor"),
                    why,
                })
            }
            Err(error) => {
                fs::write(refusal_file(installer.cache), format!("{error:#}\n"))
                    .context("remembering that kaniko cannot be had")?;
                let why = refusal(installer.cache).context("reading back why kaniko cannot be had")?;
                installer.progress.note(format!("buildah will build: {why}"));
                Ok(Self::Unavailable { why })
            }
        }
    }
}

/// Writes a storage configuration for buildah that keeps images, layers and state below `folder`, and answers the
/// file: pass it to buildah as `CONTAINERS_STORAGE_CONF`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_storage_conf(folder: &Path) -> io::Result<PathBuf> {
    let file = folder.join("storage.conf");
    let folder = folder.display();
    // Plain copies of layers need no rights and no kernel module, and the images here are small.
    let text =
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{folder}/images\"\nrunroot = \"{folder}/run\"\n");
    fs::write(&file, text)?;
    Ok(file)
}

/// What keeps either builder from running here, if anything does.
pub(super) async fn obstacle() -> Option<String> {
    if search_path::find("unshare").is_none() {
        return Some("unshare is not on PATH (Debian: util-linux)".to_owned());
    }
    let mut unshare = Command::new("unshare");
    if !geteuid().is_root() {
        // A RUN step sets its groups, which takes more than the one user and group that anybody may map.
        unshare.args(["--map-root-user", "--map-auto"]);
    }
    unshare.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "true",
    ]);
    if outside::succeeds(&mut unshare, Duration::from_secs(20)).await {
        return None;
    }
    Some(if geteuid().is_root() {
        "this root may not make namespaces: give the container CAP_SYS_ADMIN, or run outside of one"
            .to_owned()
    } else {
        "this user may not map users and groups: run as root, or install newuidmap (Debian: uidmap) and give the user \
         a range in /etc/subuid and /etc/subgid"
            .to_owned()
    })
}

fn entry() -> String {
    format!("kaniko-{VERSION}-{}", std::env::consts::ARCH)
}

fn refusal_file(cache: &Cache) -> PathBuf {
    cache.dir().join(format!("{}.refused", entry()))
}

/// Why the last attempt failed, when that was not long ago.
fn refusal(cache: &Cache) -> Option<String> {
    let file = refusal_file(cache);
    let age = fs::metadata(&file).ok()?.modified().ok()?.elapsed().ok()?;
    let said = fs::read_to_string(file).ok()?;
    // The sentence has room for the gist: what Go says last, without its long paths.
    let gist = said.lines().rfind(|line| !line.trim().is_empty())?.trim();
    (age < REFUSAL_HOLDS).then(|| format!("Go could not get kaniko's module ({gist})"))
}
