//! Measures how soon `argocd-wait` notices that an application is ready, and how soon a signal ends it; and prints Markdown.
//!
//! The server is one of the benchmark's own, so that the moment is known at which it shows a state. Every run is checked: a wrong
//! exit code ends the benchmark.

// A benchmark is no binary of ours: what those may not call does not bind it, and an end by panic is a fine end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod readiness;
mod server;
mod signals;

fn main() {
    // `cargo test --benches` runs this too, and has nothing to learn from it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        signals::measure().await;
        readiness::measure().await;
    });
}
