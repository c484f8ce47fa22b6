//! The incident on a real cluster: a digest whose pods never become ready is taken back without anybody's hand, and held
//! until somebody releases it.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::deliveries::{Deliveries, Delivery, Fate, has_ended, job};
use super::delivery::{ROLLOUT, built, check_commit};
use super::rollback::{bump, said, set};
use super::timeline::Timeline;
use crate::cluster::Cluster;
use crate::gitlab::{PipelineSnapshot, Status};
use crate::world::{APPLICATION, ENV, World};

/// Pushes v1.1.0, whose image no node can pull: `argocd-wait` says so, and the environment goes back to `first` by itself.
pub(super) async fn never_ready<'w>(
    world: &World,
    cluster: &'w Cluster,
    deliveries: &mut Deliveries<'w>,
    timeline: &mut Timeline,
    first: &str,
) -> Result<Delivery<'w>> {
    let fate = Fate::NeverReady(cluster);
    let delivery = deliveries.push(timeline, "v1.1.0", fate).await?;
    let pipelines = deliveries.follow(timeline, &delivery, given_up).await?;
    let second = built(&pipelines)?;
    ensure!(first != second, "two different sources gave one digest: {first}");
    timeline.second(&second);
    timeline.begin("argocd-wait says why it does not run", ENV);
    let wait = job(&pipelines, ENV, "argocd-wait")?;
    ensure!(
        wait.status == Status::Failed && wait.trace.contains("ImagePullBackOff"),
        "argocd-wait should fail and name ImagePullBackOff: {}",
        wait.trace
    );
    timeline.done(Some(&second));
    let started = Instant::now();
    check_commit(world, timeline, first).await?;
    timeline.begin("cluster runs the first digest alone", ENV);
    world
        .platform
        .wait_until_running(APPLICATION, first, ROLLOUT)
        .await?;
    timeline.rolled_back(first, started.elapsed() + wait.duration.unwrap_or_default());
    timeline.done(Some(first));
    Ok(delivery)
}

/// Pushes v1.2.0, which could run: the hold refuses it until it is released.
pub(super) async fn held_until_released<'w>(
    world: &World,
    deliveries: &mut Deliveries<'w>,
    timeline: &mut Timeline,
    first: &str,
) -> Result<Delivery<'w>> {
    let delivery = deliveries.push(timeline, "v1.2.0", Fate::Refused).await?;
    let pipelines = deliveries.follow(timeline, &delivery, given_up).await?;
    let third = built(&pipelines)?;
    timeline.begin("hold refuses to deploy v1.2.0", ENV);
    let refused = job(&pipelines, ENV, "kustomize-bump")?;
    ensure!(
        refused.status == Status::Failed && refused.trace.contains("held"),
        "kustomize-bump should refuse what is held: {}",
        refused.trace
    );
    let running = world.platform.running_images(APPLICATION).await?;
    ensure!(
        !running.is_empty() && running.iter().all(|image| image.ends_with(first)),
        "the hold did not hold: {running:?} runs"
    );
    timeline.done(Some(first));

    timeline.begin("hold released, v1.2.0 let through", ENV);
    for arguments in [vec!["release".to_owned()], set(world, "1.2.0", &third)] {
        let output = bump(world, &arguments).await?;
        ensure!(
            output.status.success(),
            "letting it through failed: {}",
            said(&output)
        );
    }
    world
        .platform
        .wait_until_running(APPLICATION, &third, ROLLOUT)
        .await?;
    timeline.runs(&third);
    timeline.done(Some(&third));
    Ok(delivery)
}

/// Whether the environment's pipeline has ended, whatever the image's one knows of it.
fn given_up(pipelines: &[PipelineSnapshot]) -> bool {
    has_ended(pipelines, ENV)
}
