//! The program `image-promote-by-digest`: all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    image_promote_by_digest::main()
}
