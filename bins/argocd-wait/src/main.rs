//! The program `argocd-wait`: all of it is in the library beside.

use std::process::ExitCode;

use towpath::cli::CommandLine;

fn main() -> ExitCode {
    argocd_wait::main(CommandLine::of_process())
}
