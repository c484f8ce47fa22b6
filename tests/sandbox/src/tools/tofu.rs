//! OpenTofu or Terraform, which the infrastructure repository's pipeline plans and applies with.
//!
//! What is on `PATH` comes first, as on a runner whose image brings one. Elsewhere Go builds OpenTofu from its module,
//! of which `opentofu/go.sum` pins every part by its checksum. That takes minutes, so it is done only for who asks: most
//! tests start no infrastructure pipeline. Go keeps each package it has compiled, so a build that was killed goes on
//! where it ended.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::cache::Cache;
use super::install::Installer;
use super::search_path::{self, Answers};
use super::{Missing, outside};

const MODULE: &str = include_str!("../../opentofu/go.mod");
const SUMS: &str = include_str!("../../opentofu/go.sum");
/// From no module in Go's cache on two busy cores it takes about five minutes.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// The first Go that fetches the version that a module asks for.
const SWITCHES_SINCE: Version = [1, 21, 0];
/// The first Terraform with `terraform_data`, which the example stands for its infrastructure with.
const OLDEST: Version = [1, 4, 0];

type Version = [u32; 3];

/// Whether the infrastructure pipeline can run here.
#[derive(Debug)]
pub(super) enum Tofu {
    Ready(PathBuf),
    /// Go may build it.
    Installable,
    Unavailable {
        why: String,
    },
}

impl Tofu {
    /// What a person may do instead.
    pub(super) const INSTEAD: &str = "install Go 1.21 or later (without GOTOOLCHAIN=local), or put `tofu` or `terraform` 1.4 or later on PATH";

    /// Looks without installing anything.
    pub(super) async fn look(cache: &Cache, answers: &mut Answers) -> Self {
        for name in ["tofu", "terraform"] {
            if let Some(program) = search_path::find(name)
                && answers
                    .ask(&program, &["version"])
                    .await
                    .is_some_and(|said| suits(&said))
            {
                return Self::Ready(program);
            }
        }
        if let Some(entry) = cache.entry(&entry()) {
            return Self::Ready(entry.join("tofu"));
        }
        match obstacle(cache).await {
            Some(why) => Self::Unavailable { why },
            None => Self::Installable,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }

    /// Adds itself when it cannot be had here.
    pub(super) fn list_obstacle(&self, missing: &mut Missing) {
        if let Self::Unavailable { why } = self {
            missing.add("tofu", why, Self::INSTEAD);
        }
    }

    /// Lets Go build it.
    pub(super) async fn install(installer: &Installer<'_>) -> anyhow::Result<Self> {
        let name = entry();
        let made = installer.cache.make(installer.lock, &name, async |partial| {
            // Go works on a copy, so that nothing it may want to write ends up in the repository.
            let module = partial.join("module");
            fs::create_dir(&module)?;
            fs::write(module.join("go.mod"), MODULE)?;
            fs::write(module.join("go.sum"), SUMS)?;
            let mut go = installer.guardian.command("go");
            go.args([
                "build",
                "-mod=readonly",
                "-buildvcs=false",
                "-ldflags=-s -w",
                "-o",
            ])
            .arg(partial)
            .arg("tool")
            .current_dir(&module)
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off");
            outside::output_of(&mut go, DEADLINE).await?;
            Ok(fs::remove_dir_all(module)?)
        });
        let step = format!("build OpenTofu {} with Go (some minutes, once)", version());
        let entry = installer.progress.step(step, made).await?;
        Ok(Self::Ready(entry.join("tofu")))
    }
}

/// What keeps Go from building it, if anything does.
async fn obstacle(cache: &Cache) -> Option<String> {
    const NONE: &str = "no tofu or terraform that suits is on PATH";
    if search_path::find("go").is_none() {
        return Some(format!("{NONE}, nor is a Go that could build OpenTofu"));
    }
    let mut go = Command::new("go");
    // Elsewhere, a go.mod nearby would have a say in the version.
    go.args(["env", "GOVERSION", "GOTOOLCHAIN"])
        .current_dir(cache.dir());
    let said = match outside::output_of(&mut go, Duration::from_secs(20)).await {
        Ok(said) => said,
        Err(error) => return Some(format!("{NONE}, and Go does not work: {error:#}")),
    };
    (!builds(&said)).then(|| {
        let [major, minor, patch] = go_needed();
        let own = said.lines().next().unwrap_or_default();
        format!(
            "{NONE}, and {own} neither is Go {major}.{minor}.{patch}, which builds OpenTofu, nor may fetch it"
        )
    })
}

/// Whether a Go that says this of its version and its way with other versions can build the module.
fn builds(said: &str) -> bool {
    let mut lines = said.lines();
    let own = lines
        .next()
        .and_then(|line| line.strip_prefix("go"))
        .and_then(parsed);
    let stays = lines.next().is_none_or(|toolchain| toolchain == "local");
    own.is_some_and(|own| own >= go_needed() || (own >= SWITCHES_SINCE && !stays))
}

/// Whether a program that says this of its version runs the example.
fn suits(said: &str) -> bool {
    let first = said.lines().next().unwrap_or_default();
    ["OpenTofu v", "Terraform v"]
        .iter()
        .find_map(|name| first.strip_prefix(name))
        .and_then(parsed)
        .is_some_and(|version| version >= OLDEST)
}

/// The name of its entry in the cache.
fn entry() -> String {
    let sum = Sha256::digest([MODULE, SUMS].concat());
    let sum: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("opentofu-{sum}-{}", std::env::consts::ARCH)
}

/// OpenTofu's version, with its `v`.
fn version() -> &'static str {
    stated("github.com/opentofu/opentofu ").unwrap_or_default()
}

fn go_needed() -> Version {
    stated("go ").and_then(parsed).unwrap_or_default()
}

/// What `go.mod` states after a word at a line's start.
fn stated(word: &str) -> Option<&'static str> {
    MODULE
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(word)?.split(' ').next())
}

/// The numbers at the start of a version such as `1.26.6`, `1.27rc1` or `1.5.7-dev`.
fn parsed(version: &str) -> Option<Version> {
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
    use super::*;

    #[test]
    fn only_a_version_that_runs_the_example_suits() {
        assert!(suits("OpenTofu v1.12.6\non linux_amd64\n"));
        assert!(suits(
            "Terraform v1.5.7\non linux_amd64\n\nYour version is out of date!\n"
        ));
        assert!(suits("Terraform v1.4.0-dev\n"));
        assert!(!suits("Terraform v1.3.10\n"));
        assert!(!suits("Terraform v0.12.31\n"));
        assert!(!suits("No version is set for command terraform\n"));
    }

    #[test]
    fn a_go_builds_that_is_new_enough_or_may_fetch_a_newer_one() {
        let [major, minor, patch] = go_needed();
        assert!(builds(&format!("go{major}.{minor}.{patch}\nlocal\n")));
        assert!(builds("go1.99rc1\nlocal\n"));
        assert!(builds("go1.21.13\nauto\n"));
        assert!(!builds("go1.21.13\nlocal\n"));
        // Before there was GOTOOLCHAIN, its line was empty.
        assert!(!builds("go1.19.8\n\n"));
        assert!(!builds("devel +abc\nauto\n"));
        assert!(!builds(""));
    }

    #[test]
    fn the_module_states_what_is_told_of_it() {
        assert!(version().starts_with("v1."), "{}", version());
        assert!(go_needed() > SWITCHES_SINCE);
        let sum = format!("github.com/opentofu/opentofu {} h1:", version());
        assert!(SUMS.contains(&sum), "go.sum has no line that starts with {sum}");
    }
}
