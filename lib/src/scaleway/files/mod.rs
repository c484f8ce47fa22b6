//! Files that hold credentials: private, whole or not there, and never in place of somebody else's.

mod change;
mod disk;
mod docker;
mod entry;
mod folder;
mod json;
mod lock;
mod receipt;
mod rewritten;
mod scw;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

pub use self::change::Change;
pub use self::folder::DockerFolder;
pub use self::lock::Locked;

use self::disk::{FILE_MODE, SIZE_LIMIT, has_leftover, is_inside, read, resolve};
use self::entry::{Entry, Laid, Stripped};
use self::lock::is_locked;
use self::receipt::{Added, Piece, Receipt, locate, without};
use super::config::Profile;
use super::registry::{RegistryHost, registry_login};
use crate::failure::{Failure, Kind, Result};
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

    /// What bringing the content into the file comes to. What others wrote there stays; what was brought there before under
    /// the same names is replaced.
    ///
    /// # Errors
    /// Conflict (exit 6) when others wrote what this would have to overwrite; input (exit 3) when the file is malformed;
    /// denied (exit 4) when it may not be read or is somebody else's; else internal.
    pub fn plan_write(&self, content: &Content) -> Result<Change> {
        let place = self.place()?;
        let shown = self.to_string();
        let like = self.owned(&place)?;
        let before = read(&place, &shown)?;
        let receipt_before = Receipt::read(&place)?;
        let (base, mut entries) = match (&before, &receipt_before) {
            (Some(text), Some(receipt)) => {
                let stripped = self.strip(text, receipt)?;
                (stripped.base, stripped.entries)
            }
            (Some(text), None) => (text.clone(), Vec::new()),
            (None, _) => (SecretString::default(), Vec::new()),
        };
        for entry in content.entries() {
            match entries.iter_mut().find(|there| there.name == entry.name) {
                Some(there) => *there = entry,
                None => entries.push(entry),
            }
        }
        let mut earlier = receipt_before.clone().unwrap_or_else(|| {
            let mode = like.as_ref().map(|like| like.mode() & 0o7777);
            Receipt::new(before.is_none(), 0, mode)
        });
        // Whoever removed the file wanted none.
        earlier.created |= before.is_none();
        let laid = self.lay(base.expose_secret(), &entries, earlier.created)?;
        if laid.text.expose_secret().len() as u64 > SIZE_LIMIT {
            return Err(
                Failure::input(format!("{self} would have more than {SIZE_LIMIT} bytes"))
                    .hint("nothing could be taken out of it again: choose another path"),
            );
        }
        // What was there as it is to be, by somebody else, is not ours.
        let receipt_after = (receipt_before.is_some() || !laid.pieces.is_empty())
            .then(|| earlier.of(laid.text.expose_secret(), laid.pieces));
        Ok(Change {
            before,
            like,
            after: Some(laid.text),
            mode: FILE_MODE,
            receipt_before,
            receipt_after,
            removed: Removed::Nothing,
        })
    }

    /// Whether there is anything to take out of, or anything left of a run that was killed.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let path = self.path();
        fs::symlink_metadata(&path).is_ok()
            || self.place().is_ok_and(|place| {
                let receipt = Receipt::path(&place);
                fs::symlink_metadata(&receipt).is_ok()
                    || has_leftover(&place)
                    || has_leftover(&receipt)
                    || is_locked(&place)
            })
    }

    /// What taking out comes to: of the entries with these names, or else of all. The file goes if it was new then and
    /// nothing else is in it.
    ///
    /// # Errors
    /// Denied (exit 4) when nothing in the file was written here; conflict (exit 6) when what was written has been
    /// changed since; input (exit 3) when the file is malformed; internal when it cannot be read.
    pub fn plan_removal(&self, names: Option<&[String]>) -> Result<Change> {
        let place = self.place()?;
        let shown = self.to_string();
        let like = fs::metadata(&place).ok();
        let before = read(&place, &shown)?;
        let receipt = Receipt::read(&place)?;
        let nothing = |receipt_after| Change {
            after: before.clone(),
            before: before.clone(),
            mode: like.as_ref().map_or(FILE_MODE, |like| like.mode() & 0o7777),
            like: like.clone(),
            receipt_before: receipt.clone(),
            receipt_after,
            removed: Removed::Nothing,
        };
        let (text, receipt) = match (&before, &receipt) {
            (None, _) => return Ok(nothing(None)),
            // Done already, as far as these go.
            (Some(text), None) if names.is_some_and(|names| self.has_none_of(text, names)) => {
                return Ok(nothing(None));
            }
            (Some(_), None) => {
                return Err(
                    Failure::denied(format!("{self} was not written by vault-scw-creds"))
                        .hint("remove it by hand, if it has to go"),
                );
            }
            (Some(text), Some(receipt)) => (text, receipt),
        };
        let Stripped { base, entries } = self.strip(text, receipt)?;
        let goes = |entry: &Entry| names.is_none_or(|names| names.contains(&entry.name));
        let (gone, kept): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(goes);
        if kept.is_empty() {
            let is_same = base.expose_secret() == text.expose_secret();
            if is_same {
                return Ok(nothing(None));
            }
            let file_goes = receipt.created && base.expose_secret().is_empty();
            return Ok(Change {
                after: (!file_goes).then_some(base),
                mode: receipt.mode.unwrap_or(FILE_MODE),
                removed: if file_goes { Removed::File } else { Removed::Part },
                ..nothing(None)
            });
        }
        if gone.is_empty() {
            return Ok(nothing(Some(receipt.clone())));
        }
        let laid = self.lay(base.expose_secret(), &kept, receipt.created)?;
        let receipt_after = receipt.of(laid.text.expose_secret(), laid.pieces);
        Ok(Change {
            after: Some(laid.text),
            mode: FILE_MODE,
            removed: Removed::Part,
            ..nothing(Some(receipt_after))
        })
    }

    /// Whether a file that others wrote surely has no entry with one of these names.
    fn has_none_of(&self, text: &SecretString, names: &[String]) -> bool {
        let there = match self {
            PrivateFile::ScwConfig(_) => scw::names(text.expose_secret(), &self.to_string()),
            PrivateFile::DockerConfig(_) => docker::names(text.expose_secret(), &self.to_string()),
            PrivateFile::PullSecret(_) | PrivateFile::Dotenv(_) => return false,
        };
        there.is_ok_and(|there| names.iter().all(|name| !there.contains(name)))
    }

    /// The file without what was added to it.
    fn strip(&self, text: &SecretString, receipt: &Receipt) -> Result<Stripped> {
        let mut last = None;
        for pieces in receipt.proposals(text.expose_secret()) {
            let names: BTreeSet<_> = pieces.iter().filter_map(|piece| piece.entry.clone()).collect();
            match self.take_out(text.expose_secret(), &pieces) {
                Ok(stripped) if stripped.entries.len() == names.len() => return Ok(stripped),
                other => last = Some(other),
            }
        }
        let stripped = last.unwrap_or_else(|| Ok(Stripped::of(text.expose_secret().to_owned(), Vec::new())));
        stripped.map_err(|failure| match failure.kind() {
            Kind::Conflict => {
                let receipt = self
                    .place()
                    .map(|place| Receipt::path(&place))
                    .unwrap_or_default();
                failure.hint(format!(
                    "take the key out by hand, and remove {}",
                    receipt.display()
                ))
            }
            _ => failure,
        })
    }

    fn take_out(&self, text: &str, pieces: &[Piece]) -> Result<Stripped> {
        let shown = self.to_string();
        match self {
            PrivateFile::ScwConfig(_) => scw::take_out(text, pieces, &shown),
            PrivateFile::DockerConfig(_) => docker::take_out(text, pieces, &shown),
            PrivateFile::PullSecret(_) | PrivateFile::Dotenv(_) => {
                let Some((name, bytes, sha256, access_key)) =
                    pieces
                        .iter()
                        .find_map(|piece| match (&piece.entry, &piece.added) {
                            (
                                Some(name),
                                Added::Text {
                                    bytes,
                                    sha256,
                                    access_key,
                                    ..
                                },
                            ) => Some((name, bytes, sha256, access_key)),
                            _ => None,
                        })
                else {
                    return Ok(Stripped::of(text.to_owned(), Vec::new()));
                };
                match locate(text, *bytes, sha256) {
                    Some(part) => {
                        let entry = Entry::whole(name, Secret::new(&text[part.clone()]), access_key);
                        Ok(Stripped::of(without(text, &[part]), vec![entry]))
                    }
                    None if text.contains(access_key.as_str()) => Err(changed(&shown)),
                    None => Ok(Stripped::of(text.to_owned(), Vec::new())),
                }
            }
        }
    }

    /// The file with entries in it.
    fn lay(&self, base: &str, entries: &[Entry], created: bool) -> Result<Laid> {
        let shown = self.to_string();
        match self {
            PrivateFile::ScwConfig(_) => scw::lay(base, entries, created, &shown),
            PrivateFile::DockerConfig(_) => docker::lay(base, entries, &shown),
            PrivateFile::PullSecret(_) | PrivateFile::Dotenv(_) => {
                let Some(entry) = entries.first() else {
                    return Ok(Laid::of(base.to_owned(), Vec::new()));
                };
                let whole = format!("{}\n", entry.secret().expose());
                if base == whole {
                    return Ok(Laid::of(whole, Vec::new()));
                }
                if !base.is_empty() {
                    return Err(
                        Failure::conflict(format!("{shown} is there and holds something else"))
                            .hint("remove it, or choose another path"),
                    );
                }
                let piece = Piece::of(Some(&entry.name), Added::text(&whole, entry.access_key()));
                Ok(Laid::of(whole, vec![piece]))
            }
        }
    }

    /// The file behind any link, which stays a link.
    ///
    /// # Errors
    /// Usage (exit 2) when there is something else than a file.
    pub fn place(&self) -> Result<PathBuf> {
        let path = self.path();
        let Ok(found) = fs::symlink_metadata(&path) else {
            return resolve(&path).map_err(|error| {
                Failure::usage(format!("cannot find the folder of {self}"))
                    .because(error)
                    .hint("a link on its way leads nowhere: choose another path")
            });
        };
        if found.is_symlink() && !is_trusted(found.uid()) {
            return Err(Failure::denied(format!(
                "{self} is a link that another user (uid {}) made",
                found.uid()
            ))
            .hint("choose another path"));
        }
        let real = path.canonicalize().map_err(|error| {
            Failure::usage(format!("{self} is a link that leads nowhere"))
                .because(error)
                .hint("remove the link, or make the file that it leads to")
        })?;
        let is_file = fs::metadata(&real).is_ok_and(|found| found.is_file());
        if !is_file {
            return Err(
                Failure::usage(format!("{self} is there and is not a file")).hint("choose another path")
            );
        }
        Ok(real)
    }

    /// What the file is like, if it is there; it has to be ours, since its owner can read what is in it.
    fn owned(&self, place: &Path) -> Result<Option<fs::Metadata>> {
        let Ok(found) = fs::metadata(place) else {
            return Ok(None);
        };
        if found.uid() == rustix::process::geteuid().as_raw() {
            return Ok(Some(found));
        }
        Err(
            Failure::denied(format!("{self} belongs to another user (uid {})", found.uid()))
                .hint("who could read what is written there: choose another path"),
        )
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// The failure that tells that somebody changed what was written.
fn changed(shown: &str) -> Failure {
    Failure::conflict(format!("{shown} was changed where vault-scw-creds wrote"))
}

impl Content {
    /// What it consists of, each by its name.
    fn entries(&self) -> Vec<Entry> {
        match self {
            Content::Profile(profile) => vec![Entry::profile(profile.clone())],
            Content::Logins(hosts, secret_key) => hosts
                .iter()
                .map(|host| Entry::login(host.as_str(), registry_login(secret_key)))
                .collect(),
            Content::Whole { text, access_key } => vec![Entry::whole("file", text.clone(), access_key)],
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
