//! The decision: what an application's state means for the commit and the images that are waited for. Pure.
//!
//! No phase alone decides anything. An operation that succeeded says that manifests were applied, not that they run; a
//! state that is Synced and Healthy may still list the pods of before; and what the last operation was for stays what it
//! was when a commit changes no manifest. So all of it has to be true in one answer: compared to our commit (or one that
//! took its place and carries our images), Synced, no operation, Healthy, and the images of the pods that exist.

use std::time::Duration;

use towpath::argocd::application::{Application, OperationState, ResourceResult};
use towpath::argocd::{Rendered, Runs, SyncWindow, SyncWindows};

use crate::attempts::{Attempts, Retrying, failed_resources, is_under_way};
use crate::image::{Image, Kinship};
use crate::relation::Relation;

/// How long Argo CD may leave a difference alone before its sync windows are looked at.
pub(crate) const BEFORE_WINDOWS: Duration = Duration::from_secs(2);

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The commit, in full.
    pub(crate) revision: String,
    pub(crate) images: Vec<Image>,
    /// The repository's address, by which its source is found among several.
    pub(crate) repository: Option<String>,
    /// Whether a sync may be started where none starts by itself.
    pub(crate) may_sync: bool,
    /// How long it may be Degraded before that counts.
    pub(crate) degraded_for: Duration,
    /// How long it may take from synced to healthy, and a sync that fails to succeed in another attempt.
    pub(crate) healthy_within: Duration,
}

/// What is known besides the application's own state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// It was compared since this run asked for that, so what it says is about the repository as it is.
    pub(crate) is_fresh: bool,
    /// How the commit it was compared to stands to ours, once that was asked.
    pub(crate) relation: Option<Relation>,
    /// What the commit it was compared to renders to, once that was asked; none within when nobody can tell.
    pub(crate) rendered: Option<Option<Rendered>>,
    /// Its sync windows, once they were asked for; none within when nobody can tell.
    pub(crate) windows: Option<Option<SyncWindows>>,
    /// This run started a sync.
    pub(crate) sync_started: bool,
    /// How long it has differed from the commit without anything being applied.
    pub(crate) idle: Duration,
    /// How long it has been Degraded.
    pub(crate) degraded: Duration,
    /// How long ago it was first seen synced.
    pub(crate) synced: Duration,
    /// What failed so far of the operation that is under way.
    pub(crate) attempts: Attempts,
    /// How long ago the first of those was seen.
    pub(crate) failing: Duration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// It runs.
    Ready(Proof),
    /// Nothing yet.
    Wait(Waiting),
    /// Something has to be found out first.
    Ask(Question),
    /// A sync has to be started.
    Sync,
    /// It will not run, or not without somebody doing something.
    Fail(Trouble),
}

/// What shows that the images run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Pods exist that run them.
    Pods,
    /// The commit renders to them, in what has no pods now.
    Manifests,
}

/// What has to be found out about the commit that the application was compared to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Relation(String),
    Manifests(String),
    Windows,
}

/// Why it is waited on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Waiting {
    /// Nobody compared it since.
    NotCompared,
    /// It was compared to an older commit.
    AtOlder(String),
    /// It was compared to something whose place is not known: no commit, or one that nothing tells about.
    AtUnknown(String),
    /// The repository is asked how the commit that it was compared to stands to ours.
    Asking { repository: String, other: String },
    /// Its sources of one branch were compared at several commits of it.
    Divided(Vec<String>),
    /// An operation runs, or its outcome is not compared yet.
    Syncing,
    /// The sync fails, and Argo CD tries it again.
    Retrying(Box<Retrying>),
    /// It differs, and a sync is to come.
    OutOfSync(Vec<String>),
    /// It is synced, and not well yet.
    Unwell(String),
    /// It is well, and pods of another version exist.
    OldRuns(String),
    /// It is well, and no pod runs the image.
    NotSeen(String),
}

/// Why it will not run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// The application is gone or going.
    Deleted,
    /// Argo CD cannot make manifests of the commit, or not compare them.
    Comparison { kind: String, text: String },
    /// The sync failed.
    SyncFailed {
        text: String,
        resources: Vec<ResourceResult>,
    },
    /// Argo CD will not sync it.
    SyncRefused { text: String },
    /// Nothing syncs it by itself.
    AutoSyncOff,
    /// A window keeps it from being synced.
    Window(SyncWindow),
    /// It is Degraded.
    Degraded,
    /// It took too long to become healthy.
    NotHealthy { status: String },
    /// Another commit took the place of ours, with another image or none.
    Superseded { by: String, image: Option<String> },
    /// Our commit does not name the image.
    NotInManifests { image: String, instead: Option<String> },
}

/// Decides about one state of an application.
pub(crate) fn decide(application: &Application, wanted: &Wanted, known: &Known) -> Step {
    if application.metadata.deletion_timestamp.is_some() {
        return Step::Fail(Trouble::Deleted);
    }
    if let Some(commits) = divided(application, wanted) {
        return Step::Wait(Waiting::Divided(commits));
    }
    let at = at(application, wanted);
    let is_ours = at == wanted.revision;
    // What was wrong before our commit was looked at says nothing about it.
    if known.is_fresh || is_ours {
        for kind in ["ComparisonError", "InvalidSpecError"] {
            if let Some(condition) = application.condition(kind) {
                return Step::Fail(Trouble::Comparison {
                    kind: kind.to_owned(),
                    text: condition.message.clone(),
                });
            }
        }
    }
    if !is_ours {
        if !is_commit(at) {
            return Step::Wait(Waiting::AtUnknown(at.to_owned()));
        }
        match known.relation {
            _ if !known.is_fresh => return Step::Wait(Waiting::NotCompared),
            None => return Step::Ask(Question::Relation(at.to_owned())),
            Some(Relation::Before) => return Step::Wait(Waiting::AtOlder(at.to_owned())),
            Some(Relation::Unknown) => return Step::Wait(Waiting::AtUnknown(at.to_owned())),
            Some(Relation::After) => {
                if let Some(step) = superseded(application, wanted, known, at) {
                    return step;
                }
            }
        }
    }
    let latest = application.status.operation_state.as_ref();
    let latest = latest.filter(|state| state.is_of(&application.status.sync));
    let is_running = application.operation.is_some() || latest.is_some_and(is_under_way);
    if !is_running
        && let Some(state) = latest.filter(|state| matches!(state.phase.as_str(), "Failed" | "Error"))
    {
        return Step::Fail(sync_failed(state));
    }
    match application.status.sync.status.as_str() {
        "Synced" | "OutOfSync" if is_running => under_way(latest, wanted, known, at),
        "Synced" => synced(application, wanted, known, at),
        "OutOfSync" => out_of_sync(application, wanted, known, latest),
        _ => Step::Wait(Waiting::NotCompared),
    }
}

/// The commit that counts: ours where one source is at it, else that of the source that has our repository, else the
/// first one.
pub(crate) fn at<'a>(application: &'a Application, wanted: &Wanted) -> &'a str {
    let commits = application.compared_to();
    let commit = commits.get(place(application, wanted)).or(commits.first());
    commit.copied().unwrap_or_default()
}

/// The place of the source that counts.
pub(crate) fn place(application: &Application, wanted: &Wanted) -> usize {
    let mut commits = application.compared_to().into_iter();
    let ours = commits.position(|commit| commit == wanted.revision);
    let of_repository = || {
        let ours = wanted.repository.as_deref()?;
        let mut sources = application.sources();
        sources.position(|source| is_same_repository(ours, &source.repo_url))
    };
    ours.or_else(of_repository).unwrap_or(0)
}

/// The commits of the source that counts and of those that follow the same branch, where they are not all one. Argo CD looks up
/// each source by itself, and a push in between leaves some of them behind until the next comparison.
fn divided(application: &Application, wanted: &Wanted) -> Option<Vec<String>> {
    let counts = application.sources().nth(place(application, wanted))?;
    let sources = application.sources().zip(application.compared_to());
    let of_branch = sources.filter(|(source, _)| {
        source.target_revision == counts.target_revision
            && is_same_repository(&source.repo_url, &counts.repo_url)
    });
    let mut commits: Vec<String> = of_branch.map(|(_, commit)| commit.to_owned()).collect();
    commits.dedup();
    (commits.len() > 1).then_some(commits)
}

/// Whether two addresses name one repository, whatever the scheme, the login and the port.
fn is_same_repository(one: &str, other: &str) -> bool {
    fn identity(address: &str) -> String {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let (host, path) = rest.split_once(['/', ':']).unwrap_or((rest, ""));
        let path = match path.split_once('/') {
            Some((port, path)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => path,
            _ => path,
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        format!("{host}/{path}").to_lowercase()
    }
    identity(one) == identity(other)
}

/// Whether it is a commit's id and no branch's name: of SHA-1 or SHA-256, in full.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Another commit took the place of ours. None where it carries our images, and so is as good.
fn superseded(application: &Application, wanted: &Wanted, known: &Known, at: &str) -> Option<Step> {
    let Some(rendered) = &known.rendered else {
        return Some(Step::Ask(Question::Manifests(at.to_owned())));
    };
    let applied = applied(application, true);
    let named: Vec<&str> = match rendered {
        Some(rendered) => rendered.images.iter().map(|(image, _)| image.as_str()).collect(),
        // What was applied names the images, too, and what exists after that.
        None if !applied.is_empty() => applied.iter().map(|(_, image)| *image).collect(),
        None if application.status.sync.status == "Synced" => {
            let images = &application.status.summary.images;
            images.iter().map(String::as_str).collect()
        }
        None => return Some(Step::Wait(Waiting::Syncing)),
    };
    let missing = wanted
        .images
        .iter()
        .find(|image| !named.iter().any(|seen| image.kinship(seen) == Kinship::Same))?;
    let instead = named
        .iter()
        .find(|seen| missing.kinship(seen) == Kinship::OtherVersion);
    Some(Step::Fail(Trouble::Superseded {
        by: at.to_owned(),
        image: instead.map(|seen| (*seen).to_owned()),
    }))
}

/// What the latest operation applied, or only if it was for what is compared: the kind of each resource with an image of it.
fn applied(application: &Application, only_compared: bool) -> Vec<(&str, &str)> {
    let state = application.status.operation_state.as_ref();
    let state = state.filter(|state| !only_compared || state.is_of(&application.status.sync));
    let result = state.and_then(|state| state.sync_result.as_ref());
    let resources = result.into_iter().flat_map(|result| &result.resources);
    resources
        .flat_map(|resource| {
            let images = resource.images.iter();
            images.map(|image| (resource.kind.as_str(), image.as_str()))
        })
        .collect()
}

/// Whether anything came of an operation so far.
pub(crate) fn has_applied(state: &OperationState) -> bool {
    let result = state.sync_result.as_ref();
    result.is_some_and(|result| !result.resources.is_empty())
}

fn sync_failed(state: &OperationState) -> Trouble {
    Trouble::SyncFailed {
        text: state.message.clone(),
        resources: failed_resources(state),
    }
}

/// An operation runs. Argo CD tries one that fails again, and another attempt may well succeed: what refused it may have been
/// starting itself. So it is Argo CD that gives up, after its last attempt; but where it is told to try for long or without end,
/// what fails in the same place again has no more time than what does not become healthy.
fn under_way(latest: Option<&OperationState>, wanted: &Wanted, known: &Known, at: &str) -> Step {
    // A window that begins stops what has begun as well, and it stays `Running`.
    if let Some(state) = latest.filter(|state| !has_applied(state)) {
        match &known.windows {
            None if known.idle >= BEFORE_WINDOWS => return Step::Ask(Question::Windows),
            Some(Some(windows)) => {
                if let Some(window) = windows.stops(state.operation.initiated_by.automated) {
                    return Step::Fail(Trouble::Window(window.clone()));
                }
            }
            _ => {}
        }
    }
    match known.attempts.retrying(at) {
        Some(retrying) if retrying.is_hopeless() && known.failing >= wanted.healthy_within => {
            Step::Fail(Trouble::SyncFailed {
                text: retrying.text,
                resources: retrying.resources,
            })
        }
        Some(retrying) => Step::Wait(Waiting::Retrying(Box::new(retrying))),
        None => Step::Wait(Waiting::Syncing),
    }
}

fn out_of_sync(
    application: &Application,
    wanted: &Wanted,
    known: &Known,
    latest: Option<&OperationState>,
) -> Step {
    let differing = || {
        let resources = application.status.resources.iter();
        let differing = resources.filter(|resource| resource.status == "OutOfSync");
        differing
            .map(|resource| format!("{} {}", resource.kind, resource.name))
            .collect()
    };
    // It was applied, and what came of it is compared in a moment; or something differs in spite of it.
    if latest.is_some() {
        return Step::Wait(Waiting::OutOfSync(differing()));
    }
    if known.sync_started {
        return Step::Wait(Waiting::Syncing);
    }
    if !application.is_automated() {
        return if wanted.may_sync {
            Step::Sync
        } else {
            Step::Fail(Trouble::AutoSyncOff)
        };
    }
    if let Some(condition) = application.condition("SyncError").filter(|_| known.is_fresh) {
        return Step::Fail(Trouble::SyncRefused {
            text: condition.message.clone(),
        });
    }
    match &known.windows {
        None if known.idle >= BEFORE_WINDOWS => return Step::Ask(Question::Windows),
        Some(Some(windows)) => {
            if let Some(window) = windows.in_the_way() {
                return Step::Fail(Trouble::Window(window.clone()));
            }
        }
        _ => {}
    }
    Step::Wait(Waiting::OutOfSync(differing()))
}

/// It is as the repository says. Is it well, and is it what we wanted?
fn synced(application: &Application, wanted: &Wanted, known: &Known, at: &str) -> Step {
    match application.status.health.status.as_str() {
        "Healthy" => running(application, wanted, known, at),
        "Degraded" if known.degraded >= wanted.degraded_for => Step::Fail(Trouble::Degraded),
        // It waits for a person, who may take their time.
        "Suspended" => Step::Wait(Waiting::Unwell("Suspended".to_owned())),
        status if known.synced >= wanted.healthy_within => Step::Fail(Trouble::NotHealthy {
            status: status.to_owned(),
        }),
        status => Step::Wait(Waiting::Unwell(status.to_owned())),
    }
}

fn running(application: &Application, wanted: &Wanted, known: &Known, at: &str) -> Step {
    let seen = &application.status.summary.images;
    let is_seen = |image: &Image| seen.iter().any(|other| image.kinship(other) == Kinship::Same);
    let missing = wanted.images.iter().find(|image| !is_seen(image));
    let old = wanted.images.iter().find_map(|image| {
        let mut others = seen.iter();
        others.find(|other| image.kinship(other) == Kinship::OtherVersion)
    });
    if missing.is_none() && old.is_none() {
        return Step::Ready(Proof::Pods);
    }
    // No pods, or more than expected: the commit itself says what there should be.
    let named: Vec<(&str, Runs)> = match &known.rendered {
        None => return Step::Ask(Question::Manifests(at.to_owned())),
        Some(Some(rendered)) => {
            let images = rendered.images.iter();
            images.map(|(image, runs)| (image.as_str(), *runs)).collect()
        }
        // It is synced, so what was applied last is what there is, whichever commit that was for.
        Some(None) => applied(application, false)
            .into_iter()
            .map(|(kind, image)| match kind {
                "Job" | "CronJob" => (image, Runs::NowAndThen),
                _ => (image, Runs::Always),
            })
            .collect(),
    };
    let can_tell = matches!(known.rendered, Some(Some(_))) || !applied(application, true).is_empty();
    for image in &wanted.images {
        let of = |kinship: Kinship| {
            named
                .iter()
                .filter(move |(other, _)| image.kinship(other) == kinship)
        };
        if can_tell && of(Kinship::Same).next().is_none() {
            return Step::Fail(Trouble::NotInManifests {
                image: image.to_string(),
                instead: of(Kinship::OtherVersion)
                    .next()
                    .map(|(other, _)| (*other).to_owned()),
            });
        }
        let runs_always = of(Kinship::Same).any(|(_, runs)| *runs == Runs::Always);
        if !is_seen(image) && (runs_always || of(Kinship::Same).next().is_none()) {
            return late(known, wanted, Waiting::NotSeen(image.to_string()));
        }
        // Pods of a Job that was there before, or a second workload that stays at another version, are as wanted.
        let leftover = seen.iter().find(|other| {
            image.kinship(other) == Kinship::OtherVersion
                && runs_always
                && !named.iter().any(|(named, _)| named == other)
        });
        if let Some(leftover) = leftover {
            return late(known, wanted, Waiting::OldRuns(leftover.clone()));
        }
    }
    Step::Ready(if missing.is_none() {
        Proof::Pods
    } else {
        Proof::Manifests
    })
}

/// It says that it is healthy, and the pods are not those that were wanted. That may last for a moment.
fn late(known: &Known, wanted: &Wanted, waiting: Waiting) -> Step {
    if known.synced < wanted.healthy_within {
        return Step::Wait(waiting);
    }
    Step::Fail(Trouble::NotHealthy {
        status: match waiting {
            Waiting::OldRuns(image) => format!("Healthy with pods of {image}"),
            _ => "Healthy without its pods".to_owned(),
        },
    })
}

#[cfg(test)]
mod tests;
