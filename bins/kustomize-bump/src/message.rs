//! The commits that are made: their messages, and the trailers by which `history` and `rollback` know them again.

use towpath::cli::Run;
use towpath::git::{Change, Identity, NewCommit, Signing};
use towpath::kustomize::ImageState;

use crate::args::WriteArgs;
use crate::report::FileChange;

/// What was done: `set`, `rollback` or `release`.
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
    pub(crate) fn set(&self, files: &[FileChange], changes: Vec<Change>) -> NewCommit {
        let changed: Vec<&FileChange> = files.iter().filter(|file| file.changed).collect();
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
        let mut trailers = vec![(ACTION, "set".to_owned())];
        let mut images: Vec<(&str, Option<&str>)> = changed
            .iter()
            .map(|file| (file.image.as_str(), file.new.digest.as_deref()))
            .collect();
        images.dedup();
        for (image, digest) in images {
            trailers.push((IMAGE, image.to_owned()));
            trailers.extend(digest.map(|digest| (DIGEST, digest.to_owned())));
        }
        self.commit(subject, body.join("\n"), trailers, changes)
    }

    /// The commit of `rollback`.
    pub(crate) fn rollback(
        &self,
        path: &str,
        from: &ImageState,
        to: &ImageState,
        reason: &str,
        changes: Vec<Change>,
    ) -> NewCommit {
        let mut trailers = vec![
            (ACTION, ROLLBACK.to_owned()),
            (IMAGE, to.name.clone()),
            ("Towpath-From", from.to_string()),
            ("Towpath-Reason", reason.to_owned()),
        ];
        trailers.extend(to.digest.clone().map(|digest| (DIGEST, digest)));
        let subject = format!("Roll {} back to {} in {path}, and hold it", to.name, short(to));
        self.commit(subject, format!("{from} -> {to}"), trailers, changes)
    }

    /// The commit of `release`.
    pub(crate) fn release(&self, path: &str, image: &str, changes: Vec<Change>) -> NewCommit {
        let trailers = vec![(ACTION, "release".to_owned()), (IMAGE, image.to_owned())];
        self.commit(
            format!("Release the hold on {image} in {path}"),
            String::new(),
            trailers,
            changes,
        )
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
            (PIPELINE, &self.write.pipeline),
        ] {
            trailers.extend(value.clone().map(|value| (key, value)));
        }
        trailers.push(("Towpath-Trace", self.run.trace.trace_id().to_owned()));
        NewCommit {
            identity: self.identity.clone(),
            subject,
            body,
            trailers,
            changes,
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
