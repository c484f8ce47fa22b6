//! `release`.

use towpath::cli::{Outcome, Run};
use towpath::failure::Result;
use towpath::git::{Change, Decision};
use towpath::kustomize::{Hold, hold_folder, hold_path};

use super::{look, one, place_of, unknown};
use crate::args::{OneImageArgs, PlaceArgs, WriteArgs};
use crate::message::Author;
use crate::plan::Found;
use crate::report::ReleaseReport;
use crate::source::{self, Source, Tree};

pub(crate) async fn release(
    place: &PlaceArgs,
    image: &OneImageArgs,
    write: &WriteArgs,
    run: &Run,
) -> Result<Outcome> {
    let path = place.path()?;
    let mut source = Source::open(place, run).await?;
    let path = source.path_from_root(&path);
    let author = Author {
        identity: source::committer(write, &source, run).await?,
        signing: write.signing()?,
        write,
        run,
    };
    let decide = async |tree: Tree<'_>| -> Result<Decision<(String, String, Option<Hold>)>> {
        let (folder, name) = held_entry(&tree, &path, &image.image).await?;
        let file = hold_path(&folder, &name);
        let holds = tree.read(std::slice::from_ref(&file)).await?;
        let hold = holds
            .get(&file)
            .map(|content| Hold::parse(content, &file))
            .transpose()?;
        let commit = hold.is_some().then(|| {
            author.release(
                &folder,
                &name,
                vec![Change {
                    path: file,
                    content: None,
                }],
            )
        });
        Ok(Decision {
            commit,
            outcome: (folder, name, hold),
        })
    };
    let (commit, (folder, name, hold)) = if write.dry_run {
        (None, decide(source.tree()).await?.outcome)
    } else {
        let written = source.write(write.commit, decide).await?;
        (written.commit, written.outcome)
    };
    Outcome::report(&ReleaseReport {
        changed: hold.is_some(),
        dry_run: write.dry_run,
        place: place_of(&source),
        commit,
        path: folder,
        image: name,
        hold,
    })
}

/// The folder and the name that a hold is filed under. The kustomization may be gone; its hold can be released all
/// the same, by the name that the hold shows.
async fn held_entry(tree: &Tree<'_>, path: &str, image: &str) -> Result<(String, String)> {
    if !tree
        .list(&hold_folder(path))
        .await?
        .contains(&hold_path(path, image))
    {
        let (found, _) = look(tree, &[path.to_owned()]).await?;
        let Found {
            folder,
            file,
            kustomization,
        } = one(found)?;
        let entry = kustomization.find(image)?.ok_or_else(|| unknown(&file, image))?;
        return Ok((folder, entry.state.name.clone()));
    }
    Ok((path.to_owned(), image.to_owned()))
}
