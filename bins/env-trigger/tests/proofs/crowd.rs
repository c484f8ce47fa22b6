//! Fifty runs at once against a GitLab that limits requests and pipelines: all of them get through, each with one pipeline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use towpath_sandbox::gitlab::{PlannedJob, Status};

use crate::world::{Ran, Tokens, World};

const RUNS: usize = 50;

#[tokio::test]
async fn fifty_runs_at_once_stay_within_the_limits() {
    let world = World::start(|settings| {
        // GitLab.com's twenty-five pipelines for one user and commit, in a short minute.
        settings.limits.pipelines_per_minute = 25;
        settings.limits.requests_per_minute = Some(250);
        settings.limits.minute = Duration::from_secs(6);
    });
    let world = Arc::new(world.await);
    world
        .project("group/env", vec![PlannedJob::new("apply", "deploy")])
        .await;
    let mover = tokio::spawn(move_on(Arc::clone(&world)));
    let mut runs = JoinSet::new();
    for number in 0..RUNS {
        let key = format!("{number:032x}");
        let tokens = if number % 2 == 0 {
            Tokens::Access
        } else {
            Tokens::Job
        };
        let mut tool = world.tool(tokens, "group/env", &["--key", &key, "--key-input", "delivery"]);
        runs.spawn(async move { (tokens, Ran::of(tool.spawn().unwrap()).await) });
    }
    let mut followed = BTreeSet::new();
    while let Some(run) = runs.join_next().await {
        let (tokens, ran) = run.unwrap();
        assert_eq!(ran.code, Some(0), "{tokens:?}: {ran:#?}");
        followed.insert(ran.report()["pipeline"]["id"].as_u64().unwrap());
    }
    mover.abort();
    let made: BTreeSet<u64> = world
        .pipelines("group/env")
        .iter()
        .map(|found| found.id)
        .collect();
    assert_eq!(made.len(), RUNS, "one pipeline each, and no other");
    assert_eq!(made, followed, "each follows its own");
    let asked = world.gitlab.requests();
    let turned_away = asked.iter().filter(|asked| asked.status == 429).count();
    assert!(
        turned_away * 4 <= asked.len(),
        "{turned_away} of {} requests were turned away: nobody slows down",
        asked.len()
    );
}

/// Lets every job succeed after a while.
async fn move_on(world: Arc<World>) {
    loop {
        for pipeline in world.pipelines("group/env") {
            for job in pipeline.jobs {
                let next = match job.status {
                    Status::Created => Status::Pending,
                    Status::Pending => Status::Running,
                    Status::Running => Status::Success,
                    _ => continue,
                };
                world.gitlab.move_job(job.id, next).unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}
