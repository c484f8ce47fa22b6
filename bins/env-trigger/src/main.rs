//! The program `env-trigger`: all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    env_trigger::main()
}
