//! Copies images between repositories by digest, with every platform, moves tags last and never by accident, and puts
//! them back.

#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "what stands over an argument is help text, in which brackets are no links"
)]
mod args;
mod plan;
mod promote;
mod report;
mod roll_back;
mod verify;

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
        None => promote::promote(&args.promotion, args.promotion.dry_run, &run).await,
        Some(Command::Plan(promotion)) => promote::promote(&promotion, true, &run).await,
        Some(Command::Rollback(rollback)) => roll_back::roll_back(&rollback, &run).await,
        Some(Command::Verify(verify)) => verify::verify(&verify, &run).await,
    }
}
