//! Stopping a pipeline and what it started, and looking whether it has stopped.
//!
//! GitLab answers a cancel with success whatever comes of it, and cancels no pipeline in another project along with
//! the one that started it. So everything is cancelled by itself and read again, and so is what a trigger job started
//! in the meantime.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use towpath::cli::effect;
use towpath::deadline::Deadline;
use towpath::gitlab::{Client, Project, Status};

use crate::access::{Access, GRACE};
use crate::tree::{DEPTH, PIPELINES};

/// The pause between two looks at what was cancelled; it grows, since an after_script may run for minutes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1000);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What came of stopping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Nothing of it runs any more. Whether anything had to be cancelled for that.
    All { cancelled: bool },
    /// These pipelines run on, each with the reason.
    Left(Vec<String>),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::All { cancelled: true } => f.write_str("it was cancelled"),
            Stopped::All { cancelled: false } => f.write_str("nothing of it ran any more"),
            Stopped::Left(left) => write!(f, "still running: {}", left.join("; ")),
        }
    }
}

/// One pipeline on the way to its end.
#[derive(Debug)]
struct Target {
    project: Project,
    depth: usize,
    asked: bool,
    ended: bool,
    /// How it stood, or why that is not known.
    state: String,
}

/// Cancels a pipeline and every pipeline it started, and waits a while for them to stop.
pub(crate) async fn stop(access: &Access, id: u64) -> Stopped {
    let client = match access.canceller() {
        Ok(client) => client,
        Err(failure) => {
            return Stopped::Left(vec![format!("pipeline {id} of {} ({failure})", access.project())]);
        }
    };
    let deadline = Deadline::after(GRACE.saturating_sub(LONGEST_PAUSE));
    let root = Target::new(access.project().clone(), 0);
    let mut targets = BTreeMap::from([(id, root)]);
    let mut pause = BETWEEN_LOOKS;
    loop {
        round(&client, id, &mut targets).await;
        if targets.values().all(|target| target.ended) || deadline.remaining() < pause {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
    let left: Vec<String> = targets
        .iter()
        .filter(|(_, target)| !target.ended)
        .map(|(id, target)| format!("pipeline {id} of {} ({})", target.project, target.state))
        .collect();
    if left.is_empty() {
        let cancelled = targets.values().any(|target| target.asked);
        Stopped::All { cancelled }
    } else {
        Stopped::Left(left)
    }
}

/// Cancels what has not been cancelled yet, reads it, and looks for what it started.
async fn round(client: &Client, root: u64, targets: &mut BTreeMap<u64, Target>) {
    let mut next: VecDeque<u64> = VecDeque::from([root]);
    let mut visited = BTreeSet::new();
    while let Some(id) = next.pop_front() {
        if !visited.insert(id) {
            continue;
        }
        let Some(target) = targets.get_mut(&id) else {
            continue;
        };
        if !target.ended {
            target.advance(client, id).await;
        }
        let (project, depth) = (target.project.clone(), target.depth);
        if depth >= DEPTH {
            continue;
        }
        match client.bridges(&project, id).await {
            Ok(bridges) => {
                for downstream in bridges
                    .into_iter()
                    .filter_map(|bridge| bridge.downstream_pipeline)
                {
                    let known = targets.contains_key(&downstream.id);
                    if !known && (downstream.status.has_ended() || targets.len() >= PIPELINES) {
                        continue;
                    }
                    // A child pipeline runs in the same project.
                    let place = downstream.project_id.map_or_else(|| project.clone(), Project::Id);
                    targets
                        .entry(downstream.id)
                        .or_insert_with(|| Target::new(place, depth + 1));
                    next.push_back(downstream.id);
                }
            }
            Err(failure) => {
                if let Some(target) = targets.get_mut(&id).filter(|target| target.ended) {
                    target.ended = false;
                    target.state = format!("what it started is not known: {failure}");
                }
            }
        }
    }
}

impl Target {
    fn new(project: Project, depth: usize) -> Self {
        Target {
            project,
            depth,
            asked: false,
            ended: false,
            state: "not looked at in time".to_owned(),
        }
    }

    /// Reads it, and has it cancelled unless it has ended or that was asked for already.
    async fn advance(&mut self, client: &Client, id: u64) {
        let object = format!("pipeline {id} of {}", self.project);
        let may_run = match client.pipeline(&self.project, id).await {
            Ok(pipeline) if pipeline.status.has_ended() => {
                self.ended = true;
                tracing::info!(action = "cancel", object, outcome = pipeline.status.as_str());
                return;
            }
            Ok(pipeline) => match pipeline.status {
                Status::Canceling => "canceling: an after_script may still run".to_owned(),
                other => other.to_string(),
            },
            Err(failure) => failure.message().to_owned(),
        };
        if self.asked {
            self.state = may_run;
            return;
        }
        let effect = effect("cancel", object);
        match client.cancel_pipeline(&self.project, id).await {
            Ok(()) => {
                effect.done("asked for");
                self.asked = true;
                self.state = may_run;
            }
            Err(failure) => self.state = failure.message().to_owned(),
        }
    }
}
