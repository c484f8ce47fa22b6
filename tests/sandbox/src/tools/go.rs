//! Programs that Go builds from a module of the sandbox, whose `go.sum` pins every part by its checksum.
//!
//! That may take minutes, so it is done only for who asks. Go keeps each package it has compiled, so a build that was
//! killed goes on where it ended.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::cache::Cache;
use super::install::Installer;
use super::{outside, search_path};

/// From no module in Go's cache on two busy cores the largest of them takes about five minutes.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// The first Go that fetches the version that a module asks for.
const SWITCHES_SINCE: Version = [1, 21, 0];

/// The numbers of a version: major, minor, patch.
pub(super) type Version = [u32; 3];

/// One program and the module it is built from.
#[derive(Debug)]
pub(super) struct GoProgram {
    /// What people call it.
    pub(super) title: &'static str,
    /// The name of its file.
    pub(super) name: &'static str,
    /// How the name of its entry in the cache begins.
    pub(super) entry: &'static str,
    /// How the line of `go.mod` begins that has its version.
    pub(super) requirement: &'static str,
    /// The module's files by their names. The first one is `go.mod`.
    pub(super) module: &'static [(&'static str, &'static str)],
    /// What is built of it.
    pub(super) package: &'static str,
}

impl GoProgram {
    /// The program, when it was built before.
    pub(super) fn in_cache(&self, cache: &Cache) -> Option<PathBuf> {
        Some(cache.entry(&self.entry())?.join(self.name))
    }

    /// What keeps Go from building it, if anything does.
    pub(super) async fn obstacle(&self, cache: &Cache) -> Option<String> {
        let title = self.title;
        if search_path::find("go").is_none() {
            return Some(format!("no Go is on PATH that could build {title}"));
        }
        let mut go = Command::new("go");
        // Elsewhere, a go.mod nearby would have a say in the version.
        go.args(["env", "GOVERSION", "GOTOOLCHAIN"])
            .current_dir(cache.dir());
        let said = match outside::output_of(&mut go, Duration::from_secs(20)).await {
            Ok(said) => said,
            Err(error) => return Some(format!("Go does not work: {error:#}")),
        };
        (!self.builds(&said)).then(|| {
            let [major, minor, patch] = self.go_needed();
            let own = said.lines().next().unwrap_or_default();
            format!("{own} neither is Go {major}.{minor}.{patch}, which builds {title}, nor may fetch it")
        })
    }

    /// Lets Go build it.
    pub(super) async fn install(&self, installer: &Installer<'_>) -> anyhow::Result<PathBuf> {
        let name = self.entry();
        let made = installer.cache.make(installer.lock, &name, async |partial| {
            // Go works on a copy, so that nothing it may want to write ends up in the repository.
            let module = partial.join("module");
            fs::create_dir(&module)?;
            for (name, text) in self.module {
                fs::write(module.join(name), text)?;
            }
            let mut go = installer.guardian.command("go");
            go.args([
                "build",
                "-mod=readonly",
                "-buildvcs=false",
                "-ldflags=-s -w",
                "-o",
            ])
            .arg(partial.join(self.name))
            .arg(self.package)
            .current_dir(&module)
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off");
            outside::output_of(&mut go, DEADLINE).await?;
            Ok(fs::remove_dir_all(module)?)
        });
        let version = self.stated(self.requirement).unwrap_or_default();
        let step = format!("build {} {version} with Go (once)", self.title);
        let entry = installer.progress.step(step, made).await?;
        Ok(entry.join(self.name))
    }

    /// Whether a Go that says this of its version and its way with other versions can build the module.
    fn builds(&self, said: &str) -> bool {
        let mut lines = said.lines();
        let own = lines
            .next()
            .and_then(|line| line.strip_prefix("go"))
            .and_then(parsed);
        let stays = lines.next().is_none_or(|toolchain| toolchain == "local");
        own.is_some_and(|own| own >= self.go_needed() || (own >= SWITCHES_SINCE && !stays))
    }

    /// The name of its entry in the cache.
    fn entry(&self) -> String {
        let mut sum = Sha256::new();
        for (_, text) in self.module {
            sum.update(text);
        }
        let sum: String = sum
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{}-{sum}-{}", self.entry, std::env::consts::ARCH)
    }

    fn go_needed(&self) -> Version {
        self.stated("go ").and_then(parsed).unwrap_or_default()
    }

    /// What `go.mod` states after a word at a line's start.
    fn stated(&self, word: &str) -> Option<&'static str> {
        let (_, text) = self.module.first()?;
        text.lines()
            .find_map(|line| line.trim_start().strip_prefix(word)?.split(' ').next())
    }
}

/// The numbers at the start of a version such as `1.26.6`, `1.27rc1` or `1.5.7-dev`.
pub(super) fn parsed(version: &str) -> Option<Version> {
    let mut numbers = [0; 3];
    for (place, (number, part)) in numbers.iter_mut().zip(version.trim().split('.')).enumerate() {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        match part[..digits].parse() {
            Ok(parsed) => *number = parsed,
            Err(_) if place > 0 => break,
            Err(_) => return None,
        }
        if digits < part.len() {
            break;
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::referrers_registry::REFERRERS_REGISTRY;
    use super::super::tofu::OPENTOFU;
    use super::*;

    #[test]
    fn a_go_builds_that_is_new_enough_or_may_fetch_a_newer_one() {
        let [major, minor, patch] = OPENTOFU.go_needed();
        assert!(OPENTOFU.builds(&format!("go{major}.{minor}.{patch}\nlocal\n")));
        assert!(OPENTOFU.builds("go1.99rc1\nlocal\n"));
        assert!(OPENTOFU.builds("go1.21.13\nauto\n"));
        assert!(!OPENTOFU.builds("go1.21.13\nlocal\n"));
        // Before there was GOTOOLCHAIN, its line was empty.
        assert!(!OPENTOFU.builds("go1.19.8\n\n"));
        assert!(!OPENTOFU.builds("devel +abc\nauto\n"));
        assert!(!OPENTOFU.builds(""));
    }

    #[test]
    fn each_module_is_pinned() {
        for program in [&OPENTOFU, &REFERRERS_REGISTRY] {
            assert_eq!(program.module[0].0, "go.mod");
            assert!(program.go_needed() > SWITCHES_SINCE, "{}", program.name);
            let version = program.stated(program.requirement).unwrap();
            let (_, sums) = program.module.iter().find(|(name, _)| *name == "go.sum").unwrap();
            let module = program.requirement.trim_start_matches("require ");
            let sum = format!("{module}{version} h1:");
            assert!(sums.contains(&sum), "go.sum has no line that starts with {sum}");
        }
    }
}
