//! The incident: one command by hand brings the first digest back, and it stays. Then the drill: the same with everything
//! down but git.

use std::ffi::OsStr;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::delivery::check_commit;
use super::timeline::Timeline;
use crate::gitlab::Trouble;
use crate::world::{APPLICATION, ENV, IMAGE, OVERLAY, World};

const ROLLOUT: Duration = Duration::from_secs(60);
/// `kustomize-bump` refuses with this code: denied.
const DENIED: i32 = 4;
/// And with this one what is older than what is there.
const CONFLICT: i32 = 6;

/// A pipeline of v1.0.0 that comes late, after v1.1.0, must not undo it.
pub(super) async fn come_late(
    world: &World,
    timeline: &mut Timeline,
    first: &str,
    second: &str,
) -> Result<()> {
    timeline.begin("late pipeline of v1.0.0 refused", ENV);
    let folder = world.person.folder(IMAGE);
    let commit = world
        .person
        .git(&folder, ["rev-parse", "v1.0.0^{commit}"])
        .await?;
    let source = ["--source-project", IMAGE, "--source-commit", commit.trim()];
    let output = bump(
        world,
        &[&set(world, "1.0.0", first)[..], &source.map(str::to_owned)].concat(),
    )
    .await?;
    ensure!(
        output.status.code() == Some(CONFLICT),
        "an older commit should be refused with code {CONFLICT}: {}",
        said(&output)
    );
    timeline.done(None);
    check_commit(world, timeline, second).await
}

/// Rolls back from `second` to `first`, and checks that the hold refuses to deploy `second` again.
pub(super) async fn roll_back(
    world: &World,
    timeline: &mut Timeline,
    first: &str,
    second: &str,
) -> Result<()> {
    timeline.begin("kustomize-bump rollback, by hand", ENV);
    let started = Instant::now();
    let rollback = ["rollback", "--yes", "--reason", "checkout fails since v1.1.0"];
    let by_deployments = ["--environment", "production", "--output", "json"];
    let output = bump(world, &[&rollback[..], &by_deployments].concat()).await?;
    ensure!(
        output.status.success(),
        "kustomize-bump rollback failed: {}",
        said(&output)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        report["images"][0]["known_by"] == "deployment",
        "GitLab's deployments should have told where to go: {report}"
    );
    let command = timeline.done(Some(first));
    timeline.begin("cluster runs the first digest again", ENV);
    world
        .platform
        .wait_until_running(APPLICATION, first, ROLLOUT)
        .await?;
    let took = started.elapsed();
    let running = world.platform.running_images(APPLICATION).await?;
    ensure!(
        running.iter().all(|image| image.ends_with(first)) && !running.is_empty(),
        "something else than {first} runs: {running:?}"
    );
    timeline.rolled_back(first, took);
    timeline.done(Some(first));
    timeline.note(&seconds("rollback", command, took));
    check_commit(world, timeline, first).await?;

    timeline.begin("hold refuses to deploy v1.1.0 again", ENV);
    let output = bump(world, &set(world, "1.1.0", second)).await?;
    ensure!(
        output.status.code() == Some(DENIED),
        "the hold should refuse a bump with code {DENIED}: {}",
        said(&output)
    );
    let running = world.platform.running_images(APPLICATION).await?;
    ensure!(
        running.iter().all(|image| image.ends_with(first)),
        "the hold did not hold: {running:?} runs"
    );
    timeline.done(Some(first));
    Ok(())
}

/// The drill: v1.1.0 is let through again, then everything hangs but git, and the first digest comes back all the same.
pub(super) async fn drill(world: &World, timeline: &mut Timeline, first: &str, second: &str) -> Result<()> {
    timeline.begin("hold released, v1.1.0 let through", ENV);
    for arguments in [vec!["release".to_owned()], set(world, "1.1.0", second)] {
        let output = bump(world, &arguments).await?;
        ensure!(
            output.status.success(),
            "letting it through failed: {}",
            said(&output)
        );
    }
    world
        .platform
        .wait_until_running(APPLICATION, second, ROLLOUT)
        .await?;
    timeline.done(Some(second));

    timeline.begin("GitLab's API, OpenBao, registries down", "");
    world.gitlab.trouble(|_, _| Some(Trouble::Status(503)));
    world.openbao.pause()?;
    world.staging.pause()?;
    world.production.pause()?;
    timeline.done(None);

    timeline.begin("kustomize-bump rollback --offline", ENV);
    let started = Instant::now();
    let output = bump(
        world,
        &[
            "rollback",
            "--yes",
            "--offline",
            "--environment",
            "production",
            "--reason",
            "drill",
        ],
    )
    .await?;
    ensure!(
        output.status.success(),
        "kustomize-bump rollback --offline failed: {}",
        said(&output)
    );
    let command = timeline.done(Some(first));
    check_commit(world, timeline, first).await?;
    // The cluster pulls from a registry; that one has to be up for any way back.
    world.production.resume()?;
    world.staging.resume()?;
    world.openbao.resume()?;
    world.gitlab.trouble(|_, _| None);
    timeline.begin("cluster runs it once it can pull", ENV);
    world
        .platform
        .wait_until_running(APPLICATION, first, ROLLOUT)
        .await?;
    timeline.done(Some(first));
    timeline.note(&seconds(
        "drill without GitLab's API, OpenBao and registries",
        command,
        started.elapsed(),
    ));
    Ok(())
}

fn seconds(what: &str, command: Duration, took: Duration) -> String {
    format!(
        "{what}: the command took {:.1} s, and after {:.1} s the first digest ran",
        command.as_secs_f64(),
        took.as_secs_f64()
    )
}

/// The arguments that set a version.
pub(super) fn set(world: &World, tag: &str, digest: &str) -> Vec<String> {
    let repository = format!("{}/{IMAGE}", world.production.host());
    ["set", "--new-name", &repository, "--tag", tag, "--digest", digest]
        .map(str::to_owned)
        .to_vec()
}

/// Runs kustomize-bump as the person would: with their token, from nowhere in particular.
pub(super) async fn bump(world: &World, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
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

pub(super) fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
