//! The registry with the referrers API, which Go builds when a test asks for it: most do not.

use std::path::PathBuf;

use super::cache::Cache;
use super::go::GoProgram;
use super::install::Installer;
use super::progress::Progress;
use crate::guardian::Guardian;

pub(super) const REFERRERS_REGISTRY: GoProgram = GoProgram {
    title: "the registry of go-containerregistry",
    name: "referrers-registry",
    entry: "referrers-registry",
    requirement: "require github.com/google/go-containerregistry ",
    module: &[
        ("go.mod", include_str!("../../referrers-registry/go.mod")),
        ("go.sum", include_str!("../../referrers-registry/go.sum")),
        ("main.go", include_str!("../../referrers-registry/main.go")),
    ],
    package: ".",
    version_variables: None,
    keeps: &[],
    amendment: None,
};

/// The program, which is built unless it is in the cache. Where it cannot be built for want of Go, `progress` is told why
/// and the answer is `None`.
///
/// Several processes may ask at once: one builds, the others wait for it.
pub(crate) async fn find_or_build(progress: &Progress) -> anyhow::Result<Option<PathBuf>> {
    let cache = Cache::open()?;
    if let Some(program) = REFERRERS_REGISTRY.in_cache(&cache) {
        return Ok(Some(program));
    }
    if let Some(why) = REFERRERS_REGISTRY.obstacle(&cache).await {
        progress.note(format!(
            "what needs it is left out: {why}; install Go 1.21 or later (without GOTOOLCHAIN=local)"
        ));
        return Ok(None);
    }
    let lock = cache.lock(progress).await?;
    // Meanwhile another process may have built it.
    if let Some(program) = REFERRERS_REGISTRY.in_cache(&cache) {
        return Ok(Some(program));
    }
    let guardian = Guardian::start()?;
    let installer = Installer::new(&cache, &lock, progress, &guardian);
    let program = REFERRERS_REGISTRY.install(&installer).await;
    guardian.stop().await?;
    program.map(Some)
}
