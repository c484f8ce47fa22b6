//! Rules about the repository, kept as tests: see `tests/`, one file a subject. What a reviewer says twice becomes a
//! test here.

pub mod schema;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's folder.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository is there")
}

/// Every file that git tracks or would track, relative to the repository.
#[must_use]
pub fn files() -> Vec<String> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git runs");
    assert!(listing.status.success(), "git ls-files failed");
    let mut files: Vec<String> = String::from_utf8(listing.stdout)
        .expect("file names are text")
        .lines()
        .filter(|file| repository().join(file).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    assert!(
        files.iter().any(|file| file == "Cargo.toml"),
        "git ls-files lists this repository"
    );
    files
}

/// The text of one file of the repository.
#[must_use]
pub fn read(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
