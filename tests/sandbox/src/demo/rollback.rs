//! The incident: one command by hand brings the first digest back, and it stays.

use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::delivery::check_commit;
use super::timeline::Timeline;
use crate::world::{APPLICATION, ENV, IMAGE, OVERLAY, World};

const ROLLOUT: Duration = Duration::from_secs(60);
/// `kustomize-bump` refuses with this code: denied.
const DENIED: i32 = 4;

/// Rolls back from `second` to `first`, and checks that the hold refuses to deploy `second` again.
pub(super) async fn roll_back(
    world: &World,
    timeline: &mut Timeline,
    first: &str,
    second: &str,
) -> Result<()> {
    timeline.begin("kustomize-bump rollback, by hand", ENV);
    let started = Instant::now();
    let output = bump(
        world,
        &["rollback", "--yes", "--reason", "checkout fails since v1.1.0"],
    )
    .await?;
    ensure!(
        output.status.success(),
        "kustomize-bump rollback failed: {}",
        said(&output)
    );
    timeline.done(Some(first));
    timeline.begin("cluster runs the first digest again", ENV);
    world
        .argocd
        .wait_until_running(APPLICATION, first, ROLLOUT)
        .await?;
    let took = started.elapsed();
    let running = world.argocd.running_images(APPLICATION);
    ensure!(
        running.iter().all(|image| image.ends_with(first)) && !running.is_empty(),
        "something else than {first} runs: {running:?}"
    );
    timeline.rolled_back(first, took);
    timeline.done(Some(first));
    check_commit(world, timeline, first).await?;

    timeline.begin("hold refuses to deploy v1.1.0 again", ENV);
    let repository = format!("{}/{IMAGE}", world.production.host());
    let output = bump(
        world,
        &[
            "set",
            "--new-name",
            &repository,
            "--tag",
            "1.1.0",
            "--digest",
            second,
        ],
    )
    .await?;
    ensure!(
        output.status.code() == Some(DENIED),
        "the hold should refuse a bump with code {DENIED}: {}",
        said(&output)
    );
    let running = world.argocd.running_images(APPLICATION);
    ensure!(
        running.iter().all(|image| image.ends_with(first)),
        "the hold did not hold: {running:?} runs"
    );
    timeline.done(Some(first));
    Ok(())
}

/// Runs kustomize-bump as the person would: with their token, from nowhere in particular.
async fn bump(world: &World, arguments: &[&str]) -> Result<Output> {
    world
        .by_hand("kustomize-bump")
        .args(arguments)
        .args([
            "--repo",
            &world.gitlab.clone_url(ENV),
            "--branch",
            "main",
            "--path",
            OVERLAY,
            "--image",
            "web",
        ])
        .env("TOWPATH_GIT_TOKEN", world.person.token())
        .env("TOWPATH_GIT_AUTHOR", "Ada")
        .env("TOWPATH_GIT_AUTHOR_EMAIL", "ada@example.com")
        .output()
        .await
        .context("running kustomize-bump")
}

fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
