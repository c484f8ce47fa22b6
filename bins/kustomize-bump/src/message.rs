//! The commits that are made: their messages, and the trailers by which `history` and `rollback` know them again.

use towpath::cli::Run;
use towpath::git::{Change, Identity, NewCommit, Signing};
use towpath::kustomize::ImageState;

use crate::args::WriteArgs;
use crate::plan::SetPlan;
use crate::report::{FileChange, HeldImage, HoldAction, RolledBack};

/// What was done: `set`, `rollback`, `hold` or `release`.
pub(crate) const ACTION: &str = "Towpath-Action";
/// The `name` of an entry that changed; one line for each.
pub(crate) const IMAGE: &str = "Towpath-Image";
/// The digest it has now.
pub(crate) const DIGEST: &str = "Towpath-Digest";
/// The project that the image was built from.
pub(crate) const SOURCE_PROJECT: &str = "Towpath-Source-Project";
/// The commit that the image was built from.
pub(crate) const SOURCE_COMMIT: &str = "Towpath-Source-Commit";
/// The pipeline that made the commit.
pub(crate) const PIPELINE: &str = "Towpath-Pipeline";

/// The job that made the commit, by which a deployment of GitLab is known again.
pub(crate) const JOB: &str = "Towpath-Job";

/// The action of `set`.
pub(crate) const SET: &str = "set";
/// The action of a rollback.
pub(crate) const ROLLBACK: &str = "rollback";

/// How much of a digest a subject line shows.
const SHORT_DIGEST: usize = "sha256:".len() + 12;

/// Who commits, and where from.
#[derive(Debug)]
pub(crate) struct Author<'run> {
    /// Author and committer.
    pub(crate) identity: Identity,
    /// What commits are signed with.
    pub(crate) signing: Option<Signing>,
    /// The arguments with the source and the pipeline.
    pub(crate) write: &'run WriteArgs,
    /// The run, for its trace.
    pub(crate) run: &'run Run,
}

impl Author<'_> {
    /// The commit of `set`.
    pub(crate) fn set(&self, plan: &SetPlan, changes: Vec<Change>) -> NewCommit {
        let changed: Vec<&FileChange> = plan.files.iter().filter(|file| file.changed).collect();
        let subject = match changed[..] {
            [one] => format!("Set {} to {} in {}", one.image, short(&one.new), one.path),
            _ => format!("Set {} images in {} files", changed.len(), changes.len()),
        };
        let body: Vec<String> = changed
            .iter()
            .map(|file| {
                let old = file
                    .old
                    .as_ref()
                    .map_or("nothing".to_owned(), ToString::to_string);
                format!("{}: {old} -> {}", file.file, file.new)
            })
            .collect();
        let mut trailers = vec![(ACTION, SET.to_owned())];
        let mut images: Vec<(&str, Option<&str>)> = changed
            .iter()
            .map(|file| (file.image.as_str(), file.new.digest.as_deref()))
            .collect();
        images.dedup();
        for (image, digest) in images {
            trailers.push((IMAGE, image.to_owned()));
            trailers.extend(digest.map(|digest| (DIGEST, digest.to_owned())));
        }
        NewCommit {
            absent: plan.unheld.iter().cloned().collect(),
            ..self.commit(subject, body.join("\n"), trailers, changes)
        }
    }

    /// The commit of `rollback`. It does not say what the image was built from: that is said by the commit that set it.
    pub(crate) fn rollback(&self, images: &[RolledBack], reason: &str, changes: Vec<Change>) -> NewCommit {
        let subject = match images {
            [one] => format!(
                "Roll {} back to {} in {}, and hold it",
                one.image,
                short(&one.to),
                one.path
            ),
            _ => format!("Roll {} images back, and hold them", images.len()),
        };
        let body: Vec<String> = images
            .iter()
            .map(|one| match images.len() {
                1 => format!("{} -> {}", one.from, one.to),
                _ => format!("{}: {} -> {}", one.file, one.from, one.to),
            })
            .collect();
        let mut trailers = vec![(ACTION, ROLLBACK.to_owned())];
        for one in images {
            trailers.push((IMAGE, one.image.clone()));
            trailers.push(("Towpath-From", one.from.to_string()));
            trailers.extend(one.to.digest.clone().map(|digest| (DIGEST, digest)));
        }
        trailers.push(("Towpath-Reason", reason.to_owned()));
        self.finish(subject, body.join("\n"), trailers, changes)
    }

    /// What a merge request is told that is closed for a hold.
    pub(crate) fn held(&self) -> String {
        format!("Closed: what it sets is held by {}.", self.identity)
    }

    /// The commit of `hold` and of `release`.
    pub(crate) fn holds(&self, action: HoldAction, images: &[HeldImage], changes: Vec<Change>) -> NewCommit {
        let images: Vec<&HeldImage> = images.iter().filter(|image| image.changed).collect();
        let (verb, name) = match action {
            HoldAction::Hold => ("Hold", "hold"),
            HoldAction::Release => ("Release the hold on", "release"),
        };
        let (subject, body) = match images[..] {
            [one] => (format!("{verb} {} in {}", one.image, one.path), String::new()),
            _ => {
                let lines: Vec<String> = images
                    .iter()
                    .map(|one| format!("{} in {}", one.image, one.path))
                    .collect();
                (format!("{verb} {} images", images.len()), lines.join("\n"))
            }
        };
        let mut trailers = vec![(ACTION, name.to_owned())];
        trailers.extend(images.iter().map(|one| (IMAGE, one.image.clone())));
        if matches!(action, HoldAction::Hold) {
            let reason = images
                .iter()
                .find_map(|one| one.hold.as_ref())
                .map(|hold| &hold.reason);
            trailers.extend(reason.map(|reason| ("Towpath-Reason", reason.clone())));
        }
        self.finish(subject, body, trailers, changes)
    }

    fn commit(
        &self,
        subject: String,
        body: String,
        mut trailers: Vec<(&'static str, String)>,
        changes: Vec<Change>,
    ) -> NewCommit {
        for (key, value) in [
            (SOURCE_PROJECT, &self.write.source_project),
            (SOURCE_COMMIT, &self.write.source_commit),
        ] {
            trailers.extend(value.clone().map(|value| (key, value)));
        }
        self.finish(subject, body, trailers, changes)
    }

    fn finish(
        &self,
        subject: String,
        body: String,
        mut trailers: Vec<(&'static str, String)>,
        changes: Vec<Change>,
    ) -> NewCommit {
        for (key, value) in [(PIPELINE, &self.write.pipeline), (JOB, &self.write.job)] {
            trailers.extend(value.clone().map(|value| (key, value)));
        }
        trailers.push(("Towpath-Trace", self.run.trace.trace_id().to_owned()));
        NewCommit {
            identity: self.identity.clone(),
            subject,
            body,
            trailers,
            changes,
            absent: Vec::new(),
            signing: self.signing.clone(),
        }
    }
}

/// The tag where there is one, else the beginning of the digest.
fn short(state: &ImageState) -> &str {
    match (&state.tag, &state.digest) {
        (Some(tag), _) => tag,
        (None, Some(digest)) => digest.get(..SHORT_DIGEST).unwrap_or(digest),
        (None, None) => "no version",
    }
}
