//! The folder that a build works in: what the builder is given, and what it leaves.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Recipe;
use crate::failure::{Failure, Result};

/// The name of the Dockerfile in it. A builder looks for its ignore file under the same name with an ending.
const DOCKERFILE: &str = "Dockerfile";
/// The endings of ignore files that belong to one Dockerfile.
const IGNORE_FILES: [&str; 2] = [".dockerignore", ".containerignore"];
/// A document without logins: without one the builder would look for others.
const NO_LOGINS: &str = "{}";

/// A folder that only its owner may enter, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    /// Lays it out under `parent`, or in the temporary folder.
    pub(super) fn lay(recipe: &Recipe, parent: Option<&Path>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("towpath-build-");
        let folder = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let folder = folder.map_err(|error| {
            let place = parent.map_or_else(|| "the temporary folder".to_owned(), |p| p.display().to_string());
            Failure::denied(format!("cannot make a folder for the build in {place}"))
                .because(error)
                .hint("kaniko's image runs as root; elsewhere TMPDIR names the temporary folder")
        })?;
        let ground = Ground { folder };
        ground.check_outside(&recipe.context)?;
        ground.fill(recipe).map_err(|error| {
            Failure::internal("cannot write what the builder is given")
                .because(error)
                .hint("is there room in the temporary folder (TMPDIR)?")
        })?;
        Ok(ground)
    }

    /// What is in the context may end up in the image, and logins are going to be here.
    fn check_outside(&self, context: &Path) -> Result<()> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if real(self.path()).starts_with(real(context)) {
            return Err(Failure::usage(format!(
                "the build context {} holds the folder that the builder works in, {}",
                context.display(),
                self.path().display()
            ))
            .hint(
                "name a narrower --context (TOWPATH_CONTEXT), or a temporary folder (TMPDIR) outside of it",
            ));
        }
        Ok(())
    }

    fn fill(&self, recipe: &Recipe) -> io::Result<()> {
        fs::write(self.dockerfile(), &recipe.dockerfile_text)?;
        for ending in IGNORE_FILES {
            let beside = |path: &Path| {
                let mut path = path.to_owned().into_os_string();
                path.push(ending);
                PathBuf::from(path)
            };
            let from = beside(&recipe.dockerfile);
            if from.is_file() {
                fs::copy(from, beside(&self.dockerfile()))?;
            }
        }
        if let Some(ca_file) = &recipe.ca_file {
            fs::create_dir(self.certificates())?;
            fs::copy(ca_file, self.authority())?;
        }
        fs::create_dir(self.logins_folder())?;
        let mut logins = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.logins())?;
        logins.write_all(
            recipe
                .logins
                .as_ref()
                .map_or(NO_LOGINS, |text| text.expose())
                .as_bytes(),
        )
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(super) fn dockerfile(&self) -> PathBuf {
        self.at(DOCKERFILE)
    }

    /// The folder of `config.json`.
    pub(super) fn logins_folder(&self) -> PathBuf {
        self.at("docker")
    }

    pub(super) fn logins(&self) -> PathBuf {
        self.logins_folder().join("config.json")
    }

    pub(super) fn certificates(&self) -> PathBuf {
        self.at("certificates")
    }

    pub(super) fn authority(&self) -> PathBuf {
        self.certificates().join("ca.crt")
    }

    pub(super) fn digest(&self) -> PathBuf {
        self.at("digest")
    }

    pub(super) fn layout(&self) -> PathBuf {
        self.at("layout")
    }

    /// Makes folders below it that others may enter.
    pub(super) fn open_folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.at(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }
}
