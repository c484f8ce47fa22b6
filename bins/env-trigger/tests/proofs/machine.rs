//! Random pipelines that move at random while the tool follows them, with random trouble on the way: stages, retries, failures
//! that are allowed, manual jobs, pipelines in other projects, people who cancel, signals, answers that are slow or lost,
//! limits, gateways that fail. After each: one pipeline at most, the verdict that its final jobs deserve, and no more requests
//! than the pace allows.
//!
//! `TOWPATH_SEED` tries other pipelines; the seed of one that went wrong is told.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio::task::JoinSet;
use towpath_sandbox::gitlab::{JobSnapshot, PipelineSnapshot, PlannedJob, Status, Trouble, Version};

use crate::chance::Chance;
use crate::oracle::{OnManual, judge};
use crate::world::{LIMIT, Ran, Tokens, World, terminate};

/// How many pipelines for each release.
const STORIES: u64 = 12;
/// The longest a job stays in one status.
const TICK: u64 = 300;

/// How a story ends besides by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Itself,
    /// A person cancels the pipeline.
    Person,
    /// The tool gets SIGTERM.
    Signal,
}

/// A job, and what the test knows of it besides.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    stage: usize,
    allow_failure: bool,
    manual: bool,
    bridge: bool,
}

#[derive(Clone, Debug)]
struct Story {
    seed: u64,
    path: String,
    infra: String,
    parts: Vec<Part>,
    tokens: Tokens,
    on_manual: OnManual,
    ending: Ending,
    /// What happens to the request that starts the pipeline.
    at_start: Option<Trouble>,
}

impl Story {
    fn new(seed: u64) -> (Story, Chance) {
        let mut chance = Chance::new(seed);
        let count = 1 + chance.below(6);
        let parts = (0..count)
            .map(|number| Part {
                name: format!("job-{number}"),
                // The first stage has a job that runs by itself, or there would be nothing to follow.
                stage: if number == 0 { 0 } else { chance.below(3) },
                allow_failure: number > 0 && chance.percent(30),
                manual: number > 0 && chance.percent(20),
                bridge: number > 0 && chance.percent(20),
            })
            .collect();
        let tokens = chance.pick(&[Tokens::Access, Tokens::Access, Tokens::Job, Tokens::TriggerAndJob]);
        let story = Story {
            seed,
            path: format!("group/env-{seed}"),
            infra: format!("group/infra-{seed}"),
            parts,
            tokens,
            on_manual: chance.pick(&[OnManual::Fail, OnManual::Wait, OnManual::Ignore]),
            ending: chance.pick(&[
                Ending::Itself,
                Ending::Itself,
                Ending::Itself,
                Ending::Person,
                Ending::Signal,
            ]),
            at_start: match chance.below(10) {
                0 | 1 => Some(Trouble::Lost),
                2 => Some(Trouble::Status(502)),
                3 => Some(Trouble::Throttled(1)),
                4 => Some(Trouble::Slow(Duration::from_millis(700))),
                _ => None,
            },
        };
        (story, chance)
    }

    fn planned(&self) -> Vec<PlannedJob> {
        let jobs = self.parts.iter().map(|part| {
            let job = PlannedJob::new(&part.name, format!("stage-{}", part.stage));
            let job = if part.allow_failure {
                job.allowed_to_fail()
            } else {
                job
            };
            if part.bridge {
                job.triggering(&self.infra)
            } else {
                job
            }
        });
        jobs.collect()
    }

    fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

#[tokio::test]
async fn random_pipelines_are_started_once_and_judged_rightly() {
    let base = std::env::var("TOWPATH_SEED").map_or(1, |seed| seed.parse::<u64>().unwrap());
    let mut worlds = JoinSet::new();
    for (number, version) in (0..).zip([Version::V17_11, Version::V19_2]) {
        worlds.spawn(async move {
            let world = Arc::new(World::start(|settings| settings.version = version).await);
            make_trouble(&world, base);
            let mut stories = JoinSet::new();
            for seed in 0..STORIES {
                let world = Arc::clone(&world);
                let seed = base * 1000 + number * STORIES + seed;
                stories.spawn(async move { tell(&world, seed).await });
            }
            while let Some(told) = stories.join_next().await {
                told.unwrap();
            }
        });
    }
    while let Some(world) = worlds.join_next().await {
        world.unwrap();
    }
}

/// One request in eight has trouble; the one that starts a pipeline has what its story says, the first time.
fn make_trouble(world: &World, seed: u64) {
    let count = AtomicUsize::new(0);
    let started = std::sync::Mutex::new(std::collections::BTreeSet::new());
    world.gitlab.trouble(move |method, path| {
        let number = u64::try_from(count.fetch_add(1, Ordering::Relaxed)).unwrap();
        if method == "POST" && path.ends_with("/pipeline") {
            let first = started.lock().unwrap().insert(path.to_owned());
            let of = path.split("env-").nth(1)?.split('/').next()?.parse().ok()?;
            return Story::new(of).0.at_start.filter(|_| first);
        }
        let mut chance = Chance::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if !chance.percent(12) {
            return None;
        }
        Some(match chance.below(5) {
            0 => Trouble::Lost,
            1 => Trouble::Status(chance.pick(&[500, 502, 503])),
            2 => Trouble::Throttled(1),
            _ => Trouble::Slow(Duration::from_millis(
                100 + 100 * u64::try_from(chance.below(8)).unwrap(),
            )),
        })
    });
}

async fn tell(world: &World, seed: u64) {
    let (story, mut chance) = Story::new(seed);
    world.project(&story.path, story.planned()).await;
    let infra = ["network", "cluster"].map(|name| PlannedJob::new(name, "infra"));
    world.project(&story.infra, infra.to_vec()).await;
    let mut tool = world.tool(
        story.tokens,
        &story.path,
        &["--key", &format!("delivery-{seed:08}")],
    );
    tool.env("TOWPATH_ON_MANUAL", story.on_manual.word());
    let began = Instant::now();
    let mut child = tool.spawn().unwrap();
    let Some(id) = started(world, &story, &mut child).await else {
        return not_started(world, &story, Ran::of(child).await);
    };
    let signalled = drive(world, &story, id, &mut chance, &mut child).await;
    let ran = Ran::of(child).await;
    let pipelines = world.pipelines(&story.path);
    let about = format!(
        "TOWPATH_SEED={} {story:#?}\n{ran:#?}\n{:#?}",
        seed / 1000,
        pipelines
            .iter()
            .map(|found| (found.id, found.status, shown(found)))
            .collect::<Vec<_>>()
    );
    assert_eq!(pipelines.len(), 1, "not one pipeline: {about}");
    let pipeline = &pipelines[0];
    let lost_for_good = story.at_start == Some(Trouble::Lost) && story.tokens != Tokens::Access;
    if lost_for_good {
        // It may be there and nobody can tell: a person has to look, and nothing asks again.
        assert_eq!(ran.code, Some(9), "{about}");
        return;
    }
    let report = ran.report();
    assert_eq!(report["pipeline"]["id"], id, "{about}");
    let (code, verdict) = judge(pipeline, story.on_manual);
    if ran.code == Some(143) {
        assert!(signalled, "{about}");
        if story.tokens == Tokens::Access {
            let everything = [world.pipelines(&story.infra), pipelines.clone()].concat();
            assert!(everything.iter().all(has_stopped), "it goes on: {about}");
            // A manual job outlives a cancelled pipeline, and may be told of.
            if everything.iter().all(|found| found.status.is_finished()) {
                assert!(report.get("left_running").is_none(), "{about}");
            }
        }
    } else {
        assert_eq!(
            (ran.code, report["verdict"].as_str().unwrap_or_default()),
            (Some(code), verdict),
            "{about}"
        );
    }
    let asked = world.gitlab.requests();
    let asked: Vec<_> = asked
        .iter()
        .filter(|asked| {
            asked.path.contains(&format!("env-{seed}/")) || asked.path.contains(&format!("env-{seed}%2F"))
        })
        .collect();
    let posts = asked
        .iter()
        .filter(|asked| asked.method == "POST" && asked.path.ends_with("/pipeline"));
    let carried_out = posts.filter(|asked| asked.status == 201).count();
    assert_eq!(carried_out, 1, "{about}");
    // Fifteen a minute, ten saved up, and those that start it, look for it, read logs of failures and stop it.
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let bridges = story.parts.iter().filter(|part| part.bridge).count();
    let most = (15.0 * minutes) as usize + 10 + 30 + 15 * bridges;
    assert!(
        asked.len() <= most,
        "{} requests in {minutes} min: {about}",
        asked.len()
    );
}

/// Whether nothing becomes of any job unless a person comes.
fn has_stopped(pipeline: &PipelineSnapshot) -> bool {
    let mut jobs = pipeline.jobs.iter().filter(|job| !job.retried);
    jobs.all(|job| job.status.is_finished() || job.status == Status::Manual)
}

fn shown(pipeline: &PipelineSnapshot) -> Vec<String> {
    let jobs = pipeline.jobs.iter().filter(|job| !job.retried);
    jobs.map(|job| {
        let allowed = if job.allow_failure { "?" } else { "" };
        format!("{} {}{allowed}", job.name, job.status.as_str())
    })
    .collect()
}

/// The pipeline of a story, once it is there; none when the run ended without one.
async fn started(world: &World, story: &Story, child: &mut Child) -> Option<u64> {
    let began = Instant::now();
    loop {
        if let Some(found) = world.pipelines(&story.path).first() {
            return Some(found.id);
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(began.elapsed() < LIMIT, "nothing is started: {story:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway failed on the way to GitLab: before the start, which is worth another try; or at the start, and then nobody can
/// know that GitLab never saw the request.
fn not_started(world: &World, story: &Story, ran: Ran) {
    let about = format!("TOWPATH_SEED={} {story:#?}\n{ran:#?}", story.seed / 1000);
    let at_start = story.at_start == Some(Trouble::Status(502));
    assert!(at_start || story.tokens == Tokens::Access, "{about}");
    let code = if story.tokens == Tokens::Access { 7 } else { 9 };
    assert_eq!(ran.code, Some(code), "{about}");
    assert!(world.pipelines(&story.path).is_empty(), "{about}");
}

/// Moves the jobs until nothing is left to move. Says whether the tool was sent a signal.
async fn drive(world: &World, story: &Story, id: u64, chance: &mut Chance, child: &mut Child) -> bool {
    let mut signalled = false;
    let ends_at = 3 + chance.below(12);
    for tick in 0.. {
        let ended = child.try_wait().unwrap().is_some();
        let tree: Vec<PipelineSnapshot> = std::iter::once(&story.path)
            .chain([&story.infra])
            .flat_map(|path| world.pipelines(path))
            .collect();
        let mut moves: Vec<(JobSnapshot, Status)> = Vec::new();
        for pipeline in &tree {
            for job in pipeline.jobs.iter().filter(|job| !job.retried) {
                let next = next(story, pipeline, job, &tree, chance);
                moves.extend(next.map(|status| (job.clone(), status)));
            }
        }
        if moves.is_empty() || (ended && signalled) {
            return signalled;
        }
        if tick == ends_at && !ended {
            match story.ending {
                Ending::Itself => {}
                Ending::Person => cancel(world, story, id).await,
                Ending::Signal => signalled = terminate(child).await,
            }
        }
        let (job, status) = moves[chance.below(moves.len())].clone();
        make(world, story, &job, status, chance).await;
        let pause = 50 + u64::try_from(chance.below(usize::try_from(TICK).unwrap())).unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    unreachable!("the loop has no end of its own")
}

/// What may become of a job now; none while it has to wait.
fn next(
    story: &Story,
    pipeline: &PipelineSnapshot,
    job: &JobSnapshot,
    tree: &[PipelineSnapshot],
    chance: &mut Chance,
) -> Option<Status> {
    match job.status {
        Status::Created => {
            let before = pipeline
                .jobs
                .iter()
                .filter(|other| !other.retried && other.stage < job.stage);
            let before: Vec<&JobSnapshot> = before.collect();
            let settled = |other: &&JobSnapshot| {
                other.status.is_finished() || (other.status == Status::Manual && other.allow_failure)
            };
            if !before.iter().all(settled) {
                return None;
            }
            // GitLab looks at a whole stage at once, so that none of it is manual while the rest is not looked at yet.
            let is_manual = |name: &str| story.part(name).is_some_and(|part| part.manual);
            let first = |other: &JobSnapshot| {
                other.stage == job.stage && other.status == Status::Created && !is_manual(&other.name)
            };
            if is_manual(&job.name) && pipeline.jobs.iter().any(first) {
                return None;
            }
            let broken = |other: &&JobSnapshot| {
                matches!(other.status, Status::Failed | Status::Canceled) && !other.allow_failure
            };
            Some(if before.iter().any(broken) {
                Status::Skipped
            } else if is_manual(&job.name) {
                Status::Manual
            } else {
                chance.pick(&[
                    Status::Pending,
                    Status::Pending,
                    Status::Pending,
                    Status::Preparing,
                    Status::WaitingForResource,
                    Status::WaitingForCallback,
                    Status::Scheduled,
                ])
            })
        }
        Status::Preparing | Status::WaitingForResource | Status::WaitingForCallback | Status::Scheduled => {
            Some(Status::Pending)
        }
        Status::Pending => Some(Status::Running),
        Status::Running => match job.downstream {
            Some(downstream) => {
                let found = tree.iter().find(|pipeline| pipeline.id == downstream)?;
                match found.status {
                    Status::Success | Status::Canceled => Some(found.status),
                    Status::Failed | Status::Skipped => Some(Status::Failed),
                    _ => None,
                }
            }
            None => Some(match chance.below(20) {
                0 => Status::Canceled,
                1..=5 => Status::Failed,
                _ => Status::Success,
            }),
        },
        Status::Canceling => Some(Status::Canceled),
        // A person comes by and starts it, where somebody waits for that.
        Status::Manual if !job.allow_failure && story.on_manual == OnManual::Wait => Some(Status::Pending),
        _ => None,
    }
}

async fn make(world: &World, story: &Story, job: &JobSnapshot, status: Status, chance: &mut Chance) {
    let gitlab = &world.gitlab;
    let is_bridge = story.part(&job.name).is_some_and(|part| part.bridge);
    // Somebody may have cancelled it in this moment.
    let now = |id: u64| {
        let all = gitlab.snapshot();
        let found = all.into_iter().flat_map(|pipeline| pipeline.jobs);
        found.into_iter().find(|job| job.id == id).unwrap().status
    };
    if now(job.id) != job.status {
        return;
    }
    if status == Status::Running && is_bridge {
        gitlab.start_downstream(job.id).await.unwrap();
        return;
    }
    gitlab.move_job(job.id, status).unwrap();
    if status == Status::Failed && !is_bridge && chance.percent(40) {
        // By `retry:` in the configuration: at once.
        gitlab.retry_job(job.id).unwrap();
    }
}

/// A person cancels the pipeline, past all trouble.
async fn cancel(world: &World, story: &Story, id: u64) {
    let path = story.path.as_str();
    let mut tool = world.tool(Tokens::Access, path, &["cancel", &id.to_string()]);
    tool.stdout(Stdio::null()).stderr(Stdio::null());
    // It waits until the pipeline has stopped, which is up to the one who moves the jobs.
    tokio::spawn(async move { tool.status().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
}
