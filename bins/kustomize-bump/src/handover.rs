//! What the job after a bump is told: which image was set, from which source, in which delivery.

use towpath::failure::Result;
use towpath::handoff::{
    Handoff, IMAGE_DIGEST, IMAGE_REF, IMAGE_REPOSITORY, IMAGE_TAG, SOURCE_COMMIT, SOURCE_PROJECT, TRACEPARENT,
};
use towpath::trace::TraceParent;

use crate::args::{WishArgs, WriteArgs};

/// The handoff for what `--image` was set to. Images given in the short form are left out: a handoff names one.
///
/// # Errors
/// Input (exit 3) for a value that GitLab's dotenv reports cannot hold.
pub(crate) fn handoff(wish: &WishArgs, write: &WriteArgs, trace: &TraceParent) -> Result<Handoff> {
    let mut handoff = Handoff::new();
    let reference = wish
        .new_name
        .as_ref()
        .zip(wish.digest.as_ref())
        .map(|(name, digest)| format!("{name}@{digest}"));
    let image = wish.image.as_ref();
    for (name, value) in [
        (IMAGE_REPOSITORY, image.and(wish.new_name.as_deref())),
        (IMAGE_TAG, image.and(wish.tag.as_deref())),
        (IMAGE_DIGEST, image.and(wish.digest.as_deref())),
        (IMAGE_REF, image.and(reference.as_deref())),
        (SOURCE_PROJECT, write.source_project.as_deref()),
        (SOURCE_COMMIT, write.source_commit.as_deref()),
    ] {
        if let Some(value) = value {
            handoff.set(name, value)?;
        }
    }
    handoff.set(TRACEPARENT, &trace.to_string())?;
    Ok(handoff)
}
