//! Sets images in kustomizations of an environment repository, takes them back, and holds them there.

#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "what stands over an argument is help text, in which brackets are no links"
)]
mod args;
mod commands;
mod diff;
mod follow;
mod handover;
mod merge_request;
mod message;
mod order;
mod place;
mod plan;
mod report;
mod rollback;
mod source;

use std::process::ExitCode;

use args::{Args, Command};
use towpath::cli::{CommandLine, Outcome, Run};

/// The program: from the command line to the exit code.
#[must_use]
pub fn main(line: CommandLine) -> ExitCode {
    towpath::cli::run(&line, work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    let place = &args.place;
    let outcome = match &args.command {
        Command::Set {
            wish,
            order,
            write,
            merge_request,
        } => {
            run.interruptible(
                "setting images",
                commands::set(place, wish, order, write, merge_request, &run),
            )
            .await?
        }
        Command::Diff { wish } => {
            run.interruptible("comparing images", commands::show(place, wish, &run))
                .await?
        }
        Command::Get { image, follow } => {
            let image = image.as_deref();
            if *follow {
                run.interruptible("following resources", commands::get_followed(place, image, &run))
                    .await?
            } else {
                run.interruptible("reading images", commands::get(place, image, &run))
                    .await?
            }
        }
        Command::Rollback { rollback, write } => {
            run.interruptible("rolling back", commands::roll_back(place, rollback, write, &run))
                .await?
        }
        Command::Hold { hold, write } => {
            run.interruptible("holding images", commands::hold(place, hold, write, &run))
                .await?
        }
        Command::Release { images, write } => {
            run.interruptible("releasing holds", commands::release(place, images, write, &run))
                .await?
        }
        Command::History { image, limit } => {
            run.interruptible("reading history", commands::history(place, image, *limit, &run))
                .await?
        }
    };
    Ok(outcome)
}
