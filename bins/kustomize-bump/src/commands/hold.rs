//! `hold` and `release`.

use towpath::cli::{Outcome, Run};
use towpath::failure::Result;
use towpath::git::{Change, Decision, Identity};
use towpath::kustomize::{Hold, HoldSchema, hold_folder, hold_path};

use super::overridden::close_overridden;
use super::propose::propose;
use super::{look, paths_from_root, place_of, standing_hold, unknown};
use crate::args::{HoldArgs, ImagesArgs, MergeRequestArgs, PlaceArgs, WriteArgs};
use crate::merge_request::{Action, Purpose};
use crate::message::Author;
use crate::report::{HeldImage, HoldAction, HoldsReport};
use crate::source::{self, Source, Tree};

pub(crate) async fn hold(
    place: &PlaceArgs,
    arguments: &HoldArgs,
    write: &WriteArgs,
    merge_request: &MergeRequestArgs,
    run: &Run,
) -> Result<Outcome> {
    let images = arguments.images.images();
    let identity = async |source: &Source| source::identity(write, source, run).await;
    act(
        place,
        write,
        merge_request,
        run,
        (HoldAction::Hold, &images),
        identity,
        async |tree, paths, by| {
            let (mut held, mut changes) = (Vec::new(), Vec::new());
            for found in look(tree, paths).await?.0 {
                for image in &images {
                    let entry = found
                        .kustomization
                        .find(image)?
                        .ok_or_else(|| unknown(&found.file, image))?;
                    let (file, standing) = standing_hold(tree, &found.folder, &entry.state.name).await?;
                    let held_at = entry.state.to_string();
                    // One on something else is left over from a change by hand.
                    let standing = standing.filter(|hold| hold.held_at == held_at);
                    let changed = standing.is_none();
                    let hold = standing.unwrap_or_else(|| Hold {
                        schema: HoldSchema::V1,
                        path: found.folder.clone(),
                        image: entry.state.name.clone(),
                        held_at,
                        digest: entry.state.digest.clone(),
                        taken_from: None,
                        by: by.to_string(),
                        since: Hold::moment(),
                        reason: arguments.reason.clone(),
                    });
                    if changed {
                        changes.push(Change {
                            path: file,
                            content: Some(hold.document()?.into_bytes()),
                        });
                    }
                    held.push(HeldImage {
                        path: hold.path.clone(),
                        image: hold.image.clone(),
                        changed,
                        hold: Some(hold),
                    });
                }
            }
            Ok((held, changes))
        },
    )
    .await
}

pub(crate) async fn release(
    place: &PlaceArgs,
    arguments: &ImagesArgs,
    write: &WriteArgs,
    merge_request: &MergeRequestArgs,
    run: &Run,
) -> Result<Outcome> {
    let images = arguments.images();
    let identity = async |source: &Source| source::committer(write, source, run).await;
    act(
        place,
        write,
        merge_request,
        run,
        (HoldAction::Release, &images),
        identity,
        async |tree, paths, _by| {
            let (mut held, mut changes) = (Vec::new(), Vec::new());
            for path in paths {
                for image in &images {
                    for (folder, name) in held_entries(tree, path, image).await? {
                        let (file, hold) = standing_hold(tree, &folder, &name).await?;
                        if hold.is_some() {
                            changes.push(Change {
                                path: file,
                                content: None,
                            });
                        }
                        held.push(HeldImage {
                            path: folder,
                            image: name,
                            changed: hold.is_some(),
                            hold,
                        });
                    }
                }
            }
            Ok((held, changes))
        },
    )
    .await
}

/// What both have in common: decide, commit, report. Whoever only looks needs no name.
async fn act(
    place: &PlaceArgs,
    write: &WriteArgs,
    merge_request: &MergeRequestArgs,
    run: &Run,
    (action, asked): (HoldAction, &[&str]),
    identity: impl AsyncFnOnce(&Source) -> Result<Identity>,
    mut decide: impl AsyncFnMut(&Tree<'_>, &[String], &Identity) -> Result<(Vec<HeldImage>, Vec<Change>)>,
) -> Result<Outcome> {
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = paths_from_root(&source, &given);
    let identity = match identity(&source).await {
        Err(_) if write.dry_run => source::nobody()?,
        found => found?,
    };
    let author = Author {
        identity,
        signing: write.signing()?,
        write,
        run,
    };
    if write.dry_run {
        let (images, _) = decide(&source.tree(), &paths, &author.identity).await?;
        return Outcome::report(&HoldsReport {
            action,
            changed: images.iter().any(|image| image.changed),
            dry_run: true,
            place: place_of(&source),
            commit: None,
            merge_request: None,
            closed_merge_requests: Vec::new(),
            images,
        });
    }
    let decide = async |tree: Tree<'_>| {
        let (images, mut changes) = decide(&tree, &paths, &author.identity).await?;
        // The same image by two of its names, or the same folder twice.
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        changes.dedup_by(|one, other| one.path == other.path);
        let commit = (!changes.is_empty()).then(|| author.holds(action, &images, changes));
        Ok(Decision {
            commit,
            outcome: images,
        })
    };
    let held = |images: &Vec<HeldImage>| match action {
        HoldAction::Hold => images.iter().map(|image| image.here(asked)).collect(),
        HoldAction::Release => Vec::new(),
    };
    let done = if merge_request.merge_request {
        let purpose = match action {
            HoldAction::Hold => Action::Hold,
            HoldAction::Release => Action::Release,
        };
        let purpose = Purpose::new(purpose, &paths, asked.iter().map(|image| (*image).to_owned()));
        propose(&mut source, merge_request, &purpose, run, held, decide).await?
    } else {
        source.write(write.commit, decide).await?.into()
    };
    let mut closed = Vec::new();
    let held = held(&done.outcome);
    if done.merge_request.is_none() && !held.is_empty() {
        closed = close_overridden(place, &source, &held, &author.held(), run).await;
    }
    let outcome = Outcome::report(&HoldsReport {
        action,
        changed: done.outcome.iter().any(|image| image.changed),
        dry_run: false,
        place: place_of(&source),
        commit: done.commit,
        merge_request: done.merge_request,
        closed_merge_requests: closed,
        images: done.outcome,
    })?;
    Ok(match done.failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// The folders and the names that holds are filed under. The kustomization may be gone; its hold can be released all
/// the same, by the name that the hold shows.
async fn held_entries(tree: &Tree<'_>, path: &str, image: &str) -> Result<Vec<(String, String)>> {
    let listed = tree.list(&hold_folder(path)).await?;
    if listed.contains(&hold_path(path, image)) {
        return Ok(vec![(path.to_owned(), image.to_owned())]);
    }
    let mut entries = Vec::new();
    for found in look(tree, &[path.to_owned()]).await?.0 {
        let entry = found
            .kustomization
            .find(image)?
            .ok_or_else(|| unknown(&found.file, image))?;
        entries.push((found.folder, entry.state.name.clone()));
    }
    Ok(entries)
}
