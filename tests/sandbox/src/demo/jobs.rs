//! Jobs as they end, in whichever repository: each is told once, and its log kept.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::timeline::Timeline;
use crate::gitlab::{JobSnapshot, PipelineSnapshot, Status};
use crate::world::World;

/// As long as one delivery may take on a slow machine.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
/// How much of a failed job's log is shown.
const LAST_LINES: usize = 25;

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
                if job.status.is_finished()
                    && told.insert(job.id)
                    && let Err(failure) = tell(world, timeline, &pipeline, job, false)
                {
                    timeline.note(&format!("{failure:#}"));
                }
            }
        }
    }
    Ok(())
}

/// Tells a job that has ended, and keeps its log.
///
/// # Errors
/// When it failed for good and may not, with the end of its log.
pub(super) fn tell(
    world: &World,
    timeline: &mut Timeline,
    pipeline: &PipelineSnapshot,
    job: &JobSnapshot,
    may_fail: bool,
) -> Result<()> {
    keep_log(world, job)?;
    let took = job.duration.unwrap_or_default();
    if job.status == Status::Failed && !job.retried && !may_fail {
        timeline.failed_step(&job.name, &pipeline.project, took);
        let lines: Vec<&str> = job.trace.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        bail!(
            "the job {} of {} failed; its log ends:\n  {}",
            job.name,
            pipeline.project,
            last.join("\n  ")
        );
    }
    let name = match job.status {
        Status::Success => job.name.clone(),
        status if may_fail => format!("{} {}, as it has to", job.name, status.as_str()),
        status => format!("{} {}", job.name, status.as_str()),
    };
    timeline.step(&name, &pipeline.project, took, digest(job));
    Ok(())
}

/// The log goes to a file beside those of the servers, as `NUMBER-JOB.log`.
fn keep_log(world: &World, job: &JobSnapshot) -> Result<()> {
    let folder = world.guardian.dir().join("logs/jobs");
    fs::create_dir_all(&folder)?;
    let name = job
        .name
        .replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let file = folder.join(format!("{}-{name}.log", job.id));
    fs::write(&file, &job.trace).with_context(|| format!("writing {}", file.display()))
}

/// The digest that a job handed over.
pub(super) fn digest(job: &JobSnapshot) -> Option<&str> {
    let mut handed_over = job.dotenv.iter();
    let digest = handed_over.find(|(key, _)| key == "IMAGE_DIGEST");
    digest.map(|(_, value)| value.as_str())
}
