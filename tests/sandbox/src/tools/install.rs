//! What an installation works with: the cache it fills, whom it tells, and the world that its processes belong to.

use super::cache::{Cache, Lock};
use super::debian::Archive;
use super::progress::Progress;
use crate::guardian::Guardian;

/// Exists only while something is installed.
pub(super) struct Installer<'a> {
    pub(super) cache: &'a Cache,
    pub(super) lock: &'a Lock,
    pub(super) progress: &'a Progress,
    /// Installers are processes like any other: should this one be killed, they must end as well.
    pub(super) guardian: &'a Guardian,
    pub(super) archive: Archive<'a>,
}

impl<'a> Installer<'a> {
    pub(super) fn new(
        cache: &'a Cache,
        lock: &'a Lock,
        progress: &'a Progress,
        guardian: &'a Guardian,
    ) -> Self {
        Self {
            cache,
            lock,
            progress,
            guardian,
            archive: Archive::new(progress, guardian),
        }
    }
}
