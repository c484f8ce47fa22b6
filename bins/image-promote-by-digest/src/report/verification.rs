//! What a verification found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use towpath::cli::{Report, size};
use towpath::oci::copy::{Defect, Done, ImageReference, Verified};

use super::{SCHEMA, seconds};

/// What is there of an image, and what is not.
#[derive(Debug, Serialize)]
pub(crate) struct VerificationReport {
    dry_run: bool,
    reference: String,
    /// What it was compared with.
    source: Option<String>,
    digest: Option<String>,
    /// Whether nothing is wrong, after what was repaired.
    whole: bool,
    manifests: u64,
    blobs: u64,
    bytes: u64,
    /// What refers to the image, by artifact type.
    referrers: BTreeMap<String, u64>,
    /// What is wrong.
    defects: Vec<Defect>,
    /// What was wrong before it was brought from the source.
    repaired: Vec<Defect>,
    requests: u64,
    seconds: f64,
    changed: bool,
}

impl VerificationReport {
    /// Nothing was looked at yet.
    pub(crate) fn new(image: &ImageReference, source: Option<&ImageReference>, dry_run: bool) -> Self {
        VerificationReport {
            dry_run,
            reference: image.to_string(),
            source: source.map(ToString::to_string),
            digest: None,
            whole: false,
            manifests: 0,
            blobs: 0,
            bytes: 0,
            referrers: BTreeMap::new(),
            defects: Vec::new(),
            repaired: Vec::new(),
            requests: 0,
            seconds: 0.0,
            changed: false,
        }
    }

    /// Fills in what was wrong before the repair.
    pub(crate) fn repaired(&mut self, found: &Verified, done: &Done) {
        self.repaired = found.defects.clone();
        self.changed = done.wrote();
    }

    /// Fills in what was found at last. What is wrong still was not repaired.
    pub(crate) fn finish(&mut self, found: Verified, requests: u64, elapsed: Duration) {
        self.repaired.retain(|defect| !found.defects.contains(defect));
        self.whole = found.is_whole();
        self.digest = Some(found.digest.to_string());
        self.manifests = found.manifests;
        self.blobs = found.blobs;
        self.bytes = found.bytes;
        self.referrers = found.referrers;
        self.defects = found.defects;
        self.requests = requests;
        self.seconds = seconds(elapsed);
    }
}

impl Report for VerificationReport {
    const SCHEMA: &'static str = SCHEMA;

    fn text(&self) -> String {
        let digest = self.digest.as_deref().unwrap_or_default();
        let verdict = if self.whole { "is whole" } else { "has defects" };
        let mut lines = vec![
            format!("{} is {digest} and {verdict}", self.reference),
            format!(
                "  {} manifests, {} blobs ({})",
                self.manifests,
                self.blobs,
                size(self.bytes)
            ),
        ];
        lines.extend(
            self.referrers
                .iter()
                .map(|(kind, count)| format!("  refers to it: {count} of {kind}")),
        );
        let shown = |word: &str, defect: &Defect| format!("  {word}: {} {}", defect.name, defect.reason);
        lines.extend(self.repaired.iter().map(|defect| shown("repaired", defect)));
        lines.extend(self.defects.iter().map(|defect| shown("wrong", defect)));
        lines.push(format!("{} requests in {:.1} s", self.requests, self.seconds));
        lines.join("\n")
    }
}
