//! The program `kustomize-bump`: all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    kustomize_bump::main()
}
