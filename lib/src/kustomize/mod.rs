//! `images` in kustomization files: reading them, and changing one so that no other byte moves.
//!
//! Source: kustomize documentation, "images": an entry has `name` and any of `newName`, `newTag`, `digest` and
//! `tagSuffix`; the build joins tag and digest to `name:tag@digest` (from 4.5.3 on). The text is spliced by byte
//! spans, never written anew, so comments, quotes, order, indentation and line ends stay. Afterwards the result is
//! parsed again by another reader, and has to differ from the original in the intended fields and nowhere else.
//!
//! Deliberately absent: files and repositories (the caller reads and writes), building (`kustomize build` stays the
//! judge), and any key but `images`.

mod append;
mod build;
mod document;
mod edit;
mod effect;
mod entry;
mod hold;
mod image;
mod pattern;
mod proof;
pub mod properties;
mod reference;
mod scalar;
mod soundness;
mod sources;

pub use build::{Build, BuiltImage, EntryPlace, Tried};
pub use document::{Edit, FILE_NAMES, Kustomization, file_candidates};
pub use entry::ImageEntry;
pub use hold::{HOLDS_FOLDER, Hold, HoldSchema, hold_folder, hold_path};
pub use image::{ImageSpec, ImageState, Pin, check_repository};
pub use pattern::{Pattern, kustomization_folder};
pub use reference::Reference;
pub use sources::Sources;
