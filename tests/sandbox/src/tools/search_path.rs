//! Programs of this machine: where they lie on `PATH`, and what they say of their version.
//!
//! What a program said is remembered in the cache for as long as its file is the same, so that a warm start asks nobody.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::outside;

const DEADLINE: Duration = Duration::from_secs(20);

/// The first file of that name on `PATH` that may be executed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
}

/// Whether a path leads to a file that may be executed.
pub(super) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// What programs said when they were asked.
#[derive(Debug)]
pub(super) struct Answers {
    file: PathBuf,
    known: BTreeMap<String, Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    said: String,
}

impl Answers {
    /// Reads what is remembered. A file that is missing or damaged is an empty one: it only saves time.
    pub(super) fn open(cache: &Path) -> Self {
        let file = cache.join("answers.json");
        let known = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { file, known }
    }

    /// What `program` writes when it is called with `arguments`, or `None` when it fails.
    pub(super) async fn ask(&mut self, program: &Path, arguments: &[&str]) -> Option<String> {
        let facts = fs::metadata(program).ok()?;
        let key = format!("{} {}", program.display(), arguments.join(" "));
        let (inode, size, modified) = (facts.ino(), facts.size(), (facts.mtime(), facts.mtime_nsec()));
        if let Some(known) = self.known.get(&key)
            && (known.inode, known.size, known.modified) == (inode, size, modified)
        {
            return Some(known.said.clone());
        }
        let mut command = Command::new(program);
        // Terraform would ask its maker's server whether there is a newer version.
        command.args(arguments).env("CHECKPOINT_DISABLE", "1");
        let said = outside::output_of(&mut command, DEADLINE).await.ok()?;
        self.known.insert(
            key,
            Answer {
                inode,
                size,
                modified,
                said: said.clone(),
            },
        );
        self.save();
        Some(said)
    }

    fn save(&self) {
        let Ok(bytes) = serde_json::to_vec_pretty(&self.known) else {
            return;
        };
        let folder = self.file.parent().unwrap_or(Path::new("."));
        // Another process may save at the same moment: each writes a file of its own, and the last rename wins.
        if let Ok(mut new) = tempfile::NamedTempFile::new_in(folder)
            && std::io::Write::write_all(&mut new, &bytes).is_ok()
        {
            let _ = new.persist(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, text: &str) -> PathBuf {
        let file = folder.join("tool");
        // Written by another process: had this one the file open for writing while another test's thread forks, it
        // could not be run.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod +x \"$0\"";
        let written = std::process::Command::new("sh")
            .args(["-c", write])
            .arg(&file)
            .arg(text)
            .status()
            .unwrap();
        assert!(written.success());
        file
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_is_asked_again_only_when_its_file_changed() {
        let folder = tempfile::tempdir().unwrap();
        let tool = script(folder.path(), "echo called >>\"$0.calls\"; echo v1");
        for _ in 0..2 {
            // Opened anew each time, as the next run would.
            let mut answers = Answers::open(folder.path());
            assert_eq!(answers.ask(&tool, &["version"]).await.as_deref(), Some("v1\n"));
        }
        assert_eq!(
            fs::read_to_string(folder.path().join("tool.calls")).unwrap(),
            "called\n"
        );
        script(folder.path(), "echo version two");
        let mut answers = Answers::open(folder.path());
        assert_eq!(
            answers.ask(&tool, &["version"]).await.as_deref(),
            Some("version two\n")
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_damaged_memory_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("answers.json"), "{").unwrap();
        let tool = script(folder.path(), "exit 1");
        assert_eq!(Answers::open(folder.path()).ask(&tool, &["version"]).await, None);
    }
}
