//! One delivery: a tag is pushed, and its image is followed until that very digest runs.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::deliveries::{Deliveries, Delivery, Fate, has_ended, job};
use super::jobs;
use super::timeline::Timeline;
use crate::gitlab::PipelineSnapshot;
use crate::world::{APPLICATION, ENV, IMAGE, INFRA, OVERLAY, World};

/// As long as the cluster may take for a rollout.
pub(super) const ROLLOUT: Duration = Duration::from_secs(60);
/// How the page greets, of the example and after a change.
const GREETINGS: [&str; 2] = ["The shop says", "The new shop says"];

/// Pushes a tag and follows it until it has arrived. Answers the delivery, whose jobs that follow other pipelines may still have
/// to notice, and the digest.
pub(super) async fn deliver<'w>(
    world: &World,
    deliveries: &mut Deliveries<'w>,
    timeline: &mut Timeline,
    tag: &'static str,
) -> Result<(Delivery<'w>, String)> {
    let delivery = deliveries.push(timeline, tag, Fate::Arrives).await?;
    let digest = arrive(world, deliveries, timeline, &delivery).await?;
    Ok((delivery, digest))
}

/// Follows a tag that was pushed until its digest runs and infrastructure is applied for it. Answers the digest.
pub(super) async fn arrive<'w>(
    world: &World,
    deliveries: &mut Deliveries<'w>,
    timeline: &mut Timeline,
    delivery: &Delivery<'w>,
) -> Result<String> {
    let tag = delivery.tag;
    let applied = |pipelines: &[PipelineSnapshot]| has_ended(pipelines, INFRA);
    let pipelines = deliveries.follow(timeline, delivery, applied).await?;
    let digest = check_digests(world, timeline, &pipelines, tag).await?;
    timeline.begin("one pipeline started in each repository", ENV);
    let projects: Vec<&str> = pipelines.iter().map(|one| one.project.as_str()).collect();
    ensure!(
        projects == [IMAGE, ENV, INFRA],
        "pipelines of {projects:?} were started"
    );
    timeline.done(None);
    check_commit(world, timeline, &digest).await?;
    timeline.begin("cluster runs it (Argo CD)", ENV);
    world
        .platform
        .wait_until_running(APPLICATION, &digest, ROLLOUT)
        .await?;
    timeline.done(Some(&digest));
    check_infra(timeline, &pipelines, &digest)?;
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

/// The digest at the build, in the staging registry and in the production registry must be one.
async fn check_digests(
    world: &World,
    timeline: &mut Timeline,
    pipelines: &[PipelineSnapshot],
    tag: &str,
) -> Result<String> {
    timeline.begin("the build handed over a digest", IMAGE);
    let digest = built(pipelines)?;
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
fn check_infra(timeline: &mut Timeline, pipelines: &[PipelineSnapshot], digest: &str) -> Result<()> {
    timeline.begin("infrastructure applied for it", INFRA);
    let apply = job(pipelines, INFRA, "infra-apply")?;
    ensure!(apply.trace.contains(digest), "infra-apply did not see {digest}");
    timeline.done(Some(digest));
    Ok(())
}

/// The digest that the build handed over.
pub(super) fn built(pipelines: &[PipelineSnapshot]) -> Result<String> {
    let build = job(pipelines, IMAGE, "image-build")?;
    let digest = jobs::digest(build).context("image-build handed over no digest")?;
    Ok(digest.to_owned())
}
