//! The reports.

mod back;

use serde::Serialize;
use towpath::cli::Report;
use towpath::gitlab::MergeState;
use towpath::kustomize::{Hold, ImageState};

pub(crate) use self::back::{HeldImage, HoldAction, HoldsReport, RollbackReport, RolledBack};

/// One image in one file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileChange {
    /// The folder of the kustomization.
    pub(crate) path: String,
    /// The file.
    pub(crate) file: String,
    /// The `name` of the entry.
    pub(crate) image: String,
    /// Whether it changes.
    pub(crate) changed: bool,
    /// What it said; null when the entry is added.
    pub(crate) old: Option<ImageState>,
    /// What it says now.
    pub(crate) new: ImageState,
    /// The paths whose builds it decides about, where those were followed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) decides_for: Vec<String>,
}

/// Where a command worked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Place {
    /// The address of the repository, or the folder.
    pub(crate) repository: String,
    /// The branch; null in a checkout.
    pub(crate) branch: Option<String>,
    /// How it was reached: `git`, `api` or `checkout`.
    pub(crate) via: &'static str,
}

/// What `set` and `diff` did.
#[derive(Debug, Serialize)]
pub(crate) struct SetReport {
    /// Whether anything changed.
    pub(crate) changed: bool,
    /// Whether it was only shown.
    pub(crate) dry_run: bool,
    #[serde(flatten)]
    pub(crate) place: Place,
    /// The commit that was made.
    pub(crate) commit: Option<String>,
    /// The merge request that it went through.
    pub(crate) merge_request: Option<MergeRequestReport>,
    /// How many times it was decided, one more for each lost race.
    pub(crate) attempts: u32,
    /// Each image in each file.
    pub(crate) files: Vec<FileChange>,
    /// What a person should know about it.
    pub(crate) notes: Vec<String>,
    /// The change as a unified diff.
    pub(crate) diff: String,
}

impl Report for SetReport {
    const SCHEMA: &'static str = "towpath.kustomize-bump/1";

    fn text(&self) -> String {
        if self.dry_run {
            return if self.changed {
                self.diff.trim_end().to_owned()
            } else {
                "nothing would change".to_owned()
            };
        }
        let mut lines: Vec<String> = self
            .files
            .iter()
            .map(|file| match &file.old {
                Some(_) if !file.changed => format!("{}: {} (unchanged)", file.file, file.new),
                Some(old) => format!("{}: {old} -> {}", file.file, file.new),
                None => format!("{}: {} (added)", file.file, file.new),
            })
            .collect();
        lines.extend(commit_line(self.commit.as_deref(), &self.place));
        lines.extend(self.merge_request.as_ref().map(MergeRequestReport::line));
        lines.join("\n")
    }
}

/// A merge request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MergeRequestReport {
    /// Its number in the project.
    pub(crate) iid: u64,
    /// Its page.
    pub(crate) url: Option<String>,
    /// Its branch.
    pub(crate) branch: String,
    /// The commit that it was left at.
    pub(crate) head: String,
    /// `opened`, `merged`, `closed` or `locked`.
    pub(crate) state: MergeState,
    /// Whether it merges by itself when its pipeline succeeds.
    pub(crate) auto_merge: bool,
    /// The merge requests that were closed since this one is for the same.
    pub(crate) superseded: Vec<u64>,
}

impl MergeRequestReport {
    pub(crate) fn line(&self) -> String {
        let url = self.url.clone().unwrap_or_else(|| format!("!{}", self.iid));
        let state = match self.state {
            MergeState::Opened if self.auto_merge => "open, merges when its pipeline succeeds",
            MergeState::Opened => "open",
            MergeState::Closed => "closed",
            MergeState::Locked => "being merged",
            MergeState::Merged => "merged",
        };
        format!("merge request {url}: {state}")
    }
}

/// What `get` found.
#[derive(Debug, Serialize)]
pub(crate) struct GetReport {
    /// Nothing is ever changed.
    pub(crate) changed: bool,
    #[serde(flatten)]
    pub(crate) place: Place,
    /// The images.
    pub(crate) images: Vec<FoundImage>,
}

/// One image that `get` found.
#[derive(Debug, Serialize)]
pub(crate) struct FoundImage {
    /// The folder of the kustomization.
    pub(crate) path: String,
    /// The file.
    pub(crate) file: String,
    /// The line of the entry.
    pub(crate) line: usize,
    #[serde(flatten)]
    pub(crate) state: ImageState,
    /// The hold on it.
    pub(crate) hold: Option<Hold>,
}

impl Report for GetReport {
    const SCHEMA: &'static str = "towpath.kustomize-bump/1";

    fn text(&self) -> String {
        let lines: Vec<String> = self
            .images
            .iter()
            .map(|image| {
                let hold = image.hold.as_ref().map_or(String::new(), |hold| {
                    format!("\n  held by {} since {}: {}", hold.by, hold.since, hold.reason)
                });
                format!(
                    "{}:{}: {} = {}{hold}",
                    image.file, image.line, image.state.name, image.state
                )
            })
            .collect();
        if lines.is_empty() {
            "no images".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

/// What `get --follow` found.
#[derive(Debug, Serialize)]
pub(crate) struct FollowedReport {
    /// Nothing is ever changed.
    pub(crate) changed: bool,
    #[serde(flatten)]
    pub(crate) place: Place,
    /// The images of each build.
    pub(crate) images: Vec<FollowedImage>,
    /// What was not followed.
    pub(crate) notes: Vec<String>,
}

/// One image that a build names.
#[derive(Debug, Serialize)]
pub(crate) struct FollowedImage {
    /// The folder of the kustomization that is built.
    pub(crate) path: String,
    /// The image as the build names it.
    pub(crate) built: String,
    /// The files that name it; empty when none that was read does.
    pub(crate) manifests: Vec<String>,
    /// The file with the entry that decides about it; null when none does.
    pub(crate) file: Option<String>,
    /// The line of that entry.
    pub(crate) line: Option<usize>,
    /// What that entry says.
    pub(crate) entry: Option<ImageState>,
}

impl Report for FollowedReport {
    const SCHEMA: &'static str = "towpath.kustomize-bump/1";

    fn text(&self) -> String {
        let lines: Vec<String> = self
            .images
            .iter()
            .map(|image| {
                let from = match image.manifests.as_slice() {
                    [] => "no file that was read".to_owned(),
                    manifests => manifests.join(", "),
                };
                let by = match (&image.file, image.line) {
                    (Some(file), Some(line)) => format!("decided at {file}:{line}"),
                    _ => "decided by no entry".to_owned(),
                };
                format!("{}: {}\n  {by}, named in {from}", image.path, image.built)
            })
            .collect();
        if lines.is_empty() {
            "no images".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

/// What `history` found.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryReport {
    /// Nothing is ever changed.
    pub(crate) changed: bool,
    #[serde(flatten)]
    pub(crate) place: Place,
    /// The folder of the kustomization.
    pub(crate) path: String,
    /// The `name` of the entry.
    pub(crate) image: String,
    /// What it was, newest first.
    pub(crate) steps: Vec<HistoryStep>,
    /// Whether there is or may be more than is shown.
    pub(crate) more: bool,
}

/// What an image was from one commit on.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryStep {
    /// The commit.
    pub(crate) commit: String,
    /// When: RFC 3339.
    pub(crate) date: String,
    /// Who: `Name <address>`.
    pub(crate) by: String,
    /// What it was; null where there was no such image.
    pub(crate) image: Option<ImageState>,
    /// `set` or `rollback`; null for commits that were not made by this tool.
    pub(crate) action: Option<String>,
    /// The pipeline that made the commit.
    pub(crate) pipeline: Option<String>,
    /// The project that the image was built from.
    pub(crate) source_project: Option<String>,
    /// The commit that the image was built from.
    pub(crate) source_commit: Option<String>,
}

impl Report for HistoryReport {
    const SCHEMA: &'static str = "towpath.kustomize-bump/1";

    fn text(&self) -> String {
        let lines: Vec<String> = self
            .steps
            .iter()
            .map(|step| {
                let image = step
                    .image
                    .as_ref()
                    .map_or("not there".to_owned(), ToString::to_string);
                let action = step.action.as_deref().unwrap_or("by hand");
                let mut line = format!(
                    "{} {} {image}\n  {action}, {}",
                    &step.commit[..12],
                    step.date,
                    step.by
                );
                if let Some(pipeline) = &step.pipeline {
                    line.push_str(&format!(", {pipeline}"));
                }
                line
            })
            .collect();
        match (lines.is_empty(), self.more) {
            (true, _) => format!("no history of {}", self.image),
            (false, false) => lines.join("\n"),
            (false, true) => format!("{}\nolder ones: --limit", lines.join("\n")),
        }
    }
}

pub(crate) fn commit_line(commit: Option<&str>, place: &Place) -> Option<String> {
    let commit = commit?;
    Some(match &place.branch {
        Some(branch) => format!("commit {commit} on {branch} of {}", place.repository),
        None => format!("commit {commit} in {}", place.repository),
    })
}
