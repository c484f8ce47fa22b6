//! What `image-build` reports.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use towpath::cli::Report;
use towpath::oci::{Digest, Tag};

use crate::plan::Plan;

/// See the tool's page for the fields.
#[derive(Debug, Serialize)]
pub(crate) struct BuildReport {
    changed: bool,
    dry_run: bool,
    builder: &'static str,
    repository: String,
    tags: Vec<String>,
    digest: Option<String>,
    reference: Option<String>,
    bases: Vec<String>,
    labels: BTreeMap<String, String>,
    seconds: f64,
}

impl BuildReport {
    /// What would be built.
    pub(crate) fn planned(plan: &Plan, builder: &'static str) -> Self {
        BuildReport {
            changed: false,
            dry_run: true,
            builder,
            repository: plan.repository.name(),
            tags: plan.tags.iter().map(Tag::to_string).collect(),
            digest: None,
            reference: None,
            bases: plan.bases.clone(),
            labels: plan.recipe.labels.clone(),
            seconds: 0.0,
        }
    }

    /// What was built.
    pub(crate) fn built(plan: &Plan, builder: &'static str, digest: &Digest, took: Duration) -> Self {
        BuildReport {
            changed: true,
            dry_run: false,
            digest: Some(digest.to_string()),
            reference: Some(format!("{}@{digest}", plan.repository.name())),
            seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            ..Self::planned(plan, builder)
        }
    }
}

impl Report for BuildReport {
    const SCHEMA: &'static str = "towpath.image-build/1";

    fn text(&self) -> String {
        let tags = self.tags.join(", ");
        let bases = if self.bases.is_empty() {
            "scratch".to_owned()
        } else {
            self.bases.join(", ")
        };
        match &self.reference {
            Some(reference) => {
                format!(
                    "built {reference}\n  tags  {tags}\n  from  {bases}\n  with  {} in {} s",
                    self.builder, self.seconds
                )
            }
            None => format!(
                "would build {}\n  tags  {tags}\n  from  {bases}\n  with  {}",
                self.repository, self.builder
            ),
        }
    }
}
