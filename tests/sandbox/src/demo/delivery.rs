//! One delivery: a tag is pushed, and its image is followed until that very digest runs.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::timeline::Timeline;
use crate::gitlab::{JobSnapshot, PipelineSnapshot, Status};
use crate::world::{APPLICATION, ENV, IMAGE, INFRA, OVERLAY, World};

/// As long as one delivery may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);
/// As long as the cluster may take for a rollout.
const ROLLOUT: Duration = Duration::from_secs(60);
/// How much of a failed job's log is shown.
const LAST_LINES: usize = 25;

/// Pushes `tag` and follows it. Answers the digest that runs afterwards.
pub(super) async fn deliver(world: &World, timeline: &mut Timeline, tag: &str) -> Result<String> {
    let known: BTreeSet<u64> = world
        .gitlab
        .snapshot()
        .into_iter()
        .map(|pipeline| pipeline.id)
        .collect();
    let started = Instant::now();
    let folder = world.person.folder(IMAGE);
    world
        .person
        .push_tag(&folder, tag)
        .await
        .context("pushing the tag")?;
    timeline.step(&format!("tag {tag} pushed"), IMAGE, started.elapsed(), None);

    let new = |pipeline: &PipelineSnapshot| !known.contains(&pipeline.id);
    let image = world.gitlab.wait_for_pipeline(IMAGE, &new, LIMIT).await?;
    ensure!(
        image.ref_name == tag,
        "the new pipeline of {IMAGE} is for {}, not {tag}",
        image.ref_name
    );
    let pipelines = follow(world, timeline, &image, &known).await?;

    let only = |project: &str| -> Result<&PipelineSnapshot> {
        let of_project: Vec<&PipelineSnapshot> = pipelines
            .iter()
            .filter(|pipeline| pipeline.project == project)
            .collect();
        ensure!(
            of_project.len() == 1,
            "{} pipelines of {project} were started, not one",
            of_project.len()
        );
        Ok(of_project[0])
    };
    let digest = check_digests(world, timeline, only(IMAGE)?, tag).await?;
    check_commit(world, timeline, &digest).await?;
    only(ENV)?;
    let started = Instant::now();
    world
        .argocd
        .wait_until_running(APPLICATION, &digest, ROLLOUT)
        .await?;
    timeline.step("cluster runs it (Argo CD)", ENV, started.elapsed(), Some(&digest));
    check_infra(timeline, only(INFRA)?, &digest)?;
    Ok(digest)
}

/// Changes what the image holds, as a developer would.
pub(super) async fn change_the_page(world: &World) -> Result<()> {
    let folder = world.person.folder(IMAGE);
    let page = folder.join("page.html");
    let text = fs::read_to_string(&page)?;
    let changed = text.replace("The shop says", "The new shop says");
    ensure!(
        changed != text,
        "page.html of the example does not greet any more"
    );
    fs::write(page, changed)?;
    world.person.publish(&folder, "Greet as the new shop").await
}

/// Tells each job's end as it comes, in whichever repository it is, until all pipelines have ended well.
async fn follow(
    world: &World,
    timeline: &mut Timeline,
    image: &PipelineSnapshot,
    known: &BTreeSet<u64>,
) -> Result<Vec<PipelineSnapshot>> {
    let mut told = BTreeSet::new();
    let mut changes = world.gitlab.changes();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let pipelines: Vec<PipelineSnapshot> = world
            .gitlab
            .snapshot()
            .into_iter()
            .filter(|pipeline| !known.contains(&pipeline.id))
            .collect();
        for pipeline in &pipelines {
            if let Some(error) = &pipeline.yaml_errors {
                bail!("GitLab refuses the pipeline of {}: {error}", pipeline.project);
            }
            for job in &pipeline.jobs {
                tell(timeline, pipeline, job, &mut told)?;
            }
        }
        let image_now = pipelines.iter().find(|pipeline| pipeline.id == image.id);
        if image_now.is_some_and(|pipeline| pipeline.status.is_finished())
            && pipelines.iter().all(|pipeline| pipeline.status.is_finished())
        {
            if let Some(failed) = pipelines
                .iter()
                .find(|pipeline| pipeline.status != Status::Success)
            {
                bail!(
                    "the pipeline of {} ended as {}",
                    failed.project,
                    failed.status.as_str()
                );
            }
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

/// Tells a job that has ended, once.
fn tell(
    timeline: &mut Timeline,
    pipeline: &PipelineSnapshot,
    job: &JobSnapshot,
    told: &mut BTreeSet<u64>,
) -> Result<()> {
    if !job.status.is_finished() || !told.insert(job.id) {
        return Ok(());
    }
    let took = job.duration.unwrap_or_default();
    let name = format!(
        "{} {}",
        job.name,
        if job.status == Status::Success {
            ""
        } else {
            job.status.as_str()
        }
    );
    if job.status == Status::Failed && !job.retried {
        timeline.failed_step(name.trim(), &pipeline.project, took);
        let lines: Vec<&str> = job.trace.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        bail!(
            "the job {} of {} failed; its log ends:\n  {}",
            job.name,
            pipeline.project,
            last.join("\n  ")
        );
    }
    let digest = dotenv(job, "IMAGE_DIGEST");
    timeline.step(name.trim(), &pipeline.project, took, digest);
    Ok(())
}

fn dotenv<'a>(job: &'a JobSnapshot, name: &str) -> Option<&'a str> {
    job.dotenv
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// The digest at the build, in the staging registry and in the production registry must be one.
async fn check_digests(
    world: &World,
    timeline: &mut Timeline,
    image: &PipelineSnapshot,
    tag: &str,
) -> Result<String> {
    let started = Instant::now();
    let build = image
        .job("image-build")
        .context("the image pipeline has no job image-build")?;
    let digest = dotenv(build, "IMAGE_DIGEST")
        .context("image-build handed over no digest")?
        .to_owned();
    let version = tag.trim_start_matches('v');
    for (name, registry) in [("staging", &world.staging), ("production", &world.production)] {
        let found = world.digest_at(registry, IMAGE, version).await?;
        ensure!(
            found.as_deref() == Some(digest.as_str()),
            "the {name} registry has {found:?} as {IMAGE}:{version}, the build made {digest}"
        );
    }
    timeline.step(
        "staging and production hold that digest",
        IMAGE,
        started.elapsed(),
        Some(&digest),
    );
    Ok(digest)
}

/// The kustomization on the branch must name the digest.
pub(super) async fn check_commit(world: &World, timeline: &mut Timeline, digest: &str) -> Result<()> {
    let started = Instant::now();
    let folder = world.person.folder(ENV);
    let file = format!("{OVERLAY}/kustomization.yaml");
    let text = world.person.read_remote(&folder, &file).await?;
    ensure!(
        text.contains(&format!("digest: {digest}")),
        "{file} on main does not name {digest}:\n{text}"
    );
    ensure!(
        text.contains("# nothing was deployed yet"),
        "kustomize-bump lost a comment of {file}:\n{text}"
    );
    timeline.step(
        "kustomization on main names it",
        ENV,
        started.elapsed(),
        Some(digest),
    );
    Ok(())
}

/// The applied plan must have seen the digest.
fn check_infra(timeline: &mut Timeline, infra: &PipelineSnapshot, digest: &str) -> Result<()> {
    let apply = infra
        .job("infra-apply")
        .context("the infra pipeline has no job infra-apply")?;
    ensure!(apply.trace.contains(digest), "infra-apply did not see {digest}");
    timeline.step(
        "infrastructure applied for it",
        INFRA,
        apply.duration.unwrap_or_default(),
        Some(digest),
    );
    Ok(())
}
