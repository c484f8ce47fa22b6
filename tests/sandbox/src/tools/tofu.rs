//! OpenTofu or Terraform, which the infrastructure repository's pipeline plans and applies with.
//!
//! OpenTofu comes first: that on `PATH`, as on a runner whose image brings one, else the one that was built before. Terraform
//! stands in for it where it is on `PATH`, unless `TOWPATH_OPENTOFU` is set. Elsewhere Go builds OpenTofu, for who asks: most
//! tests start no infrastructure pipeline.

use std::path::PathBuf;

use super::Missing;
use super::cache::Cache;
use super::go::{GoProgram, Version, parsed};
use super::install::Installer;
use super::search_path::{self, Answers};

pub(super) const OPENTOFU: GoProgram = GoProgram {
    title: "OpenTofu",
    name: "tofu",
    entry: "opentofu",
    requirement: "github.com/opentofu/opentofu ",
    module: &[
        ("go.mod", include_str!("../../opentofu/go.mod")),
        ("go.sum", include_str!("../../opentofu/go.sum")),
    ],
    package: "tool",
    version_variables: None,
    keeps: &[],
    amendment: None,
};
/// The first Terraform with `terraform_data`, which the example stands for its infrastructure with.
const OLDEST: Version = [1, 4, 0];

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
        if let Some(program) = on_path("tofu", answers).await {
            return Self::Ready(program);
        }
        if let Some(program) = OPENTOFU.in_cache(cache) {
            return Self::Ready(program);
        }
        if std::env::var_os("TOWPATH_OPENTOFU").is_none()
            && let Some(program) = terraform(answers).await
        {
            return Self::Ready(program);
        }
        match OPENTOFU.obstacle(cache).await {
            Some(why) => Self::Unavailable {
                why: format!("no tofu or terraform that suits is on PATH, and {why}"),
            },
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
        OPENTOFU.install(installer).await.map(Self::Ready)
    }
}

/// Terraform, where it is on `PATH` in a version that runs the example.
pub(super) async fn terraform(answers: &mut Answers) -> Option<PathBuf> {
    on_path("terraform", answers).await
}

async fn on_path(name: &str, answers: &mut Answers) -> Option<PathBuf> {
    let program = search_path::find(name)?;
    let said = answers.ask(&program, &["version"]).await?;
    suits(&said).then_some(program)
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
}
