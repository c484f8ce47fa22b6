//! Promotes for real between real registries, through a proxy that breaks exchanges, and by runs that are killed: each
//! ends with the image complete and verified, or with the target's tag as it was and the exit code that fits.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

// Both are written for more than what is tested here.
#[allow(dead_code)]
#[path = "../promote/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "../promote/world.rs"]
mod world;

mod behind;

mod elsewhere;
mod killed;
mod reading;
mod writing;
