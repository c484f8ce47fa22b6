//! The program `image-build`: all of it is in the library beside.

use std::process::ExitCode;

use towpath::cli::CommandLine;

fn main() -> ExitCode {
    image_build::main(CommandLine::of_process())
}
