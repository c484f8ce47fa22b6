//! The program `image-build`: all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    image_build::main()
}
