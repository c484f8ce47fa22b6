//! What failed so far of a sync that Argo CD tries again. Pure.
//!
//! While it does that, the operation's phase stays `Running`, and between two attempts alone the state says what failed:
//! `finishedAt` is set then. While the next attempt runs, `syncResult` may be there and be that of the one before. So what was
//! seen between them is kept.
//!
//! Source: Argo CD 3.2, `controller/appcontroller.go`, `processRequestedAppOperation`.

use towpath::argocd::application::{Application, OperationState, ResourceResult};

/// The most of them that are kept; Argo CD may be told to try without end.
const KEPT: usize = 20;

/// The attempts of one operation that failed, as far as they were seen, oldest first; nothing once it has ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attempts {
    /// When the operation began, which stays so when it is tried again.
    started_at: Option<String>,
    /// The commits that it is for.
    commits: Vec<String>,
    /// How many attempts Argo CD makes in all; none where it makes them without end.
    most: Option<u64>,
    failed: Vec<Attempt>,
}

/// An attempt that failed, or is failing.
#[derive(Clone, Debug, PartialEq)]
struct Attempt {
    /// Its place, from one.
    number: u64,
    text: String,
    resources: Vec<ResourceResult>,
}

/// A sync that fails and is tried again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retrying {
    /// The attempt that failed last.
    pub(crate) attempt: u64,
    /// How many attempts are made in all, where that is bounded.
    pub(crate) most: Option<u64>,
    /// Argo CD's words.
    pub(crate) text: String,
    /// What failed in that attempt.
    pub(crate) resources: Vec<ResourceResult>,
    /// A resource that failed in more than one attempt, and in how many it was seen to.
    pub(crate) repeated: Option<(String, usize)>,
    /// The other commit that the operation is for, where it is not for the one that counts.
    pub(crate) other: Option<String>,
}

impl Attempts {
    /// Takes in what a state says.
    pub(crate) fn note(&mut self, application: &Application) {
        let Some(state) = application.status.operation_state.as_ref() else {
            return;
        };
        if !is_under_way(state) {
            *self = Attempts::default();
            return;
        }
        let commits: Vec<String> = state.commits().into_iter().map(str::to_owned).collect();
        let count = u64::try_from(state.retry_count).unwrap_or_default();
        let is_between = state.phase == "Running" && state.finished_at.is_some() && count > 0;
        // Between two attempts the next one is counted already.
        let number = if is_between { count } else { count + 1 };
        let is_earlier = self.failed.last().is_some_and(|last| number < last.number);
        // It may be told to take up a newer commit when it tries again.
        let is_moved = !commits.is_empty() && !commits.iter().any(|commit| self.commits.contains(commit));
        if self.started_at != state.started_at || is_moved || is_earlier {
            *self = Attempts {
                started_at: state.started_at.clone(),
                ..Attempts::default()
            };
        }
        // What was asked for without a commit names one only while a result is there.
        if !commits.is_empty() {
            self.commits = commits;
        }
        let again = state.operation.retry.as_ref().map_or(0, |retry| retry.limit);
        self.most = u64::try_from(again).ok().map(|again| again + 1);
        let resources = failed_resources(state);
        if !is_between && (resources.is_empty() || count > 0) {
            return;
        }
        let attempt = Attempt {
            number,
            text: state.message.clone(),
            resources,
        };
        match self.failed.last_mut() {
            Some(last) if last.number == number => *last = attempt,
            _ => self.failed.push(attempt),
        }
        if self.failed.len() > KEPT {
            self.failed.remove(0);
        }
    }

    /// What is known of a sync that fails; none where nothing of it failed. `at` is the commit that counts.
    pub(crate) fn retrying(&self, at: &str) -> Option<Retrying> {
        let last = self.failed.last()?;
        let is_ours = self.commits.iter().any(|commit| commit == at);
        let times = |resource: &ResourceResult| {
            let attempts = self.failed.iter();
            attempts
                .filter(|attempt| attempt.resources.iter().any(|other| is_same(resource, other)))
                .count()
        };
        let most = last.resources.iter().max_by_key(|resource| times(resource));
        let repeated = most.map(|resource| (name(resource), times(resource)));
        Some(Retrying {
            attempt: last.number,
            most: self.most,
            text: last.text.clone(),
            resources: last.resources.clone(),
            repeated: repeated.filter(|(_, times)| *times > 1),
            other: self.commits.first().filter(|_| !is_ours).cloned(),
        })
    }

    /// Whether an attempt of the operation that is under way failed.
    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }
}

impl Retrying {
    /// Whether the same resource of the commit that counts failed again, so that another attempt promises little.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.other.is_none() && self.repeated.is_some()
    }
}

pub(crate) fn is_under_way(state: &OperationState) -> bool {
    matches!(state.phase.as_str(), "Running" | "Terminating")
}

/// What failed in the latest attempt of an operation.
pub(crate) fn failed_resources(state: &OperationState) -> Vec<ResourceResult> {
    let resources = state.sync_result.iter().flat_map(|result| &result.resources);
    let failed = |resource: &&ResourceResult| {
        resource.status == "SyncFailed" || matches!(resource.hook_phase.as_str(), "Failed" | "Error")
    };
    resources.filter(failed).cloned().collect()
}

/// A resource as it is named in messages.
pub(crate) fn name(resource: &ResourceResult) -> String {
    format!("{} {}", resource.kind, resource.name)
}

fn is_same(one: &ResourceResult, other: &ResourceResult) -> bool {
    (&one.kind, &one.namespace, &one.name) == (&other.kind, &other.namespace, &other.name)
}
