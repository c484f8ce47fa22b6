//! One delivery: a tag is pushed, and its image is followed until that very digest runs.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::infra;
use super::timeline::Timeline;
use crate::gitlab::{JobSnapshot, PipelineSnapshot, Status};
use crate::world::{APPLICATION, ENV, IMAGE, INFRA, OVERLAY, World};

/// As long as one delivery may take on a slow machine.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
/// As long as the cluster may take for a rollout.
pub(super) const ROLLOUT: Duration = Duration::from_secs(60);
/// How the page greets, of the example and after a change.
const GREETINGS: [&str; 2] = ["The shop says", "The new shop says"];
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
    timeline.begin(&format!("tag {tag} pushed"), IMAGE);
    let folder = world.person.folder(IMAGE);
    world
        .person
        .push_tag(&folder, tag)
        .await
        .context("pushing the tag")?;
    timeline.done(None);

    timeline.begin(&format!("pipelines of {tag}"), IMAGE);
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
    timeline.begin("one pipeline started in each repository", ENV);
    let infra = only(INFRA)?;
    only(ENV)?;
    timeline.done(None);
    check_commit(world, timeline, &digest).await?;
    timeline.begin("cluster runs it (Argo CD)", ENV);
    world
        .platform
        .wait_until_running(APPLICATION, &digest, ROLLOUT)
        .await?;
    timeline.done(Some(&digest));
    check_infra(timeline, infra, &digest)?;
    timeline.note(&format!("{tag} is {digest}, all the way"));
    Ok(digest)
}

/// Changes what the image holds, as a developer would.
pub(super) async fn change_the_page(world: &World, timeline: &mut Timeline, greeting: &str) -> Result<()> {
    timeline.begin("page changed", IMAGE);
    let folder = world.person.folder(IMAGE);
    let page = folder.join("page.html");
    let text = fs::read_to_string(&page)?;
    let greets = GREETINGS.iter().find(|greets| text.contains(**greets));
    let greets = greets.context("page.html of the example does not greet any more")?;
    let changed = text.replace(greets, greeting);
    fs::write(page, changed)?;
    world.person.publish(&folder, "Greet as another shop").await?;
    timeline.done(None);
    Ok(())
}

/// Tells each job's end as it comes, in whichever repository it is, until all pipelines have ended well.
async fn follow(
    world: &World,
    timeline: &mut Timeline,
    image: &PipelineSnapshot,
    known: &BTreeSet<u64>,
) -> Result<Vec<PipelineSnapshot>> {
    let (mut told, mut approved) = (BTreeSet::new(), BTreeSet::new());
    let mut changes = world.gitlab.changes();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let pipelines = part_of_it(world, image, known);
        for pipeline in &pipelines {
            if let Some(error) = &pipeline.yaml_errors {
                bail!("GitLab refuses the pipeline of {}: {error}", pipeline.project);
            }
            for job in &pipeline.jobs {
                if let Some(failure) = tell(world, timeline, pipeline, job, &mut told)? {
                    bail!(failure);
                }
                if infra::waits_for_approval(pipeline, job) && approved.insert(job.id) {
                    infra::approve(world, timeline, pipeline, job).await?;
                }
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

/// The image's pipeline and those that its jobs started, directly or not: a branch's own pipelines are no part of it.
pub(super) fn part_of_it(
    world: &World,
    image: &PipelineSnapshot,
    known: &BTreeSet<u64>,
) -> Vec<PipelineSnapshot> {
    world
        .gitlab
        .snapshot()
        .into_iter()
        .filter(|pipeline| !known.contains(&pipeline.id))
        .filter(|pipeline| pipeline.id == image.id || pipeline.source_job.is_some())
        .collect()
}

/// Tells every job that ends from now on, in whichever pipeline a person at the keyboard starts.
///
/// # Errors
/// When a job's log cannot be written.
pub(super) async fn watch(world: &World, timeline: &mut Timeline) -> Result<()> {
    let mut changes = world.gitlab.changes();
    let mut told: BTreeSet<u64> = world
        .gitlab
        .snapshot()
        .iter()
        .flat_map(|pipeline| &pipeline.jobs)
        .map(|job| job.id)
        .collect();
    let mut refused = BTreeSet::new();
    while changes.changed().await.is_ok() {
        for pipeline in world.gitlab.snapshot() {
            if let Some(error) = &pipeline.yaml_errors
                && refused.insert(pipeline.id)
            {
                timeline.note(&format!(
                    "GitLab refuses the pipeline of {}: {error}",
                    pipeline.project
                ));
            }
            for job in &pipeline.jobs {
                if let Some(failure) = tell(world, timeline, &pipeline, job, &mut told)? {
                    timeline.note(&failure);
                }
            }
        }
    }
    Ok(())
}

/// Tells a job that has ended, once, and keeps its log. Answers how it failed, when it did for good.
fn tell(
    world: &World,
    timeline: &mut Timeline,
    pipeline: &PipelineSnapshot,
    job: &JobSnapshot,
    told: &mut BTreeSet<u64>,
) -> Result<Option<String>> {
    if !job.status.is_finished() || !told.insert(job.id) {
        return Ok(None);
    }
    keep_log(world, job)?;
    let took = job.duration.unwrap_or_default();
    if job.status == Status::Failed && !job.retried {
        timeline.failed_step(&job.name, &pipeline.project, took);
        let lines: Vec<&str> = job.trace.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        return Ok(Some(format!(
            "the job {} of {} failed; its log ends:\n  {}",
            job.name,
            pipeline.project,
            last.join("\n  ")
        )));
    }
    let name = match job.status {
        Status::Success => job.name.clone(),
        status => format!("{} {}", job.name, status.as_str()),
    };
    timeline.step(&name, &pipeline.project, took, dotenv(job, "IMAGE_DIGEST"));
    Ok(None)
}

/// The log goes to a file beside those of the servers, as `NUMBER-JOB.log`.
pub(super) fn keep_log(world: &World, job: &JobSnapshot) -> Result<()> {
    let folder = world.guardian.dir().join("logs/jobs");
    fs::create_dir_all(&folder)?;
    let name = job
        .name
        .replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let file = folder.join(format!("{}-{name}.log", job.id));
    fs::write(&file, &job.trace).with_context(|| format!("writing {}", file.display()))
}

pub(super) fn dotenv<'a>(job: &'a JobSnapshot, name: &str) -> Option<&'a str> {
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
    timeline.begin("the build handed over a digest", IMAGE);
    let build = image
        .job("image-build")
        .context("the image pipeline has no job image-build")?;
    let digest = dotenv(build, "IMAGE_DIGEST")
        .context("image-build handed over no digest")?
        .to_owned();
    timeline.done(Some(&digest));
    let version = tag.trim_start_matches('v');
    for (name, registry) in [("staging", &world.staging), ("production", &world.production)] {
        timeline.begin(&format!("{name} registry holds it"), IMAGE);
        let found = world.digest_at(registry, IMAGE, version).await?;
        ensure!(
            found.as_deref() == Some(digest.as_str()),
            "the {name} registry has {found:?} as {IMAGE}:{version}, the build made {digest}"
        );
        timeline.done(Some(&digest));
    }
    Ok(digest)
}

/// The kustomization on the branch must name the digest.
pub(super) async fn check_commit(world: &World, timeline: &mut Timeline, digest: &str) -> Result<()> {
    timeline.begin("kustomization on main names it", ENV);
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
    timeline.done(Some(digest));
    Ok(())
}

/// The applied plan must have seen the digest.
fn check_infra(timeline: &mut Timeline, infra: &PipelineSnapshot, digest: &str) -> Result<()> {
    timeline.begin("infrastructure applied for it", INFRA);
    let apply = infra
        .job("infra-apply")
        .context("the infra pipeline has no job infra-apply")?;
    ensure!(apply.trace.contains(digest), "infra-apply did not see {digest}");
    timeline.done(Some(digest));
    Ok(())
}
