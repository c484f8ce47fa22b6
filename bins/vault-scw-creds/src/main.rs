//! The program `vault-scw-creds`: all of it is in the library beside.

use std::process::ExitCode;

use towpath::cli::CommandLine;

fn main() -> ExitCode {
    vault_scw_creds::main(CommandLine::of_process())
}
