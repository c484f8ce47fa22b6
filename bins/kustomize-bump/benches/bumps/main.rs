//! Measures changes of environment repositories over git's HTTP on this machine, with `kustomize edit set image` and the
//! git command line beside them where kustomize is on `PATH`, and prints a Markdown table.
//!
//! Every run is checked: a branch that does not hold what was asked for ends the benchmark.

// A benchmark is no binary of ours: what those may not call does not bind it, and an end by panic is a fine end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

// It is written for more than what is measured here.
#[path = "../../tests/world/mod.rs"]
mod world;

mod large;
mod overlays;
mod program;

use std::io::Write as _;

use program::Peer;
use towpath_sandbox::measured::Table;

fn main() {
    // `cargo test --benches` runs this too, and has nothing to learn from it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let peer = Peer::find().await;
    let mut heads = vec![format!("kustomize-bump {}", env!("CARGO_PKG_VERSION"))];
    heads.extend(
        peer.iter()
            .map(|peer| format!("git and kustomize {}", peer.version)),
    );
    let mut table = Table::new(heads);
    // One of the two alone, when it is named.
    let wanted = |name: &str| {
        let mut named = std::env::args().skip(1).filter(|argument| argument != "--bench");
        named.next().is_none_or(|named| named == name)
    };
    if wanted("overlays") {
        overlays::measure(peer.as_ref(), &mut table).await;
    }
    let mut large = String::new();
    if wanted("large") {
        large = large::measure().await.to_string();
    }
    let mut out = std::io::stdout().lock();
    write!(out, "\n{table}\n{large}\n").unwrap();
    if peer.is_none() {
        writeln!(out, "Not on PATH, so not measured: kustomize.").unwrap();
    }
    let processors = std::thread::available_parallelism().unwrap();
    writeln!(
        out,
        "Medians of {} runs ({} of the peer) on {processors} processors, on loopback: seconds of wall time, from the \
         start of the program to its end with the commit on the branch.",
        program::RUNS,
        program::PEER_RUNS,
    )
    .unwrap();
}
