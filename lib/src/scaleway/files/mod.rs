//! Files that hold credentials: private, whole or not there, and never in place of somebody else's.

mod disk;
mod docker;
mod folder;
mod receipt;

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

pub use self::folder::DockerFolder;

use self::disk::{FILE_MODE, broke, is_inside, put, read};
use self::receipt::{Added, Receipt};
use super::config::Profile;
use super::registry::{self, RegistryHost};
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// For people, above what is written into YAML.
pub(super) const MARK: &str =
    "# Written by vault-scw-creds, which also takes it out: vault-scw-creds revoke.";

/// A place for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateFile {
    /// A `config.yaml` of Scaleway's tools.
    ScwConfig(PathBuf),
    /// The `config.json` in a folder that `DOCKER_CONFIG` can point to.
    DockerConfig(PathBuf),
    /// The manifest of a pull secret.
    PullSecret(PathBuf),
    /// `NAME=value` lines.
    Dotenv(PathBuf),
}

/// What is brought into a file.
#[derive(Debug)]
pub enum Content {
    /// A profile for Scaleway's tools, beside the others.
    Profile(Profile),
    /// Logins to these registries with this secret key, beside the others.
    Logins(Vec<RegistryHost>, Secret),
    /// The whole file.
    Whole {
        /// Its text, without a last line break.
        text: Secret,
        /// The public half of the key in it.
        access_key: String,
    },
}

/// What removing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The file is gone.
    File,
    /// What was added is out of it; the rest stays.
    Part,
    /// There was no file.
    Nothing,
}

/// What writing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file is new.
    Created,
    /// It was there, and has something else in it now.
    Changed,
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
            PrivateFile::ScwConfig(path) | PrivateFile::PullSecret(path) | PrivateFile::Dotenv(path) => {
                path.clone()
            }
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

    /// Brings the content into the file, for its owner alone. What others wrote there stays; what was brought there
    /// before is replaced.
    ///
    /// # Errors
    /// Conflict (exit 6) when others wrote what this would have to overwrite; input (exit 3) when the file is malformed;
    /// denied (exit 4) when it may not be written; unavailable (exit 7) when the disk is full; else internal.
    pub fn write(&self, content: &Content) -> Result<Written> {
        let place = self.place()?;
        let shown = self.to_string();
        let there = read(&place, &shown)?;
        let earlier = Receipt::read(&place)?;
        let base = match (&there, &earlier) {
            (Some(text), Some(receipt)) => self.without(text, receipt)?,
            (Some(text), None) => Some(text.clone()),
            (None, _) => None,
        };
        let (text, added) = content.put_into(base.as_ref().map(|text| text.expose_secret()), &shown)?;
        let same = there
            .as_ref()
            .is_some_and(|there| there.expose_secret() == text.expose_secret());
        let created = match (&there, &earlier) {
            (None, _) => true,
            (Some(_), Some(earlier)) => earlier.created,
            (Some(_), None) => false,
        };
        if same {
            fs::set_permissions(&place, Permissions::from_mode(FILE_MODE))
                .map_err(|error| broke(&shown, error))?;
            if added.is_empty() && earlier.is_none() {
                return Ok(Written::Unchanged);
            }
        }
        let receipt = Receipt::of(created, added.clone());
        let receipt_place = Receipt::path(&place);
        // Until the file is replaced, either may be in it.
        let mut both = receipt.clone();
        both.added
            .extend(earlier.iter().flat_map(|earlier| earlier.added.clone()));
        if earlier.as_ref() != Some(&receipt) && !same {
            put(&receipt_place, &both.text(), &shown)?;
        }
        if !same {
            put(&place, text.expose_secret(), &shown)?;
        }
        if earlier.as_ref() != Some(&receipt) {
            put(&receipt_place, &receipt.text(), &shown)?;
        }
        Ok(match (same, there) {
            (true, _) => Written::Unchanged,
            (false, None) => Written::Created,
            (false, Some(_)) => Written::Changed,
        })
    }

    /// What [`PrivateFile::remove`] would do.
    ///
    /// # Errors
    /// As [`PrivateFile::remove`], but for what goes wrong in doing it.
    pub fn removal(&self) -> Result<Removed> {
        self.rest().map(|rest| rest.0)
    }

    /// Takes out what was written, and removes the file if it was new then and nothing else is in it.
    ///
    /// # Errors
    /// Denied (exit 4) when nothing in the file was written here; conflict (exit 6) when what was written has been
    /// changed since; input (exit 3) when the file is malformed; internal when it cannot be written or removed.
    pub fn remove(&self) -> Result<Removed> {
        let (outcome, rest) = self.rest()?;
        let place = self.place()?;
        let shown = self.to_string();
        let gone = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::internal(format!("cannot remove {}", path.display())).because(error))
            }
            _ => Ok(()),
        };
        match &rest {
            Some(rest) => put(&place, rest.expose_secret(), &shown)?,
            None if outcome == Removed::File => gone(&place)?,
            None => {}
        }
        gone(&Receipt::path(&place))?;
        if let PrivateFile::DockerConfig(folder) = self
            && outcome == Removed::File
        {
            // Docker may have put more into its folder; then it stays.
            let _ = fs::remove_dir(folder);
        }
        Ok(outcome)
    }

    /// What removing comes to, and what is left of the file, where something is.
    fn rest(&self) -> Result<(Removed, Option<SecretString>)> {
        let place = self.place()?;
        let there = read(&place, &self.to_string())?;
        match (there, Receipt::read(&place)?) {
            (None, _) => Ok((Removed::Nothing, None)),
            (Some(_), None) => Err(
                Failure::denied(format!("{self} was not written by vault-scw-creds"))
                    .hint("remove it by hand, if it has to go"),
            ),
            (Some(text), Some(receipt)) => match self.without(&text, &receipt)? {
                None => Ok((Removed::File, None)),
                Some(rest) => Ok((Removed::Part, Some(rest))),
            },
        }
    }

    /// The file without what was added to it; none when it was new then and nothing is left.
    fn without(&self, text: &SecretString, receipt: &Receipt) -> Result<Option<SecretString>> {
        let shown = self.to_string();
        let rest = if let PrivateFile::DockerConfig(_) = self {
            docker::take_out(text.expose_secret(), &receipt.added, &shown)?
        } else {
            let mut rest = text.expose_secret().to_owned();
            let mut found = false;
            let mut changed = false;
            for added in &receipt.added {
                let Added::Text {
                    bytes,
                    sha256,
                    access_key,
                } = added
                else {
                    continue;
                };
                match receipt::cut(&rest, *bytes, sha256) {
                    Some(without) => {
                        rest = without;
                        found = true;
                    }
                    None => changed |= rest.contains(access_key.as_str()),
                }
            }
            // A run that was cut short has one of several in the file.
            if !found && changed {
                return Err(
                    Failure::conflict(format!("{self} was changed where vault-scw-creds wrote")).hint(
                        format!(
                            "take the key out by hand, and remove {}",
                            Receipt::path(&self.path()).display()
                        ),
                    ),
                );
            }
            rest
        };
        Ok((!rest.is_empty() || !receipt.created).then(|| SecretString::from(rest)))
    }

    /// The file behind any link, which stays a link.
    fn place(&self) -> Result<PathBuf> {
        let path = self.path();
        let Ok(found) = fs::symlink_metadata(&path) else {
            return Ok(path);
        };
        let real = if found.is_symlink() {
            path.canonicalize().map_err(|error| {
                Failure::usage(format!("{self} is a link that leads nowhere"))
                    .because(error)
                    .hint("remove the link, or make the file that it leads to")
            })?
        } else {
            path
        };
        let is_file = fs::metadata(&real).is_ok_and(|found| found.is_file());
        if !is_file {
            return Err(
                Failure::usage(format!("{self} is there and is not a file")).hint("choose another path")
            );
        }
        Ok(real)
    }
}

impl Content {
    /// The file with the content in it, and what was added.
    fn put_into(&self, base: Option<&str>, shown: &str) -> Result<(SecretString, Vec<Added>)> {
        match self {
            Content::Profile(profile) => {
                let placed = match base.filter(|text| !text.is_empty()) {
                    None => profile.alone(),
                    Some(text) => profile.put_into(text, shown)?,
                };
                let added = Added::text(placed.piece.expose_secret(), profile.access_key());
                Ok((placed.text, vec![added]))
            }
            Content::Logins(hosts, secret_key) => {
                let logins: Vec<_> = hosts
                    .iter()
                    .map(|host| (host.to_string(), registry::login(secret_key)))
                    .collect();
                let (text, added) = docker::add(base.unwrap_or_default(), &logins, shown)?;
                Ok((SecretString::from(text), added))
            }
            Content::Whole { text, access_key } => {
                let whole = format!("{}\n", text.expose());
                match base {
                    Some(there) if there == whole => Ok((SecretString::from(whole), Vec::new())),
                    Some(there) if !there.is_empty() => Err(Failure::conflict(format!(
                        "{shown} is there and holds something else"
                    ))
                    .hint("remove it, or choose another path")),
                    _ => {
                        let added = Added::text(&whole, access_key);
                        Ok((SecretString::from(whole), vec![added]))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    fn whole(text: &str) -> Content {
        Content::Whole {
            text: Secret::new(text),
            access_key: "SCWX".to_owned(),
        }
    }

    #[test]
    fn a_file_is_private_and_replaced_only_where_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = PrivateFile::PullSecret(folder.path().join("k8s/pull.yaml"));
        assert_eq!(file.write(&whole("access_key: SCWX")).unwrap(), Written::Created);
        assert_eq!(mode(&file.path()), 0o600);
        assert_eq!(mode(&folder.path().join("k8s")), 0o700);
        assert_eq!(
            file.write(&whole("access_key: SCWX")).unwrap(),
            Written::Unchanged
        );
        assert_eq!(file.write(&whole("access_key: SCWX2")).unwrap(), Written::Changed);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "access_key: SCWX2\n");
        fs::write(file.path(), "access_key: SCWX3\n").unwrap();
        let other = file.write(&whole("access_key: SCWX4")).expect_err("changed");
        assert_eq!(other.kind(), Kind::Conflict);
        fs::write(file.path(), "access_key: SCWX2\n").unwrap();
        assert_eq!(file.remove().unwrap(), Removed::File);
        assert_eq!(file.remove().unwrap(), Removed::Nothing);
        let left: Vec<_> = fs::read_dir(folder.path().join("k8s")).unwrap().collect();
        assert_eq!(left.len(), 0, "{left:?}");
    }

    #[test]
    fn a_run_that_was_cut_short_leaves_what_can_be_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let file = PrivateFile::Dotenv(path.clone());
        file.write(&whole("A=1")).unwrap();
        let first = Receipt::read(&path).unwrap().expect("a receipt");
        file.write(&whole("A=2")).unwrap();
        let mut both = Receipt::read(&path).unwrap().expect("a receipt");
        both.added.extend(first.added.clone());
        // The receipt tells of both, and either is in the file.
        for text in ["A=1\n", "A=2\n"] {
            fs::write(Receipt::path(&path), both.text()).unwrap();
            fs::write(&path, text).unwrap();
            assert_eq!(file.removal().unwrap(), Removed::File);
            assert_eq!(file.remove().unwrap(), Removed::File);
        }
        // The receipt is there, and the file never came.
        fs::write(Receipt::path(&path), both.text()).unwrap();
        assert_eq!(file.remove().unwrap(), Removed::Nothing);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_was_written_here_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let file = PrivateFile::ScwConfig(path.clone());
        assert_eq!(file.remove().unwrap(), Removed::Nothing);
        fs::write(&path, "access_key: SCWX\n").unwrap();
        assert_eq!(file.remove().expect_err("a person's file").kind(), Kind::Denied);
        fs::write(Receipt::path(&path), "{}").unwrap();
        assert_eq!(file.remove().expect_err("no receipt").kind(), Kind::Input);
        assert!(path.exists());
    }

    #[test]
    fn links_lead_to_the_file_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let file = PrivateFile::Dotenv(link.clone());
        assert_eq!(file.write(&whole("A=1")).unwrap(), Written::Changed);
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "A=1\n");
        assert_eq!(file.remove().unwrap(), Removed::Part);
        assert_eq!(fs::read_to_string(&real).unwrap(), "");
        fs::remove_file(&real).unwrap();
        let failure = file.write(&whole("A=1")).expect_err("it leads nowhere");
        assert_eq!(failure.kind(), Kind::Usage);
        for odd in [Path::new("/dev/null"), folder.path()] {
            let failure = PrivateFile::Dotenv(odd.to_owned())
                .write(&whole("A=1"))
                .expect_err("no file");
            assert_eq!(failure.kind(), Kind::Usage, "{failure}");
        }
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
}
