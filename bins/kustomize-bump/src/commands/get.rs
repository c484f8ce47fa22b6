//! `get`.

use towpath::cli::{Outcome, Run};
use towpath::failure::Result;
use towpath::kustomize::{Hold, hold_path};

use super::{follow, look, paths_from_root, place_of, unknown};
use crate::args::PlaceArgs;
use crate::plan::Found;
use crate::report::{FollowedReport, FoundImage, GetReport};
use crate::source::Source;

pub(crate) async fn get(place: &PlaceArgs, image: Option<&str>, run: &Run) -> Result<Outcome> {
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = paths_from_root(&source, &given);
    let place = place_of(&source);
    let tree = source.tree();
    let (found, _) = look(&tree, &paths).await?;
    let mut images = Vec::new();
    for Found {
        folder,
        file,
        kustomization,
    } in &found
    {
        let entries = match image {
            None => kustomization.images().iter().collect(),
            Some(name) => vec![kustomization.find(name)?.ok_or_else(|| unknown(file, name))?],
        };
        let held: Vec<String> = entries
            .iter()
            .map(|entry| hold_path(folder, &entry.state.name))
            .collect();
        let holds = tree.read(&held).await?;
        for (entry, hold) in entries.into_iter().zip(held) {
            images.push(FoundImage {
                path: folder.clone(),
                file: file.clone(),
                line: entry.line,
                state: entry.state.clone(),
                hold: holds
                    .get(&hold)
                    .map(|content| Hold::parse(content, &hold))
                    .transpose()?,
            });
        }
    }
    Outcome::report(&GetReport {
        changed: false,
        place,
        images,
    })
}

/// `get --follow`.
pub(crate) async fn get_followed(place: &PlaceArgs, image: Option<&str>, run: &Run) -> Result<Outcome> {
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = paths_from_root(&source, &given);
    let place = place_of(&source);
    let followed = follow(&source.tree(), &paths).await?;
    let (images, notes) = followed.images(image)?;
    for note in &notes {
        towpath::cli::note(note);
    }
    Outcome::report(&FollowedReport {
        changed: false,
        place,
        images,
        notes,
    })
}
