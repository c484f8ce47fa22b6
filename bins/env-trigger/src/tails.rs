//! The ends of failed jobs' logs, in our log and in the report.

use std::time::Duration;

use towpath::cli::{self, RunArgs};
use towpath::gitlab::{Client, Job, Project};

use crate::tree::Tree;

/// Of how many failed jobs the log is shown, how many lines of it, out of how many bytes.
const TAILS: usize = 5;
const LINES: usize = 25;
const BYTES: usize = 64 * 1024;
/// How long reading one may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads the ends of the logs of the jobs that a pipeline failed of, in whichever project they ran, and logs them, each
/// in a section of its own where the log is a GitLab job's. Only an access token may.
pub(crate) async fn collect(client: &Client, tree: &mut Tree, settings: &RunArgs, in_gitlab: bool) {
    if !client.token().is_access() {
        return;
    }
    let failures = tree.failures();
    // Trigger jobs have no log.
    let with_log: Vec<(Project, Job, String)> = failures
        .iter()
        .filter(|leaf| !leaf.is_bridge)
        .take(TAILS)
        .map(|leaf| (leaf.project.clone(), leaf.job.clone(), leaf.name()))
        .collect();
    for (number, (project, job, name)) in with_log.into_iter().enumerate() {
        let read = client.log_tail(&project, &job, LINES, BYTES);
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(lines)) => {
                let reason = job.failure_reason.as_deref().unwrap_or("failed");
                let section = in_gitlab.then(|| {
                    let title = format!("log of {name} ({reason}), its last lines");
                    // The first one is most often what one looks for.
                    cli::section(settings, &format!("job_{}", job.id), &title, number > 0)
                });
                for line in &lines {
                    tracing::info!(action = "log", object = name, "{line}");
                }
                drop(section);
                tree.tails.insert(job.id, lines);
            }
            Ok(Err(failure)) => {
                tracing::warn!(
                    action = "log",
                    object = name,
                    outcome = "not readable",
                    "{failure}"
                );
            }
            Err(_elapsed) => tracing::warn!(action = "log", object = name, outcome = "too slow"),
        }
    }
}
