//! The deliveries under way: each is a tag that was pushed, with the pipelines that it started in turn.
//!
//! A job that follows the next repository's pipeline looks at it a few times a minute, and so ends seconds after it. What does not
//! depend on that goes on meanwhile: whoever follows one delivery is told of the jobs of the others as well, and
//! [`Deliveries::ended`] looks at how each one ended before the run is over.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

use super::infra;
use super::jobs;
use super::timeline::Timeline;
use crate::cluster::Cluster;
use crate::gitlab::{PipelineSnapshot, Status};
use crate::world::{ENV, IMAGE, INFRA, World};

/// How a delivery has to end.
#[derive(Clone, Copy)]
pub(super) enum Fate<'w> {
    /// Every job succeeds.
    Arrives,
    /// Its image cannot be pulled by any node of this cluster.
    NeverReady(&'w Cluster),
    /// The environment is held.
    Refused,
}

/// A tag that was pushed.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'w> {
    pub(super) tag: &'static str,
    /// The pipeline of the image repository.
    image: u64,
    fate: Fate<'w>,
}

/// All deliveries of a run.
pub(super) struct Deliveries<'w> {
    world: &'w World,
    under_way: Vec<Delivery<'w>>,
    told: BTreeSet<u64>,
    approved: BTreeSet<u64>,
}

impl<'w> Deliveries<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        Deliveries {
            world,
            under_way: Vec::new(),
            told: BTreeSet::new(),
            approved: BTreeSet::new(),
        }
    }

    /// Pushes a tag, and waits until GitLab has made its pipeline.
    pub(super) async fn push(
        &mut self,
        timeline: &mut Timeline,
        tag: &'static str,
        fate: Fate<'w>,
    ) -> Result<Delivery<'w>> {
        let world = self.world;
        timeline.begin(&format!("tag {tag} pushed"), IMAGE);
        let folder = world.person.folder(IMAGE);
        let pushed = world.person.push_tag(&folder, tag).await;
        pushed.context("pushing the tag")?;
        let is_it = |pipeline: &PipelineSnapshot| pipeline.ref_name == tag;
        let image = world.gitlab.wait_for_pipeline(IMAGE, is_it, jobs::LIMIT).await?;
        timeline.done(None);
        timeline.begin(&format!("pipelines of {tag}"), IMAGE);
        let image = image.id;
        let delivery = Delivery { tag, image, fate };
        self.under_way.push(delivery);
        Ok(delivery)
    }

    /// Tells each job's end as it comes, of every delivery and in whichever repository it is, until the pipelines of this one
    /// are as far as `enough` says.
    pub(super) async fn follow(
        &mut self,
        timeline: &mut Timeline,
        delivery: &Delivery<'w>,
        enough: impl Fn(&[PipelineSnapshot]) -> bool,
    ) -> Result<Vec<PipelineSnapshot>> {
        let mut changes = self.world.gitlab.changes();
        let deadline = tokio::time::Instant::now() + jobs::LIMIT;
        loop {
            for other in self.under_way.clone() {
                self.tell(timeline, &other).await?;
            }
            let pipelines = self.pipelines(delivery);
            if enough(&pipelines) {
                return Ok(pipelines);
            }
            let changed = tokio::time::timeout_at(deadline, changes.changed());
            if changed.await.is_err() {
                let (tag, seconds) = (delivery.tag, jobs::LIMIT.as_secs());
                bail!("the pipelines of {tag} did not end within {seconds} s");
            }
        }
    }

    /// Waits until every pipeline of a delivery has ended, and checks that each ended as it had to.
    pub(super) async fn ended(&mut self, timeline: &mut Timeline, delivery: &Delivery<'w>) -> Result<()> {
        let tag = delivery.tag;
        let name = match delivery.fate {
            Fate::Arrives => format!("each pipeline of {tag} succeeded"),
            Fate::NeverReady(_) | Fate::Refused => format!("pipeline of {tag} failed with it"),
        };
        timeline.begin(&name, IMAGE);
        let all_ended = |pipelines: &[PipelineSnapshot]| pipelines.iter().all(|one| one.status.is_finished());
        let pipelines = self.follow(timeline, delivery, all_ended).await?;
        self.under_way.retain(|other| other.image != delivery.image);
        let projects: Vec<&str> = pipelines.iter().map(|one| one.project.as_str()).collect();
        let well = pipelines.iter().all(|one| one.status == Status::Success);
        match delivery.fate {
            Fate::Arrives => {
                ensure!(
                    projects == [IMAGE, ENV, INFRA],
                    "pipelines of {projects:?} were started, not one in each repository"
                );
                ensure!(well, "a pipeline of {tag} ended badly: {}", statuses(&pipelines));
            }
            Fate::NeverReady(_) | Fate::Refused => ensure!(
                projects == [IMAGE, ENV]
                    && pipelines.iter().all(|one| one.status == Status::Failed)
                    && job(&pipelines, IMAGE, "env-trigger")?.status == Status::Failed,
                "the image's pipeline should fail with the environment's, and nothing be applied for what does not run: {}",
                statuses(&pipelines)
            ),
        }
        timeline.done(None);
        Ok(())
    }

    /// The image's pipeline and those that its jobs started, directly or not: a branch's own pipelines are no part of it.
    fn pipelines(&self, delivery: &Delivery<'_>) -> Vec<PipelineSnapshot> {
        let mut jobs = BTreeSet::new();
        let mut all = self.world.gitlab.snapshot();
        // What started a pipeline is older than it.
        all.retain(|pipeline| {
            let is_part =
                pipeline.id == delivery.image || pipeline.source_job.is_some_and(|job| jobs.contains(&job));
            if is_part {
                jobs.extend(pipeline.jobs.iter().map(|job| job.id));
            }
            is_part
        });
        all
    }

    /// Tells the jobs that have ended since, and does what a person has to do meanwhile.
    async fn tell(&mut self, timeline: &mut Timeline, delivery: &Delivery<'w>) -> Result<()> {
        let world = self.world;
        for pipeline in &self.pipelines(delivery) {
            if let Some(error) = &pipeline.yaml_errors {
                bail!("GitLab refuses the pipeline of {}: {error}", pipeline.project);
            }
            for job in &pipeline.jobs {
                if job.status.is_finished() && self.told.insert(job.id) {
                    // Well before the environment repository hears of it.
                    if let (Fate::NeverReady(cluster), Some(digest), "image-build") =
                        (delivery.fate, jobs::digest(job), job.name.as_str())
                    {
                        cluster.refuse_image(digest).await?;
                    }
                    let may_fail = !matches!(delivery.fate, Fate::Arrives);
                    jobs::tell(world, timeline, pipeline, job, may_fail)?;
                }
                if infra::waits_for_approval(pipeline, job) && self.approved.insert(job.id) {
                    infra::approve(world, timeline, pipeline, job).await?;
                }
            }
        }
        Ok(())
    }
}

fn statuses(pipelines: &[PipelineSnapshot]) -> String {
    let of_one = |one: &PipelineSnapshot| format!("{} {}", one.project, one.status.as_str());
    pipelines.iter().map(of_one).collect::<Vec<_>>().join(", ")
}

/// Whether the pipeline of this repository is there and has ended.
pub(super) fn has_ended(pipelines: &[PipelineSnapshot], project: &str) -> bool {
    let mut of_project = pipelines.iter().filter(|pipeline| pipeline.project == project);
    of_project.any(|pipeline| pipeline.status.is_finished())
}

/// The newest job of a name in a repository's pipeline.
pub(super) fn job<'a>(
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
