//! Fifty runs at once against a GitLab that limits requests and pipelines: all of them get through, each delivery with one
//! pipeline, also where ten of them start the same one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use towpath_sandbox::gitlab::{PlannedJob, Status};

use crate::world::{Ran, Tokens, World};

const RUNS: usize = 50;
/// So many of them start the same delivery.
const TWINS: usize = 10;
const DELIVERIES: usize = RUNS - TWINS + 1;

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
        let is_twin = number % (RUNS / TWINS) == 0;
        let key = format!("{:032x}", if is_twin { 0 } else { number });
        // Only an access token can see a twin.
        let tokens = if is_twin || number % 2 == 0 {
            Tokens::Access
        } else {
            Tokens::Job
        };
        let mut tool = world.tool(tokens, "group/env", &["--key", &key, "--key-input", "delivery"]);
        runs.spawn(async move { (is_twin, Ran::of(tool.spawn().unwrap()).await) });
    }
    let mut followed = BTreeSet::new();
    let mut by_twins = BTreeSet::new();
    while let Some(run) = runs.join_next().await {
        let (is_twin, ran) = run.unwrap();
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let id = ran.report()["pipeline"]["id"].as_u64().unwrap();
        followed.insert(id);
        if is_twin {
            by_twins.insert(id);
        }
    }
    mover.abort();
    assert_eq!(
        by_twins.len(),
        1,
        "one delivery has several pipelines: {by_twins:?}"
    );
    assert_eq!(
        alive(&world),
        followed,
        "each follows its own, and there is no other"
    );
    assert_eq!(followed.len(), DELIVERIES);
    let asked = world.gitlab.requests();
    let turned_away = asked.iter().filter(|asked| asked.status == 429).count();
    assert!(
        turned_away * 4 <= asked.len(),
        "{turned_away} of {} requests were turned away: nobody slows down",
        asked.len()
    );
}

/// The pipelines that nobody cancelled.
fn alive(world: &World) -> BTreeSet<u64> {
    let all = world.pipelines("group/env");
    let alive = all
        .iter()
        .filter(|found| !matches!(found.status, Status::Canceled | Status::Canceling));
    alive.map(|found| found.id).collect()
}

/// Moves the jobs on, and lets them succeed once each delivery has the one pipeline that it is to have.
async fn move_on(world: Arc<World>) {
    let mut settled = 0;
    loop {
        settled = if alive(&world).len() == DELIVERIES {
            settled + 1
        } else {
            0
        };
        for pipeline in world.pipelines("group/env") {
            for job in pipeline.jobs {
                let next = match job.status {
                    Status::Created => Status::Pending,
                    Status::Pending => Status::Running,
                    Status::Canceling => Status::Canceled,
                    Status::Running if settled > 10 => Status::Success,
                    _ => continue,
                };
                world.gitlab.move_job(job.id, next).unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
