//! How each outcome is told: its word in the report, its message, what to do, its exit code.

use towpath::argocd::Located;
use towpath::argocd::application::ResourceResult;
use towpath::failure::{Failure, Kind};

use crate::attempts::{Retrying, name};
use crate::evidence::Evidence;
use crate::plan::{Trouble, Waiting, Wanted};

/// A commit as it is shown.
pub(crate) fn short(commit: &str) -> &str {
    if crate::plan::is_commit(commit) {
        &commit[..12]
    } else {
        commit
    }
}

impl Trouble {
    /// The word for it in report and handoff.
    pub(crate) fn verdict(&self) -> &'static str {
        match self {
            Trouble::Deleted => "deleted",
            Trouble::Comparison { .. } => "comparison_error",
            Trouble::SyncFailed { .. } => "sync_failed",
            Trouble::SyncRefused { .. } => "sync_refused",
            Trouble::AutoSyncOff => "auto_sync_off",
            Trouble::Window(_) => "sync_window",
            Trouble::Degraded => "degraded",
            Trouble::NotHealthy { .. } => "not_healthy",
            Trouble::Superseded { .. } => "superseded",
            Trouble::NotInManifests { .. } => "not_in_manifests",
        }
    }

    /// Whether it helps to know how the resources are.
    pub(crate) fn wants_evidence(&self) -> bool {
        matches!(self, Trouble::Degraded | Trouble::NotHealthy { .. })
    }

    fn kind(&self) -> Kind {
        match self {
            Trouble::Deleted => Kind::NotFound,
            Trouble::Comparison { .. }
            | Trouble::SyncFailed { .. }
            | Trouble::SyncRefused { .. }
            | Trouble::Degraded
            | Trouble::NotHealthy { .. } => Kind::Unsuccessful,
            Trouble::AutoSyncOff | Trouble::Window(_) => Kind::Deadline,
            Trouble::Superseded { .. } | Trouble::NotInManifests { .. } => Kind::Conflict,
        }
    }

    /// The failure that the run ends with.
    pub(crate) fn failure(&self, application: &Located, wanted: &Wanted, evidence: &Evidence) -> Failure {
        let commit = short(&wanted.revision);
        let seen = evidence.sentence();
        let (message, hint) = match self {
            Trouble::Deleted => (
                format!("application {application} was deleted while it was waited for"),
                "look at who deletes it: an ApplicationSet, an app of apps, or a person".to_owned(),
            ),
            Trouble::Comparison { kind, text } => (
                format!("Argo CD cannot compare application {application} to {commit} ({kind}): {}", line(text)),
                "mend the environment repository: `kustomize build` of the application's folder shows the same".to_owned(),
            ),
            Trouble::SyncFailed { text, resources } => {
                (
                    format!("the sync of application {application} to {commit} failed: {}", refused(text, resources)),
                    "mend what the cluster refuses, and commit again".to_owned(),
                )
            }
            Trouble::SyncRefused { text } => (
                format!("Argo CD does not sync application {application} to {commit}: {}", line(text)),
                "mend the cause, or sync it by hand".to_owned(),
            ),
            Trouble::AutoSyncOff => (
                format!("application {application} is out of sync with {commit}, and its auto-sync is off"),
                "sync it in Argo CD, or pass --sync (TOWPATH_SYNC) with a token that may".to_owned(),
            ),
            Trouble::Window(window) => (
                format!(
                    "a sync window keeps application {application} from being synced to {commit}: {} at {:?} for {}",
                    window.kind, window.schedule, window.duration
                ),
                "wait until the window has passed and run it again, or ask whoever set it".to_owned(),
            ),
            Trouble::Degraded => (
                format!("application {application} is Degraded at {commit}{seen}"),
                "look at those resources; `kustomize-bump rollback` brings back what ran before".to_owned(),
            ),
            Trouble::NotHealthy { status } => (
                format!(
                    "application {application} is at {commit} and did not become healthy within {} s: it is {status}{seen}",
                    wanted.healthy_within.as_secs()
                ),
                "look at those resources; raise --healthy-within (TOWPATH_HEALTHY_WITHIN) if they only need longer"
                    .to_owned(),
            ),
            Trouble::Superseded { by, image } => (
                format!(
                    "commit {commit} of application {application} was superseded by {}, {}",
                    short(by),
                    image
                        .as_ref()
                        .map_or_else(|| "which does not name the image".to_owned(), |image| format!(
                            "which sets {image}"
                        ))
                ),
                "a newer deployment or a rollback took its place: look at that one".to_owned(),
            ),
            Trouble::NotInManifests { image, instead } => (
                format!(
                    "commit {commit} does not make application {application} run {image}{}",
                    instead
                        .as_ref()
                        .map_or_else(String::new, |instead| format!(": it names {instead}"))
                ),
                "is it the right application and image? An overlay or another source may set another one".to_owned(),
            ),
        };
        Failure::new(self.kind(), message).hint(hint)
    }
}

impl Waiting {
    /// Why it is still waited on, as the rest of a sentence.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Waiting::NotCompared => "Argo CD has not compared it yet".to_owned(),
            Waiting::AtOlder(commit) => format!("it is not synced yet: Argo CD still sees {}", short(commit)),
            Waiting::AtUnknown(revision) if revision.is_empty() => {
                "Argo CD has compared it to no commit yet".to_owned()
            }
            Waiting::AtUnknown(revision) => {
                format!(
                    "it is not synced yet: Argo CD compares it to {}, and nothing tells whether that is older",
                    short(revision)
                )
            }
            Waiting::Asking { repository, other } => {
                format!("{repository} is asked whether {} is older or newer", short(other))
            }
            Waiting::Divided(commits) => {
                let commits: Vec<&str> = commits.iter().map(|commit| short(commit)).collect();
                format!(
                    "Argo CD compares its sources of one branch to several commits of it until it looks again: {}",
                    commits.join(", ")
                )
            }
            Waiting::Syncing => "the sync is running".to_owned(),
            Waiting::Retrying(retrying) => retrying.sentence(),
            Waiting::OutOfSync(resources) if resources.is_empty() => "it is out of sync".to_owned(),
            Waiting::OutOfSync(resources) => format!("it is out of sync: {}", first(resources, ", ")),
            Waiting::Unwell(status) if status.is_empty() => "its health is not known".to_owned(),
            Waiting::Unwell(status) => format!("it is synced and {status}"),
            Waiting::OldRuns(image) => format!("pods of {image} still exist"),
            Waiting::NotSeen(image) => format!("no pod of {image} is there yet"),
        }
    }
}

impl Retrying {
    fn sentence(&self) -> String {
        let of = match &self.other {
            Some(other) => format!(" of another commit, {},", short(other)),
            None => String::new(),
        };
        let most = self.most.map_or_else(String::new, |most| format!(" of {most}"));
        let repeated = self
            .repeated
            .as_ref()
            .map_or_else(String::new, |(resource, times)| {
                format!("; {resource} failed in {times} attempts, so that another one promises little")
            });
        let again = match self.most {
            Some(most) if self.attempt >= most => "",
            _ => ", and Argo CD tries it again",
        };
        format!(
            "the sync{of} failed in attempt {}{most}{again}: {}{repeated}",
            self.attempt,
            refused(&self.text, &self.resources)
        )
    }
}

/// What a sync failed of: Argo CD's words, and the resources with theirs where those do not say it already.
fn refused(text: &str, resources: &[ResourceResult]) -> String {
    let text = line(text);
    let said: Vec<String> = resources
        .iter()
        .map(|resource| match line(&resource.message) {
            message if message.is_empty() || text.contains(&message) => name(resource),
            message => format!("{}: {message}", name(resource)),
        })
        .collect();
    if said.is_empty() {
        return text;
    }
    format!("{text} ({})", first(&said, "; "))
}

/// The first few of many.
fn first(items: &[String], between: &str) -> String {
    const SHOWN: usize = 5;
    let shown = items
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(between);
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Argo CD's words in one line of a bounded length.
pub(crate) fn line(text: &str) -> String {
    const LIMIT: usize = 1000;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= LIMIT {
        return text;
    }
    let start: String = text.chars().take(LIMIT).collect();
    format!("{start}...")
}
