//! The incident on a real cluster: a digest whose pods never become ready is taken back without anybody's hand, and held
//! until somebody releases it.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::delivery::{LIMIT, ROLLOUT, check_commit, dotenv, keep_log, part_of_it};
use super::rollback::{bump, said, set};
use super::timeline::Timeline;
use crate::cluster::Cluster;
use crate::gitlab::{PipelineSnapshot, Status};
use crate::world::{APPLICATION, ENV, IMAGE, INFRA, World};

/// Pushes v1.1.0, whose image no node can pull: `argocd-wait` says so, and the environment goes back to `first` by itself.
pub(super) async fn never_ready(
    world: &World,
    cluster: &Cluster,
    timeline: &mut Timeline,
    first: &str,
) -> Result<()> {
    let pipelines = push_and_follow(world, timeline, "v1.1.0", Some(cluster)).await?;
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
    ensure!(
        job(&pipelines, IMAGE, "env-trigger")?.status == Status::Failed
            && !pipelines.iter().any(|pipeline| pipeline.project == INFRA),
        "the image's pipeline should fail with it, and nothing be applied for what does not run"
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
    Ok(())
}

/// Pushes v1.2.0, which could run: the hold refuses it until it is released.
pub(super) async fn held_until_released(world: &World, timeline: &mut Timeline, first: &str) -> Result<()> {
    let pipelines = push_and_follow(world, timeline, "v1.2.0", None).await?;
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
    Ok(())
}

/// Pushes a tag and follows its pipelines until all of them have ended, one of them badly. With a cluster, no node can pull
/// what the build made.
async fn push_and_follow(
    world: &World,
    timeline: &mut Timeline,
    tag: &str,
    refuses: Option<&Cluster>,
) -> Result<Vec<PipelineSnapshot>> {
    let known: BTreeSet<u64> = world
        .gitlab
        .snapshot()
        .iter()
        .map(|pipeline| pipeline.id)
        .collect();
    timeline.begin(&format!("tag {tag} pushed"), IMAGE);
    world.person.push_tag(&world.person.folder(IMAGE), tag).await?;
    let new = |pipeline: &PipelineSnapshot| !known.contains(&pipeline.id) && pipeline.ref_name == tag;
    let image = world.gitlab.wait_for_pipeline(IMAGE, &new, LIMIT).await?;
    timeline.done(None);
    let mut told = BTreeSet::new();
    let mut changes = world.gitlab.changes();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let pipelines = part_of_it(world, &image, &known);
        for pipeline in &pipelines {
            for job in &pipeline.jobs {
                if !job.status.is_finished() || !told.insert(job.id) {
                    continue;
                }
                keep_log(world, job)?;
                let digest = dotenv(job, "IMAGE_DIGEST");
                // Well before the environment repository hears of it.
                if let (Some(cluster), Some(digest), "image-build") = (refuses, digest, job.name.as_str()) {
                    cluster.refuse_image(digest).await?;
                }
                let name = match job.status {
                    Status::Success => job.name.clone(),
                    status => format!("{} {}, as it has to", job.name, status.as_str()),
                };
                timeline.step(&name, &pipeline.project, job.duration.unwrap_or_default(), digest);
            }
        }
        if pipelines.iter().any(|pipeline| pipeline.id == image.id)
            && pipelines.iter().all(|pipeline| pipeline.status.is_finished())
        {
            return Ok(pipelines);
        }
        if tokio::time::timeout_at(deadline, changes.changed())
            .await
            .is_err()
        {
            bail!("the pipelines did not end within {} s", LIMIT.as_secs());
        }
    }
}

/// The digest that the build handed over.
fn built(pipelines: &[PipelineSnapshot]) -> Result<String> {
    let build = job(pipelines, IMAGE, "image-build")?;
    Ok(dotenv(build, "IMAGE_DIGEST")
        .context("image-build handed over no digest")?
        .to_owned())
}

fn job<'a>(
    pipelines: &'a [PipelineSnapshot],
    project: &str,
    name: &str,
) -> Result<&'a crate::gitlab::JobSnapshot> {
    pipelines
        .iter()
        .filter(|pipeline| pipeline.project == project)
        .find_map(|pipeline| pipeline.job(name))
        .with_context(|| format!("no pipeline of {project} has a job {name}"))
}
