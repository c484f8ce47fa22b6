//! What a set of jobs amounts to.

use std::collections::BTreeMap;

use towpath::gitlab::{Job, Status};

/// The status of a stage or pipeline, as GitLab composes it from its jobs: failures that are allowed count as success,
/// manual jobs that are optional as skipped. A status we do not know counts as still running.
pub(crate) fn compose<'a>(jobs: impl Iterator<Item = &'a Job>) -> Status {
    let statuses: Vec<Status> = jobs
        .map(|job| match (&job.status, job.allow_failure) {
            (Status::Failed | Status::Canceled, true) => Status::Success,
            (Status::Manual, true) => Status::Skipped,
            (Status::Unknown(_), _) => Status::Running,
            (status, _) => status.clone(),
        })
        .collect();
    let any = |wanted: &Status| statuses.contains(wanted);
    let only = |wanted: &[Status]| statuses.iter().all(|status| wanted.contains(status));
    if only(&[Status::Created]) {
        return Status::Created;
    }
    if only(&[Status::Skipped]) {
        return Status::Skipped;
    }
    if only(&[Status::Success, Status::Skipped]) {
        return Status::Success;
    }
    if only(&[Status::Canceled, Status::Success, Status::Skipped]) {
        return Status::Canceled;
    }
    if only(&[Status::Pending, Status::Created, Status::Skipped]) && any(&Status::Pending) {
        return Status::Pending;
    }
    // The first of these that any job is in; a job that waits behind others keeps the pipeline running.
    let telling = [
        (Status::Canceling, Status::Canceling),
        (Status::Running, Status::Running),
        (Status::Pending, Status::Running),
        (Status::WaitingForResource, Status::WaitingForResource),
        (Status::WaitingForCallback, Status::WaitingForCallback),
        (Status::Manual, Status::Manual),
        (Status::Scheduled, Status::Scheduled),
        (Status::Preparing, Status::Preparing),
        (Status::Created, Status::Running),
    ];
    telling
        .into_iter()
        .find_map(|(found, composed)| any(&found).then_some(composed))
        .unwrap_or(Status::Failed)
}

/// Of each job the latest attempt, oldest first: a retry has the same name and a greater number.
pub(crate) fn latest<T>(attempts: Vec<T>, job: impl Fn(&T) -> &Job) -> Vec<T> {
    let mut by_name: BTreeMap<(String, u64), T> = BTreeMap::new();
    for attempt in attempts {
        let Job { id, name, .. } = job(&attempt);
        // Without a name there is nothing that two attempts would have in common.
        let key = (name.clone(), if name.is_empty() { *id } else { 0 });
        match by_name.get(&key) {
            Some(earlier) if job(earlier).id >= *id => {}
            _ => {
                by_name.insert(key, attempt);
            }
        }
    }
    let mut latest: Vec<T> = by_name.into_values().collect();
    latest.sort_by_key(|attempt| job(attempt).id);
    latest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job named by its number; a question mark stands for `allow_failure`.
    pub(crate) fn job(id: u64, status: &str) -> Job {
        Job {
            id,
            name: format!("job-{id}"),
            status: Status::from_word(status.trim_end_matches('?')),
            allow_failure: status.ends_with('?'),
            ..Job::default()
        }
    }

    pub(crate) fn jobs(statuses: &[&str]) -> Vec<Job> {
        (1..).zip(statuses).map(|(id, status)| job(id, status)).collect()
    }

    #[test]
    fn jobs_alone_compose_the_status() {
        for (statuses, expected) in [
            (&[][..], "created"),
            (&["created", "created"], "created"),
            (&["success", "success"], "success"),
            (&["success", "skipped"], "success"),
            (&["success", "failed?"], "success"),
            (&["success", "canceled?"], "success"),
            (&["success", "manual?"], "success"),
            (&["skipped", "skipped"], "skipped"),
            (&["skipped", "manual?"], "skipped"),
            (&["success", "failed"], "failed"),
            (&["failed", "skipped"], "failed"),
            (&["failed", "canceled"], "failed"),
            (&["success", "canceled"], "canceled"),
            (&["canceled", "skipped"], "canceled"),
            (&["failed", "created"], "running"),
            (&["success", "created"], "running"),
            (&["success", "running"], "running"),
            (&["failed", "running"], "running"),
            (&["success", "pending"], "running"),
            (&["pending", "created"], "pending"),
            (&["success", "manual", "created"], "manual"),
            (&["success", "manual", "running"], "running"),
            (&["success", "scheduled", "created"], "scheduled"),
            (&["success", "waiting_for_resource"], "waiting_for_resource"),
            (&["success", "waiting_for_callback"], "waiting_for_callback"),
            (&["success", "preparing"], "preparing"),
            (&["canceling", "running"], "canceling"),
            (&["success", "snoozed"], "running"),
            (&["success", ""], "running"),
        ] {
            let composed = compose(jobs(statuses).iter());
            assert_eq!(composed, Status::from_word(expected), "{statuses:?}");
        }
    }

    #[test]
    fn a_retried_job_counts_once_by_its_latest_attempt() {
        let named = |id, name: &str, status: &str| Job {
            name: name.to_owned(),
            ..job(id, status)
        };
        let attempts = vec![
            named(3, "deploy", "success"),
            named(1, "deploy", "failed"),
            named(2, "test", "success"),
            named(4, "", "success"),
            named(5, "", "success"),
        ];
        let latest = latest(attempts, |job| job);
        assert_eq!(latest.iter().map(|job| job.id).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(compose(latest.iter()), Status::Success);
    }
}
