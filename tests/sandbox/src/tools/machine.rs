//! What must be on the machine itself, because no package client can bring it without root.

use std::path::{Path, PathBuf};

use super::search_path::{self, Answers};
use super::{Missing, builder};

/// Programs of this machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) git: PathBuf,
    pub(super) node: PathBuf,
    pub(super) bash: PathBuf,
}

/// gitlab-ci-local 4.65.1 runs on 18 and 20.
const OLDEST_NODE: u32 = 18;

impl Machine {
    /// Finds them, and adds what is not there to `missing`; its path is then empty.
    pub(super) async fn look(answers: &mut Answers, missing: &mut Missing) -> Self {
        let git = program("git", "install git (Debian: git)", missing);
        if !git.as_os_str().is_empty() && !serves_http(&git, answers).await {
            missing.add(
                "git",
                "it has no http-backend",
                "install git with its HTTP server (Debian: git)",
            );
        }
        let node = program("node", "install Node.js 18 or later (Debian: nodejs)", missing);
        if !node.as_os_str().is_empty() {
            let said = answers.ask(&node, &["--version"]).await.unwrap_or_default();
            if major_version(&said).is_none_or(|major| major < OLDEST_NODE) {
                let why = format!("{} says it is version {:?}", node.display(), said.trim());
                missing.add("node", &why, "install Node.js 18 or later (Debian: nodejs)");
            }
        }
        let bash = program("bash", "install bash (Debian: bash)", missing);
        if let Some(why) = builder::obstacle().await {
            missing.add(
                "a builder",
                &why,
                "image builds need mount and process namespaces",
            );
        }
        Self { git, node, bash }
    }
}

fn program(name: &str, remedy: &str, missing: &mut Missing) -> PathBuf {
    search_path::find(name).unwrap_or_else(|| {
        missing.add(name, "it is not on PATH", remedy);
        PathBuf::new()
    })
}

async fn serves_http(git: &Path, answers: &mut Answers) -> bool {
    let Some(folder) = answers.ask(git, &["--exec-path"]).await else {
        return false;
    };
    search_path::is_program(&Path::new(folder.trim()).join("git-http-backend"))
}

/// The first number of a text such as `v20.20.2`.
fn major_version(said: &str) -> Option<u32> {
    said.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn the_major_version_is_the_first_number() {
        assert_eq!(major_version("v20.20.2\n"), Some(20));
        assert_eq!(major_version("v9.0.0"), Some(9));
        assert_eq!(major_version("20.1"), None);
        assert_eq!(major_version(""), None);
    }
}
