//! The binary behind `cargo release-binaries`.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_sandbox::release::main()
}
