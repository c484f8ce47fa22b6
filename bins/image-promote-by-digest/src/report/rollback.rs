//! What a rollback did, or would do.

use std::time::Duration;

use serde::Serialize;
use towpath::cli::Report;
use towpath::failure::Failure;
use towpath::oci::Digest;
use towpath::oci::copy::{Return, Rollback, Step};

use super::{SCHEMA, seconds};

/// What happened, or with `--dry-run` would happen.
#[derive(Debug, Serialize)]
pub(crate) struct RollbackReport {
    dry_run: bool,
    journal: String,
    /// The number of the journal's last line, when it breaks off.
    torn_line: Option<usize>,
    tags: Vec<TagReport>,
    requests: u64,
    seconds: f64,
    changed: bool,
}

#[derive(Debug, Serialize)]
struct TagReport {
    reference: String,
    /// The delivery that had moved it last.
    trace_id: String,
    /// What it named when it was looked at.
    from: Option<String>,
    /// What it named before the delivery.
    to: Option<String>,
    step: Option<&'static str>,
    changed: bool,
    /// Why it is not put back.
    failure: Option<String>,
    /// Of which kind that is, by the name that logs give it.
    failure_kind: Option<&'static str>,
}

impl RollbackReport {
    /// What is going to happen.
    pub(crate) fn new(journal: String, torn_line: Option<usize>, rollback: &Rollback) -> Self {
        let tags = rollback.trails().zip(rollback.now()).zip(rollback.plan());
        RollbackReport {
            dry_run: true,
            journal,
            torn_line,
            tags: tags
                .map(|((trail, now), plan)| {
                    let mut tag = TagReport {
                        reference: trail.reference.to_string(),
                        trace_id: trail.trace_id.clone(),
                        from: now.map(Digest::to_string),
                        to: trail.oldest().map(Digest::to_string),
                        step: None,
                        changed: false,
                        failure: None,
                        failure_kind: None,
                    };
                    tag.note(plan);
                    tag
                })
                .collect(),
            requests: 0,
            seconds: 0.0,
            changed: false,
        }
    }

    /// Whether a tag is going to be put back or deleted.
    pub(crate) fn is_work(&self) -> bool {
        self.tags.iter().any(|tag| tag.changed)
    }

    /// Fills in what happened; gives back the first failure.
    pub(crate) fn conclude(&mut self, outcomes: Vec<Result<Return, Failure>>) -> Option<Failure> {
        self.dry_run = false;
        let mut first = None;
        for (tag, outcome) in self.tags.iter_mut().zip(outcomes) {
            tag.note(outcome.as_ref().map(Clone::clone));
            if let Err(failure) = outcome {
                first.get_or_insert(failure);
            }
        }
        first
    }

    pub(crate) fn finish(&mut self, requests: u64, elapsed: Duration) {
        self.requests = requests;
        self.seconds = seconds(elapsed);
        self.changed = !self.dry_run && self.is_work();
    }
}

impl TagReport {
    fn note(&mut self, outcome: Result<Return, &Failure>) {
        match outcome {
            Ok(Return { now, step }) => {
                self.from = now.as_ref().map(ToString::to_string);
                self.changed = matches!(step, Step::PutBack(_) | Step::Delete);
                self.step = Some(match step {
                    Step::Unchanged => "unchanged",
                    Step::PutBack(_) => "put_back",
                    Step::Delete => "deleted",
                    Step::Leave => "left",
                });
            }
            Err(failure) => {
                self.changed = false;
                self.step = None;
                self.failure = Some(failure.message().to_owned());
                self.failure_kind = Some(failure.kind().name());
            }
        }
    }

    fn line(&self, dry_run: bool) -> String {
        let reference = &self.reference;
        let digest = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "nothing".to_owned());
        let would = if dry_run { "would be " } else { "" };
        let done = match (self.step, &self.failure) {
            (_, Some(failure)) => format!("failed: {failure}"),
            (Some("put_back"), _) => {
                format!(
                    "{would}put back to {} from {}",
                    digest(&self.to),
                    digest(&self.from)
                )
            }
            (Some("deleted"), _) => format!("{would}deleted; it named {}", digest(&self.from)),
            (Some("left"), _) => "was new and is left in place; --delete-new deletes it".to_owned(),
            _ => format!("nothing to do; it names {}", digest(&self.from)),
        };
        format!("  {reference}: {done}")
    }
}

impl Report for RollbackReport {
    const SCHEMA: &'static str = SCHEMA;

    fn text(&self) -> String {
        let mut lines = vec![format!("rollback by {}", self.journal)];
        lines.extend(self.tags.iter().map(|tag| tag.line(self.dry_run)));
        if let Some(line) = self.torn_line {
            lines.push(format!(
                "line {line} of the journal breaks off: that run was killed before it moved the tag"
            ));
        }
        lines.push(format!("{} requests in {:.1} s", self.requests, self.seconds));
        lines.join("\n")
    }
}
