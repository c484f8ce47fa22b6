//! The folder of commands that jobs find first on their `PATH`.
//!
//! Most are links. Programs of unpacked packages need their libraries, and buildah its settings as well, so these are
//! scripts. The folder's name says what it holds: other tools make another folder, and a running world keeps its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::cache::{Cache, Lock};
use super::progress::Progress;
use super::{outside, search_path};

/// The commands to offer.
#[derive(Debug, Default)]
pub(super) struct Commands {
    commands: Vec<(&'static str, How)>,
}

#[derive(Debug)]
enum How {
    Link(PathBuf),
    Libraries { program: PathBuf, folders: Vec<PathBuf> },
    Buildah { program: PathBuf, folders: Vec<PathBuf> },
}

impl Commands {
    /// A command that runs as it is.
    pub(super) fn link(&mut self, name: &'static str, program: &Path) {
        self.commands.push((name, How::Link(program.to_owned())));
    }

    /// A command that needs libraries from these folders.
    pub(super) fn with_libraries(&mut self, name: &'static str, program: &Path, folders: Vec<PathBuf>) {
        if folders.is_empty() {
            return self.link(name, program);
        }
        self.commands.push((
            name,
            How::Libraries {
                program: program.to_owned(),
                folders,
            },
        ));
    }

    /// buildah, in namespaces of its own.
    pub(super) fn buildah(&mut self, program: &Path, folders: Vec<PathBuf>) {
        self.commands.push((
            "buildah",
            How::Buildah {
                program: program.to_owned(),
                folders,
            },
        ));
    }

    /// The folder that holds them, made when it is not there: under `lock`, if the caller holds it already.
    pub(super) async fn folder(
        &self,
        cache: &Cache,
        lock: Option<Lock>,
        progress: &Progress,
    ) -> anyhow::Result<PathBuf> {
        let sum = Sha256::digest(format!("{:?} {BUILDAH}", self.commands));
        let name = format!(
            "bin-{}",
            sum.iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        );
        if let Some(folder) = cache.entry(&name) {
            return Ok(folder);
        }
        let lock = match lock {
            Some(lock) => lock,
            None => cache.lock(progress).await?,
        };
        if let Some(folder) = cache.entry(&name) {
            return Ok(folder);
        }
        let settings = cache.dir().join(&name).join(".buildah");
        cache
            .make(&lock, &name, async |partial| self.write(partial, &settings).await)
            .await
    }

    async fn write(&self, folder: &Path, settings: &Path) -> anyhow::Result<()> {
        for (name, how) in &self.commands {
            let file = folder.join(name);
            match how {
                How::Link(program) => symlink(program, file)?,
                How::Libraries { program, folders } => {
                    let path = std::env::join_paths(folders)?;
                    let program = quoted(program)?;
                    let path = quoted(Path::new(&path))?;
                    write_script(
                        &file,
                        &format!("#!/bin/sh\nLD_LIBRARY_PATH={path} exec {program} \"$@\"\n"),
                    )?;
                }
                How::Buildah { program, folders } => {
                    let own = folder.join(".buildah");
                    fs::create_dir(&own)?;
                    for (name, text) in BUILDAH_SETTINGS {
                        fs::write(own.join(name), text)?;
                    }
                    let cache = own.join("ld.so.cache");
                    if !folders.is_empty() {
                        write_loader_cache(folders, &cache).await?;
                    }
                    let script = BUILDAH
                        .replace("@SETTINGS@", &quoted(settings)?)
                        .replace("@PROGRAM@", &quoted(program)?);
                    write_script(&file, &script)?;
                }
            }
        }
        Ok(())
    }
}

/// The wrapper of buildah. Five things need it:
/// - buildah starts itself again with an empty environment, so an unpacked package's libraries cannot be named by
///   `LD_LIBRARY_PATH`; instead the loader finds them through a cache file that only this process sees;
/// - its mounts and its RUN steps must not outlive it, so it has mount and process namespaces of its own;
/// - it refuses to work without a signature policy, and has no environment variable that names one;
/// - it notes blobs in `/var/lib/containers` whatever storage it was given, unless it may not write there;
/// - it looks for signatures there, and ends when only root may look: it is shown an empty folder.
const BUILDAH: &str = r#"#!/bin/sh
settings=@SETTINGS@
export CONTAINERS_CONF="${CONTAINERS_CONF:-$settings/containers.conf}"
export CONTAINERS_REGISTRIES_CONF="${CONTAINERS_REGISTRIES_CONF:-$settings/registries.conf}"
export CONTAINERS_STORAGE_CONF="${CONTAINERS_STORAGE_CONF:-$settings/storage.conf}"

# The policy is an option of the subcommand, which stands after the first word that names one.
count=$#
placed=
while [ "$count" -gt 0 ]; do
	argument=$1
	shift
	count=$((count - 1))
	set -- "$@" "$argument"
	case $placed$argument in
	bud | build | build-using-dockerfile | commit | from | pull | push)
		set -- "$@" --signature-policy "$settings/policy.json"
		placed=yes
		;;
	esac
done

[ "$(id -u)" = 0 ] || user='--map-root-user --map-auto'
exec unshare ${user:-} --mount --pid --fork --kill-child --mount-proc sh -c '
	settings=$0
	if [ -e "$settings/ld.so.cache" ]; then
		mount --bind "$settings/ld.so.cache" /etc/ld.so.cache || exit
	fi
	case ${TMPDIR:-/tmp} in
	/var/lib/*) ;;
	*)
		mount --bind /var/lib /var/lib && mount -o remount,bind,ro /var/lib || exit
		if [ -d /var/lib/containers ]; then
			mount -t tmpfs -o ro none /var/lib/containers || exit
		fi
		;;
	esac
	exec "$@"' "$settings" @PROGRAM@ "$@"
"#;

const BUILDAH_SETTINGS: &[(&str, &str)] = &[
    ("containers.conf", ""),
    ("registries.conf", "unqualified-search-registries = []\n"),
    ("storage.conf", "[storage]\ndriver = \"vfs\"\n"),
    (
        "policy.json",
        "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}\n",
    ),
];

async fn write_loader_cache(folders: &[PathBuf], cache: &Path) -> anyhow::Result<()> {
    let ldconfig = search_path::find("ldconfig")
        .or_else(|| {
            ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
                .map(PathBuf::from)
                .into_iter()
                .find(|p| p.exists())
        })
        .context("ldconfig is neither on PATH nor in /sbin (Debian: libc-bin)")?;
    let mut configuration = tempfile::NamedTempFile::new()?;
    let mut text: String = folders
        .iter()
        .map(|folder| format!("{}\n", folder.display()))
        .collect();
    text.push_str("include /etc/ld.so.conf\n");
    std::io::Write::write_all(&mut configuration, text.as_bytes())?;
    // It would also write to the machine's own notes, if it may: it is given empty ones.
    const WITH_OWN_NOTES: &str = "if [ -d /var/cache/ldconfig ]; then mount -t tmpfs none /var/cache/ldconfig || exit; fi; exec \"$@\"";
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", WITH_OWN_NOTES, "sh"])
            .arg(ldconfig);
        command
    } else {
        Command::new(ldconfig)
    };
    command
        .arg("-X")
        .arg("-C")
        .arg(cache)
        .arg("-f")
        .arg(configuration.path());
    outside::output_of(&mut command, Duration::from_secs(60)).await?;
    Ok(())
}

fn write_script(file: &Path, text: &str) -> std::io::Result<()> {
    fs::write(file, text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().context("a path in the cache is not UTF-8")?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_path_stays_one_word_of_the_shell() {
        let quoted = quoted(Path::new("/it's here")).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {quoted}")])
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"/it's here");
    }
}
