//! Files that hold credentials: private, whole or not there, and never in place of somebody else's.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::registry;
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// The first line of each YAML file that is written, by which it is known again.
pub(super) const MARK: &str = "# Written by vault-scw-creds, which also removes it: vault-scw-creds revoke.";

/// For the owner alone.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// No file that is written here is anywhere near this many bytes.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// A place for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateFile {
    /// A `config.yaml` of Scaleway's tools.
    ScwConfig(PathBuf),
    /// The `config.json` in a folder that `DOCKER_CONFIG` can point to.
    DockerConfig(PathBuf),
    /// The manifest of a pull secret.
    PullSecret(PathBuf),
}

/// What writing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file is new.
    Created,
    /// It was there with this very content.
    Unchanged,
}

impl fmt::Display for PrivateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

impl PrivateFile {
    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            PrivateFile::ScwConfig(path) | PrivateFile::PullSecret(path) => path.clone(),
            PrivateFile::DockerConfig(folder) => folder.join("config.json"),
        }
    }

    /// Refuses a file inside the project folder, where it could become part of an artifact or a cache.
    ///
    /// # Errors
    /// Denied (exit 4) when it is inside; usage (exit 2) when the project folder is not there.
    pub fn check_outside(&self, project: &Path) -> Result<()> {
        if is_inside(&self.path(), project)? {
            return Err(Failure::denied(format!(
                "{self} is inside the project folder {}",
                project.display()
            ))
            .hint("artifacts and caches are taken from there: choose a place outside, or pass --force"));
        }
        Ok(())
    }

    /// Writes the file, for its owner alone. Nothing that is there is overwritten.
    ///
    /// # Errors
    /// Conflict (exit 6) when a file with other content is there; internal when it cannot be written.
    pub fn write(&self, content: &Secret) -> Result<Written> {
        let path = self.path();
        let broke = |error: io::Error| {
            Failure::internal(format!("cannot write {self}"))
                .because(error)
                .hint("may this user write there?")
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(broke)?;
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(folder)
            .map_err(broke)?;
        file.write_all(content.expose().as_bytes()).map_err(broke)?;
        file.write_all(b"\n").map_err(broke)?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(Written::Created),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let there = read(&path).map_err(broke)?;
                if there.trim_end() != content.expose() {
                    return Err(
                        Failure::conflict(format!("{self} is there and holds something else"))
                            .hint("remove it (`vault-scw-creds revoke`, if it was written by it), or choose another path"),
                    );
                }
                fs::set_permissions(&path, Permissions::from_mode(FILE_MODE)).map_err(broke)?;
                Ok(Written::Unchanged)
            }
            Err(error) => Err(broke(error.error)),
        }
    }

    /// Whether the file is there to be removed: written by [`PrivateFile::write`].
    ///
    /// # Errors
    /// Denied (exit 4) when the file is somebody else's; internal when it cannot be read.
    pub fn is_ours(&self) -> Result<bool> {
        let text = match read(&self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Failure::internal(format!("cannot read {self}")).because(error)),
        };
        let ours = match self {
            PrivateFile::ScwConfig(_) | PrivateFile::PullSecret(_) => text.lines().next() == Some(MARK),
            PrivateFile::DockerConfig(_) => registry::is_ours(&text),
        };
        if ours {
            return Ok(true);
        }
        Err(
            Failure::denied(format!("{self} was not written by vault-scw-creds"))
                .hint("remove it by hand, if it has to go"),
        )
    }

    /// Removes the file; false when there was none.
    ///
    /// # Errors
    /// As [`PrivateFile::is_ours`]; internal when it cannot be removed.
    pub fn remove(&self) -> Result<bool> {
        if !self.is_ours()? {
            return Ok(false);
        }
        fs::remove_file(self.path())
            .map_err(|error| Failure::internal(format!("cannot remove {self}")).because(error))?;
        if let PrivateFile::DockerConfig(folder) = self {
            // Docker may have put more into its folder; then it stays.
            let _ = fs::remove_dir(folder);
        }
        Ok(true)
    }
}

/// A folder for `DOCKER_CONFIG` that lasts as long as one command.
#[derive(Debug)]
pub struct DockerFolder {
    folder: TempDir,
}

impl DockerFolder {
    /// Makes the folder, in the system's temporary one, with a `config.json` in it.
    ///
    /// # Errors
    /// Denied (exit 4) when the temporary folder is inside the project; internal when it cannot be written.
    pub fn create(config: &Secret, project: Option<&Path>) -> Result<Self> {
        let place = std::env::temp_dir();
        if let Some(project) = project
            && is_inside(&place, project)?
        {
            return Err(Failure::denied(format!(
                "the temporary folder {} is inside the project folder {}",
                place.display(),
                project.display()
            ))
            .hint("artifacts and caches are taken from there: point TMPDIR elsewhere"));
        }
        let folder = tempfile::Builder::new()
            .prefix("docker-config-")
            .permissions(Permissions::from_mode(FOLDER_MODE))
            .tempdir()
            .map_err(|error| {
                Failure::internal(format!("cannot make a folder in {}", place.display()))
                    .because(error)
                    .hint("is TMPDIR there, and may this user write to it?")
            })?;
        PrivateFile::DockerConfig(folder.path().to_owned()).write(config)?;
        Ok(DockerFolder { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it with all that the command left in it. Dropping does the same, without a word when it fails.
    ///
    /// # Errors
    /// Internal (exit 1) when something in it cannot be removed.
    pub fn remove(self) -> Result<()> {
        let shown = self.path().display().to_string();
        self.folder.close().map_err(|error| {
            Failure::internal(format!("cannot remove {shown}, which holds a registry login"))
                .because(error)
                .hint("remove it by hand")
        })
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(SIZE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a path, which need not be there yet, lies inside a folder, which must; both seen through links.
fn is_inside(path: &Path, folder: &Path) -> Result<bool> {
    let unreadable = |what: &Path, error: io::Error| {
        Failure::usage(format!("cannot find {}", what.display()))
            .because(error)
            .hint("check the path, and --project-dir (CI_PROJECT_DIR)")
    };
    let folder = folder.canonicalize().map_err(|error| unreadable(folder, error))?;
    let path = std::path::absolute(path).map_err(|error| unreadable(path, error))?;
    // What is not there yet will be made below the last part that is.
    let real = path
        .ancestors()
        .find_map(|ancestor| ancestor.canonicalize().ok())
        .unwrap_or(path);
    Ok(real.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_private_and_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = PrivateFile::ScwConfig(folder.path().join("scw/config.yaml"));
        let content = Secret::new(format!("{MARK}\naccess_key: SCWX"));
        assert_eq!(file.write(&content).unwrap(), Written::Created);
        assert_eq!(mode(&file.path()), 0o600);
        assert_eq!(mode(&folder.path().join("scw")), 0o700);
        assert_eq!(file.write(&content).unwrap(), Written::Unchanged);
        let other = file
            .write(&Secret::new("access_key: SCWY"))
            .expect_err("other content");
        assert_eq!(other.kind(), Kind::Conflict);
        assert_eq!(
            fs::read_to_string(file.path()).unwrap().trim_end(),
            content.expose()
        );
        let left: Vec<_> = fs::read_dir(folder.path().join("scw")).unwrap().collect();
        assert_eq!(left.len(), 1, "a temporary file is left");
    }

    #[test]
    fn only_what_was_written_here_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let file = PrivateFile::ScwConfig(path.clone());
        assert!(!file.remove().unwrap());
        fs::write(&path, "access_key: SCWX\n").unwrap();
        assert_eq!(file.remove().expect_err("a person's file").kind(), Kind::Denied);
        assert!(path.exists());
        fs::write(&path, format!("{MARK}\naccess_key: SCWX\n")).unwrap();
        assert!(file.remove().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn the_project_folder_is_recognised_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        fs::create_dir(&project).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&project, &link).unwrap();
        for inside in [
            project.join("a"),
            project.join("x/y/config.yaml"),
            link.join("config.yaml"),
        ] {
            let refused = PrivateFile::ScwConfig(inside).check_outside(&project);
            assert_eq!(refused.expect_err("inside").kind(), Kind::Denied);
        }
        PrivateFile::ScwConfig(folder.path().join("project-2/a"))
            .check_outside(&project)
            .unwrap();
    }

    #[test]
    fn a_docker_folder_goes_with_all_that_is_in_it() {
        let docker = DockerFolder::create(&Secret::new("{\"auths\":{}}"), None).unwrap();
        let path = docker.path().to_owned();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("config.json")), 0o600);
        fs::create_dir(path.join("buildx")).unwrap();
        docker.remove().unwrap();
        assert!(!path.exists());
    }
}
