//! Stopping a pipeline and what it started, and looking whether it has stopped.
//!
//! GitLab answers a cancel with success whatever comes of it, and cancels no pipeline in another project along with
//! the one that started it. So everything is cancelled by itself and read again.

use std::fmt;
use std::time::Duration;

use towpath::cli::effect;
use towpath::failure::{Kind, Result};
use towpath::gitlab::{Client, Project};

use crate::access::Access;

/// How deep pipelines may start pipelines, of which all are cancelled. GitLab allows three levels within a project.
const DEPTH: usize = 8;
/// How often a cancelled pipeline is read until it has stopped.
const LOOKS: usize = 12;
/// The pause between two of these looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1500);

/// What came of stopping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Nothing of it runs any more.
    All,
    /// These pipelines run on, each with the reason.
    Left(Vec<String>),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::All => f.write_str("it was cancelled"),
            Stopped::Left(left) => write!(f, "still running: {}", left.join("; ")),
        }
    }
}

/// Cancels a pipeline and every pipeline it started, and waits a while for them to stop.
pub(crate) async fn stop(access: &Access, id: u64) -> Stopped {
    let client = match access.canceller() {
        Ok(client) => client,
        Err(failure) => return Stopped::Left(vec![format!("pipeline {id} ({failure})")]),
    };
    let mut left = Vec::new();
    let mut cancelled = Vec::new();
    let mut next = vec![(access.project().clone(), id, 0)];
    while let Some((project, id, depth)) = next.pop() {
        let effect = effect("cancel", format!("pipeline {id} of {project}"));
        match client.cancel_pipeline(&project, id).await {
            Ok(()) => effect.done("asked for"),
            Err(failure) => {
                left.push(format!("pipeline {id} of {project} ({failure})"));
                continue;
            }
        }
        if depth < DEPTH {
            match started_by(&client, &project, id).await {
                Ok(more) => next.extend(more.into_iter().map(|(project, id)| (project, id, depth + 1))),
                Err(failure) => left.push(format!("what pipeline {id} of {project} started ({failure})")),
            }
        }
        cancelled.push((project, id));
    }
    for (project, id) in cancelled {
        if let Err(state) = until_ended(&client, &project, id).await {
            left.push(format!("pipeline {id} of {project} ({state})"));
        }
    }
    if left.is_empty() {
        Stopped::All
    } else {
        Stopped::Left(left)
    }
}

/// The pipelines that a pipeline started and that have not ended.
async fn started_by(client: &Client, project: &Project, id: u64) -> Result<Vec<(Project, u64)>> {
    let bridges = client.bridges(project, id).await?;
    let running = bridges
        .into_iter()
        .filter_map(|bridge| bridge.downstream_pipeline)
        .filter(|downstream| !downstream.status.has_ended());
    Ok(running
        .map(|downstream| {
            // A child pipeline runs in the same project.
            let target = downstream.project_id.map_or_else(|| project.clone(), Project::Id);
            (target, downstream.id)
        })
        .collect())
}

/// Reads a pipeline until it has ended; else gives back how it stands.
async fn until_ended(client: &Client, project: &Project, id: u64) -> Result<(), String> {
    let mut state = "not looked at again in time".to_owned();
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        match client.pipeline(project, id).await {
            Ok(pipeline) if pipeline.status.has_ended() => {
                tracing::info!(
                    action = "cancel",
                    object = format!("pipeline {id} of {project}"),
                    outcome = pipeline.status.as_str()
                );
                return Ok(());
            }
            Ok(pipeline) => state = pipeline.status.to_string(),
            Err(failure) if failure.kind() == Kind::Deadline => break,
            Err(failure) => state = failure.to_string(),
        }
    }
    Err(state)
}
