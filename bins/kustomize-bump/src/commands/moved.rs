//! Holds on a folder that was moved since: they go on holding.

use towpath::failure::Result;
use towpath::kustomize::{HOLDS_FOLDER, Hold, file_candidates, hold_path};

use crate::plan::SetPlan;
use crate::source::Tree;

/// Refuses to change an image that is held under another folder, when that folder is gone and the image still is what
/// it was held at: the kustomization was moved, and its hold was not.
///
/// # Errors
/// Denied (exit 4) by the hold; input (exit 3) for one that cannot be read.
pub(super) async fn refuse_held_before_a_move(tree: &Tree<'_>, plan: &SetPlan) -> Result<()> {
    let changed = plan.files.iter().filter(|file| file.changed);
    let held: Vec<_> = changed
        .filter_map(|file| Some((file, file.old.as_ref()?)))
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    let listed = tree.list(HOLDS_FOLDER).await?;
    for (file, old) in held {
        let own = hold_path(&file.path, &old.name);
        let name = hold_path(".", &old.name);
        let name = name.strip_prefix(HOLDS_FOLDER).unwrap_or(&name);
        for other in listed
            .iter()
            .filter(|other| **other != own && other.ends_with(name))
        {
            let holds = tree.read(std::slice::from_ref(other)).await?;
            let Some(content) = holds.get(other) else { continue };
            let hold = Hold::parse(content, other)?;
            let is_this = hold.image == old.name && hold.held_at == old.to_string();
            if is_this
                && tree
                    .read(&file_candidates(&hold.path))
                    .await?
                    .iter()
                    .next()
                    .is_none()
            {
                return Err(hold.refusal());
            }
        }
    }
    Ok(())
}
