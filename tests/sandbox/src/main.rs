//! The binary behind `cargo demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_sandbox::demo::main()
}
