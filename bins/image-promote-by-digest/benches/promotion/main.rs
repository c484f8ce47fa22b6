//! Measures promotions between real registries on this machine, with crane, skopeo and regctl beside them where they are
//! on `PATH`, and prints a Markdown table.
//!
//! Small images travel over links with a round trip of 40 ms, where requests and their order decide; a large one over
//! plain loopback, where bytes do. Requests are counted in the registries' access logs. Every copy is checked: a tag
//! that does not name the image's digest ends the benchmark.

// A benchmark is no binary of ours: what those may not call does not bind it, and an end by panic is a fine end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

// Both are written for more than what is measured here.
#[allow(dead_code)]
#[path = "../../tests/promote/image.rs"]
mod image;
#[allow(dead_code)]
#[path = "../../tests/promote/world.rs"]
mod world;

mod large;
mod small;
mod tool;

use std::io::Write as _;

use tool::Tool;
use towpath_sandbox::measured::Table;
use world::World;

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
    let world = World::open().await;
    let (tools, absent) = Tool::all(&world).await;
    let heads = tools
        .iter()
        .map(|tool| format!("{} {}", tool.name, tool.version))
        .collect();
    let mut table = Table::new(heads);
    small::measure(&world, &tools, &mut table).await;
    large::measure(&world, &tools, &mut table).await;
    let mut out = std::io::stdout().lock();
    write!(out, "\n{table}\n").unwrap();
    if !absent.is_empty() {
        writeln!(out, "Not on PATH, so not measured: {}.", absent.join(", ")).unwrap();
    }
    let processors = std::thread::available_parallelism().unwrap();
    writeln!(
        out,
        "Medians of {} and {} runs on {processors} processors. {}",
        small::RUNS,
        large::RUNS,
        small::EXPLANATION
    )
    .unwrap();
}
