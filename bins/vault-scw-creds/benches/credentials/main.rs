//! Measures logging in, reading, running a command and revoking, against a real OpenBao on this machine, with its own
//! command line beside it, and prints a Markdown table.
//!
//! Requests are counted in the server's audit log. Every run is checked: a command that did not get the key, or a token
//! that is left, ends the benchmark.

// A benchmark is no binary of ours: what those may not call does not bind it, and an end by panic is a fine end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

// It is written for more than what is measured here.
#[path = "../../tests/world/mod.rs"]
mod world;

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use towpath_sandbox::measured::{Table, Took, median};
use towpath_sandbox::tools::{Progress, Tools};
use world::{SECRET_KEY, World};

const RUNS: usize = 25;
/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);
/// Programs that end within milliseconds have to be looked at more often than that.
const LOOK: Duration = Duration::from_millis(1);

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

/// What one run of a whole cycle took.
struct Cycle {
    took: Took,
    requests: usize,
}

async fn measure() {
    let world = World::start().await;
    let bao = Tools::find_or_install(&Progress::silent()).await.unwrap().bao;
    let mut inline = Vec::new();
    let mut with_token = Vec::new();
    let mut peer = Vec::new();
    let tokens = world.tokens().await;
    for _ in 0..RUNS {
        // Taking turns, so that whatever else the machine does meets all of them.
        inline.push(ours(&world, &["--inline-auth", "auto"]).await);
        with_token.push(ours(&world, &["--inline-auth", "never"]).await);
        peer.push(theirs(&world, &bao).await);
        assert_eq!(world.tokens().await, tokens, "a token is left");
    }
    let all = [inline, with_token, peer];
    let cells = |what: fn(&Cycle) -> f64, decimals: usize| -> Vec<String> {
        all.iter()
            .map(|cycles| {
                let middle = median(cycles.iter().map(what).collect());
                format!("{middle:.decimals$}")
            })
            .collect()
    };
    let mut table = Table::new(vec![
        "vault-scw-creds".to_owned(),
        "the same, --inline-auth never".to_owned(),
        "bao (write, kv get, token revoke)".to_owned(),
    ]);
    table.row("requests", cells(|cycle| cycle.requests as f64, 0));
    table.row("wall time, ms", cells(|cycle| cycle.took.seconds * 1000.0, 1));
    table.row("peak memory, MiB", cells(|cycle| cycle.took.peak, 1));
    let processors = std::thread::available_parallelism().unwrap();
    writeln!(
        std::io::stdout().lock(),
        "\n{table}\nMedians of {RUNS} runs on {processors} processors, on loopback: log in by a service account, read a \
         secret, run `printenv` on the key, revoke. Requests are those in the server's audit log, where a \
         login that goes along with another request has an entry of its own; the peer's memory is that of the largest of \
         its three programs."
    )
    .unwrap();
    world.stop().await;
}

/// Our cycle: one program.
async fn ours(world: &World, flags: &[&str]) -> Cycle {
    let before = world.audited().len();
    let mut command = world.tool();
    command
        .arg("exec")
        .args(flags)
        .args(["--no-mask", "--", "printenv", "SCW_SECRET_KEY"]);
    let (said, took) = watch(command).await;
    assert_eq!(said.trim(), SECRET_KEY);
    Cycle {
        took,
        requests: world.audited().len() - before,
    }
}

/// The same with three programs of the server's own.
async fn theirs(world: &World, bao: &std::path::Path) -> Cycle {
    let before = world.audited().len();
    let run = |token: &str, arguments: &[&str]| {
        let mut command = world.guardian.bare_command(bao);
        command.env("BAO_ADDR", world.server.address()).args(arguments);
        if !token.is_empty() {
            command.env("BAO_TOKEN", token);
        }
        watch(command)
    };
    // It takes a file to the last byte, line break and all.
    let jwt = format!("jwt={}", world.jwt);
    let login = ["write", "-field=token", "auth/kubernetes/login", "role=ci", &jwt];
    let (token, first) = run("", &login).await;
    let token = token.trim();
    let read = ["kv", "get", "-mount=secret", "-field=secret_key", "ci/scw"];
    let (said, second) = run(token, &read).await;
    assert_eq!(said.trim(), SECRET_KEY);
    let (_, third) = run(token, &["token", "revoke", "-self"]).await;
    let all = [first, second, third];
    Cycle {
        took: Took {
            seconds: all.iter().map(|took| took.seconds).sum(),
            peak: all.iter().map(|took| took.peak).fold(0.0, f64::max),
        },
        requests: world.audited().len() - before,
    }
}

async fn watch(mut command: Command) -> (String, Took) {
    use tokio::io::AsyncReadExt as _;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // What it says fits a pipe.
    let (status, took) = Took::watch(&mut child, start, LOOK, LIMIT).await.unwrap();
    assert!(status.success(), "{command:?}");
    let mut said = String::new();
    stdout.read_to_string(&mut said).await.unwrap();
    (said, took)
}
