//! The program `env-trigger`: all of it is in the library beside.

use std::process::ExitCode;

use towpath::cli::CommandLine;

fn main() -> ExitCode {
    env_trigger::main(CommandLine::of_process())
}
