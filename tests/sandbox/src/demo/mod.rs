//! `cargo demo`: the whole path on this machine, as a timeline.
//!
//! A tag is pushed, and its image is followed through three repositories until that digest runs; a second one follows;
//! then an incident, and one command that brings the first digest back and holds it. Every step is checked, and at the
//! end every log and file of the run is searched for the secrets it was given.

mod arguments;
mod delivery;
mod leaks;
mod rollback;
mod timeline;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::Arguments;
use self::timeline::Timeline;
use crate::guardian::Guardian;
use crate::tools::{Progress, Tools};
use crate::towpath_binaries;
use crate::world::{self, World};

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

#[expect(clippy::print_stderr, reason = "this is where the demo tells what went wrong")]
fn say_failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("\ndemo failed: {error:#}");
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
    let progress = Progress::lines();
    // First, since it lists what this machine lacks, which nobody wants to wait for.
    let (tools, tofu) = Tools::find_or_install_with_tofu(&progress).await?;
    let guardian = Guardian::start()?;
    let build = towpath_binaries::build_within(&guardian);
    let bin = progress
        .step("build Towpath's binaries with cargo", build)
        .await?;
    timeline.note(&format!(
        "builder: {} ({})",
        tools.builder.kind.name(),
        tools.builder.why
    ));
    timeline.builder(tools.builder.kind.name());

    let started = Instant::now();
    let world = World::start(guardian, tools, &tofu, bin)
        .await
        .context("starting the world")?;
    timeline.step("world started", "", started.elapsed(), None);
    timeline.note(&format!(
        "OpenBao {}, registries {} and {}, GitLab {}, Argo CD {}",
        world.openbao.address(),
        world.staging.host(),
        world.production.host(),
        world.gitlab.url(),
        world.argocd.url()
    ));

    let outcome = story(&world, &mut timeline).await;
    if let Some(path) = &arguments.report {
        let report = timeline.report();
        fs::write(path, format!("{report:#}\n"))
            .with_context(|| format!("writing the report to {}", path.display()))?;
    }
    if let Err(error) = &outcome {
        timeline.failed(&format!("{error:#}"));
    }
    if arguments.keep {
        timeline.note(&how_to_poke(&world)?);
        std::future::pending::<()>().await;
    }
    let stopped = world.stop().await.context("removing the world");
    if outcome.is_err() {
        anyhow::bail!("the step named above did not end well");
    }
    stopped?;
    timeline.end();
    Ok(())
}

async fn story(world: &World, timeline: &mut Timeline) -> Result<()> {
    timeline.chapter("the first delivery: v1.0.0");
    let first = delivery::deliver(world, timeline, "v1.0.0").await?;
    timeline.first(&first);

    timeline.chapter("the second delivery: v1.1.0");
    delivery::change_the_page(world).await?;
    let second = delivery::deliver(world, timeline, "v1.1.0").await?;
    timeline.second(&second);
    anyhow::ensure!(first != second, "two different sources gave one digest: {first}");

    timeline.chapter("the incident: v1.1.0 misbehaves, v1.0.0 has to come back");
    rollback::roll_back(world, timeline, &first, &second).await?;

    timeline.chapter("afterwards");
    leaks::search(world, timeline)
}

/// What a person can do with a world that is kept.
fn how_to_poke(world: &World) -> Result<String> {
    let dir = world.guardian.dir().display();
    let (token, git_credentials) = world.person.write_credentials(world.gitlab.url())?;
    let bump = |verb: &str| {
        format!(
            "{}/kustomize-bump {verb} --repo {} --branch main --path {} --image web",
            world.bin.display(),
            world.gitlab.clone_url(world::ENV),
            world::OVERLAY
        )
    };
    Ok(format!(
        "\nthe world stays up until Ctrl-C; it lives in {dir}
  first        export TOWPATH_GIT_TOKEN=$(cat {token})
  what runs    {get}
  history      {history}
  release      {release}
  push a tag   cd {web} && git -c credential.helper='store --file {store}' push origin HEAD:refs/tags/v1.2.0
  its jobs     ls -t {dir}/gitlab/pipelines
  server logs  ls {dir}/logs",
        token = token.display(),
        get = bump("get"),
        history = bump("history"),
        release = bump("release"),
        web = world.person.folder(world::IMAGE).display(),
        store = git_credentials.display(),
    ))
}
