//! Builds the runner images of `docker/Dockerfile` from base images made on the spot, and looks into them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a helper that fails here fails its test, and what is left out is told"
)]

mod by_image_build;
mod layout;
mod platforms;

use std::path::{Path, PathBuf};

/// The checkout.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}
