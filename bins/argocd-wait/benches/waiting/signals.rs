//! How long it takes from a signal to the end of the process, whatever it was waiting for.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use towpath_sandbox::measured::{Table, median};

use crate::server::{Manner, Server, tool};

/// Runs of each.
const RUNS: usize = 11;
/// The signal comes at most so long after what it interrupts has begun, so that it falls anywhere between two looks.
const SPREAD: Duration = Duration::from_millis(900);
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn measure() {
    // What is waited for, and the request that shows that it is.
    let waits = [
        ("the stream", Manner::Streams, "/stream/"),
        ("the next look, without a stream", Manner::Answers, "/stream/"),
        ("a first look that hangs", Manner::HangsAtOnce, "/web-prod"),
        (
            "a refresh and a stream that hang",
            Manner::HangsLater,
            "/web-prod",
        ),
        ("git, which hangs", Manner::HangsAsRepository, "/shop/env.git"),
        ("GitLab, which hangs when told", Manner::HangsAsGitLab, "/stream/"),
    ];
    let heads = [
        "TERM, median, s",
        "TERM, longest, s",
        "INT, median, s",
        "INT, longest, s",
    ];
    let mut table = Table::new(heads.map(str::to_owned).into());
    for (name, manner, begun) in waits {
        let mut cells = Vec::new();
        for signal in [Signal::TERM, Signal::INT] {
            let mut all = Vec::new();
            for run in 0..RUNS {
                let later = SPREAD * u32::try_from(run).unwrap() / u32::try_from(RUNS).unwrap();
                all.push(once(manner, begun, signal, later).await);
            }
            let longest = all.iter().copied().fold(0.0, f64::max);
            cells.extend([median(all), longest].map(|seconds| format!("{seconds:.3}")));
        }
        table.row(name, cells);
    }
    writeln!(
        std::io::stdout().lock(),
        "\nFrom a signal to the end, while it waits for:\n\n{table}\n{RUNS} runs of each, on loopback."
    )
    .unwrap();
}

/// Seconds from the signal to the end.
async fn once(manner: Manner, begun: &str, signal: Signal, later: Duration) -> f64 {
    let server = Server::start(manner).await;
    let mut command = tool();
    command
        .env("ARGOCD_SERVER", &server.url)
        .env("ARGOCD_AUTH_TOKEN", "a-token-of-the-benchmark")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match manner {
        Manner::HangsAsRepository => {
            // Another commit, of which git is asked.
            server.show("mended-1");
            command
                .args(["--repo", &format!("{}/shop/env.git", server.url)])
                .env("PATH", std::env::var_os("PATH").unwrap());
        }
        Manner::HangsAsGitLab => {
            command
                .args(["--record", "production", "--gitlab-project", "shop/env"])
                .env("CI_API_V4_URL", format!("{}/api/v4", server.url))
                .env("TOWPATH_GITLAB_TOKEN", "another-token-of-the-benchmark");
        }
        _ => {}
    }
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    tokio::time::timeout(LIMIT, server.is_asked(begun)).await.unwrap();
    tokio::time::sleep(later).await;
    let start = Instant::now();
    kill_process(pid, signal).unwrap();
    let ended = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let expected = 128 + signal.as_raw();
    assert_eq!(ended.code(), Some(expected), "{manner:?}");
    seconds
}
