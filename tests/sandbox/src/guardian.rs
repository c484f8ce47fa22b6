//! Owns one world's temporary folder and every process of that world, and leaves neither behind.
//!
//! Three nets, each for the failure of the one before:
//! - [`Guardian::stop`], and dropping, end the world's processes (TERM, then KILL) and remove the folder;
//! - a tiny detached shell waits on a pipe that only the owner holds and does the same when the owner dies, even by
//!   `kill -9`; the kernel kills the owner's direct children at that moment (`PR_SET_PDEATHSIG`);
//! - should that shell have died too, the next [`Guardian::start`] removes the folders whose owner is gone.
//!
//! Deliberately absent: control groups and PID namespaces, which need rights that a developer's shell lacks.

mod processes;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Signal, getppid, getuid, set_parent_process_death_signal, setsid};

pub use processes::WORLD_VARIABLE;
use processes::{Ending, Mark};

const PREFIX: &str = "towpath-world-";
/// Locked by the owner for as long as it lives; the kernel lets go of the lock when the owner dies.
const LOCK: &str = "owner.lock";
const WATCHER: &str = include_str!("guardian/watcher.sh");
/// A folder without a lock file is one being made, unless it is older than this.
const UNLOCKED_FOR: Duration = Duration::from_secs(60);

/// A running world's owner: see the module's documentation.
#[derive(Debug)]
pub struct Guardian {
    mark: Mark,
    _lock: File,
    /// `None` once the world is stopped.
    watcher: Option<Child>,
}

impl Guardian {
    /// Makes an empty world below the system's temporary folder, and first removes the worlds whose owner is gone.
    ///
    /// # Errors
    /// When the folder cannot be made or the watching shell (`sh`) cannot be started.
    pub fn start() -> anyhow::Result<Self> {
        remove_abandoned();
        let parent = std::env::temp_dir();
        let parent = parent
            .canonicalize()
            .with_context(|| format!("finding the folder {}", parent.display()))?;
        // The watcher comes before the folder: there is no moment at which a killed owner would leave one behind.
        let made = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(12)
            .make_in(&parent, |path| {
                let mut watcher = watch(path)?;
                match fs::DirBuilder::new().mode(0o700).create(path) {
                    Ok(()) => Ok(watcher),
                    Err(error) => {
                        // Somebody else's folder may be there: it is not the watcher's to remove.
                        let _ = dismiss(&mut watcher);
                        Err(error)
                    }
                }
            })
            .with_context(|| {
                format!(
                    "making a folder below {} with sh to watch over it",
                    parent.display()
                )
            })?;
        let (watcher, path) = made.keep().context("keeping the world's folder")?;
        let id = path
            .file_name()
            .and_then(OsStr::to_str)
            .context("the temporary folder has no name")?
            .to_owned();
        // When one of these fails the watcher sees its pipe end, and removes the folder.
        let lock = lock(&path).with_context(|| format!("locking {}", path.display()))?;
        fs::create_dir(path.join("tmp"))?;
        Ok(Self {
            mark: Mark { id, folder: path },
            _lock: lock,
            watcher: Some(watcher),
        })
    }

    /// The world's folder: mode 0700, an absolute path, with an empty `tmp` inside that is the processes' `TMPDIR`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.mark.folder
    }

    /// The world's id, which each of its processes carries in [`WORLD_VARIABLE`].
    #[must_use]
    pub fn id(&self) -> &str {
        &self.mark.id
    }

    /// A command whose process, and all that it starts, belongs to this world.
    ///
    /// The child has its own process group (a Ctrl-C at the terminal reaches the owner alone, which then stops the
    /// world in order), no standard input, and the world's `tmp` as its `TMPDIR`. The kernel kills it when the
    /// *thread* that spawned it ends, so spawn long-lived processes from the runtime's thread, never from
    /// `spawn_blocking`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> tokio::process::Command {
        let mut command = std::process::Command::new(program);
        self.adopt(&mut command);
        tokio::process::Command::from(command)
    }

    /// The same as [`Guardian::command`], with no environment but `PATH` and the world's folder as `HOME`: for servers,
    /// many of which read settings from variables that a developer's shell may hold.
    pub fn bare_command(&self, program: impl AsRef<OsStr>) -> tokio::process::Command {
        let mut command = std::process::Command::new(program);
        command.env_clear().env("HOME", &self.mark.folder);
        command.env("PATH", path());
        self.adopt(&mut command);
        tokio::process::Command::from(command)
    }

    /// Ends every process of the world, undoes mounts below its folder and removes the folder. Other tasks of the
    /// runtime run meanwhile, so that a process may still talk to a stand-in while it ends.
    ///
    /// # Errors
    /// When a process outlasts KILL or a file cannot be removed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut ending = Ending::of(&self.mark);
        while let Some(wait) = ending.look()? {
            tokio::time::sleep(wait).await;
        }
        self.remove_folder()
    }

    fn adopt(&self, command: &mut std::process::Command) {
        command
            .env(WORLD_VARIABLE, &self.mark.id)
            .env("TMPDIR", self.mark.folder.join("tmp"));
        command.stdin(Stdio::null()).process_group(0);
        end_with_us(command);
    }

    fn remove_folder(&mut self) -> anyhow::Result<()> {
        remove_tree(&self.mark.folder).with_context(|| format!("removing {}", self.mark.folder.display()))?;
        let Some(mut watcher) = self.watcher.take() else {
            return Ok(());
        };
        dismiss(&mut watcher).context("telling the watching shell that all is done")
    }
}

/// Has the kernel kill the command's process when the thread ends that starts it, even by `kill -9`.
pub(crate) fn end_with_us(command: &mut std::process::Command) {
    let owner = std::process::id();
    before_exec(command, move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The owner may have died before the call above could take effect.
        if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) == Some(owner) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    });
}

impl Drop for Guardian {
    /// The same as [`Guardian::stop`], holding up the thread for as long as that takes. What fails here is left to the
    /// watching shell, which sees its pipe end.
    fn drop(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        if end_all(&self.mark).is_ok() {
            let _ = self.remove_folder();
        }
    }
}

/// Removes the worlds of this user whose owner is gone, and ends what they left running. Answers the folders it removed.
///
/// What cannot be removed stays for the next time: an old world must not keep a new one from starting.
pub fn remove_abandoned() -> Vec<PathBuf> {
    let Ok(parent) = std::env::temp_dir().canonicalize() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let folder = entry.path();
        let Some(id) = entry
            .file_name()
            .to_str()
            .filter(|name| name.starts_with(PREFIX))
            .map(str::to_owned)
        else {
            continue;
        };
        if is_abandoned(&folder).unwrap_or(false)
            && end_all(&Mark {
                id,
                folder: folder.clone(),
            })
            .is_ok()
            && remove_tree(&folder).is_ok()
        {
            removed.push(folder);
        }
    }
    removed
}

fn is_abandoned(folder: &Path) -> io::Result<bool> {
    let facts = fs::symlink_metadata(folder)?;
    if !facts.is_dir() || facts.uid() != getuid().as_raw() {
        return Ok(false);
    }
    match File::open(folder.join(LOCK)) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(facts.modified()?.elapsed().is_ok_and(|age| age > UNLOCKED_FOR))
        }
        Err(error) => Err(error),
    }
}

fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into())
}

/// The lock file gets its name only once it is locked, so that nobody ever sees it unlocked while its owner lives.
fn lock(folder: &Path) -> io::Result<File> {
    let unnamed = folder.join("owner.lock.new");
    let file = File::create(&unnamed)?;
    file.lock()?;
    fs::rename(unnamed, folder.join(LOCK))?;
    Ok(file)
}

fn watch(folder: &Path) -> io::Result<Child> {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", WATCHER, "towpath-watcher"]);
    command.args(folder.file_name()).arg(folder);
    command.env_clear().env("LC_ALL", "C");
    command.env("PATH", path());
    command
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its own session, so that neither the terminal nor a signal to the owner's group reaches it.
    before_exec(&mut command, || setsid().map(drop).map_err(io::Error::from));
    command.spawn()
}

fn dismiss(watcher: &mut Child) -> io::Result<()> {
    if let Some(mut pipe) = watcher.stdin.take() {
        pipe.write_all(b"done\n")?;
    }
    watcher.wait().map(drop)
}

fn before_exec(
    command: &mut std::process::Command,
    call: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: both callers' closures make plain system calls only (prctl, getppid, setsid): they neither allocate nor
    // take a lock, so they may run between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(call);
    }
}

fn end_all(mark: &Mark) -> anyhow::Result<()> {
    let mut ending = Ending::of(mark);
    while let Some(wait) = ending.look()? {
        std::thread::sleep(wait);
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    // First of all, since removing through a bind mount would remove what lies at its other end.
    for point in mounts_below(folder)? {
        unmount(&point, UnmountFlags::DETACH)?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Some tools leave folders that not even their owner may write to.
            make_writable(folder)?;
            fs::remove_dir_all(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Mount points below a folder, innermost first.
fn mounts_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // The fifth field is the mount point, in which the kernel writes a space as \040.
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "));
    let mut points: Vec<PathBuf> = points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect();
    points.reverse();
    Ok(points)
}

fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}
