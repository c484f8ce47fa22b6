//! Measures how soon `argocd-wait` notices that an application is ready, by the stream and by asking, with what memory, and
//! beside it a loop of curl and a pause as scripts have it; and prints Markdown.
//!
//! The server is one of the benchmark's own, so that the moment is known at which it shows the last state. Every run is checked:
//! a wrong exit code ends the benchmark.

// A benchmark is no binary of ours: what those may not call does not bind it, and an end by panic is a fine end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::watch;
use towpath_sandbox::measured::{Table, Took, median};

const OURS: &str = "267e85da53a9edf6a2d5c03079f020a21e7eea61";
/// Runs of each.
const RUNS: usize = 11;
/// Readiness comes after this, and up to five seconds more, so that it falls anywhere between two looks.
const AFTER: Duration = Duration::from_millis(2500);
const LOOK: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(60);
/// As scripts do: ask, look for two words, sleep.
const PEER: &str = "until curl -s -H \"Authorization: Bearer $ARGOCD_AUTH_TOKEN\" \
                    \"$ARGOCD_SERVER/api/v1/applications/web-prod\" | grep -q '\"health\":{\"status\":\"Healthy\"'; do sleep 5; done";

/// What the server shows, and whether it has a stream.
#[derive(Clone)]
struct Server {
    state: watch::Receiver<Arc<String>>,
    with_stream: bool,
}

/// What was seen of one way to wait.
#[derive(Default)]
struct Noticed {
    /// Seconds between the state that is ready and the end of who waited for it.
    delays: Vec<f64>,
    /// The most memory, in MiB.
    peak: f64,
}

/// Who waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiter {
    ByStream,
    ByAsking,
    Script,
}

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
    let waiters = [
        ("argocd-wait, stream", Waiter::ByStream),
        ("argocd-wait, no stream", Waiter::ByAsking),
        ("curl, every 5 s", Waiter::Script),
    ];
    let mut table = Table::new(waiters.iter().map(|(name, _)| (*name).to_owned()).collect());
    let mut all = Vec::new();
    for (_, waiter) in waiters {
        let mut noticed = Noticed::default();
        for run in 0..RUNS {
            // Evenly spread over the pause of the loop that is slowest.
            let later = Duration::from_secs(5) * u32::try_from(run).unwrap() / u32::try_from(RUNS).unwrap();
            let (delay, took) = once(waiter, AFTER + later).await;
            noticed.delays.push(delay);
            noticed.peak = noticed.peak.max(took.peak);
        }
        all.push(noticed);
    }
    let cells = |what: &dyn Fn(&Noticed) -> String| all.iter().map(what).collect::<Vec<_>>();
    table.row(
        "readiness noticed after, median, s",
        cells(&|noticed| format!("{:.2}", median(noticed.delays.clone()))),
    );
    table.row(
        "the longest, s",
        cells(&|noticed| format!("{:.2}", noticed.delays.iter().copied().fold(0.0, f64::max))),
    );
    table.row(
        "peak memory, MiB",
        cells(&|noticed| format!("{:.1}", noticed.peak)),
    );
    let processors = std::thread::available_parallelism().unwrap();
    writeln!(
        std::io::stdout().lock(),
        "\n{table}\n{RUNS} runs of each, on {processors} processors, on loopback. The memory of the loop is its shell's alone."
    )
    .unwrap();
}

/// One wait, of which the moment of readiness is known.
async fn once(waiter: Waiter, after: Duration) -> (f64, Took) {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded");
    let [before, ready] = ["deploy-3", "deploy-5"].map(|name| {
        let text = std::fs::read_to_string(format!("{recorded}/{name}.json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        Arc::new(value.to_string())
    });
    let (show, state) = watch::channel(before);
    let server = Server {
        state,
        with_stream: waiter == Waiter::ByStream,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(answer).with_state(server);
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let mut command = match waiter {
        Waiter::Script => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", PEER])
                .env("PATH", std::env::var_os("PATH").unwrap());
            shell
        }
        Waiter::ByStream | Waiter::ByAsking => {
            let mut tool = Command::new(env!("CARGO_BIN_EXE_argocd-wait"));
            let image = format!("registry.example.com/web@sha256:{}", "d".repeat(64));
            tool.env_clear()
                .args(["--application", "web-prod", "--revision", OURS, "--image", &image]);
            tool
        }
    };
    command
        .env("ARGOCD_SERVER", &url)
        .env("ARGOCD_AUTH_TOKEN", "a-token-of-the-benchmark")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let shown = async {
        tokio::time::sleep(after).await;
        show.send_replace(ready);
        start.elapsed().as_secs_f64()
    };
    let (watched, shown) = tokio::join!(Took::watch(&mut child, start, LOOK, LIMIT), shown);
    let (status, took) = watched.unwrap();
    assert!(status.success(), "{status}");
    serving.abort();
    (took.seconds - shown, took)
}

async fn answer(State(server): State<Server>, uri: Uri) -> Response {
    let state = server.state.borrow().clone();
    match uri.path() {
        "/api/v1/applications/web-prod" => Body::from(state.to_string()).into_response(),
        "/api/v1/stream/applications" if server.with_stream => {
            let lines = futures_util::stream::unfold((server.state, true), async |(mut state, first)| {
                if !first {
                    state.changed().await.ok()?;
                }
                let application: Value = serde_json::from_str(&state.borrow_and_update()).ok()?;
                let line = json!({"result": {"type": "MODIFIED", "application": application}});
                Some((
                    Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n"))),
                    (state, false),
                ))
            });
            Body::from_stream(lines).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
