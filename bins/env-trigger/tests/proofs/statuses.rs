//! Each of the thirteen statuses, each mixture of jobs that matters, each release, each kind of token: the exit code, the
//! verdict, and that the jobs to blame are named.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use towpath_sandbox::gitlab::{PlannedJob, Status, Version};

use crate::world::{LIMIT, Ran, Tokens, World, terminate};

/// Jobs (a question mark stands for `allow_failure`), the policy for manual jobs, the exit code, the verdict, and the jobs
/// that have to be named.
type Case = (&'static str, &'static str, i32, &'static str, &'static str);

/// A verdict of "" is one that there is not: the run looks and looks again until SIGTERM ends it, and the pipeline goes on.
const CASES: [Case; 45] = [
    ("created", "fail", 143, "", ""),
    ("waiting_for_resource", "fail", 143, "", ""),
    ("preparing", "fail", 143, "", ""),
    ("waiting_for_callback", "fail", 143, "", ""),
    ("pending", "fail", 143, "", ""),
    ("running", "fail", 143, "", ""),
    ("success", "fail", 0, "success", ""),
    ("failed", "fail", 8, "failed", "job-0"),
    ("canceling", "fail", 143, "", ""),
    ("canceled", "fail", 8, "canceled", ""),
    ("skipped", "fail", 8, "skipped", ""),
    ("manual", "fail", 9, "blocked", "job-0"),
    ("scheduled", "fail", 143, "", ""),
    // A failure that is allowed is none.
    ("failed?", "fail", 0, "success", ""),
    ("canceled?", "fail", 0, "success", ""),
    ("success failed?", "fail", 0, "success", ""),
    ("success failed? failed", "fail", 8, "failed", "job-2"),
    ("failed failed", "fail", 8, "failed", "job-0 job-1"),
    ("failed canceled", "fail", 8, "failed", "job-0"),
    ("success canceled", "fail", 8, "canceled", ""),
    ("success skipped", "fail", 0, "success", ""),
    ("failed skipped", "fail", 8, "failed", "job-0"),
    ("failed? skipped", "fail", 0, "success", ""),
    // While anything may still happen, nothing is decided.
    ("failed running", "fail", 143, "", ""),
    ("failed created", "fail", 143, "", ""),
    ("failed pending", "wait", 143, "", ""),
    ("success waiting_for_resource", "fail", 143, "", ""),
    ("failed scheduled", "fail", 143, "", ""),
    ("success canceling", "fail", 143, "", ""),
    // Manual jobs: by policy, and optional ones hold nothing up.
    ("success manual", "fail", 9, "blocked", "job-1"),
    ("success manual", "wait", 143, "", ""),
    ("success manual", "ignore", 0, "success", ""),
    ("failed manual", "ignore", 8, "failed", "job-0"),
    ("failed? manual", "ignore", 0, "success", ""),
    ("success manual?", "fail", 0, "success", ""),
    ("success manual?", "wait", 0, "success", ""),
    ("failed manual?", "fail", 8, "failed", "job-0"),
    ("success manual? manual", "fail", 9, "blocked", "job-2"),
    ("running manual", "fail", 143, "", ""),
    ("manual?", "fail", 9, "blocked", "job-0"),
    ("manual?", "ignore", 0, "success", ""),
    ("canceled manual", "ignore", 8, "canceled", ""),
    // GitLab calls these manual, and yet something comes of them by itself.
    ("scheduled manual", "ignore", 143, "", ""),
    ("canceling manual", "ignore", 143, "", ""),
    ("success preparing manual", "ignore", 143, "", ""),
];

fn parsed(word: &str) -> Status {
    let found = Status::ALL.into_iter().find(|status| status.as_str() == word);
    found.unwrap_or_else(|| panic!("{word} is no status"))
}

#[tokio::test]
async fn every_status_has_its_exit_code_verdict_and_words() {
    let every = Status::ALL.iter().all(|status| {
        let alone = |case: &&Case| case.0 == status.as_str();
        CASES.iter().any(|case| alone(&case))
    });
    assert!(every, "one of the thirteen is not tried");
    for version in [Version::V17_11, Version::V19_2] {
        let world = Arc::new(World::start(|settings| settings.version = version).await);
        let project = world.project("group/env", Vec::new()).await;
        let places = Arc::new(Semaphore::new(24));
        let mut runs = JoinSet::new();
        for case in CASES {
            for tokens in [Tokens::Access, Tokens::Job] {
                let id = made(&world, project, case.0).await;
                let (world, places) = (Arc::clone(&world), Arc::clone(&places));
                runs.spawn(async move {
                    let _place = places.acquire().await.unwrap();
                    try_case(&world, id, tokens, case).await;
                });
            }
        }
        while let Some(run) = runs.join_next().await {
            run.unwrap();
        }
    }
}

/// A pipeline whose jobs stand so.
async fn made(world: &World, project: u64, jobs: &str) -> u64 {
    let planned = jobs.split(' ').enumerate().map(|(number, word)| {
        let job = PlannedJob::new(format!("job-{number}"), "deploy");
        if word.ends_with('?') {
            job.allowed_to_fail()
        } else {
            job
        }
    });
    world.gitlab.direct(project, planned.collect()).unwrap();
    let id = world.pipeline(project).await;
    let made = world.gitlab.pipeline(id).unwrap().jobs;
    for (job, word) in made.iter().zip(jobs.split(' ')) {
        world.gitlab.write_log(job.id, "the end of the log\n");
        world
            .gitlab
            .move_job(job.id, parsed(word.trim_end_matches('?')))
            .unwrap();
    }
    id
}

async fn try_case(world: &World, id: u64, tokens: Tokens, case: Case) {
    let (jobs, policy, code, verdict, named) = case;
    let mut tool = world.tool(tokens, "group/env", &["wait", &id.to_string()]);
    tool.env("TOWPATH_ON_MANUAL", policy);
    let child = tool.spawn().unwrap();
    if verdict.is_empty() {
        until_looked_twice(world, id).await;
        terminate(&child).await;
    }
    let ran = Ran::of(child).await;
    let about = format!("{jobs} with {policy} and {tokens:?}: {ran:#?}");
    assert_eq!(ran.code, Some(code), "{about}");
    let report = ran.report();
    assert_eq!(report["verdict"].as_str().unwrap_or_default(), verdict, "{about}");
    assert_eq!(report["changed"], false, "{about}");
    // The last line says what it comes to.
    let said = ran.stderr.trim_end();
    for job in named.split(' ').filter(|name| !name.is_empty()) {
        assert!(said.contains(job), "{job} is not named: {about}");
    }
    let statuses: Vec<&str> = report["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["status"].as_str().unwrap())
        .collect();
    let expected: Vec<&str> = jobs.split(' ').map(|word| word.trim_end_matches('?')).collect();
    assert_eq!(statuses, expected, "{about}");
    if verdict == "failed" && tokens == Tokens::Access {
        assert!(said.contains("the end of the log"), "{about}");
    }
}

/// Waits until the run has seen the pipeline and decided to look again.
async fn until_looked_twice(world: &World, id: u64) {
    let path = format!("/projects/group%2Fenv/pipelines/{id}/jobs");
    let looks = || {
        let asked = world.gitlab.requests();
        asked.iter().filter(|asked| asked.path == path).count()
    };
    let waiting = async {
        while looks() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    assert!(waited.is_ok(), "nobody looks at {path}");
}
