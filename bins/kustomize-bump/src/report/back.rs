//! The reports of rollback, hold and release.

use serde::Serialize;
use towpath::cli::Report;
use towpath::kustomize::{Hold, ImageState};

use super::{MergeRequestReport, Place, commit_line};
use crate::merge_request::HeldHere;
use crate::rollback::KnownBy;

/// What `rollback` did.
#[derive(Debug, Serialize)]
pub(crate) struct RollbackReport {
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
    /// The numbers of the merge requests that were closed since they would have set what is held now.
    pub(crate) closed_merge_requests: Vec<u64>,
    /// How many times it was decided, one more for each lost race.
    pub(crate) attempts: u32,
    /// Each image in each file.
    pub(crate) images: Vec<RolledBack>,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The change as a unified diff, without the holds.
    pub(crate) diff: String,
}

/// One image that was taken back.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RolledBack {
    /// The folder of the kustomization.
    pub(crate) path: String,
    /// The file.
    pub(crate) file: String,
    /// The `name` of the entry.
    pub(crate) image: String,
    /// Whether it changes, or its hold does.
    pub(crate) changed: bool,
    /// What it was.
    pub(crate) from: ImageState,
    /// What it is now.
    pub(crate) to: ImageState,
    /// How it is known that it was so before: `deployment`, `history` or `argument`.
    pub(crate) known_by: KnownBy,
    /// The commit that made it so before; null for a digest that history does not know.
    pub(crate) taken_from_commit: Option<String>,
    /// When that commit was written, or that deployment ended: RFC 3339; null where it is not known.
    pub(crate) taken_from_date: Option<String>,
    /// Whether the registry has it: true, or null where it was not asked or could not tell.
    pub(crate) in_registry: Option<bool>,
    /// The hold that stands now.
    pub(crate) hold: Hold,
}

impl RolledBack {
    /// As merge requests that set it may name it.
    pub(crate) fn here(&self, asked: &[&str]) -> HeldHere {
        let names = [
            Some(&self.image),
            self.from.new_name.as_ref(),
            self.to.new_name.as_ref(),
        ];
        here(&self.path, names.into_iter().flatten().cloned(), asked)
    }

    /// Where the way back comes from, in words.
    pub(crate) fn origin(&self) -> String {
        let mut text = self.known_by.to_string();
        if let Some(commit) = &self.taken_from_commit {
            text.push_str(&format!(", after {commit}"));
        }
        if let Some(date) = &self.taken_from_date {
            text.push_str(&format!(" of {date}"));
        }
        text
    }
}

impl Report for RollbackReport {
    const SCHEMA: &'static str = "towpath.kustomize-bump/1";

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for image in &self.images {
            lines.push(format!("{}: {} -> {}", image.file, image.from, image.to));
            lines.push(format!("  {}", image.origin()));
        }
        if self.dry_run {
            lines.push("nothing was changed".to_owned());
            return lines.join("\n");
        }
        if self.changed {
            lines.extend(commit_line(self.commit.as_deref(), &self.place));
            lines.extend(merge_request_lines(
                self.merge_request.as_ref(),
                &self.closed_merge_requests,
            ));
        } else {
            lines.push("it is so already; go further back with --to 2, --to 3 and so on".to_owned());
        }
        // What is not merged yet holds nothing.
        let is_there = self.merge_request.is_none() || self.commit.is_some();
        for image in self.images.iter().filter(|_| is_there) {
            lines.push(format!(
                "held until: kustomize-bump release --path {} --image {}",
                image.path, image.image
            ));
        }
        lines.push(format!("took {:.1} s", self.seconds));
        lines.join("\n")
    }
}

/// Whether holds are made or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldAction {
    /// They are made.
    Hold,
    /// They are released.
    Release,
}

/// What `hold` and `release` did.
#[derive(Debug, Serialize)]
pub(crate) struct HoldsReport {
    #[serde(skip)]
    pub(crate) action: HoldAction,
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
    /// The numbers of the merge requests that were closed since they would have set what is held now.
    pub(crate) closed_merge_requests: Vec<u64>,
    /// Each image in each folder.
    pub(crate) images: Vec<HeldImage>,
}

/// One image that is held, or was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HeldImage {
    /// The folder of the kustomization.
    pub(crate) path: String,
    /// The `name` of the entry.
    pub(crate) image: String,
    /// Whether its hold was made or released just now.
    pub(crate) changed: bool,
    /// The hold that stands, or that was released; null where there was none to release.
    pub(crate) hold: Option<Hold>,
}

impl HeldImage {
    /// As merge requests that set it may name it.
    pub(crate) fn here(&self, asked: &[&str]) -> HeldHere {
        here(&self.path, std::iter::once(self.image.clone()), asked)
    }
}

fn here(folder: &str, names: impl Iterator<Item = String>, asked: &[&str]) -> HeldHere {
    HeldHere {
        folder: folder.to_owned(),
        names: names.chain(asked.iter().map(|name| (*name).to_owned())).collect(),
    }
}

impl Report for HoldsReport {
    const SCHEMA: &'static str = "towpath.kustomize-bump/1";

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.images.iter().map(|image| self.line(image)).collect();
        lines.extend(commit_line(self.commit.as_deref(), &self.place));
        lines.extend(merge_request_lines(
            self.merge_request.as_ref(),
            &self.closed_merge_requests,
        ));
        lines.join("\n")
    }
}

/// The merge request that it went through, and those that were closed for it.
fn merge_request_lines(request: Option<&MergeRequestReport>, closed: &[u64]) -> Vec<String> {
    let mut lines: Vec<String> = request.map(MergeRequestReport::line).into_iter().collect();
    lines.extend(
        closed
            .iter()
            .map(|iid| format!("closed merge request !{iid}, which would have set it")),
    );
    lines
}

impl HoldsReport {
    fn line(&self, held: &HeldImage) -> String {
        let HeldImage {
            path, image, hold, ..
        } = held;
        let Some(hold) = hold else {
            return format!("image {image} in {path} is not held");
        };
        let Hold {
            held_at,
            by,
            since,
            reason,
            ..
        } = hold;
        match (self.action, held.changed, self.dry_run) {
            (HoldAction::Hold, true, false) => format!("holding {image} in {path} at {held_at}: {reason}"),
            (HoldAction::Hold, true, true) => format!("would hold {image} in {path} at {held_at}: {reason}"),
            (HoldAction::Hold, false, _) => {
                format!("{image} in {path} is held at {held_at} already, by {by} since {since}: {reason}")
            }
            (HoldAction::Release, _, dry_run) => {
                let verb = if dry_run { "would release" } else { "released" };
                format!("{verb} the hold on {image} in {path} by {by} since {since}: {reason}")
            }
        }
    }
}
