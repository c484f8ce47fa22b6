//! The git command line: reading a repository without a work tree, committing without one, and pushing under races.
//!
//! Source: the manual pages of git-clone ("--filter", "--depth"), git-fast-import, git-push ("--porcelain") and
//! gitcredentials. A [`Snapshot`] is a bare clone of one commit without file contents; the few files that are asked
//! for are fetched one by one, and a commit is written by `git fast-import`, which needs no index. A [`Checkout`] is
//! a folder that somebody else made.
//!
//! A token reaches git through a credential helper that reads it from the environment of git alone: it is in no
//! argument, URL, configuration or file. Hooks, signing and prompts of the user's own configuration are off; their
//! proxies, certificates and SSH keys stay in use. A commit is signed when it says with what.
//!
//! Failures are told apart by exit codes, by `git push --porcelain`, and by asking an HTTP server itself, since git
//! says only in prose why a server turned it away. Over SSH there is nobody to ask, so there every refusal of the
//! server counts as unavailable.
//!
//! Deliberately absent: forced pushes, merges and rebases. A lost race is answered by deciding anew on the new tip.

mod ancestry;
mod checkout;
mod command;
pub(crate) mod commit;
pub(crate) mod files;
mod history;
mod identity;
pub(crate) mod landing;
mod race;
mod remote;
pub(crate) mod revision;
mod sign;
mod snapshot;

pub use ancestry::{Ancestry, Lineage};
pub use checkout::Checkout;
pub use commit::{Change, Identity, NewCommit, SignatureFormat, Signing};
pub use files::{Files, check_path};
pub use landing::{Decision, Landed};
pub use remote::{Access, Credentials, Location, Remote};
pub use revision::{History, Revision};
pub use snapshot::Snapshot;
