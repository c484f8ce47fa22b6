//! The command line of `cargo demo`.

use std::path::PathBuf;

use clap::Parser;

/// Run the whole path on this machine: a tag becomes a digest that runs, a second one follows, and a rollback holds.
///
/// Finds the tools it needs on PATH or installs them into the cache folder (TOWPATH_CACHE, else ~/.cache/towpath), pinned by
/// version and checksum. Everything listens on loopback, lives in one folder and is removed at the end. TOWPATH_KANIKO
/// names kaniko's executor, where it is not found by itself.
#[derive(Debug, Parser)]
#[command(
    name = "cargo demo --",
    after_help = "Exit codes: 0 every step was checked, 1 one was not, 128+n ended by signal n."
)]
pub(super) struct Arguments {
    /// Deploy to a real Kubernetes by a real Argo CD, built by Go the first time (12 to 28 minutes on 2 cores), instead of stand-ins
    #[arg(long)]
    pub(super) cluster: bool,

    /// Leave the world up at the end, print how to poke it, and wait for Ctrl-C
    #[arg(long)]
    pub(super) keep: bool,

    /// Write the timeline to FILE as JSON (towpath.demo/1)
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}
