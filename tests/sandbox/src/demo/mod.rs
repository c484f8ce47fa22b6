//! `cargo demo`: the whole path on this machine, as a timeline.
//!
//! A tag is pushed, and its image is followed through three repositories until that digest runs; a second one follows;
//! then an incident, and one command that brings the first digest back and holds it. Every step is checked, and at the
//! end every log and file of the run is searched for the secrets it was given.

mod arguments;
mod deliveries;
mod delivery;
mod incident;
mod infra;
mod jobs;
mod keep;
mod leaks;
mod pull_secret;
mod rollback;
mod timeline;

use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::Arguments;
use self::deliveries::{Deliveries, Fate};
use self::timeline::Timeline;
use crate::cluster::Cluster;
use crate::guardian::Guardian;
use crate::tools::{ClusterTools, Progress, Tools};
use crate::towpath_binaries;
use crate::world::{IMAGE, World};

/// Said where the cluster cannot be had.
const WITHOUT_CLUSTER: &str = "no cluster can be had here; `cargo demo` without --cluster runs the same deliveries, and a rollback by hand, with \
     stand-ins for Kubernetes' TokenReview and for Argo CD";

/// Parses the command line and runs the demo; `main` returns what this returns.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say_failure(&error.into()),
    };
    let code = runtime.block_on(async {
        match until_interrupted(&arguments).await {
            Ok(code) => ExitCode::from(code),
            Err(error) => say_failure(&error),
        }
    });
    runtime.shutdown_background();
    code
}

fn say_failure(error: &anyhow::Error) -> ExitCode {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "\ndemo failed: {error:#}");
    ExitCode::FAILURE
}

/// Runs the demo, and ends it in order when a signal comes in. Whatever happens, the world is gone afterwards.
async fn until_interrupted(arguments: &Arguments) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        outcome = run(arguments) => outcome.map(|()| 0),
        _ = interrupt.recv() => Ok(128 + 2),
        _ = terminate.recv() => Ok(128 + 15),
        _ = hangup.recv() => Ok(128 + 1),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut timeline = Timeline::start();
    let mut world = None;
    let mut outcome = story(arguments, &mut world, &mut timeline).await;
    if let Err(error) = &outcome {
        let mut why = format!("{error:#}");
        for ended in world.iter_mut().flat_map(World::ended_servers) {
            why.push_str(&format!("\nmeanwhile {ended}"));
        }
        let step = timeline.failed(&why);
        outcome = Err(anyhow!("{step}: see above"));
    }
    if let Some(path) = &arguments.report {
        let report = timeline.report();
        fs::write(path, format!("{report:#}\n"))
            .with_context(|| format!("writing the report to {}", path.display()))?;
    }
    if let Some(world) = &world
        && arguments.keep
    {
        timeline.note(&keep::how_to_poke(world).await?);
        jobs::watch(world, &mut timeline).await?;
    }
    let stopped = match world {
        Some(world) => world.stop().await.context("removing the world"),
        None => Ok(()),
    };
    outcome?;
    stopped?;
    timeline.end();
    Ok(())
}

/// Everything that is shown and checked. The world stays in `place`, however this ends.
async fn story(arguments: &Arguments, place: &mut Option<World>, timeline: &mut Timeline) -> Result<()> {
    let world = place.insert(start(arguments, timeline).await?);

    if let Some(cluster) = world.platform.cluster() {
        return story_on(cluster, world, timeline).await;
    }

    let mut deliveries = Deliveries::new(world);
    timeline.chapter("the first delivery: v1.0.0");
    let (v1_0, first) = delivery::deliver(world, &mut deliveries, timeline, "v1.0.0").await?;
    timeline.first(&first);

    timeline.chapter("the second delivery: v1.1.0");
    delivery::change_the_page(world, timeline, "The new shop says").await?;
    let (v1_1, second) = delivery::deliver(world, &mut deliveries, timeline, "v1.1.0").await?;
    timeline.second(&second);
    timeline.begin("v1.1.0 is another image", IMAGE);
    ensure!(first != second, "two different sources gave one digest: {first}");
    timeline.done(Some(&second));
    deliveries.ended(timeline, &v1_0).await?;

    rollback::come_late(world, timeline, &first, &second).await?;
    infra::drift(world, timeline).await?;
    deliveries.ended(timeline, &v1_1).await?;

    timeline.chapter("the incident: v1.1.0 misbehaves, v1.0.0 has to come back");
    rollback::roll_back(world, timeline, &first, &second).await?;

    timeline.chapter("the drill: the same once more, with nothing up but git");
    rollback::drill(world, timeline, &first, &second).await?;

    timeline.chapter("afterwards");
    leaks::search(world, timeline).await
}

/// The story on a real cluster. Its incident is one that only a cluster can have.
async fn story_on(cluster: &Cluster, world: &World, timeline: &mut Timeline) -> Result<()> {
    let mut deliveries = Deliveries::new(world);
    timeline.chapter("the first delivery: v1.0.0");
    let v1_0 = deliveries.push(timeline, "v1.0.0", Fate::Arrives).await?;
    // The nodes need it once there is something to pull, which is built meanwhile.
    pull_secret::hand_over(world, cluster, timeline).await?;
    let first = delivery::arrive(world, &mut deliveries, timeline, &v1_0).await?;
    timeline.first(&first);

    timeline.chapter("the incident: the pods of v1.1.0 never become ready");
    delivery::change_the_page(world, timeline, "The new shop says").await?;
    let v1_1 = incident::never_ready(world, cluster, &mut deliveries, timeline, &first).await?;
    deliveries.ended(timeline, &v1_0).await?;

    timeline.chapter("the next one: v1.2.0, once the hold is released");
    delivery::change_the_page(world, timeline, "The mended shop says").await?;
    let v1_2 = incident::held_until_released(world, &mut deliveries, timeline, &first).await?;
    deliveries.ended(timeline, &v1_1).await?;

    timeline.chapter("afterwards");
    deliveries.ended(timeline, &v1_2).await?;
    leaks::search(world, timeline).await
}

async fn start(arguments: &Arguments, timeline: &mut Timeline) -> Result<World> {
    let progress = Progress::lines();
    // First, since it lists what this machine lacks, which nobody wants to wait for.
    timeline.begin("tools found", "");
    let (tools, tofu) = Tools::find_or_install_with_tofu(&progress).await?;
    timeline.done(None);
    let cluster = if arguments.cluster {
        timeline.begin("cluster's tools found", "");
        let found = ClusterTools::find_or_build(&progress)
            .await
            .context(WITHOUT_CLUSTER)?;
        timeline.done(None);
        Some(found)
    } else {
        None
    };
    let builder = &tools.builder;
    timeline.note(&format!("builder: {} ({})", builder.kind.name(), builder.why));
    timeline.builder(builder.kind.name());

    timeline.begin("Towpath built", "");
    let guardian = Guardian::start()?;
    let build = towpath_binaries::build_within(&guardian);
    let bin = progress
        .step("build Towpath's binaries with cargo", build)
        .await?;
    timeline.done(None);

    timeline.begin("world started", "");
    let world = World::start(guardian, tools, &tofu, bin, cluster.as_ref()).await?;
    timeline.done(None);
    timeline.note(&format!(
        "OpenBao {}, registries {} and {}, GitLab {}, Argo CD {}",
        world.openbao.address(),
        world.staging.host(),
        world.production.host(),
        world.gitlab.url(),
        world.platform.argocd_url()
    ));
    Ok(world)
}
