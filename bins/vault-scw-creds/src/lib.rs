//! Hands Scaleway credentials from Vault or OpenBao to one command.
//!
//! See `README.md` beside this crate for what it does, and `towpath::vault`, `towpath::scaleway` and
//! `towpath::process` for how.

mod access;
mod args;
mod doctor;
mod exec;
mod files;
mod making;
mod mint;
mod plan;
mod report;
mod rotation;

use std::process::ExitCode;

use towpath::cli::{CommandLine, Outcome, Run};

use crate::args::{Args, EnvArgs, Task};

/// The program: from the command line to the exit code.
#[must_use]
pub fn main(line: CommandLine) -> ExitCode {
    towpath::cli::run(&line, work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    towpath::process::keep_memory_private();
    access::tell_what_is_not_heeded();
    match &args.command {
        Task::Exec(args) => exec::exec(args, &run).await,
        Task::Env(args) => print(args, &run).await,
        Task::Write(args) => files::write(args, &run).await,
        Task::Rotate(args) => rotation::rotate(args, &run).await,
        Task::Revoke(args) => files::revoke(args, &run).await,
        Task::Doctor(args) => doctor::examine(args, &run).await,
    }
}

async fn print(args: &EnvArgs, run: &Run) -> anyhow::Result<Outcome> {
    let mut signals = run.take_signals()?;
    let access = access::obtain(&args.source, run, &mut signals).await?;
    let origin = access::origin(args.source.secret()?, &access.reading);
    let environment = plan::Environment::of(&access.credentials, &access.reading, &args.variables, &origin)?;
    Ok(Outcome::disclosed(environment.render(args.format)?))
}
