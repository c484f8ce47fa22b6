//! The public format of the result.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use towpath::cli::Report;
use towpath::failure::Failure;
use towpath::oci::Digest;
use towpath::oci::copy::{Done, Foreseen, ImageReference, Look, Referred, Tally};

use crate::plan::Wanted;

/// What happened, or with `--dry-run` would happen.
#[derive(Debug, Serialize)]
pub(crate) struct PromotionReport {
    dry_run: bool,
    source: String,
    digest: String,
    targets: Vec<TargetReport>,
    requests: u64,
    bytes: u64,
    seconds: f64,
    changed: bool,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    /// By digest, as it can be pulled.
    reference: String,
    tag: Option<String>,
    digest: String,
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
    /// Why it is not there.
    failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct ReferrersReport {
    copied: u64,
    skipped: u64,
}

impl PromotionReport {
    /// Nothing has happened yet.
    pub(crate) fn new(source: &ImageReference, wanted: &Wanted, look: &Look) -> Self {
        let digest = look.digest();
        let targets = wanted
            .references()
            .iter()
            .zip(look.before())
            .zip(look.writes())
            .map(|((target, before), writes)| TargetReport::new(target, digest, before.as_ref(), writes))
            .collect();
        PromotionReport {
            dry_run: false,
            source: source.to_string(),
            digest: digest.to_string(),
            targets,
            requests: 0,
            bytes: 0,
            seconds: 0.0,
            changed: false,
        }
    }

    /// Fills in what would happen.
    pub(crate) fn foresee(&mut self, foreseen: &[Option<Foreseen>]) {
        self.dry_run = true;
        for (target, foreseen) in self.targets.iter_mut().zip(foreseen) {
            if let Some(foreseen) = foreseen {
                target.weigh(&foreseen.tally, &foreseen.referrers);
            }
        }
        self.sum_up();
    }

    /// Fills in what happened; gives back the first failure.
    pub(crate) fn conclude(&mut self, outcomes: Vec<Result<Done, Failure>>) -> Option<Failure> {
        let mut first = None;
        for (target, outcome) in self.targets.iter_mut().zip(outcomes) {
            match outcome {
                Ok(done) => {
                    target.changed = done.changed;
                    target.before = done.before.as_ref().map(ToString::to_string);
                    target.weigh(&done.tally, &done.referrers);
                }
                Err(failure) => {
                    target.changed = false;
                    target.failure = Some(failure.message().to_owned());
                    first.get_or_insert(failure);
                }
            }
        }
        self.sum_up();
        first
    }

    pub(crate) fn count(&mut self, requests: u64, elapsed: Duration) {
        self.requests = requests;
        // Milliseconds are as exact as anybody can use.
        self.seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
    }

    fn sum_up(&mut self) {
        self.bytes = self
            .targets
            .iter()
            .fold(0, |sum, target| sum.saturating_add(target.bytes));
        self.changed = !self.dry_run && self.targets.iter().any(|target| target.changed);
    }
}

impl TargetReport {
    fn new(target: &ImageReference, digest: &Digest, before: Option<&Digest>, writes: bool) -> Self {
        TargetReport {
            reference: format!("{}@{digest}", target.name()),
            tag: target.tag().map(ToString::to_string),
            digest: digest.to_string(),
            before: before.map(ToString::to_string),
            changed: writes,
            mounted: 0,
            copied: 0,
            skipped: 0,
            mounted_bytes: 0,
            skipped_bytes: 0,
            bytes: 0,
            referrers: BTreeMap::new(),
            failure: None,
        }
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
        let moved = match &self.before {
            Some(before) => format!("; tag {would}moved from {before}"),
            None => String::new(),
        };
        format!(
            "  {name}{tag}: {would}promoted; blobs: {} copied ({}), {} mounted ({}), {} there already{moved}",
            self.copied,
            size(self.bytes),
            self.mounted,
            size(self.mounted_bytes),
            self.skipped,
        )
    }
}

impl Report for PromotionReport {
    const SCHEMA: &'static str = "towpath.image-promote-by-digest/1";

    fn text(&self) -> String {
        let mut lines = vec![format!("{} is {}", self.source, self.digest)];
        lines.extend(self.targets.iter().map(|target| target.line(self.dry_run)));
        lines.push(format!(
            "{} requests, {} in {:.1} s",
            self.requests,
            size(if self.dry_run { 0 } else { self.bytes }),
            self.seconds
        ));
        lines.join("\n")
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut shown = bytes as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if shown < 1024.0 {
            break;
        }
        shown /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{shown:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(520 * 1024 * 1024), "520.0 MiB");
    }
}
