//! A folder with logins for one command.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::disk::{FILE_MODE, FOLDER_MODE, is_inside, put};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

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
        let file = folder.path().join("config.json");
        put(
            &file,
            config.expose(),
            FILE_MODE,
            None,
            &file.display().to_string(),
        )?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
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
