//! The program `image-promote-by-digest`: all of it is in the library beside.

use std::process::ExitCode;

use towpath::cli::CommandLine;

fn main() -> ExitCode {
    image_promote_by_digest::main(CommandLine::of_process())
}
