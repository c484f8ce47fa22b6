//! Measures how soon the end of a pipeline is noticed, how often is asked for that, and what memory a large pipeline takes, against
//! the GitLab stand-in on this machine, with `python-gitlab` in a loop beside it; and prints Markdown.
//!
//! Requests are counted by the stand-in. Every run is checked: a wrong exit code ends the benchmark.

// A benchmark is no binary of ours: what those may not call does not bind it, and an end by panic is a fine end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../tests/proofs/chance.rs"]
#[allow(dead_code, reason = "it is written for the tests too")]
mod chance;
#[path = "../../tests/proofs/world.rs"]
#[allow(dead_code, reason = "it is written for the tests too")]
mod world;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chance::Chance;
use tokio::process::Command;
use tokio::task::JoinSet;
use towpath_sandbox::gitlab::{PlannedJob, Status};
use towpath_sandbox::measured::{Table, Took, median, percentile};
use towpath_sandbox::tools::{Progress, Tools};
use world::{Tokens, World};

/// Pipelines that are followed by each of both.
const PIPELINES: usize = 60;
/// Between the starts of two of them, so that a program's start does not delay what others notice.
const BETWEEN: Duration = Duration::from_millis(500);
/// Their jobs take this long, in seconds: short ones more often than long ones.
const SHORTEST: f64 = 3.0;
const LONGEST: f64 = 150.0;
const JOBS: usize = 2000;
const LIMIT: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(10);

/// Asks for the pipeline fifteen times a minute, as scripts do, and ends with it.
const PEER: &str = "
import gitlab, os, sys, time
client = gitlab.Gitlab(os.environ['GITLAB_URL'], private_token=os.environ['TOWPATH_GITLAB_TOKEN'])
project = client.projects.get(sys.argv[3], lazy=True)
while True:
    pipeline = project.pipelines.get(int(sys.argv[1]))
    jobs = pipeline.jobs.list(get_all=True, per_page=100) if sys.argv[2] == 'jobs' else []
    if pipeline.status in ('success', 'failed', 'canceled', 'skipped'):
        sys.exit(0 if pipeline.status == 'success' else 8)
    time.sleep(4)
";

fn main() {
    // `cargo test --benches` runs this too, and has nothing to learn from it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let site = Tools::python_gitlab(&Progress::lines()).await.unwrap();
    let mut table = Table::new(vec!["env-trigger".into(), "python-gitlab, every 4 s".into()]);
    let (ours, theirs) = notice(&site).await;
    let both = |what: fn(&Noticed) -> String| vec![what(&ours), what(&theirs)];
    table.row(
        "end noticed after, median, s",
        both(|noticed| format!("{:.2}", median(noticed.delays.clone()))),
    );
    table.row(
        "end noticed after, 95th percentile, s",
        both(|noticed| format!("{:.1}", percentile(noticed.delays.clone(), 95))),
    );
    table.row(
        "requests in a pipeline's busiest minute, the first aside",
        both(|noticed| noticed.busiest.to_string()),
    );
    let (ours, theirs) = (large(None).await, large(Some(&site)).await);
    table.row(
        "peak memory while 2,000 jobs run, MiB",
        vec![format!("{:.1}", ours.peak), format!("{:.1}", theirs.peak)],
    );
    let processors = std::thread::available_parallelism().unwrap();
    writeln!(
        std::io::stdout().lock(),
        "\n{table}\n{PIPELINES} pipelines of one job of {SHORTEST} to {LONGEST} s each, started one after \
         the other, on {processors} processors, on \
         loopback; then one pipeline of {JOBS} jobs."
    )
    .unwrap();
}

struct Noticed {
    /// Seconds between a pipeline's end and the end of who followed it.
    delays: Vec<f64>,
    /// The most requests for one pipeline in any minute that begins after its first.
    busiest: usize,
}

/// Follows pipelines of random length with both, at the same time.
async fn notice(site: &Path) -> (Noticed, Noticed) {
    let world = Arc::new(World::start(|_| {}).await);
    let mut chance = Chance::new(7);
    let mut runs = JoinSet::new();
    for number in 0..2 * PIPELINES {
        // Each in a project of its own, where nothing is known of how long the job took before.
        let path = format!("group/env-{number}");
        let project = world
            .project(&path, vec![PlannedJob::new("apply", "deploy")])
            .await;
        let id = world.pipeline(project).await;
        let part = f64::from(u32::try_from(chance.below(1000)).unwrap()) / 1000.0;
        let lasts = Duration::from_secs_f64(SHORTEST * (LONGEST / SHORTEST).powf(part));
        let ours = number % 2 == 0;
        // With what a job has; the peer cannot look with a job token.
        let command = if ours {
            world.tool(Tokens::Job, &path, &["wait", &id.to_string()])
        } else {
            peer(&world, site, &path, id, "pipeline")
        };
        let world = Arc::clone(&world);
        runs.spawn(async move { (ours, id, follow(&world, command, id, lasts).await) });
        tokio::time::sleep(BETWEEN).await;
    }
    let mut all = Vec::new();
    while let Some(run) = runs.join_next().await {
        all.push(run.unwrap());
    }
    let asked = world.gitlab.requests();
    let of = |wanted: bool| {
        let mine = || all.iter().filter(move |(ours, _, _)| *ours == wanted);
        let busiest = mine().map(|(_, id, _)| {
            let path = format!("/pipelines/{id}");
            let times: Vec<Instant> = asked
                .iter()
                .filter(|asked| asked.path.ends_with(&path) || asked.path.contains(&format!("{path}/")))
                .map(|asked| asked.at)
                .collect();
            let later = times.first().map(|first| *first + Duration::from_secs(60));
            let minutes = times.iter().filter(|at| Some(**at) >= later);
            let in_minute = |from: &Instant| {
                let until = *from + Duration::from_secs(60);
                times.iter().filter(|at| (*from..until).contains(at)).count()
            };
            minutes.map(in_minute).max().unwrap_or(0)
        });
        Noticed {
            busiest: busiest.max().unwrap_or(0),
            delays: mine().map(|(_, _, delay)| *delay).collect(),
        }
    };
    (of(true), of(false))
}

/// Has the pipeline's job run that long, and gives back how much longer the follower took.
async fn follow(world: &World, mut command: Command, id: u64, lasts: Duration) -> f64 {
    let job = world.gitlab.pipeline(id).unwrap().jobs[0].id;
    world.gitlab.move_job(job, Status::Running).unwrap();
    command
        .env("TOWPATH_TIMEOUT", "9m")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    tokio::time::sleep(lasts).await;
    world.gitlab.move_job(job, Status::Success).unwrap();
    let ended = Instant::now();
    let status = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    ended.elapsed().as_secs_f64()
}

/// Follows one pipeline of many jobs, which end ten seconds after the first of them was listed.
async fn large(site: Option<&Path>) -> Took {
    let world = World::start(|_| {}).await;
    let jobs = (0..JOBS).map(|number| PlannedJob::new(format!("deploy to region {number:04}"), "deploy"));
    let project = world.project("group/env", jobs.collect()).await;
    let id = world.pipeline(project).await;
    let all: Vec<u64> = world
        .gitlab
        .pipeline(id)
        .unwrap()
        .jobs
        .iter()
        .map(|job| job.id)
        .collect();
    for job in &all {
        world.gitlab.move_job(*job, Status::Running).unwrap();
    }
    let mut command = match site {
        None => world.tool(Tokens::Access, "group/env", &["wait", &id.to_string()]),
        Some(site) => peer(&world, site, "group/env", id, "jobs"),
    };
    command
        .env("TOWPATH_TIMEOUT", "9m")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let end = async {
        while world.gitlab.requests().len() < JOBS / 100 {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        for job in all {
            world.gitlab.move_job(job, Status::Success).unwrap();
        }
    };
    let (watched, ()) = tokio::join!(Took::watch(&mut child, start, LOOK, LIMIT), end);
    let (status, took) = watched.unwrap();
    assert!(status.success(), "{status}");
    took
}

fn peer(world: &World, site: &Path, project: &str, id: u64, what: &str) -> Command {
    // The same token, from the same variable.
    let ours = world.tool(Tokens::Access, "group/env", &[]);
    let token = ours
        .as_std()
        .get_envs()
        .find_map(|(name, value)| value.filter(|_| name == "TOWPATH_GITLAB_TOKEN"));
    let mut command = Command::new("python3");
    command
        .args(["-B", "-c", PEER, &id.to_string(), what, project])
        .env("PYTHONPATH", site)
        .env("NO_PROXY", "*")
        .env("GITLAB_URL", world.gitlab.url())
        .env("TOWPATH_GITLAB_TOKEN", token.unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
