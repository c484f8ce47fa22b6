//! A change to a file that is decided, and not done yet.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::disk::{FILE_MODE, broke, folder_of, put, read, remove};
use super::lock::Locked;
use super::receipt::Receipt;
use super::{Removed, Written};
use crate::failure::Result;

/// What is to become of a file, and what it was before.
#[derive(Debug)]
pub struct Change {
    pub(super) before: Option<SecretString>,
    /// What the file is like that is there.
    pub(super) like: Option<Metadata>,
    /// None for no file.
    pub(super) after: Option<SecretString>,
    pub(super) mode: u32,
    pub(super) receipt_before: Option<Receipt>,
    pub(super) receipt_after: Option<Receipt>,
    /// What taking out comes to.
    pub(super) removed: Removed,
}

impl Change {
    /// What writing comes to.
    #[must_use]
    pub fn written(&self) -> Written {
        match &self.before {
            _ if self.keeps_text() => Written::Unchanged,
            None => Written::Created,
            Some(_) => Written::Changed,
        }
    }

    /// What removing comes to.
    #[must_use]
    pub fn removed(&self) -> Removed {
        self.removed
    }

    fn keeps_text(&self) -> bool {
        is_same(self.before.as_ref(), self.after.as_ref())
    }
}

fn is_same(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(|text| text.expose_secret()) == other.map(|text| text.expose_secret())
}

impl Locked {
    /// Does what was decided. What goes wrong half-way is taken back.
    ///
    /// # Errors
    /// Denied (exit 4) when the file may not be written; unavailable (exit 7) when the disk is full; else internal.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        let outcome = self.work(change);
        if outcome.is_err()
            && let Err(failure) = self.undo(change)
        {
            tracing::error!(
                action = "undo",
                object = self.shown,
                hint = "run `revoke` for it",
                "{} could not be put back: {failure}",
                self.shown
            );
        }
        outcome
    }

    fn work(&mut self, change: &Change) -> Result<()> {
        let receipt_place = Receipt::path(&self.place);
        let mut receipt = change.receipt_after.clone();
        if let (None, None, Some(receipt)) = (&change.before, &change.receipt_before, &mut receipt) {
            receipt.folders = self.folders.len();
        }
        if change.keeps_text() {
            if change.after.is_some() {
                self.set_mode(change.mode)?;
            }
        } else {
            if let Some(both) = change.either(receipt.as_ref()) {
                put(&receipt_place, &both.text(), FILE_MODE, None, &self.shown)?;
            }
            match &change.after {
                Some(text) => put(
                    &self.place,
                    text.expose_secret(),
                    change.mode,
                    change.like.as_ref(),
                    &self.shown,
                )?,
                None => remove(&self.place)?,
            }
        }
        match &receipt {
            Some(receipt) if Some(receipt) == change.receipt_before.as_ref() && change.keeps_text() => {}
            Some(receipt) => put(&receipt_place, &receipt.text(), FILE_MODE, None, &self.shown)?,
            None => remove(&receipt_place)?,
        }
        if change.after.is_none() {
            let made = change
                .receipt_before
                .as_ref()
                .map_or(0, |receipt| receipt.folders);
            self.also_remove(made);
        }
        Ok(())
    }

    /// Brings back what was there before. What others changed since is overwritten, so this is for right after.
    ///
    /// # Errors
    /// As [`Locked::apply`].
    pub fn undo(&mut self, change: &Change) -> Result<()> {
        let there = read(&self.place, &self.shown)?;
        if !is_same(there.as_ref(), change.before.as_ref()) {
            match &change.before {
                Some(before) => put(
                    &self.place,
                    before.expose_secret(),
                    change.mode_before(),
                    change.like.as_ref(),
                    &self.shown,
                )?,
                None => remove(&self.place)?,
            }
        } else if there.is_some() {
            self.set_mode(change.mode_before())?;
        }
        let receipt_place = Receipt::path(&self.place);
        match &change.receipt_before {
            Some(receipt) => put(&receipt_place, &receipt.text(), FILE_MODE, None, &self.shown),
            None => remove(&receipt_place),
        }
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        fs::set_permissions(&self.place, Permissions::from_mode(mode))
            .map_err(|error| broke(&self.shown, error))
    }

    /// Lets so many folders above the file go with the lock, if they are empty then.
    fn also_remove(&mut self, count: usize) {
        let folders: Vec<PathBuf> = folder_of(&self.place)
            .ancestors()
            .take(count)
            .map(Path::to_owned)
            .collect();
        if folders.len() > self.folders.len() {
            self.folders = folders;
        }
    }
}

impl Change {
    /// The receipt of a file that may be as it was or as it is to be, as long as nobody knows. One that goes needs none.
    fn either(&self, receipt: Option<&Receipt>) -> Option<Receipt> {
        let after = self.after.as_ref()?.expose_secret();
        let earlier = self.receipt_before.as_ref();
        let next = match receipt {
            Some(receipt) => receipt.clone(),
            None => earlier?.of(after, Vec::new()),
        };
        let untouched = self
            .before
            .as_ref()
            .map(|before| next.of(before.expose_secret(), Vec::new()));
        Some(next.as_well_as(earlier.or(untouched.as_ref())))
    }

    fn mode_before(&self) -> u32 {
        self.like.as_ref().map_or(FILE_MODE, |like| like.mode() & 0o7777)
    }
}
