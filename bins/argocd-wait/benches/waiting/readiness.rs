//! How soon readiness is noticed, by the stream and by asking, with what memory, and beside it by a loop of curl and a pause as
//! scripts have it.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use towpath_sandbox::measured::{Table, Took, median};

use crate::server::{Manner, Server, tool};

/// Runs of each.
const RUNS: usize = 11;
/// Readiness comes after this, and up to five seconds more, so that it falls anywhere between two looks.
const AFTER: Duration = Duration::from_millis(2500);
const LOOK: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(60);
/// As scripts do: ask, look for two words, sleep.
const PEER: &str = "until curl -s -H \"Authorization: Bearer $ARGOCD_AUTH_TOKEN\" \
                    \"$ARGOCD_SERVER/api/v1/applications/web-prod\" | grep -q '\"health\":{\"status\":\"Healthy\"'; do sleep 5; done";

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

pub(crate) async fn measure() {
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
    let server = Server::start(match waiter {
        Waiter::ByStream => Manner::Streams,
        Waiter::ByAsking | Waiter::Script => Manner::Answers,
    })
    .await;
    let mut command = match waiter {
        Waiter::Script => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", PEER])
                .env("PATH", std::env::var_os("PATH").unwrap());
            shell
        }
        Waiter::ByStream | Waiter::ByAsking => tool(),
    };
    command
        .env("ARGOCD_SERVER", &server.url)
        .env("ARGOCD_AUTH_TOKEN", "a-token-of-the-benchmark")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let shown = async {
        tokio::time::sleep(after).await;
        server.show("deploy-5");
        start.elapsed().as_secs_f64()
    };
    let (watched, shown) = tokio::join!(Took::watch(&mut child, start, LOOK, LIMIT), shown);
    let (status, took) = watched.unwrap();
    assert!(status.success(), "{status}");
    (took.seconds - shown, took)
}
