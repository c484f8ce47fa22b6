//! What changed between two looks, in the log.

use std::collections::BTreeMap;

use towpath::gitlab::{Job, Project, Status};

use crate::compose::compose;
use crate::tree::{Seen, Tree};

/// Logs what changed: pipelines, their stages, their jobs. Says whether anything did.
pub(crate) fn tell_changes(before: &Tree, now: &Tree) -> bool {
    let mut changed = tell_pipeline(&now.project, now.id, "", &before.root, &now.root);
    for (id, below) in &now.below {
        let earlier = before.below.get(id).map(|below| &below.seen);
        if earlier.is_some_and(|earlier| std::sync::Arc::ptr_eq(earlier, &below.seen)) {
            continue;
        }
        let nothing = Seen::default();
        let earlier = earlier.map_or(&nothing, AsRef::as_ref);
        changed |= tell_pipeline(&below.project, *id, &below.path, earlier, &below.seen);
    }
    changed
}

fn tell_pipeline(project: &Project, id: u64, path: &str, before: &Seen, now: &Seen) -> bool {
    let mut changed = false;
    let (earlier, status) = (before.effective_status(), now.effective_status());
    if earlier != status || !before.is_known() {
        changed = true;
        tracing::info!(
            action = if path.is_empty() { "pipeline" } else { "downstream" },
            object = if path.is_empty() {
                format!("{id} of {project}")
            } else {
                format!("pipeline {id} of {project} ({path})")
            },
            outcome = status.as_str(),
            url = now.url.as_deref().unwrap_or_default(),
        );
    }
    // Of a long pipeline not enough is listed to tell how its stages stand.
    if !now.partial {
        let stages_before = stages(before);
        for (stage, status) in stages(now) {
            let is_news = stages_before.get(&stage) != Some(&status);
            if is_news && !matches!(status, Status::Created | Status::Skipped) {
                tracing::info!(
                    action = "stage",
                    object = with_path(path, stage),
                    outcome = status.as_str()
                );
            }
        }
    }
    let known: BTreeMap<u64, &Status> = before.all_jobs().map(|job| (job.id, &job.status)).collect();
    for job in now.all_jobs() {
        let earlier = known.get(&job.id);
        if earlier == Some(&&job.status) {
            continue;
        }
        changed = true;
        // What has not begun is no news the first time it is seen.
        if earlier.is_some() || !matches!(job.status, Status::Created | Status::Skipped) {
            tell(job, path);
        }
    }
    if now.partial && before.partial {
        // What is not listed any more went well, or a retry took its place.
        for job in before.all_jobs().filter(|job| !job.status.has_ended()) {
            if now.all_jobs().all(|other| other.id != job.id) {
                changed = true;
                tracing::info!(
                    action = "job",
                    object = with_path(path, &job.name),
                    outcome = "done",
                    url = job.web_url.as_deref().unwrap_or_default(),
                );
            }
        }
    }
    changed
}

pub(crate) fn with_path(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path} > {name}")
    }
}

fn tell(job: &Job, path: &str) {
    let note = match (&job.status, job.allow_failure) {
        (Status::Failed, true) => "the pipeline may go on without it",
        (Status::Manual, false) => "waits for a person, and the pipeline with it",
        (Status::Manual, true) => "optional: starts only when a person starts it",
        (Status::Scheduled, _) => "waits for its delay to pass",
        (Status::WaitingForResource, _) => "another job holds its resource group",
        (Status::WaitingForCallback, _) => "waits for an external system to call back",
        (Status::Canceling, _) => "was told to stop, and its after_script may still run",
        _ => "",
    };
    tracing::info!(
        action = "job",
        object = with_path(path, &job.name),
        outcome = job.status.as_str(),
        seconds = job.duration.map(crate::report::rounded),
        reason = job.failure_reason.as_deref(),
        url = job.web_url.as_deref().unwrap_or_default(),
        "{note}"
    );
}

fn stages(seen: &Seen) -> BTreeMap<&str, Status> {
    let mut jobs: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in seen.all_jobs().filter(|job| !job.stage.is_empty()) {
        jobs.entry(&job.stage).or_default().push(job);
    }
    jobs.into_iter()
        .map(|(stage, jobs)| (stage, compose(jobs.into_iter())))
        .collect()
}
