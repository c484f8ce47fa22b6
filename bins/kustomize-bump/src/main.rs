//! The program `kustomize-bump`: all of it is in the library beside.

use std::process::ExitCode;

use towpath::cli::CommandLine;

fn main() -> ExitCode {
    kustomize_bump::main(CommandLine::of_process())
}
