//! What a promotion did, or would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use towpath::cli::{Report, size};
use towpath::failure::Failure;
use towpath::oci::copy::{Done, Foreseen, ImageReference, Look, Referred, Tally, Verified};

use super::{SCHEMA, seconds};
use crate::plan::{Edge, Group, Wanted};

/// What happened, or with `--dry-run` would happen.
#[derive(Debug, Serialize)]
pub(crate) struct PromotionReport {
    dry_run: bool,
    /// The image; none for a batch.
    source: Option<String>,
    digest: Option<String>,
    /// The whole index, when only some of its platforms go, so that the image has another digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    reduced_from: Option<String>,
    /// What a sparse index lists and its source does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
    targets: Vec<TargetReport>,
    requests: u64,
    bytes: u64,
    seconds: f64,
    /// Sent, on the average of the whole run.
    bytes_per_second: u64,
    changed: bool,
    #[serde(skip)]
    failures: Vec<(usize, Failure)>,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    /// Where in the batch it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    source: String,
    /// By digest, as it can be pulled.
    reference: String,
    tag: Option<String>,
    /// None when the source could not be looked at.
    digest: Option<String>,
    /// What the tag named before.
    before: Option<String>,
    changed: bool,
    mounted: u64,
    copied: u64,
    skipped: u64,
    mounted_bytes: u64,
    skipped_bytes: u64,
    /// How many bytes were sent.
    bytes: u64,
    /// What refers to the image, by artifact type.
    referrers: BTreeMap<String, ReferrersReport>,
    /// What the look at all of it found, with `--verify deep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
    /// Why it is not there.
    failure: Option<String>,
    /// Of which kind that is, by the name that logs give it.
    failure_kind: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ReferrersReport {
    copied: u64,
    skipped: u64,
}

impl PromotionReport {
    /// Nothing has happened yet. The targets are in the order of the groups.
    pub(crate) fn new(wanted: &Wanted, dry_run: bool) -> Self {
        let rows = |group: &'_ Group| {
            let source = group.source.to_string();
            let row = move |edge: &Edge| TargetReport::new(&source, &edge.target, edge.line);
            group.edges.iter().map(row).collect::<Vec<_>>()
        };
        PromotionReport {
            dry_run,
            source: match wanted {
                Wanted::One(group) => Some(group.source.to_string()),
                Wanted::Many(_) => None,
            },
            digest: None,
            reduced_from: None,
            absent: Vec::new(),
            targets: wanted.groups().iter().flat_map(rows).collect(),
            requests: 0,
            bytes: 0,
            seconds: 0.0,
            bytes_per_second: 0,
            changed: false,
            failures: Vec::new(),
        }
    }

    /// Fills in what was found out; `rows` are the places of the look's targets in the report.
    pub(crate) fn looked(&mut self, rows: &[usize], look: &Look) {
        let digest = look.digest().to_string();
        if self.source.is_some() {
            self.digest = Some(digest.clone());
            self.reduced_from = look.reduced_from().map(ToString::to_string);
            self.absent = look.absent().iter().map(ToString::to_string).collect();
        }
        for ((&row, before), writes) in rows.iter().zip(look.before()).zip(look.writes()) {
            let target = &mut self.targets[row];
            target.reference = format!("{}@{digest}", target.reference);
            target.digest = Some(digest.clone());
            target.before = before.as_ref().map(ToString::to_string);
            target.changed = writes;
        }
    }

    /// Fills in what would happen to one target.
    pub(crate) fn foresee(&mut self, row: usize, foreseen: Result<Option<Foreseen>, Failure>) {
        match foreseen {
            Ok(Some(foreseen)) => self.targets[row].weigh(&foreseen.tally, &foreseen.referrers),
            Ok(None) => {}
            Err(failure) => self.fail(row, failure),
        }
    }

    /// Fills in what happened to one target.
    pub(crate) fn conclude(&mut self, row: usize, outcome: Result<Done, Failure>) {
        match outcome {
            Ok(done) => {
                let target = &mut self.targets[row];
                target.changed = done.changed;
                target.before = done.before.as_ref().map(ToString::to_string);
                target.weigh(&done.tally, &done.referrers);
                target.verified = done.verified;
                if let Some(failure) = done.unproven {
                    // What was written is written all the same.
                    let (changed, row_failure) = (target.changed, failure);
                    target.fail(&row_failure);
                    target.changed = changed;
                    self.failures.push((row, row_failure));
                }
            }
            Err(failure) => self.fail(row, failure),
        }
    }

    /// Fills in why targets are not served; none is when their source is what is wrong.
    pub(crate) fn fail_all(&mut self, rows: &[usize], failure: Failure) {
        for &row in rows {
            self.targets[row].fail(&failure);
        }
        if let Some(&first) = rows.first() {
            self.failures.push((first, failure));
        }
    }

    /// Fills in why one target is not served.
    pub(crate) fn fail(&mut self, row: usize, failure: Failure) {
        self.fail_all(&[row], failure);
    }

    /// Fills in that the run ended before it came to the targets that are not `done` and did not fail before. Gives the
    /// failure back, for it is the run's.
    pub(crate) fn cut_short(&mut self, failure: Failure, done: &BTreeSet<usize>) -> Failure {
        for (row, target) in self.targets.iter_mut().enumerate() {
            if target.failure.is_none() && !done.contains(&row) {
                target.fail(&failure);
            }
        }
        failure
    }

    /// Adds it all up and puts it into the order of the batch. Gives back the first failure in that order.
    pub(crate) fn finish(&mut self, requests: u64, elapsed: Duration) -> Option<Failure> {
        self.requests = requests;
        self.seconds = seconds(elapsed);
        let sum = |sum: u64, target: &TargetReport| sum.saturating_add(target.bytes);
        self.bytes = self.targets.iter().fold(0, sum);
        self.changed = !self.dry_run && self.targets.iter().any(|target| target.changed);
        if !self.dry_run && self.seconds > 0.0 {
            self.bytes_per_second = (self.bytes as f64 / self.seconds) as u64;
        }
        let line = |row: usize| (self.targets[row].line, row);
        self.failures.sort_by_key(|(row, _)| line(*row));
        let first = std::mem::take(&mut self.failures).into_iter().next();
        self.targets.sort_by_key(|target| target.line);
        first.map(|(_, failure)| failure)
    }
}

impl TargetReport {
    fn new(source: &str, target: &ImageReference, line: Option<usize>) -> Self {
        TargetReport {
            line,
            source: source.to_owned(),
            reference: target.name(),
            tag: target.tag().map(ToString::to_string),
            digest: None,
            before: None,
            changed: false,
            mounted: 0,
            copied: 0,
            skipped: 0,
            mounted_bytes: 0,
            skipped_bytes: 0,
            bytes: 0,
            referrers: BTreeMap::new(),
            verified: None,
            failure: None,
            failure_kind: None,
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.changed = false;
        self.failure = Some(failure.message().to_owned());
        self.failure_kind = Some(failure.kind().name());
    }

    fn weigh(&mut self, tally: &Tally, referrers: &BTreeMap<String, Referred>) {
        let counted = |(kind, count): (&String, &Referred)| {
            let Referred { copied, skipped } = *count;
            (kind.clone(), ReferrersReport { copied, skipped })
        };
        self.referrers = referrers.iter().map(counted).collect();
        self.mounted = tally.mounted.blobs;
        self.copied = tally.copied.blobs;
        self.skipped = tally.skipped.blobs;
        self.mounted_bytes = tally.mounted.bytes;
        self.skipped_bytes = tally.skipped.bytes;
        self.bytes = tally.copied.bytes;
    }

    fn line(&self, dry_run: bool) -> String {
        let tag = self
            .tag
            .as_ref()
            .map(|tag| format!(" as {tag}"))
            .unwrap_or_default();
        let name = self.reference.split('@').next().unwrap_or_default();
        if let Some(failure) = &self.failure {
            return format!("  {name}{tag}: failed: {failure}");
        }
        if !self.changed {
            return format!("  {name}{tag}: nothing to do");
        }
        let would = if dry_run { "would be " } else { "" };
        let is_there = self.before.is_some() && self.before == self.digest;
        let done = if is_there { "completed" } else { "promoted" };
        let brought: u64 = self.referrers.values().map(|count| count.copied).sum();
        let referrers = match brought {
            0 => String::new(),
            1 => "; 1 referrer copied".to_owned(),
            many => format!("; {many} referrers copied"),
        };
        let moved = match &self.before {
            Some(before) if !is_there => format!("; tag {would}moved from {before}"),
            _ => String::new(),
        };
        format!(
            "  {name}{tag}: {would}{done}; blobs: {} copied ({}), {} mounted ({}), {} there already ({}){referrers}{moved}",
            self.copied,
            size(self.bytes),
            self.mounted,
            size(self.mounted_bytes),
            self.skipped,
            size(self.skipped_bytes),
        )
    }
}

impl Report for PromotionReport {
    const SCHEMA: &'static str = SCHEMA;

    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut source = None;
        for target in &self.targets {
            if source != Some(&target.source) {
                source = Some(&target.source);
                let digest = self
                    .targets
                    .iter()
                    .filter(|other| other.source == target.source)
                    .find_map(|other| other.digest.as_ref());
                lines.push(match digest {
                    Some(digest) => format!("{} is {digest}", target.source),
                    None => target.source.clone(),
                });
            }
            lines.push(target.line(self.dry_run));
        }
        let failed = self
            .targets
            .iter()
            .filter(|target| target.failure.is_some())
            .count();
        if failed > 0 {
            lines.push(format!("{failed} of {} targets failed", self.targets.len()));
        }
        lines.push(if self.dry_run {
            let to_send = size(self.bytes);
            format!(
                "{} requests in {:.1} s; {to_send} to send",
                self.requests, self.seconds
            )
        } else {
            format!(
                "{} requests, {} in {:.1} s ({}/s)",
                self.requests,
                size(self.bytes),
                self.seconds,
                size(self.bytes_per_second)
            )
        });
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_line_that_failed_decides_whatever_failed_first() {
        let edge = |line| Edge {
            target: reference(&format!("b.example/app:{line}")),
            move_tag: towpath::oci::copy::MoveTag::Never,
            line: Some(line),
        };
        let group = |name: &str, lines: &[usize]| Group {
            source: reference(&format!("a.example/{name}:1")),
            edges: lines.iter().map(|line| edge(*line)).collect(),
        };
        // Line 2 belongs to the second image.
        let wanted = Wanted::Many(vec![group("web", &[1, 3]), group("api", &[2])]);
        let mut report = PromotionReport::new(&wanted, false);
        report.fail(1, Failure::conflict("the third line"));
        report.fail_all(&[2], Failure::unavailable("the second line"));
        report.conclude(
            0,
            Ok(Done {
                changed: true,
                ..Done::default()
            }),
        );
        let failure = report.finish(7, Duration::from_millis(1500)).unwrap();
        assert_eq!(failure.message(), "the second line");
        let lines: Vec<Option<usize>> = report.targets.iter().map(|target| target.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(3)]);
        assert_eq!(report.targets[1].failure_kind, Some("unavailable"));
        assert!(report.changed);
        let text = report.text();
        for part in ["a.example/api:1\n", "2 of 3 targets failed", "7 requests"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
