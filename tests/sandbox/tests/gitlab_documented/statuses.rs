//! A pipeline's status by its jobs'. Expected are the cases in GitLab's documentation of statuses and in the rules of its
//! composite status, written down one by one.

use towpath_sandbox::gitlab::{PlannedJob, Status};

use crate::{directed, start};

/// Jobs and the pipeline's status; a question mark stands for `allow_failure`.
const COMPOSED: [(&str, &str); 44] = [
    ("created", "created"),
    ("created created", "created"),
    ("waiting_for_resource", "waiting_for_resource"),
    ("preparing", "preparing"),
    ("preparing preparing", "preparing"),
    ("waiting_for_callback", "waiting_for_callback"),
    ("pending", "pending"),
    ("pending created", "pending"),
    ("pending skipped", "pending"),
    ("pending failed?", "pending"),
    ("running", "running"),
    ("success", "success"),
    ("failed", "failed"),
    ("failed?", "success"),
    ("canceling", "canceling"),
    ("canceled", "canceled"),
    ("canceled?", "success"),
    ("skipped", "skipped"),
    ("manual", "manual"),
    ("manual?", "skipped"),
    ("scheduled", "scheduled"),
    ("success skipped", "success"),
    ("success manual?", "success"),
    ("success failed?", "success"),
    ("skipped failed?", "success"),
    ("skipped manual?", "skipped"),
    ("success canceled", "canceled"),
    ("skipped canceled", "canceled"),
    ("failed canceled", "failed"),
    ("failed success", "failed"),
    ("failed skipped", "failed"),
    ("created success", "running"),
    ("created failed", "running"),
    ("created failed?", "created"),
    ("pending success", "running"),
    ("running canceling", "running"),
    ("success canceling", "canceling"),
    ("created canceling", "running"),
    ("success manual", "manual"),
    ("failed manual", "manual"),
    ("success scheduled", "scheduled"),
    ("running manual", "running"),
    ("waiting_for_resource manual", "waiting_for_resource"),
    ("success preparing", "preparing"),
];

fn parsed(word: &str) -> Status {
    let found = Status::ALL.into_iter().find(|status| status.as_str() == word);
    found.unwrap_or_else(|| panic!("{word} is no status"))
}

#[tokio::test]
async fn a_pipelines_status_follows_its_jobs() {
    let (world, project) = directed(Vec::new(), |settings| settings.limits.pipelines_per_minute = 100).await;
    for (jobs, expected) in COMPOSED {
        let planned = jobs.split(' ').enumerate().map(|(number, word)| {
            let job = PlannedJob::new(format!("job-{number}"), "test");
            if word.ends_with('?') {
                job.allowed_to_fail()
            } else {
                job
            }
        });
        world.gitlab.direct(project, planned.collect()).unwrap();
        let id = start(&world, project).await;
        let made = world.gitlab.pipeline(id).unwrap().jobs;
        for (job, word) in made.iter().zip(jobs.split(' ')) {
            world
                .gitlab
                .move_job(job.id, parsed(word.trim_end_matches('?')))
                .unwrap();
        }
        let (_, shown) = world.get(&format!("/projects/{project}/pipelines/{id}")).await;
        assert_eq!(shown["status"], expected, "{jobs}");
    }
}
