//! Builds a container image with kaniko or buildah, pushes it, and hands its digest to the next job.

mod args;
mod build;
mod look;
mod plan;
mod push;
mod report;
mod tags;

use std::process::ExitCode;

use args::{Args, Command};
use towpath::cli::{CommandLine, Outcome, Run};

/// The program: from the command line to the exit code.
#[must_use]
pub fn main(line: CommandLine) -> ExitCode {
    towpath::cli::run(&line, work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    match args.command {
        None => build::build(&args.build, &run).await,
        Some(Command::Push(push)) => push::push(&push, &run).await,
    }
}
