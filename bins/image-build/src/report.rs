//! What `image-build` reports.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use towpath::cli::Report;
use towpath::oci::{Digest, Platform, Reference};

use crate::plan::{Base, Found, Member};
use crate::tags::LeftAlone;

/// See the tool's page for the fields.
#[derive(Debug, Default, Serialize)]
pub(crate) struct BuildReport {
    changed: bool,
    dry_run: bool,
    pushed: bool,
    builder: Option<&'static str>,
    repository: String,
    tags: Vec<String>,
    left_alone: BTreeMap<String, String>,
    digest: Option<String>,
    reference: Option<String>,
    layout: Option<String>,
    platform: Option<String>,
    platforms: BTreeMap<String, String>,
    bases: Vec<String>,
    base_images: Vec<BaseImage>,
    labels: BTreeMap<String, String>,
    seconds: f64,
}

/// An image of the Dockerfile.
#[derive(Debug, Serialize)]
struct BaseImage {
    line: usize,
    image: String,
    reference: String,
    digest: Option<String>,
    pinned: bool,
}

impl BuildReport {
    /// What would be built.
    pub(crate) fn planned(
        builder: &'static str,
        repository: &Reference,
        found: &[Found],
        left: Vec<LeftAlone>,
        bases: &[Base],
        digests: &BTreeMap<Reference, Digest>,
        pin: bool,
    ) -> Self {
        let image = |base: &Base| {
            let digest = digests.get(&base.reference).map(Digest::to_string);
            BaseImage {
                line: base.line,
                image: base.name.clone(),
                reference: base.reference.to_string(),
                pinned: digest.is_some() && (pin || base.reference.digest().is_some()),
                digest,
            }
        };
        BuildReport {
            dry_run: true,
            builder: Some(builder),
            bases: bases.iter().map(|base| base.name.clone()).collect(),
            base_images: bases.iter().map(image).collect(),
            ..Self::of(repository, found, left)
        }
    }

    /// What was pushed from a layout, or would be.
    pub(crate) fn pushed(
        repository: &Reference,
        found: &[Found],
        left: Vec<LeftAlone>,
        digest: &Digest,
        changed: bool,
        dry_run: bool,
        took: Duration,
    ) -> Self {
        let mut report = Self::of(repository, found, left);
        report.done(repository, digest, changed, !dry_run, None, took);
        report.dry_run = dry_run;
        report
    }

    fn of(repository: &Reference, found: &[Found], left: Vec<LeftAlone>) -> Self {
        let left = left.into_iter().map(|left| (left.tag.to_string(), left.why));
        BuildReport {
            repository: repository.name(),
            tags: found.iter().map(|one| one.wanted.tag.to_string()).collect(),
            left_alone: left.collect(),
            ..Self::default()
        }
    }

    /// Says what the image runs on.
    pub(crate) fn platform(&mut self, platform: &Platform) {
        self.platform = Some(platform.to_string());
    }

    /// Says which images an index has.
    pub(crate) fn platforms(&mut self, members: &[Member]) {
        let image = |member: &Member| (member.platform.to_string(), member.digest.to_string());
        self.platforms = members.iter().map(image).collect();
    }

    pub(crate) fn labels(&mut self, labels: BTreeMap<String, String>) {
        self.labels = labels;
    }

    /// Says that the image is there already.
    pub(crate) fn keeps(&mut self, repository: &Reference, digest: &Digest) {
        self.digest = Some(digest.to_string());
        self.reference = Some(format!("{}@{digest}", repository.name()));
    }

    /// Says what was done.
    pub(crate) fn done(
        &mut self,
        repository: &Reference,
        digest: &Digest,
        changed: bool,
        pushed: bool,
        layout: Option<&Path>,
        took: Duration,
    ) {
        self.dry_run = false;
        self.changed = changed;
        self.pushed = pushed;
        self.digest = Some(digest.to_string());
        self.reference = pushed.then(|| format!("{}@{digest}", repository.name()));
        self.layout = layout.map(|path| path.display().to_string());
        self.seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    }
}

impl Report for BuildReport {
    const SCHEMA: &'static str = "towpath.image-build/1";

    fn text(&self) -> String {
        let digest = self.digest.as_deref().unwrap_or_default();
        let head = match (self.dry_run, self.changed, self.pushed) {
            (true, _, _) if self.digest.is_none() => format!("would build {}", self.repository),
            (true, true, _) => format!("would push {}@{digest}", self.repository),
            (true, false, _) => format!("would leave {}@{digest}, which is there", self.repository),
            (false, true, true) => format!("pushed {}@{digest}", self.repository),
            (false, false, true) => format!("left {}@{digest}, which is there", self.repository),
            (false, _, false) => format!("built {digest}, not pushed"),
        };
        let mut lines = vec![head, format!("  tags  {}", self.tags.join(", "))];
        lines.extend(
            self.left_alone
                .iter()
                .map(|(tag, why)| format!("  left  {tag}: {why}")),
        );
        lines.extend(self.platform.iter().map(|platform| format!("  for   {platform}")));
        lines.extend(
            self.platforms
                .iter()
                .map(|(platform, digest)| format!("  for   {platform} {digest}")),
        );
        lines.extend(self.layout.iter().map(|path| format!("  in    {path}")));
        if let Some(builder) = self.builder {
            if self.base_images.is_empty() {
                lines.push("  from  scratch".to_owned());
            }
            lines.extend(self.base_images.iter().map(|base| {
                let digest = base.digest.as_deref().unwrap_or("not looked for");
                format!("  from  {} ({digest})", base.reference)
            }));
            lines.push(format!("  with  {builder}"));
        }
        lines.join("\n")
    }
}
