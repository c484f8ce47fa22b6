//! The program `argocd-wait`: all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    argocd_wait::main()
}
